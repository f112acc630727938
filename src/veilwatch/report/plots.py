"""The drawings of the report, each from one part of the document.

Coordinates are CSS pixels at the width that a drawing has on a wide screen, so that the text
in it is as large as the text around it. Colour never stands alone: alerts are also higher,
labelled or outlined, and the two hues (blue, vermilion) differ for every kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.report import svg, units
from veilwatch.report.catalogue import Text
from veilwatch.report.document import (
    Contribution,
    Evaluation,
    HostCard,
    ModelCard,
    ScoreHistogram,
    Timeline,
    Traffic,
)

WIDE: Final = 1056
HALF: Final = 500

SCORE_TICKS: Final = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

HEAT_EDGES: Final = (1, 2, 5, 10)
"""Least alerted flows of each shade of a heat strip."""


def time_plot(timeline: Timeline, text: Text) -> Markup:
    """Draw alerted flows and bytes over time, one above the other on one time axis."""
    left, right, panel, gap, top = 62.0, WIDE - 8.0, 84.0, 34.0, 22.0
    parts = [
        svg.label(left, top - 8, text("plot.time_alerts"), "start", "caption"),
        *_columns(timeline.alerts, left, right, top, panel, "alert", _plain(timeline.alerts)),
        svg.label(left, top + panel + gap - 8, text("plot.time_bytes"), "start", "caption"),
        *_columns(
            timeline.bytes, left, right, top + panel + gap, panel, "benign", _bytes(timeline.bytes)
        ),
        *_time_axis(timeline, left, right, top + 2 * panel + gap),
    ]
    height = int(top + 2 * panel + gap + 26)
    return svg.figure(WIDE, height, text("plot.time_title"), parts, "plot wide")


def sparkline(timeline: Timeline, text: Text) -> Markup:
    """Draw the flows of one host over time, alerted ones in front of the others."""
    width, height, base = 440, 44, 32.0
    step = width / len(timeline.flows)
    top = max([*timeline.flows, 1])
    parts = [svg.line(0, base + 0.5, width, base + 0.5, "axis")]
    for i, (flows, alerts) in enumerate(zip(timeline.flows, timeline.alerts, strict=True)):
        for count, class_ in ((flows, "quiet"), (alerts, "alert")):
            if count:
                size = max(count / top * (base - 2), 2.0)
                parts.append(svg.rect(i * step + 0.5, base - size, max(step - 1, 1), size, class_))
    span = timeline.step_ns * len(timeline.flows)
    parts.append(svg.label(0, 43, units.clock(timeline.start_ns, span), "start"))
    parts.append(svg.label(width, 43, units.clock(timeline.start_ns + span, span), "end"))
    return svg.figure(width, height, text("host.timeline"), parts, "plot spark")


def score_bar(score: float, threshold: float, label: str) -> Markup:
    """Draw a score between 0 and 1 with its threshold as a tick."""
    width = 440
    parts = [
        svg.rect(0, 4, width, 8, "track"),
        svg.rect(0, 4, score * width, 8, "alert"),
        svg.line(threshold * width, 0, threshold * width, 16, "threshold"),
    ]
    return svg.figure(width, 16, label, parts, "plot bar")


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
    left, right, top, bottom = 52.0, HALF - 10.0, 34.0, 222.0
    most = max([*scores.below, *scores.above, 1])
    marks = svg.decades(most)
    rise = (bottom - top) / math.log10(marks[-1] * 2)

    def height(count: float) -> float:
        # One flow must be seen on a log axis, so the axis starts at a half.
        return math.log10(count * 2) * rise

    def across(log_odds: float) -> float:
        return left + (log_odds - scores.low) / (scores.high - scores.low) * (right - left)

    parts = []
    for mark in marks:
        y = bottom - height(mark)
        parts.append(svg.line(left, y, right, y, "grid"))
        parts.append(svg.label(left - 8, y + 4, units.number(mark), "end"))
    step = (right - left) / len(scores.below)
    for i, (below, above) in enumerate(zip(scores.below, scores.above, strict=True)):
        for count, class_ in ((below, "benign"), (above, "alert")):
            if count:
                size = height(count)
                parts.append(
                    svg.rect(left + i * step + 0.5, bottom - size, step - 1, size, class_,
                             f"{units.number(count)} {text('plot.score_flows')}")
                )  # fmt: skip
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    for value in SCORE_TICKS:
        x = across(_log_odds(value))
        parts.append(svg.line(x, bottom, x, bottom + 4, "axis"))
        parts.append(svg.label(x, bottom + 18, f"{value:g}"))
    parts.append(svg.label((left + right) / 2, bottom + 38, text("plot.score_axis"), "middle"))
    parts.append(svg.label(left - 8, top - 18, text("plot.score_flows"), "end"))
    bounded = min(max(_log_odds(model.flow_threshold), scores.low), scores.high)
    x = across(bounded)
    caption = text("plot.threshold", value=units.score(model.flow_threshold))
    parts.append(svg.line(x, top - 12, x, bottom, "threshold"))
    parts.append(
        svg.label(x - 6 if x > HALF / 2 else x + 6, top - 14, caption,
                  "end" if x > HALF / 2 else "start", "caption")
    )  # fmt: skip
    return svg.figure(HALF, 268, text("plot.score_title"), parts, "plot")


def service_plot(traffic: Traffic, text: Text) -> Markup:
    """Draw bytes by service, the encrypted ones coloured."""
    left, right, top, step = 108.0, HALF - 118.0, 8.0, 25.0
    rows = traffic.services
    most = max([row.bytes for row in rows] + [1])
    parts = []
    for i, row in enumerate(rows):
        y = top + i * step
        size = max(row.bytes / most * (right - left), 1.0)
        name = row.name or text("plot.service_unknown")
        parts.append(svg.label(left - 8, y + 13, _short(name, 16), "end", "name"))
        parts.append(svg.rect(left, y + 2, size, 15, "benign" if row.encrypted else "quiet"))
        value = f"{units.size(row.bytes)} ({units.share(row.bytes, traffic.bytes)})"
        parts.append(svg.label(left + size + 6, y + 13, value, "start"))
    height = int(top + len(rows) * step + 10)
    return svg.figure(HALF, height, text("plot.service_title"), parts, "plot")


def heat_strip(hosts: Sequence[HostCard], text: Text) -> Markup:
    """Draw one row a host and one cell a time step, darker with more alerted flows."""
    left, right, top, step = 218.0, WIDE - 8.0, 4.0, 20.0
    parts = []
    for row, host in enumerate(hosts):
        y = top + row * step
        width = (right - left) / len(host.timeline.flows)
        parts.append(svg.label(left - 10, y + 13, _short(host.alert.host, 30), "end", "name"))
        for column, (flows, alerts) in enumerate(
            zip(host.timeline.flows, host.timeline.alerts, strict=True)
        ):
            shade = sum(alerts >= edge for edge in HEAT_EDGES)
            if flows:
                parts.append(
                    svg.rect(
                        left + column * width + 0.5, y + 1, width - 1, step - 2, f"heat{shade}"
                    )
                )
    bottom = top + len(hosts) * step
    if hosts:
        parts.extend(_time_axis(hosts[0].timeline, left, right, bottom + 2))
    return svg.figure(WIDE, int(bottom + 28), text("plot.heat_title"), parts, "plot wide")


def roc_plot(evaluation: Evaluation, text: Text) -> Markup:
    """Draw detection rate against the logarithm of the false-positive rate, a line a level."""
    left, right, top, bottom = 56.0, HALF - 12.0, 30.0, 272.0
    low = -4.0  # false-positive rate of 1e-4: below it no sample of usual size claims anything

    def across(rate: float) -> float:
        return left + (max(math.log10(rate), low) - low) / -low * (right - left) if rate else left

    parts = [svg.label(0, 12, text("plot.roc_y"), "start")]
    for i in range(6):
        y = bottom - i / 5 * (bottom - top)
        parts.append(svg.line(left, y, right, y, "grid"))
        parts.append(svg.label(left - 8, y + 4, f"{i * 20} %", "end"))
    for i in range(5):
        rate = 10.0 ** (low + i)
        x = across(rate)
        parts.append(svg.line(x, bottom, x, bottom + 4, "axis"))
        parts.append(svg.label(x, bottom + 18, f"{rate * 100:g} %", "end" if i == 4 else "middle"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    parts.append(svg.label((left + right) / 2, bottom + 38, text("plot.roc_x")))
    for i, figures in enumerate(evaluation.levels.values()):
        # What lies left of the axis is drawn as one point, not as a line straight up.
        curve = sorted(figures.curve)
        first = sum(rate <= 10.0**low for rate, _ in curve[1:])
        points = " ".join(
            f"{across(x):.1f},{bottom - min(max(y, 0.0), 1.0) * (bottom - top):.1f}"
            for x, y in curve[first:]
        )
        if points:
            parts.append(svg.element("polyline", points=points, class_=f"curve curve{i}"))
    return svg.figure(HALF, 318, text("plot.roc_title"), parts, "plot")


def step_name(timeline: Timeline) -> str:
    """Return the width of one time step in words."""
    return units.duration(timeline.step_ns)


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


def time_axis(
    start_ns: int, step_ns: int, count: int, left: float, right: float, y: float
) -> list[Markup]:
    """Draw about seven ticks at whole steps, with their times."""
    span = count * step_ns
    every = max(round(count / 7), 1)
    parts = []
    for i in range(0, count + 1, every):
        x = left + i / count * (right - left)
        anchor = "middle" if 0.02 < i / count < 0.98 else "end" if i else "start"
        parts.append(svg.line(x, y, x, y + 4, "axis"))
        parts.append(svg.label(x, y + 18, units.clock(start_ns + i * step_ns, span), anchor))
    return parts


def _time_axis(timeline: Timeline, left: float, right: float, y: float) -> list[Markup]:
    return time_axis(timeline.start_ns, timeline.step_ns, len(timeline.flows), left, right, y)


def _plain(values: Sequence[int]) -> list[tuple[float, str]]:
    return [(value, units.number(value)) for value in svg.count_ticks(max([*values, 1]), 3)]


def _bytes(values: Sequence[int]) -> list[tuple[float, str]]:
    return [(value, units.size(value)) for value in svg.ticks(max([*values, 1]), 3)]


def _log_odds(value: float) -> float:
    bounded = min(max(value, 1e-12), 1 - 1e-12)
    return math.log(bounded / (1 - bounded))


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
