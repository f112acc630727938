"""One typed result document, and what draws it: a page, an evaluation page, the console."""

from veilwatch.report.build import build_document
from veilwatch.report.html import render_html

__all__ = ["build_document", "render_html"]
