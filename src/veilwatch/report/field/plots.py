"""The drawings of a field report: all share the document's steps of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.report import svg, units
from veilwatch.report.catalogue import Text
from veilwatch.report.charts import bars, curve_class, time_axis
from veilwatch.report.field import document as doc

LEFT: Final = 84.0
PANEL: Final = 84.0

SEVERITIES: Final = (("high", "alert"), ("medium", "heat2"), ("low", "heat1"))
"""Series of alerts with their shade, drawn from the bottom up."""


def traffic_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw packets and bits a second, one above the other on one time axis."""
    carried = document.carried
    panels = [
        (text("field.traffic.packets"), carried.packet_rate, units.number),
        (text("field.traffic.bytes"), carried.byte_rate, units.bit_rate),
    ]

    def draw(right: float) -> tuple[list[Markup], float]:
        parts: list[Markup] = []
        y = 22.0
        for caption, series, written in panels:
            parts += [
                svg.label(LEFT, y - 8, caption, "start", "caption"),
                *_columns(series, y, PANEL, written, LEFT, right),
            ]
            y += PANEL + 34
        return parts, y - 34

    return _over_time(document, draw, text("field.traffic.plot"))


def drop_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw the share of packets that the kernel dropped."""

    def draw(right: float) -> tuple[list[Markup], float]:
        shares = document.loss.drop_share
        parts = _columns(shares, 8.0, PANEL, units.percent, LEFT, right, class_="alert")
        return parts, 8.0 + PANEL

    return _over_time(document, draw, text("field.loss.plot"))


def alert_plot(document: doc.FieldDocument, text: Text) -> Markup:
    """Draw alerts over time, severities on top of each other."""
    found = document.found
    rows = list(zip(found.high, found.medium, found.low, strict=True))
    marks = svg.count_ticks(max([*map(sum, rows), 1]), 3)
    top, left = 10.0, LEFT
    bottom = top + PANEL

    def draw(right: float) -> tuple[list[Markup], float]:
        parts = _grid([(m, units.number(m)) for m in marks], marks[-1], top, PANEL, left, right)
        width = (right - left) / len(rows)
        gap = 1 if width > 3 else 0
        for i, row in enumerate(rows):
            y = bottom
            for count, (_, class_) in zip(row, SEVERITIES, strict=True):
                if count:
                    size = max(count / marks[-1] * PANEL, 1.5)
                    y -= size
                    x = left + i * width + gap / 2
                    parts.append(svg.rect(x, y, width - gap, size, class_))
        return parts, bottom

    return _over_time(document, draw, text("field.alerts.plot"))


def service_plot(services: Sequence[doc.Count], total: int, text: Text) -> Markup:
    """Draw flows by service."""
    rows = [
        (
            # The sensor counts what it does not recognise under a name of its own.
            text("field.traffic.service_unknown")
            if row.name in ("", "unknown")
            else units.service(row.name),
            row.count,
            f"{units.number(row.count)} ({units.share(row.count, total)})",
            "benign",
        )
        for row in services
    ]
    return bars(rows, text("field.traffic.services"))


def score_plot(scores: Sequence[int], text: Text) -> Markup:
    """Draw how many flows have which tenth of score, on a log axis."""
    top, bottom = 26.0, 190.0
    marks = svg.decades(max([*scores, 1]))
    rise = (bottom - top) / math.log10(marks[-1] * 2)
    left = 20.0 + svg.text_width(units.number(marks[-1]))

    def draw(whole: int, class_: str) -> Markup:
        right = whole - 10.0
        parts = [svg.label(0, 12, text("field.drift.scores_flows"), "start")]
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
                x = left + i * width + 1
                tip = units.number(count)
                parts.append(svg.rect(x, bottom - size, width - 2, size, "benign", tip))
        ticks = [(left + i * width, f"{i / len(scores):g}") for i in range(len(scores) + 1)]
        parts += [
            svg.line(left, bottom, right, bottom, "axis"),
            *svg.marks(ticks, right, bottom),
            svg.label((left + right) / 2, bottom + 38, text("field.drift.scores_axis")),
        ]
        return svg.figure(whole, 234, text("field.drift.scores"), parts, class_)

    return svg.across_half(draw)


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


def stroke(number: int) -> Markup:
    """Return the piece of line that stands for a process in the legend."""
    return svg.key(curve_class(number))


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
    top, height, left = 24.0, 110.0, LEFT
    most = max([value for _, series in lines for value in series if value is not None] + [0.0])
    marks = svg.ticks(most, 3)

    def draw(right: float) -> tuple[list[Markup], float]:
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
                joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                parts.append(svg.element("polyline", points=joined, class_=curve_class(k)))
        return parts, top + height

    return _over_time(document, draw, title)


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
    document: doc.FieldDocument,
    draw: Callable[[float], tuple[list[Markup], float]],
    title: str,
) -> Markup:
    """Put a time axis below what `draw` makes of the right end; it returns its lower end too."""
    grid = document.grid

    def whole(width: int, class_: str) -> Markup:
        right = width - 8.0
        parts, bottom = draw(right)
        axis = time_axis(grid.start_ns, grid.step_ns, grid.steps, LEFT, right, bottom)
        return svg.figure(width, int(bottom + 26), title, [*parts, *axis], class_)

    return svg.across_page(whole)
