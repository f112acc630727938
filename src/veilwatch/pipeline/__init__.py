"""The pipeline joins the rooms below it: captures in, flow tables or captures out."""

from veilwatch.pipeline.extract import FlowReader, LiveTable
from veilwatch.pipeline.groupfiles import Format
from veilwatch.pipeline.grouping import GroupBy
from veilwatch.pipeline.headers import read_headers
from veilwatch.pipeline.selection import Selection
from veilwatch.pipeline.split import SplitConfig, SplitResult, split
from veilwatch.pipeline.warm import is_warm, settle, warm
from veilwatch.pipeline.workers import ParallelReader

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
