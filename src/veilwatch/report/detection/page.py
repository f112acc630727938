"""The report on judged captures as an HTML page."""

from __future__ import annotations

from typing import Final

from veilwatch.report.catalogue import catalogue
from veilwatch.report.detection import plots
from veilwatch.report.detection.document import ReportDocument
from veilwatch.report.detection.verdict import details, doubts, verdict
from veilwatch.report.evaluation import plots as curves
from veilwatch.report.html import page

UNFOLDED: Final = 1
"""Alerts whose reasons are open when the page opens, as an example of what a line holds."""

LISTED: Final = 20
"""Alerts that stand in the page; the others wait behind one line."""


def render_html(document: ReportDocument, *, language: str = "en") -> str:
    """Return the report page.

    Parameters
    ----------
    document
        What to say.
    language
        Text catalogue to say it in.
    """
    text = catalogue(language)
    return page(
        "report.html.j2",
        text,
        plots=plots,
        curves=curves,
        document=document,
        verdict=verdict(document, text),
        details=details(document, text),
        doubts=doubts(document, text),
        unfolded=UNFOLDED,
        listed=LISTED,
    )
