"""Plots of a comparison, drawn as SVG without a script. Colours are classes `c0` … `c8`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.comparison.document import Comparison, Interval, Level
from veilwatch.report import svg

WIDTH: Final = 540
LEFT, RIGHT, TOP, BOTTOM = 52.0, WIDTH - 14.0, 24.0, 268.0
LOWEST: Final = -4.0
"""Exponent of the smallest false-positive rate drawn."""

Curve = Sequence[tuple[float, float]]


def roc(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw detection against the logarithm of the false-positive rate, a line a detector."""

    def across(rate: float) -> float:
        return (max(math.log10(rate), LOWEST) - LOWEST) / -LOWEST if rate > 0 else 0.0

    ticks = [(i / 4, f"{100 * 10 ** (LOWEST + i):g} %") for i in range(5)]
    curves = _curves(comparison, split, level, lambda found: found.roc)
    # What lies left of the axis is one point and not a line straight up.
    drawn = [
        (k, [(across(x), y) for x, y in curve[max(_left_of_axis(curve) - 1, 0) :]])
        for k, curve in curves
    ]
    return _lines(drawn, ticks, "ROC", "false-positive rate", "found")


def precision_recall(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw precision against the share found, a line a detector."""
    curves = _curves(comparison, split, level, lambda found: found.precision_recall)
    ticks = [(i / 4, f"{25 * i} %") for i in range(5)]
    return _lines(curves, ticks, "Precision and recall", "found", "precision")


def calibration(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw how often a score comes true, a line a detector; the diagonal is a perfect score."""

    def points(found: Level) -> Curve:
        c = found.calibration
        return [] if c is None else list(zip(c.predicted, c.observed, strict=True))

    curves = _curves(comparison, split, level, points)
    ticks = [(i / 4, f"{i / 4:g}") for i in range(5)]
    diagonal = svg.line(LEFT, BOTTOM, RIGHT, TOP, "grid")
    title = "Calibration, classes weighed alike"
    return _lines(curves, ticks, title, "score", "malicious", [diagonal])


def drawn_levels(comparison: Comparison, split: str) -> set[str]:
    """Return the levels of a split of which any detector has curves."""
    return {
        name
        for detector in comparison.detectors
        if split in detector.splits
        for name, found in detector.splits[split].levels.items()
        if found.roc
    }


def has_level(comparison: Comparison, level: str) -> bool:
    """Return whether any detector has curves of a level under any split."""
    return any(level in drawn_levels(comparison, split) for split in comparison.splits)


def bars(comparison: Comparison, level: str, rate: str) -> Markup:
    """Draw what each detector finds under each split, with its interval."""
    splits = list(comparison.splits)
    rows = [
        (k, detector.name, split, figure)
        for split in splits
        for k, detector in enumerate(comparison.detectors)
        if (figure := _figure(comparison, k, split, level, rate)) is not None
    ]
    left, right, y = 210.0, 1000.0, 12.0
    parts: list[Markup] = []
    previous = ""
    for k, name, split, figure in rows:
        if split != previous:
            y += 10
            parts.append(svg.label(0, y + 11, split, "start", "tick strong"))
            previous = split
        value = figure.value or 0.0
        width = value * (right - left)
        parts.append(svg.label(left - 8, y + 11, name, "end"))
        parts.append(svg.rect(left, y + 2, right - left, 11, "track"))
        parts.append(svg.rect(left, y + 2, width, 11, f"bar c{k % 9}"))
        if figure.low is not None and figure.high is not None:
            low, high = (left + v * (right - left) for v in (figure.low, figure.high))
            parts.append(svg.line(low, y + 7.5, high, y + 7.5, "whisker"))
        parts.append(svg.label(right + 8, y + 11, f"{value:.3f}", "start"))
        y += 18
    title = f"Found at a false-positive rate of {float(rate):g}"
    return svg.figure(1060, int(y + 8), title, parts, "plot wide")


def importance(names: dict[str, float], shown: int = 15) -> Markup:
    """Draw the strongest features of a detector."""
    chosen = sorted(names.items(), key=lambda item: -item[1])[:shown]
    most = max((value for _, value in chosen), default=1.0) or 1.0
    parts = []
    for k, (name, value) in enumerate(chosen):
        y = 4.0 + 18 * k
        parts.append(svg.label(200, y + 11, name, "end"))
        parts.append(svg.rect(208, y + 2, 260 * value / most, 11, "bar c0"))
        parts.append(svg.label(476, y + 11, f"{value:.1%}", "start"))
    return svg.figure(WIDTH, 12 + 18 * len(chosen), "Feature importance", parts, "plot")


def landscape(comparison: Comparison) -> Markup:
    """Draw the flows of the map, benign ones below the others."""
    points = comparison.map
    if not points:
        return Markup("")
    labels = map_labels(comparison)
    xs, ys = [p.x for p in points], [p.y for p in points]
    width, height = 1060.0, 430.0

    def place(value: float, values: list[float], size: float) -> float:
        span = (max(values) - min(values)) or 1.0
        return 8 + (value - min(values)) / span * (size - 16)

    ordered = sorted(points, key=lambda p: p.label != "benign")
    parts = [
        svg.element(
            "circle",
            cx=place(p.x, xs, width),
            cy=height - place(p.y, ys, height),
            r=3,
            class_="dot " + ("quiet" if p.label == "benign" else f"c{labels.index(p.label) - 1}"),
        )
        for p in ordered
    ]
    return svg.figure(int(width), int(height), "Flows by their features", parts, "plot wide")


def map_labels(comparison: Comparison) -> list[str]:
    """Return what stands on the map, benign first, then families by name."""
    return ["benign", *sorted({point.label for point in comparison.map} - {"benign"})]


def _curves(
    comparison: Comparison, split: str, level: str, of: Callable[[Level], Curve]
) -> list[tuple[int, Curve]]:
    out = []
    for k, detector in enumerate(comparison.detectors):
        result = detector.splits.get(split)
        found = None if result is None else result.levels.get(level)
        curve = [] if found is None else of(found)
        if curve:
            out.append((k, curve))
    return out


def _figure(comparison: Comparison, k: int, split: str, level: str, rate: str) -> Interval | None:
    result = comparison.detectors[k].splits.get(split)
    found = None if result is None else result.levels.get(level)
    figure = None if found is None else found.detection_rate_at_fpr[rate]
    return None if figure is None or figure.value is None else figure


def _left_of_axis(curve: Curve) -> int:
    return sum(x <= 10.0**LOWEST for x, _ in curve)


def _lines(
    curves: Sequence[tuple[int, Curve]],
    ticks: Sequence[tuple[float, str]],
    title: str,
    x_title: str,
    y_title: str,
    below: Sequence[Markup] = (),
) -> Markup:
    parts = [*below, svg.label(0, 12, y_title, "start")]
    for i in range(5):
        y = BOTTOM - i / 4 * (BOTTOM - TOP)
        parts += [
            svg.line(LEFT, y, RIGHT, y, "grid"),
            svg.label(LEFT - 8, y + 4, f"{25 * i} %", "end"),
        ]
    for place, name in ticks:
        x = LEFT + place * (RIGHT - LEFT)
        parts.append(svg.line(x, BOTTOM, x, BOTTOM + 4, "axis"))
        parts.append(svg.label(x, BOTTOM + 18, name, "end" if place == 1 else "middle"))
    parts.append(svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    parts.append(svg.label((LEFT + RIGHT) / 2, BOTTOM + 38, x_title))
    for k, curve in curves:
        points = " ".join(
            f"{LEFT + x * (RIGHT - LEFT):.1f},{BOTTOM - min(max(y, 0), 1) * (BOTTOM - TOP):.1f}"
            for x, y in curve
        )
        parts.append(svg.element("polyline", points=points, class_=f"curve c{k % 9}"))
    return svg.figure(WIDTH, 314, title, parts, "plot")
