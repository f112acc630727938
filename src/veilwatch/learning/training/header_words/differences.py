"""What is otherwise here than in the published experiment, said in the result itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from veilwatch.learning.detectors.words.settings import PUBLISHED, word_settings
from veilwatch.learning.detectors.words.steps import MAX_STEPS
from veilwatch.learning.training.header_words.sampling import BENIGN_NAME, SamplingPlan


def differences(
    plan: SamplingPlan, merge: Mapping[str, Sequence[str]], benign: Sequence[str]
) -> list[str]:
    """Return one sentence for each difference.

    Parameters
    ----------
    plan
        Of the published experiment as it was run.
    merge
        Families that stand under one name.
    benign
        Settings of the benign captures; empty for all.
    """
    return [
        *_families(plan, merge),
        _benign(benign),
        "an unseen variant is a capture of another group, which is another day, family or source",
        *_NOT_STATED,
        *([] if plan.scale == 1 else [f"all numbers are {plan.scale:.2f} of the published ones"]),
    ]


def _families(plan: SamplingPlan, merge: Mapping[str, Sequence[str]]) -> list[str]:
    out = ["the captures are not the published ones, and the five families are the corpus' own"]
    for item in plan.classes:
        if item.name == BENIGN_NAME:
            continue
        made = f", made of {', '.join(merge[item.name])}," if item.name in merge else ""
        out.append(
            f"{item.name}{made} stands for the published family of {item.published[0]} captures"
        )
    return out


def _benign(settings: Sequence[str]) -> str:
    which = f"those of {', '.join(settings)}" if settings else "of every kind that the corpus has"
    return f"benign captures are {which}; the published ones are not described"


_SETTING: Final = word_settings(PUBLISHED)

_NOT_STATED: Final = (
    f"of a capture the first {_SETTING.packets} packets that hold IP are read, at most "
    f"{MAX_STEPS:,} words that are not skipped; how many were read is not stated",
    f"dropout of {_SETTING.dropout:g}, batches of {_SETTING.batch} and Adam with a rate of "
    f"{_SETTING.learning_rate:g} are ours: they are not stated",
    f"words of fewer than {_SETTING.min_captures} captures are skipped; what was done with rare "
    "and unseen ones is not stated",
    "the network is PyTorch's, started as Keras starts it",
)
