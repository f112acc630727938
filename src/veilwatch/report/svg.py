"""A few strokes of SVG: elements, scales and ticks. Colours live in the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from markupsafe import Markup, escape

WIDE: Final = 1056
MEDIUM: Final = 660
HALF: Final = 500
NARROW: Final = 340
"""Widths that a drawing is made in, CSS pixels. The style sheet shows the one that fits the window
(classes `wide`, `medium`, `half`, `narrow`), so that the text in it stays as large as the text
around it: a drawing that shrinks with the window cannot be read on a telephone."""

LETTER: Final = 7.0
"""About how wide one digit or letter of an axis is, at 12 pixels."""


def element(name: str, content: str = "", **attributes: object) -> Markup:
    """Return one element; `content` is escaped unless it is `Markup` already.

    Attribute names are written with `-` for `_` (`class_` is `class`), floats with at most two
    places: finer is not seen and only makes the page larger.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")  # noqa: S704 - all escaped


def join(parts: Sequence[Markup]) -> Markup:
    """Return the parts one after another."""
    return Markup("").join(parts)


def figure(
    width: int,
    height: int,
    label: str,
    parts: Sequence[Markup],
    class_: str,
    *,
    stretched: bool = False,
) -> Markup:
    """Return a whole drawing that names itself to screen readers.

    It scales with its place, or is stretched to it: then text in it would be out of shape.
    """
    stretch = {"preserveAspectRatio": "none"} if stretched else {}
    return element(
        "svg",
        join(parts),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        class_=class_,
        **stretch,
    )


def across_page(draw: Callable[[int, str], Markup]) -> Markup:
    """Return a drawing as wide as the page, once for each width of window.

    Parameters
    ----------
    draw
        Draws in a given width; the second argument is the class of the drawing.
    """
    sizes = ((WIDE, "plot wide"), (MEDIUM, "plot medium"), (NARROW, "plot narrow"))
    return join([draw(width, class_) for width, class_ in sizes])


def across_half(draw: Callable[[int, str], Markup]) -> Markup:
    """Return a drawing for one of two columns, and once more for a narrow window."""
    return join([draw(HALF, "plot half"), draw(NARROW, "plot narrow")])


def marks(places: Iterable[tuple[float, str]], right: float, y: float) -> list[Markup]:
    """Return ticks below an axis with their names, those left out that would run into another.

    Parameters
    ----------
    places
        (x, name), from left to right.
    right
        End of the axis; no name stands out of the drawing.
    y
        Height of the axis.
    """
    parts: list[Markup] = []
    end = -math.inf
    for x, name in places:
        width = text_width(name)
        begin = max(min(x - width / 2, right + 6 - width), 0.0)
        if begin < end:
            continue
        end = begin + width + 8
        parts.append(line(x, y, x, y + 4, "axis"))
        parts.append(label(begin + width / 2, y + 18, name))
    return parts


def text_width(text: str) -> float:
    """Return about how wide a name is in a drawing; full-width characters count twice."""
    return LETTER * sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)


def shortened(name: str, width: float) -> str:
    """Return a name that fits a width, its end replaced where it is too long."""
    if text_width(name) <= width:
        return name
    kept = name
    while kept and text_width(kept) + LETTER > width:
        kept = kept[:-1]
    return kept + "…"


def rect(x: float, y: float, width: float, height: float, class_: str, title: str = "") -> Markup:
    """Return a rectangle, with a tooltip where `title` is given."""
    tip = element("title", title) if title else ""
    return element("rect", tip, x=x, y=y, width=width, height=height, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: float, y: float, content: str, anchor: str = "middle", class_: str = "tick") -> Markup:
    """Return text that starts, ends or has its middle at `x`."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def key(class_: str) -> Markup:
    """Return a piece of a line, to stand before its name in a legend."""
    stroke = element("polyline", points="1,5 25,5", class_=class_)
    return element("svg", stroke, viewBox="0 0 26 10", aria_hidden="true", class_="stroke")


def ticks(high: float, count: int = 4) -> list[float]:
    """Return about `count` round values from 0 up to at least `high`."""
    if high < 1e-9:  # nothing that could be seen
        return [0.0, 1.0]
    raw = high / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    return [i * step for i in range(math.ceil(high / step - 1e-9) + 1)]


def count_ticks(high: int, count: int = 4) -> list[float]:
    """Return ticks like `ticks`, whole numbers only."""
    if high <= count:
        return [float(i) for i in range(max(high, 1) + 1)]
    return sorted({float(math.ceil(value)) for value in ticks(high, count)})


def decades(high: float) -> list[float]:
    """Return 1, 10, 100 … up to the first that is at least `high`."""
    return [10.0**i for i in range(max(math.ceil(math.log10(max(high, 1))), 1) + 1)]


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
