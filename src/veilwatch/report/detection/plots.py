"""The drawings of the report, each from one part of the document.

Coordinates are CSS pixels at the width that a drawing is shown in, so that the text in it is as
large as the text around it; each is made for wide and for narrow windows (`svg.across_page`).
Colour never stands alone: alerts are also higher, labelled or outlined, lines differ by their
dashes, and the two hues (blue, vermilion) differ for every kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.report import svg, units
from veilwatch.report.catalogue import Text
from veilwatch.report.charts import bars, time_axis
from veilwatch.report.detection.document import (
    Contribution,
    HostCard,
    ModelCard,
    ScoreHistogram,
    Timeline,
    Traffic,
)

SCORE_TICKS: Final = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

SCORE_EDGE: Final = 1e-6
"""Scores nearer to 0 or 1 than this are drawn at the edge: their log-odds go to infinity."""

HEAT_EDGES: Final = (1, 2, 5, 10)
"""Least alerted flows of each shade of a heat strip."""


def time_plot(timeline: Timeline, text: Text) -> Markup:
    """Draw alerted flows and bytes over time, one above the other on one time axis."""

    def draw(width: int, class_: str) -> Markup:
        left, right, panel, gap, top = 62.0, width - 8.0, 84.0, 34.0, 22.0
        below = top + panel + gap
        alerts, volume = _plain(timeline.alerts), _bytes(timeline.bytes)
        parts = [
            svg.label(left, top - 8, text("plot.time_alerts"), "start", "caption"),
            *_columns(timeline.alerts, left, right, top, panel, "alert", alerts),
            svg.label(left, below - 8, text("plot.time_bytes"), "start", "caption"),
            *_columns(timeline.bytes, left, right, below, panel, "benign", volume),
            *_time_axis(timeline, left, right, below + panel),
        ]
        return svg.figure(width, int(below + panel + 26), text("plot.time_title"), parts, class_)

    return svg.across_page(draw)


def sparkline(timeline: Timeline, text: Text) -> Markup:
    """Draw the flows of one host over time, alerted ones in front of the others.

    It has no text: it is stretched to the width of its card, and its ends are named below it.
    """
    width, base = 440, 32.0
    step = width / len(timeline.flows)
    gap = 1.0 if step > 3 else 0.0
    top = max([*timeline.flows, 1])
    parts = [svg.line(0, base + 0.5, width, base + 0.5, "axis")]
    for i, (flows, alerts) in enumerate(zip(timeline.flows, timeline.alerts, strict=True)):
        for count, class_ in ((flows, "quiet"), (alerts, "alert")):
            if count:
                size = max(count / top * (base - 2), 2.0)
                parts.append(svg.rect(i * step + gap / 2, base - size, step - gap, size, class_))
    title = text("host.timeline")
    return svg.figure(width, 33, title, parts, "plot spark", stretched=True)


def ends(timeline: Timeline) -> tuple[str, str]:
    """Return the names of both ends of a time axis."""
    span = timeline.step_ns * len(timeline.flows)
    return units.clock(timeline.start_ns, span), units.clock(timeline.start_ns + span, span)


def score_range(hosts: Sequence[HostCard]) -> tuple[float, float]:
    """Return the ends of the axis that the score bars of all hosts share, in log-odds."""
    found = [value for host in hosts for value in (host.alert.score, host.alert.threshold)]
    places = [_log_odds(value) for value in (*found, SCORE_TICKS[2], SCORE_TICKS[-2])]
    room = 0.04 * (max(places) - min(places))
    return min(places) - room, max(places) + room


def score_bar(score: float, threshold: float, ends: tuple[float, float], label: str) -> Markup:
    """Draw by how much a score lies above its threshold, on an axis of log-odds.

    Scores of alerts lie between 0.9 and 1: on a plain axis every bar would look full.
    """
    width = 440.0
    low, high = ends

    def across(value: float) -> float:
        return (_log_odds(value) - low) / (high - low) * width

    begin, end = sorted((across(threshold), across(score)))
    parts = [
        svg.rect(0, 5, width, 8, "track"),
        svg.rect(begin, 5, max(end - begin, 2.0), 8, "alert"),
        svg.line(across(threshold), 1, across(threshold), 17, "threshold"),
    ]
    inside = [(across(value), f"{value:g}") for value in SCORE_TICKS]
    marks = [(x, name) for x, name in inside if 8 <= x <= width - 8]
    parts += svg.marks(marks, width - 6, 15)
    return svg.figure(int(width), 38, label, parts, "plot bar")


def contribution_bar(reason: Contribution, scale: float, text: Text) -> Markup:
    """Draw one contribution to the right (malware) or left (benign) of a middle line."""
    width, middle = 160, 80.0
    size = min(abs(reason.contribution) / scale, 1.0) * (middle - 2) if scale else 0.0
    towards_malware = reason.contribution > 0
    parts = [
        svg.rect(
            middle if towards_malware else middle - size, 3, size, 10,
            "alert" if towards_malware else "benign",
        ),
        svg.line(middle, 0, middle, 16, "axis"),
    ]  # fmt: skip
    name = f"{reason.contribution:+.2f} {text('alert.contribution')}"
    return svg.figure(width, 16, name, parts, "plot contribution")


def score_plot(scores: ScoreHistogram, model: ModelCard, text: Text) -> Markup:
    """Draw how many flows have which score, on log axes, with the threshold."""
    top, bottom = 34.0, 222.0
    marks = svg.decades(max([*scores.below, *scores.above, 1]))
    rise = (bottom - top) / math.log10(marks[-1] * 2)
    left = 24.0 + svg.text_width(units.number(marks[-1]))

    def height(count: float) -> float:
        # One flow must be seen on a log axis, so the axis starts at a half.
        return math.log10(count * 2) * rise

    def draw(width: int, class_: str) -> Markup:
        right = width - 10.0

        def across(log_odds: float) -> float:
            bounded = min(max(log_odds, scores.low), scores.high)
            return left + (bounded - scores.low) / (scores.high - scores.low) * (right - left)

        parts = _log_grid(marks, left, right, bottom, rise)
        step = (right - left) / len(scores.below)
        for i, (below, above) in enumerate(zip(scores.below, scores.above, strict=True)):
            for count, shade in ((below, "benign"), (above, "alert")):
                if count:
                    size = height(count)
                    tip = f"{units.number(count)} {text('plot.score_flows')}"
                    parts.append(
                        svg.rect(left + i * step + 0.5, bottom - size, step - 1, size, shade, tip)
                    )
        ticks = [(across(_log_odds(value)), f"{value:g}") for value in SCORE_TICKS]
        parts += [
            svg.line(left, bottom, right, bottom, "axis"),
            *svg.marks(ticks, right, bottom),
            svg.label((left + right) / 2, bottom + 38, text("plot.score_axis"), "middle"),
            svg.label(0, top - 18, text("plot.score_flows"), "start"),
        ]
        x = across(_log_odds(model.flow_threshold))
        caption = text("plot.threshold", value=units.score(model.flow_threshold))
        before = x > (left + right) / 2
        place, anchor = (x - 6, "end") if before else (x + 6, "start")
        parts += [
            svg.line(x, top - 12, x, bottom, "threshold"),
            svg.label(place, top - 14, caption, anchor, "caption"),
        ]
        return svg.figure(width, 268, text("plot.score_title"), parts, class_)

    return svg.across_half(draw)


def service_plot(traffic: Traffic, text: Text) -> Markup:
    """Draw bytes by service, the encrypted ones coloured."""
    rows = [
        (
            units.service(row.name) or text("plot.service_unknown"),
            row.bytes,
            f"{units.size(row.bytes)} ({units.share(row.bytes, traffic.bytes)})",
            "benign" if row.encrypted else "quiet",
        )
        for row in traffic.services
    ]
    return bars(rows, text("plot.service_title"))


def heat_strip(hosts: Sequence[HostCard], text: Text) -> Markup:
    """Draw one row a host and one cell a time step, darker with more alerted flows."""
    names = [host.alert.host for host in hosts]
    beside = 14.0 + max([svg.text_width(name) for name in names] + [0.0])

    def draw(width: int, class_: str) -> Markup:
        # Addresses are never cut: where there is no room beside the strips they stand above them.
        over = beside > 0.4 * width
        left, right, top = 0.0 if over else beside, width - 8.0, 4.0
        step, drop = (36.0, 16.0) if over else (20.0, 0.0)
        parts = []
        for row, host in enumerate(hosts):
            y = top + row * step + drop
            cell = (right - left) / len(host.timeline.flows)
            parts.append(
                svg.label(0, y - 4, names[row], "start", "name")
                if over
                else svg.label(left - 10, y + 13, names[row], "end", "name")
            )
            for column, (flows, alerts) in enumerate(
                zip(host.timeline.flows, host.timeline.alerts, strict=True)
            ):
                if flows:
                    shade = sum(alerts >= edge for edge in HEAT_EDGES)
                    x = left + column * cell + 0.5
                    parts.append(svg.rect(x, y + 1, max(cell - 1, 1), 18, f"heat{shade}"))
        bottom = top + len(hosts) * step
        if hosts:
            parts += _time_axis(hosts[0].timeline, left, right, bottom + 2)
        return svg.figure(width, int(bottom + 28), text("plot.heat_title"), parts, class_)

    return svg.across_page(draw)


def step_name(timeline: Timeline) -> str:
    """Return the width of one time step in words."""
    return units.duration(timeline.step_ns)


def _log_grid(
    marks: Sequence[float], left: float, right: float, bottom: float, rise: float
) -> list[Markup]:
    parts = []
    for mark in marks:
        y = bottom - math.log10(mark * 2) * rise
        parts.append(svg.line(left, y, right, y, "grid"))
        parts.append(svg.label(left - 8, y + 4, units.number(mark), "end"))
    return parts


def _columns(
    values: Sequence[int],
    left: float,
    right: float,
    top: float,
    height: float,
    class_: str,
    axis: list[tuple[float, str]],
) -> list[Markup]:
    """Draw columns over a grid; `axis` holds the values and names of its lines."""
    bottom = top + height
    most = axis[-1][0]
    parts = []
    for value, name in axis:
        y = bottom - value / most * height
        parts.append(svg.line(left, y, right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.label(left - 8, y + 4, name, "end"))
    step = (right - left) / len(values)
    gap = 1 if step > 3 else 0
    for i, value in enumerate(values):
        if value:
            size = max(value / most * height, 1.5)
            parts.append(
                svg.rect(left + i * step + gap / 2, bottom - size, step - gap, size, class_)
            )
    return parts


def _time_axis(timeline: Timeline, left: float, right: float, y: float) -> list[Markup]:
    return time_axis(timeline.start_ns, timeline.step_ns, len(timeline.flows), left, right, y)


def _plain(values: Sequence[int]) -> list[tuple[float, str]]:
    return [(value, units.number(value)) for value in svg.count_ticks(max([*values, 1]), 3)]


def _bytes(values: Sequence[int]) -> list[tuple[float, str]]:
    return [(value, units.size(value)) for value in svg.ticks(max([*values, 1]), 3)]


def _log_odds(value: float) -> float:
    bounded = min(max(value, SCORE_EDGE), 1 - SCORE_EDGE)
    return math.log(bounded / (1 - bounded))
