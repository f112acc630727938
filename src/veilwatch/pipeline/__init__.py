"""The pipeline joins the rooms below it: captures in, flow tables out."""

from veilwatch.pipeline.extract import FlowReader
from veilwatch.pipeline.warm import is_warm, settle, warm
from veilwatch.pipeline.workers import ParallelReader

__all__ = ["FlowReader", "ParallelReader", "is_warm", "settle", "warm"]
