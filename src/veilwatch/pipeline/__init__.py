"""The pipeline joins the rooms below it: captures in, flow tables out."""

from veilwatch.pipeline.extract import FlowReader

__all__ = ["FlowReader"]
