"""The comparison as tables for other programs: CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from veilwatch.learning.comparison.document import BenignKind, Change, Comparison, Interval
from veilwatch.learning.evaluation.evaluate import CAPTURE
from veilwatch.schema.text import visible

LEVELS: Final = {
    "flow": "all flows",
    "flow_tls": "encrypted flows",
    "host_window": "host windows",
    "channel": "channels",
    "capture": "captures, by units alone",
    "capture_with_windows": "captures, as decided",
    "used_host_x1": "used hosts x1 (merged captures)",
    "used_host_x3": "used hosts x3 (merged captures)",
}
"""Every level that a comparison may have, in the order of tables, and its words."""

SHOWN_KINDS: Final = 40
"""Most kinds of benign traffic in a table for people, those with most false alarms first."""

_COLUMNS: Final = (
    *("detector", "split", "level", "background", "malicious", "benign"),
    *("roc_auc", "roc_auc_low", "roc_auc_high", "average_precision"),
    *("detection_at_0.01", "detection_at_0.01_low", "detection_at_0.01_high"),
    *("detection_at_0.001", "detection_at_0.0001", "supported_false_positive_rate"),
    *("accuracy", "precision_malicious", "recall_malicious", "f1_malicious"),
    *("precision_benign", "recall_benign", "f1_benign", "brier", "calibration_error"),
    *("train_seconds", "units_per_second", "bytes", "peak_memory", "recommended"),
)

_ESCAPES: Final = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def figures_csv(comparison: Comparison) -> str:
    """Return every figure of every detector, split and level, one row each."""
    return _csv(_COLUMNS, _rows(comparison))


def families_csv(comparison: Comparison) -> str:
    """Return how many captures of each family each detector found under each split."""
    return _csv(
        ("detector", "split", "family", "ransomware", "captures", "found"),
        (
            (
                *(detector.name, split, name),
                *(family.is_ransomware, family.captures, round(family.found, 4)),
            )
            for detector in comparison.detectors
            for split, result in detector.splits.items()
            for name, family in result.families.items()
        ),
    )


def false_alarms_csv(comparison: Comparison) -> str:
    """Return how many benign captures of each kind each detector alerted under each split."""
    rows: list[tuple[object, ...]] = []
    for detector in comparison.detectors:
        for split, result in detector.splits.items():
            for kind, count in result.benign_kinds.items():
                row = (CAPTURE, kind, count.captures, count.alerted)
                rows.append((detector.name, split, *row))
            for level, count in result.benign_blends.items():
                rows.append((detector.name, split, level, "", count.captures, count.alerted))
    return _csv(("detector", "split", "level", "kind", "captures", "alerted"), rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


class FalseAlarms(NamedTuple):
    """A row of the table of false alarms.

    Attributes
    ----------
    kind
        Kind of benign captures, or in words the used hosts that all kinds were merged with.
    captures
        How many were judged.
    alerted
        How many each detector alerted; None where it judged none.
    """

    kind: str
    captures: int
    alerted: list[int | None]


def false_alarms(comparison: Comparison, split: str) -> tuple[list[str], list[FalseAlarms]]:
    """Return the detectors judged under a split, and what each alerted by kind.

    Kinds with most false alarms come first, at most `SHOWN_KINDS`; merged captures last.
    """
    judged = [d for d in comparison.detectors if split in d.splits]
    kinds = [d.splits[split].benign_kinds for d in judged]
    blends = [d.splits[split].benign_blends for d in judged]
    named = {name for counts in kinds for name in counts}
    rows = [_false_alarms(visible(kind), kind, kinds) for kind in named]
    rows.sort(key=lambda row: (-max(n or 0 for n in row.alerted), -row.captures, row.kind))
    levels = [name for name in LEVELS if any(name in d for d in blends)]
    merged = [_false_alarms(LEVELS[level], level, blends) for level in levels]
    return [d.name for d in judged], rows[:SHOWN_KINDS] + merged


def _false_alarms(words: str, name: str, counts: Sequence[Mapping[str, BenignKind]]) -> FalseAlarms:
    found = [of.get(name) for of in counts]
    most = max(count.captures for count in found if count)
    return FalseAlarms(words, most, [count.alerted if count else None for count in found])


def robustness_csv(comparison: Comparison) -> str:
    """Return what each detector found of captures after each change of their traffic."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("detector", "change", *Change.model_fields))
    for detector in comparison.detectors:
        for name, change in detector.robustness.items():
            values = change.model_dump().values()
            writer.writerow((detector.name, name, *("" if v is None else v for v in values)))
    return out.getvalue()


