"""Plots of a comparison, drawn as SVG without a script. Lines differ by colour and by dashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from veilwatch.learning.comparison.document import Comparison, Interval, Level
from veilwatch.report import svg, units
from veilwatch.report.catalogue import Text
from veilwatch.report.charts import curve_class, rates_plot

Curve = Sequence[tuple[float, float]]


def roc(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw detection against the logarithm of the false-positive rate, a line a detector."""
    curves = _curves(comparison, split, level, lambda found: found.roc)
    return rates_plot(curves, "ROC", "false-positive rate", "found")


def precision_recall(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw precision against the share found, a line a detector."""
    curves = _curves(comparison, split, level, lambda found: found.precision_recall)
    return rates_plot(curves, "Precision and recall", "found", "precision", logarithmic=False)


def calibration(comparison: Comparison, split: str, level: str) -> Markup:
    """Draw how often a score comes true, a line a detector; the diagonal is a perfect score."""

    def points(found: Level) -> Curve:
        c = found.calibration
        return [] if c is None else list(zip(c.predicted, c.observed, strict=True))

    curves = _curves(comparison, split, level, points)
    title = "Calibration, classes weighed alike"
    return rates_plot(curves, title, "score", "malicious", logarithmic=False, below=True)


def split_name(split: str, text: Text) -> str:
    """Return what a split holds out, in words."""
    return text(f"split.{split}") if text.has(f"split.{split}") else units.words(split)


def stroke(number: int) -> Markup:
    """Return the piece of line that stands for a detector in the legend."""
    return svg.key(curve_class(number))


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


def bars(comparison: Comparison, level: str, rate: str, text: Text) -> Markup:
    """Draw what each detector finds under each split, with its interval."""
    splits = list(comparison.splits)
    rows = [
        (k, detector.name, split, figure)
        for split in splits
        for k, detector in enumerate(comparison.detectors)
        if (figure := _figure(comparison, k, split, level, rate)) is not None
    ]
    title = f"Found at a false-positive rate of {units.target(float(rate))}"
    beside = 14.0 + max([svg.text_width(name) for _, name, _, _ in rows] + [0.0])

    def draw(width: int, class_: str) -> Markup:
        # Where there is no room beside the bars, names stand above them.
        over = beside > 0.3 * width
        left, right = (0.0 if over else beside), width - 52.0
        y, previous = 12.0, ""
        parts: list[Markup] = []
        for k, name, split, figure in rows:
            if split != previous:
                y += 10
                caption = text("comparison.held_out", split=split_name(split, text))
                parts.append(svg.label(0, y + 11, caption, "start", "tick strong"))
                previous = split
                y += 20
            if over:
                parts.append(svg.label(0, y + 11, name, "start", "name"))
                y += 16
            else:
                parts.append(svg.label(left - 8, y + 11, name, "end", "name"))
            value = figure.value or 0.0
            parts.append(svg.rect(left, y + 2, right - left, 11, "track"))
            parts.append(svg.rect(left, y + 2, value * (right - left), 11, f"bar c{k % 9}"))
            if figure.low is not None and figure.high is not None:
                low, high = (left + v * (right - left) for v in (figure.low, figure.high))
                parts.append(svg.line(low, y + 7.5, high, y + 7.5, "whisker"))
            parts.append(svg.label(right + 8, y + 11, units.rate(value), "start"))
            y += 20 if over else 18
        return svg.figure(width, int(y + 8), title, parts, class_)

    return svg.across_page(draw)


def importance(names: dict[str, float], shown: int = 15) -> Markup:
    """Draw the strongest features of a detector."""
    chosen = sorted(names.items(), key=lambda item: -item[1])[:shown]
    most = max([value for _, value in chosen] + [0.0]) or 1.0
    longest = 16.0 + max([svg.text_width(name) for name, _ in chosen] + [0.0])

    def draw(width: int, class_: str) -> Markup:
        # Where names are long they stand above their bars: a cut one names no feature.
        over = longest > 0.5 * width
        left, right, step = (0.0 if over else longest), width - 60.0, 32.0 if over else 18.0
        parts = []
        for k, (name, value) in enumerate(chosen):
            y = 4.0 + step * k
            if over:
                parts.append(svg.label(0, y + 11, name, "start"))
                y += 14
            else:
                parts.append(svg.label(left - 8, y + 11, name, "end"))
            size = (right - left) * value / most
            parts.append(svg.rect(left, y + 2, size, 11, "bar c0"))
            parts.append(svg.label(left + size + 6, y + 11, units.percent(value), "start"))
        height = int(12 + step * len(chosen))
        return svg.figure(width, height, "Feature importance", parts, class_)

    return svg.across_half(draw)


def pca_map(comparison: Comparison) -> Markup:
    """Draw the flows of the map, benign ones below the others."""
    points = comparison.map
    if not points:
        return Markup("")
    labels = map_labels(comparison)
    xs, ys = [p.x for p in points], [p.y for p in points]

    def place(value: float, values: list[float], size: float) -> float:
        span = (max(values) - min(values)) or 1.0
        return 8 + (value - min(values)) / span * (size - 16)

    ordered = sorted(points, key=lambda p: p.label != "benign")

    def draw(width: int, class_: str) -> Markup:
        height = 430.0 if width > svg.HALF else 300.0
        parts = [
            svg.element(
                "circle",
                cx=place(p.x, xs, width),
                cy=height - place(p.y, ys, height),
                r=3 if width > svg.HALF else 2,
                class_="dot " + ("quiet" if p.label == "benign" else map_class(p.label, labels)),
            )
            for p in ordered
        ]
        return svg.figure(width, int(height), "Flows by their features", parts, class_)

    return svg.across_page(draw)


def map_class(label: str, labels: Sequence[str]) -> str:
    """Return the colour of a family on the map; there are nine."""
    return f"c{(labels.index(label) - 1) % 9}"


def map_labels(comparison: Comparison) -> list[str]:
    """Return what stands on the map, benign first, then families by name."""
    return ["benign", *sorted({point.label for point in comparison.map} - {"benign"})]


def _curves(
    comparison: Comparison, split: str, level: str, of: Callable[[Level], Curve]
) -> list[tuple[str, Curve]]:
    out = []
    for k, detector in enumerate(comparison.detectors):
        result = detector.splits.get(split)
        found = None if result is None else result.levels.get(level)
        curve = [] if found is None else of(found)
        if curve:
            out.append((curve_class(k), curve))
    return out


def _figure(comparison: Comparison, k: int, split: str, level: str, rate: str) -> Interval | None:
    result = comparison.detectors[k].splits.get(split)
    found = None if result is None else result.levels.get(level)
    figure = None if found is None else found.detection_rate_at_fpr[rate]
    return None if figure is None or figure.value is None else figure
