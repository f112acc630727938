"""Packets become bidirectional flows in bounded memory."""

from veilwatch.traffic.flow.early import EarlyPoints
from veilwatch.traffic.flow.meter import FlowMeter, MeterConfig, empty_heads
from veilwatch.traffic.flow.table import measure_table

__all__ = ["EarlyPoints", "FlowMeter", "MeterConfig", "empty_heads", "measure_table"]
