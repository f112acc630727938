"""The flow room: packets become bidirectional flows in bounded memory."""

from veilwatch.flow.early import EarlyPoints
from veilwatch.flow.meter import FlowMeter, MeterConfig, empty_heads
from veilwatch.flow.table import measure_table

__all__ = ["EarlyPoints", "FlowMeter", "MeterConfig", "empty_heads", "measure_table"]
