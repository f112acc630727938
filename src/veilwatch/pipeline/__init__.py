"""The pipeline joins the rooms below it: captures in, flow tables out."""

from veilwatch.pipeline.extract import FlowReader
from veilwatch.pipeline.warm import is_warm, warm

__all__ = ["FlowReader", "is_warm", "warm"]
