"""The result of the published experiment run again: one typed document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from veilwatch.learning.evaluation.intervals import (
    ClassFigures,
    Proportion,
    class_figures,
    proportion,
)

FORMAT: Final = 2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figures(_Part):
    """Verdicts on captures, and what they say. The published table has benign for positive."""

    malicious_found: int
    malicious_missed: int
    benign_alerted: int
    benign_passed: int
    accuracy: Proportion
    benign: ClassFigures
    malicious: ClassFigures
    false_alarms: Proportion


class Run(_Part):
    """One draw of captures, trained on and judged.

    Attributes
    ----------
    errors
        Captures that were judged wrongly, by name, with their score.
    known_words
        Share of the words in validation captures that training had met.
    """

    seed: int
    figures: Figures
    errors: dict[str, float]
    known_words: float
    seconds: float


class Setting(_Part):
    """One setting of the method over all runs.

    Attributes
    ----------
    parameters
        What it tells the detector.
    shortcuts
        Whether it sees fields that tell the place.
    held_out
        What training and validation do not share: groups (unseen variants) or whole publishers.
    left_out
        Why nothing was run, empty where it was.
    median
        Accuracy of the median run, of two in the middle the lower one, with its own interval.
    together
        The verdicts of all runs added up. Captures recur between runs, so that its intervals are
        narrower than what they are worth; those of single runs are not.
    """

    name: str
    what: str
    parameters: dict[str, Any]
    shortcuts: bool
    held_out: Literal["group", "publisher"]
    left_out: str
    runs: list[Run]
    median: Proportion
    together: Figures


class Worth(_Part):
    """What one field is worth to one setting, on the first run.

    Attributes
    ----------
    alone
        Accuracy with this field and no other, None where time ran out.
    without
        Accuracy with all other fields, None where that was not asked or time ran out.
    """

    field: str
    identifying: bool
    alone: float | None = None
    without: float | None = None


class Ablation(_Part):
    """What each field is worth; `skipped` trainings did not fit into the time."""

    setting: str
    accuracy: float
    worth: list[Worth]
    skipped: int


class Numbers(_Part):
    """Captures of one class.

    Attributes
    ----------
    families
        Captures that are there, by the family or kind that the manifest names.
    groups, publishers
        How many of them there are.
    published
        Captures of the published class in whose place it stands, training and validation.
    """

    name: str
    available: int
    families: dict[str, int]
    groups: int
    publishers: int
    published: tuple[int, int]
    train: int
    validation: int


class Reproduction(_Part):
    """Everything that `veilwatch reproduce header-words` says.

    Attributes
    ----------
    exact
        Whether the numbers are the published ones.
    scale
        Share of the published numbers that was used.
    merged
        Families that stand under one name.
    benign_settings
        Settings, as the manifest has them, of the benign captures that take part; empty for all.
    classes
        Of the published experiment.
    by_publisher
        The same where whole publishers are held out.
    differs
        What is otherwise than in the publication, or could not be known from it.
    """

    format: int = FORMAT
    veilwatch: str
    command: str
    manifest: str
    emulated: bool
    exact: bool
    scale: float
    merged: dict[str, list[str]]
    benign_settings: list[str]
    classes: list[Numbers]
    by_publisher: list[Numbers]
    differs: list[str]
    published: Figures
    settings: list[Setting]
    ablation: list[Ablation]


def median_accuracy(runs: Sequence[Run]) -> Proportion:
    """Return the accuracy of the median run; of two in the middle the lower one.

    Every run judges as many captures, so that runs are ranked by what they got right.
    """
    ranked = sorted((run.figures.accuracy for run in runs), key=lambda found: found.hits)
    return ranked[(len(ranked) - 1) // 2] if ranked else proportion(0, 0)


def figures(found: int, missed: int, alerted: int, passed: int) -> Figures:
    """Return what verdicts say.

    Parameters
    ----------
    found, missed
        Malicious captures that were, and were not, held to be malicious.
    alerted, passed
        Benign captures that were, and were not, held to be malicious.

    Examples
    --------
    >>> published = figures(50, 0, 1, 11)
    >>> round(published.malicious.recall.low, 3), round(published.false_alarms.high, 2)
    (0.929, 0.38)
    """
    return Figures(
        malicious_found=found,
        malicious_missed=missed,
        benign_alerted=alerted,
        benign_passed=passed,
        accuracy=proportion(found + passed, found + missed + alerted + passed),
        benign=class_figures(passed, alerted, missed),
        malicious=class_figures(found, missed, alerted),
        false_alarms=proportion(alerted, alerted + passed),
    )


PUBLISHED: Final = figures(found=50, missed=0, alerted=1, passed=11)
"""The published verdicts: 61 of 62 right, the error a benign capture."""
