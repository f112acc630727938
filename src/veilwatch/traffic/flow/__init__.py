"""Packets become bidirectional flows in bounded memory."""

from veilwatch.traffic.flow.interim import InterimPoints
from veilwatch.traffic.flow.meter import FlowMeter, MeterConfig, empty_heads
from veilwatch.traffic.flow.table import measure_table

__all__ = ["FlowMeter", "InterimPoints", "MeterConfig", "empty_heads", "measure_table"]