def latex(comparison: Comparison) -> str:
    r"""Return two tables for each split, ready for `\input`: figures and false alarms."""
    return "\n".join(
        table(comparison, split)
        for split in comparison.splits
        for table in (_latex_table, _latex_false_alarms)
    )


def _rows(comparison: Comparison) -> Iterator[list[object]]:
    advice = comparison.recommendation
    for detector in comparison.detectors:
        cost = detector.cost
        for split, result in detector.splits.items():
            for kept, levels in (("with", result.levels), ("without", result.without_background)):
                for name, level in levels.items():
                    rates = level.detection_rate_at_fpr
                    calibration = level.calibration
                    yield [
                        *(detector.name, split, name, kept, level.positives, level.negatives),
                        *_whole(level.roc_auc),
                        _round(level.average_precision),
                        *_whole(rates["0.01"]),
                        _round(rates["0.001"].value),
                        _round(rates["0.0001"].value),
                        _round(level.supported_false_positive_rate),
                        _round(level.accuracy),
                        *(
                            _round(value)
                            for side in (level.malicious, level.benign)
                            for value in (side.precision, side.recall, side.f1)
                        ),
                        _round(calibration.brier if calibration else None),
                        _round(calibration.expected_error if calibration else None),
                        *(cost.train_seconds, cost.units_per_second, cost.bytes, cost.peak_memory),
                        detector.name == advice.detector and advice.verdict == "deploy",
                    ]


def _latex_table(comparison: Comparison, split: str) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{_caption(comparison, split)} Malicious is positive; 95\,\% intervals over "
        "captures.}",
        r"\begin{tabular}{llrrrr}",
        r"\hline",
        r"detector & level & AUC & found at 1\,\% FPR & at 0.1\,\% & F1 \\",
        r"\hline",
    ]
    for detector in comparison.detectors:
        result = detector.splits.get(split)
        for name, level in (result.levels if result else {}).items():
            rates = level.detection_rate_at_fpr
            cells = (
                _escape(detector.name),
                LEVELS[name],
                _latex_figure(level.roc_auc),
                _latex_figure(rates["0.01"]),
                _latex_figure(Interval(value=rates["0.001"].value)),
                _latex_figure(Interval(value=level.malicious.f1)),
            )
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\hline", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _latex_false_alarms(comparison: Comparison, split: str) -> str:
    detectors, rows = false_alarms(comparison, split)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_caption(comparison, split)} Benign captures alerted at the detector's own "
        "threshold, by kind of traffic.}",
        rf"\begin{{tabular}}{{lr{'r' * len(detectors)}}}",
        r"\hline",
        " & ".join(["kind", "captures", *map(_escape, detectors)]) + r" \\",
        r"\hline",
    ]
    for row in rows:
        alerted = ("--" if count is None else str(count) for count in row.alerted)
        lines.append(" & ".join([_escape(row.kind), str(row.captures), *alerted]) + r" \\")
    lines += [r"\hline", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _caption(comparison: Comparison, split: str) -> str:
    caption = f"Split by {split}: {comparison.splits[split]}."
    return _escape(f"{caption} Emulated traffic." if comparison.emulated else caption)


def _latex_figure(figure: Interval) -> str:
    if figure.value is None:
        return "--"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _whole(figure: Interval) -> tuple[object, object, object]:
    return _round(figure.value), _round(figure.low), _round(figure.high)


def _round(value: float | None) -> object:
    return "" if value is None else round(value, 5)
