"""The drawings of a field report: all share the document's steps of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.report import field_document as doc
from veilwatch.report import svg, units
from veilwatch.report.catalogue import Text
from veilwatch.report.plots import WIDE, time_axis

HALF: Final = 500
LEFT: Final = 84.0
PANEL: Final = 84.0

CURVES: Final = 9
"""Colours of lines in the style sheet."""

SEVERITIES: Final = (("high", "alert"), ("medium", "heat2"), ("low", "heat1"))
"""Series of alerts with their shade, drawn from the bottom up."""


def traffic_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw packets and bits a second, one above the other on one time axis."""
    carried = document.carried
    panels = [
        (text("field.traffic.packets"), carried.packet_rate, units.number),
        (text("field.traffic.bytes"), carried.byte_rate, units.bit_rate),
    ]
    parts: list[Markup] = []
    y = 22.0
    for caption, series, written in panels:
        parts += [
            svg.label(LEFT, y - 8, caption, "start", "caption"),
            *_columns(series, y, PANEL, written, LEFT, WIDE - 8.0),
        ]
        y += PANEL + 34
    return _over_time(document, parts, y - 34, text("field.traffic.plot"))


def drop_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw the share of packets that the kernel dropped."""
    parts = _columns(
        document.loss.drop_share, 8.0, PANEL, units.percent, LEFT, WIDE - 8.0, class_="alert"
    )
    return _over_time(document, parts, 8.0 + PANEL, text("field.loss.plot"))


def alert_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw alerts over time, severities on top of each other."""
    found = document.found
    rows = list(zip(found.high, found.medium, found.low, strict=True))
    marks = svg.count_ticks(max([*map(sum, rows), 1]), 3)
    top, left, right = 10.0, LEFT, WIDE - 8.0
    bottom = top + PANEL
    parts = _grid([(m, units.number(m)) for m in marks], marks[-1], top, PANEL, left, right)
    width = (right - left) / len(rows)
    gap = 1 if width > 3 else 0
    for i, row in enumerate(rows):
        y = bottom
        for count, (_, class_) in zip(row, SEVERITIES, strict=True):
            if count:
                size = max(count / marks[-1] * PANEL, 1.5)
                y -= size
                parts.append(svg.rect(left + i * width + gap / 2, y, width - gap, size, class_))
    return _over_time(document, parts, bottom, text("field.alerts.plot"))


def service_plot(services: Sequence[doc.Count], total: int, text: Text) -> Markup:
    """Draw flows by service."""
    left, right, top, step = 118.0, HALF - 118.0, 4.0, 24.0
    most = max([row.count for row in services] + [1])
    parts = []
    for i, row in enumerate(services):
        y = top + i * step
        size = max(row.count / most * (right - left), 1.0)
        name = row.name or text("field.traffic.service_unknown")
        name = name if len(name) <= 16 else name[:15] + "…"
        value = f"{units.number(row.count)} ({units.share(row.count, total)})"
        parts += [
            svg.label(left - 8, y + 13, name, "end", "name"),
            svg.rect(left, y + 2, size, 15, "benign"),
            svg.label(left + size + 6, y + 13, value, "start"),
        ]
    height = int(top + len(services) * step + 6)
    return svg.figure(HALF, height, text("field.traffic.services"), parts, "plot")


def score_plot(scores: Sequence[int], text: Text) -> Markup:
    """Draw how many flows have which tenth of score, on a log axis."""
    left, right, top, bottom = 62.0, HALF - 10.0, 26.0, 190.0
    marks = svg.decades(max([*scores, 1]))
    rise = (bottom - top) / math.log10(marks[-1] * 2)
    parts = [svg.label(left - 8, 12, text("field.drift.scores_flows"), "end")]
    for mark in marks:
        y = bottom - math.log10(mark * 2) * rise
        parts += [
            svg.line(left, y, right, y, "grid"),
            svg.label(left - 8, y + 4, units.number(mark), "end"),
        ]
    width = (right - left) / len(scores)
    for i, count in enumerate(scores):
        if count:
            size = math.log10(count * 2) * rise
            parts.append(
                svg.rect(left + i * width + 1, bottom - size, width - 2, size, "benign",
                         units.number(count))
            )  # fmt: skip
        parts.append(svg.label(left + i * width, bottom + 18, f"{i / 10:g}"))
    parts += [
        svg.label(right, bottom + 18, "1", "end"),
        svg.line(left, bottom, right, bottom, "axis"),
        svg.label((left + right) / 2, bottom + 38, text("field.drift.scores_axis")),
    ]
    return svg.figure(HALF, 234, text("field.drift.scores"), parts, "plot")


