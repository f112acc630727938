"""What a report says of the model, read from its manifest and its evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from veilwatch.report import units
from veilwatch.report.detection import document as doc
from veilwatch.report.evaluation.build import evaluation_of, rate
from veilwatch.schema.scores import ScoreFrame
from veilwatch.schema.text import visible

MAX_FACTS: Final = 24

_SHOWN_ELSEWHERE: Final = frozenset(
    {"name", "prior", "thresholds", "flow_threshold", "host_threshold", "target_fpr", "held_out",
     "evaluation"}
)  # fmt: skip


def model_card(manifest: Mapping[str, Any], scores: ScoreFrame) -> doc.ModelCard:
    """Read the card of a model from its manifest.

    Parameters
    ----------
    manifest
        Any of: `name`; `target_fpr`, the false-positive rate that the thresholds stand for;
        `held_out`, figures on its own held-out split in the form of an evaluation; further
        entries, nested one level at most, are listed as facts.
    scores
        For the thresholds that were in force.
    """
    held_out = manifest.get("held_out")
    return doc.ModelCard(
        name=visible(str(manifest.get("name", manifest.get("detector", "")))),
        facts=tuple(_facts(manifest))[:MAX_FACTS],
        flow_threshold=scores.flow_threshold,
        host_threshold=scores.host_threshold,
        target_fpr=rate(manifest.get("target_fpr")),
        prior=rate(manifest.get("prior")),
        held_out=evaluation_of(held_out) if isinstance(held_out, Mapping) else None,
    )


def _facts(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in manifest.items():
        if key in _SHOWN_ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            inner = [(f"{key}.{name}", item) for name, item in value.items()]
        else:
            inner = [(key, value)]
        for name, item in inner:
            if isinstance(item, bool | int):
                yield visible(name), f"{item:,}" if type(item) is int else str(item)
            elif isinstance(item, str | float) and item != "":
                shown = f"{item:g}" if isinstance(item, float) else units.timestamp(item)
                yield visible(name), visible(shown)
