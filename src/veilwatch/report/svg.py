"""A few strokes of SVG: elements, scales and ticks. Colours live in the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape


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


def figure(width: int, height: int, label: str, parts: Sequence[Markup], class_: str) -> Markup:
    """Return a whole drawing that scales with its place and names itself to screen readers."""
    return element(
        "svg",
        join(parts),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        class_=class_,
    )


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


def ticks(high: float, count: int = 4) -> list[float]:
    """Return about `count` round values from 0 up to at least `high`."""
    if high <= 0:
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