def cpu_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw the CPU that all processes used together."""
    lines = [(0, document.load.cpu)]
    return _lines(document, lines, text("field.load.cpu_axis"), _cores, text("field.load.cpu_plot"))


def memory_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw memory, a line a process."""
    lines = [
        (k, process.memory)
        for k, process in enumerate(document.load.processes)
        if process.memory_last is not None
    ]
    title = text("field.load.memory_plot")
    return _lines(document, lines, text("field.load.memory_axis"), units.size, title)


def drift_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw the gauge of drift."""
    lines = [(0, document.drift.psi)]
    title = text("field.drift.plot")
    return _lines(document, lines, text("field.drift.axis"), lambda value: f"{value:.3g}", title)


def has_values(series: doc.Series) -> bool:
    """Whether there is anything to draw."""
    return any(value is not None for value in series)


def _cores(value: float) -> str:
    return f"{value:.2g}"


def _lines(
    document: doc.FieldDocument,
    lines: Sequence[tuple[int, doc.Series]],
    caption: str,
    written: Callable[[float], str],
    title: str,
) -> Markup:
    top, height, left, right = 24.0, 110.0, LEFT, WIDE - 8.0
    most = max([value for _, series in lines for value in series if value is not None] + [0.0])
    marks = svg.ticks(most, 3)
    parts = [svg.label(left, 12, caption, "start", "caption")]
    parts += _grid([(m, written(m)) for m in marks], marks[-1], top, height, left, right)
    for k, series in lines:
        step = (right - left) / len(series)
        for run in _runs(series):
            points = [
                (left + (i + 0.5) * step, top + height - value / marks[-1] * height)
                for i, value in run
            ]
            if len(points) == 1:  # a line needs two points
                x, y = points[0]
                points = [(x - step / 2, y), (x + step / 2, y)]
            written_points = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(
                svg.element("polyline", points=written_points, class_=f"curve c{k % CURVES}")
            )
    return _over_time(document, parts, top + height, title)


def _runs(series: doc.Series) -> list[list[tuple[int, float]]]:
    """Return the stretches of a series that have values, with their steps."""
    runs: list[list[tuple[int, float]]] = []
    for i, value in enumerate(series):
        if value is None:
            continue
        if runs and runs[-1][-1][0] == i - 1:
            runs[-1].append((i, value))
        else:
            runs.append([(i, value)])
    return runs


def _columns(
    series: doc.Series,
    top: float,
    height: float,
    written: Callable[[float], str],
    left: float,
    right: float,
    class_: str = "benign",
) -> list[Markup]:
    """Draw columns over a grid, and a shade where nothing was counted."""
    marks = svg.ticks(max([value for value in series if value is not None] + [0.0]), 3)
    bottom, width = top + height, (right - left) / len(series)
    gap = 1 if width > 3 else 0
    parts = [
        svg.rect(left + i * width, top, width, height, "track")
        for i, value in enumerate(series)
        if value is None
    ]
    parts += _grid([(m, written(m)) for m in marks], marks[-1], top, height, left, right)
    for i, value in enumerate(series):
        if value:
            size = max(value / marks[-1] * height, 1.5)
            parts.append(
                svg.rect(left + i * width + gap / 2, bottom - size, width - gap, size, class_)
            )
    return parts


def _grid(
    marks: Sequence[tuple[float, str]],
    most: float,
    top: float,
    height: float,
    left: float,
    right: float,
) -> list[Markup]:
    parts = []
    for value, name in marks:
        y = top + height - value / most * height
        parts += [
            svg.line(left, y, right, y, "grid" if value else "axis"),
            svg.label(left - 8, y + 4, name, "end"),
        ]
    return parts


def _over_time(
    document: doc.FieldDocument, parts: Sequence[Markup], bottom: float, title: str
) -> Markup:
    grid = document.grid
    axis = time_axis(grid.start_ns, grid.step_ns, grid.steps, LEFT, WIDE - 8.0, bottom)
    return svg.figure(WIDE, int(bottom + 26), title, [*parts, *axis], "plot wide")
