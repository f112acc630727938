"""An evaluation as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from veilwatch import __version__
from veilwatch.report.catalogue import catalogue
from veilwatch.report.evaluation import plots
from veilwatch.report.evaluation.build import evaluation_of
from veilwatch.report.html import page
from veilwatch.schema.text import visible


def render_evaluation(
    evaluation: Mapping[str, Any],
    *,
    model: str = "",
    emulated: bool = False,
    command: str = "",
    made_at: datetime | None = None,
    language: str = "en",
) -> str:
    """Return one self-contained HTML page of an evaluation.

    Parameters
    ----------
    evaluation
        What `veilwatch evaluate --json` writes: for each level that it has (`flow`, `flow_tls`,
        `host_window`, `capture` …) the counts and figures, `families` with `n` and
        `detection_rate`, `benign_kinds` with `n` and `alerted`, and where it is known `curve` in a
        level, with equally long lists `false_positive_rate` and `detection_rate`.
    model
        Name of the model.
    emulated
        Whether the traffic came from the lab.
    command
        The command line that made it.
    made_at
        Time of making, now unless given.
    language
        Text catalogue.
    """
    return page(
        "evaluation.html.j2",
        catalogue(language),
        curves=plots,
        evaluation=evaluation_of(evaluation),
        model=visible(model),
        emulated=emulated,
        command=visible(command),
        made_at=made_at or datetime.now(UTC),
        version=__version__,
    )
