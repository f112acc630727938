"""Charts that several reports draw: bars, lines of rates, axes of time.

Coordinates are CSS pixels at the width that a drawing is shown in, so that the text in it is as
large as the text around it; each is made for wide and for narrow windows (`svg.across_page`).
Colour never stands alone: lines differ by their dashes, and the two hues (blue, vermilion) differ
for every kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from veilwatch.report import svg, units
from veilwatch.schema.units import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS

STEPS_NS: Final = (
    *(n * 10**6 for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(n * SECOND_NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE_NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR_NS for n in (1, 2, 3, 6, 12, 24)),
    *(n * DAY_NS for n in (2, 7, 14, 28, 91, 182, 364)),
)
"""Steps of a time axis that people can name."""

LOWEST_RATE: Final = 1e-4
"""Smallest false-positive rate drawn: no sample of usual size claims anything below it."""

MOST_TICKS: Final = 8
"""Names below an axis of time: more are not read."""

DASHES: Final = 5
"""Dashes of lines in the style sheet; colours alone do not tell lines apart."""


def bars(rows: Sequence[tuple[str, float, str, str]], title: str) -> Markup:
    """Draw horizontal bars, each with its name before and its value behind it.

    Parameters
    ----------
    rows
        (name, value, the value in words, class of the bar).
    title
        What the drawing is called.
    """
    most = max([value for _, value, _, _ in rows] + [1.0])
    left = 16.0 + max([svg.text_width(svg.shortened(row[0], 130)) for row in rows] + [0.0])
    behind = 12.0 + max([svg.text_width(row[2]) for row in rows] + [0.0])

    def draw(width: int, class_: str) -> Markup:
        top, step, right = 8.0, 25.0, width - behind
        parts = []
        for i, (name, value, words, shade) in enumerate(rows):
            y = top + i * step
            size = max(value / most * (right - left), 1.0)
            parts += [
                svg.label(left - 8, y + 13, svg.shortened(name, left - 16), "end", "name"),
                svg.rect(left, y + 2, size, 15, shade),
                svg.label(left + size + 6, y + 13, words, "start"),
            ]
        return svg.figure(width, int(top + len(rows) * step + 10), title, parts, class_)

    return svg.across_half(draw)


def stroke(names: Sequence[str], name: str) -> Markup:
    """Return the piece of line that stands for one of several names in a legend."""
    return svg.key(curve_class(list(names).index(name)))


def curve_class(number: int) -> str:
    """Return the class of the `number`-th line: its colour and its dashes."""
    return f"curve c{number % 9} d{number % DASHES}"


def rates_plot(
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    title: str,
    x_title: str,
    y_title: str,
    *,
    logarithmic: bool = True,
    below: bool = False,
) -> Markup:
    """Draw lines whose both axes are rates between 0 and 1.

    Parameters
    ----------
    curves
        (class, points by x).
    logarithmic
        Whether the lower axis is logarithmic and begins at `LOWEST_RATE`.
    below
        Whether a diagonal is drawn below the lines.
    """
    decades = round(-math.log10(LOWEST_RATE))

    def place(rate: float) -> float:
        if not logarithmic:
            return rate
        return 1 + math.log10(max(rate, LOWEST_RATE)) / decades

    def draw(width: int, class_: str) -> Markup:
        left, right, top, bottom = 52.0, width - 14.0, 30.0, 272.0

        def point(x: float, y: float) -> tuple[float, float]:
            across, up = min(max(place(x), 0.0), 1.0), min(max(y, 0.0), 1.0)
            return left + across * (right - left), bottom - up * (bottom - top)

        parts = [svg.label(0, 12, y_title, "start")]
        if below:
            parts.append(svg.line(left, bottom, right, top, "grid"))
        for i in range(6):
            y = bottom - i / 5 * (bottom - top)
            parts.append(svg.line(left, y, right, y, "grid"))
            parts.append(svg.label(left - 8, y + 4, units.target(i / 5), "end"))
        rates = [10.0**-k for k in range(decades, -1, -1)] if logarithmic else [
            i / 5 for i in range(6)
        ]  # fmt: skip
        ticks = [(point(rate, 0)[0], units.target(rate)) for rate in rates]
        parts += [
            svg.line(left, bottom, right, bottom, "axis"),
            *svg.marks(ticks, right, bottom),
            svg.label((left + right) / 2, bottom + 38, x_title),
        ]
        for shade, curve in curves:
            # What lies left of the axis is drawn as one point, not as a line straight up.
            first = sum(x <= LOWEST_RATE for x, _ in curve) - 1 if logarithmic else 0
            shown = [point(x, y) for x, y in curve[max(first, 0) :]]
            if len(shown) == 1:  # a line needs two points
                shown.append((min(shown[0][0] + 3, right), shown[0][1]))
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
            if points:
                parts.append(svg.element("polyline", points=points, class_=shade))
        return svg.figure(width, 318, title, parts, class_)

    return svg.across_half(draw)


def time_grid(first_ns: int, last_ns: int, steps: int) -> tuple[int, int, int]:
    """Return start, step (ns) and number of at most `steps` + 1 bins that hold the span."""
    span = max(last_ns - first_ns, 1)
    step = next((step for step in STEPS_NS if span / step <= steps), -(-span // steps))
    start = first_ns // step * step
    return start, step, int((last_ns - start) // step) + 1


def time_axis(
    start_ns: int, step_ns: int, count: int, left: float, right: float, y: float
) -> list[Markup]:
    """Draw at most `MOST_TICKS` ticks at round times, as many as there is room for."""
    span = count * step_ns
    room = svg.text_width(units.clock(start_ns, span)) + 20
    fitting = min(max(int((right - left) / room), 1), MOST_TICKS)
    every = next((step for step in STEPS_NS if step * fitting >= span), -(-span // fitting))
    first = -(-start_ns // every) * every
    places = [
        (left + (at - start_ns) / span * (right - left), units.clock(at, span))
        for at in range(first, start_ns + span + 1, every)
    ]
    if len(places) < 2:  # one name tells no scale
        places = [(left, units.clock(start_ns, span)), (right, units.clock(start_ns + span, span))]
    return svg.marks(places, right, y)
