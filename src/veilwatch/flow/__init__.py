"""The flow room: packets become bidirectional flows in bounded memory."""

from veilwatch.flow.meter import FlowMeter, MeterConfig
from veilwatch.flow.table import measure_table

__all__ = ["FlowMeter", "MeterConfig", "measure_table"]
