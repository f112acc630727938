"""The pipeline joins the packages below it: captures in, flow tables or captures out."""

from veilwatch.traffic.pipeline.extract import FlowReader, LiveTable
from veilwatch.traffic.pipeline.groupfiles import Format
from veilwatch.traffic.pipeline.grouping import GroupBy
from veilwatch.traffic.pipeline.headers import read_headers
from veilwatch.traffic.pipeline.selection import Selection
from veilwatch.traffic.pipeline.split import SplitConfig, SplitResult, split
from veilwatch.traffic.pipeline.warm import is_warm, settle, warm
from veilwatch.traffic.pipeline.workers import ParallelReader

__all__ = [
    "FlowReader",
    "Format",
    "GroupBy",
    "LiveTable",
    "ParallelReader",
    "Selection",
    "SplitConfig",
    "SplitResult",
    "is_warm",
    "read_headers",
    "settle",
    "split",
    "warm",
]
