"""From the folds of a detector to its results under every split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.comparison.document import Change, Cost, DetectorResult, SplitResult
from veilwatch.learning.comparison.figures import Judged, own_thresholds, split_result
from veilwatch.learning.comparison.hosts import Decided
from veilwatch.learning.comparison.jobs import Outcome, units_of
from veilwatch.learning.comparison.plan import Split
from veilwatch.learning.comparison.robust import changes

Outcomes = Mapping[tuple[str, str, int], Outcome]
"""Results of trainings by detector, split and fold."""

KEPT_IMPORTANCES: Final = 25
"""Features whose importance is shown."""


def _spread(
    size: int,
    parts: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]],
) -> npt.NDArray[np.float64]:
    """Return scores by unit, NaN where none was given, shape (size,)."""
    score = np.full(size, np.nan)
    for rows, given in parts:
        score[rows] = given
    return score


def judged_by_split(
    name: str,
    corpus: Corpus,
    splits: Sequence[Split],
    outcomes: Outcomes,
    *,
    shortcuts: bool,
    seed: int,
) -> dict[str, Judged]:
    """Return by split what one detector said of the units that it never saw."""
    labels = units_of(corpus, name, shortcuts=shortcuts).labels
    size = len(labels.capture)
    out = {}
    for split in splits:
        mine = {k: o for (who, by, k), o in outcomes.items() if (who, by) == (name, split.name)}
        if mine:
            out[split.name] = Judged(
                _spread(size, [(o.rows, o.score) for o in mine.values()]),
                labels,
                split.unit_folds(labels.capture, seed),
                {k: _spread(size, [(o.kept_rows, o.kept_score)]) for k, o in sorted(mine.items())},
            )
    return out


def detector_result(
    name: str,
    corpus: Corpus,
    splits: Sequence[Split],
    outcomes: Outcomes,
    judged: Mapping[str, Judged],
    decided: Mapping[str, Decided],
    trials: Corpus | None,
    notes: list[str],
    *,
    target_rate: float,
    shortcuts: bool,
    seed: int,
) -> DetectorResult:
    """Gather the folds of one detector.

    Parameters
    ----------
    judged, decided
        By split its scores, and what is decided about hosts with them.
    trials
        The changed captures, None where none were judged.
    notes
        Take what had to be left out.
    """
    results: dict[str, SplitResult] = {}
    robustness: dict[str, Change] = {}
    for split in splits:
        mine = {fold: o for (_, by, fold), o in outcomes.items() if by == split.name}
        if not mine:
            continue
        own = judged[split.name]
        try:
            limits = own_thresholds(own, target_rate)
        except TrainingError as error:
            notes.append(f"{name}, split by {split.name}: {error.what} ({error.hint})")
            continue
        results[split.name] = split_result(
            own, corpus.entries, split, limits, decided.get(split.name), seed=seed
        )
        tried = [(o.trial_rows, o.trial_score) for o in mine.values()]
        if trials is not None and any(len(rows) for rows, _ in tried):
            of_trials = units_of(trials, name, shortcuts=shortcuts).labels
            trial_score = _spread(len(of_trials.capture), tried)
            robustness = changes(trials, of_trials, trial_score, split, limits)
    facts = [outcome.facts for outcome in outcomes.values()]

    def mean(key: str) -> float:
        return round(float(np.mean([fact[key] for fact in facts])), 3)

    importances = [fact["importance"] for fact in facts if "importance" in fact]
    importance = {
        feature: float(np.mean([item[feature] for item in importances]))
        for feature in (importances[0] if importances else {})
    }
    strongest = sorted(importance, key=lambda feature: -importance[feature])[:KEPT_IMPORTANCES]
    return DetectorResult(
        name=name,
        unit=next(iter(judged.values())).labels.unit,
        splits=results,
        cost=Cost(
            train_seconds=mean("train_seconds"),
            train_cpu_seconds=mean("train_cpu_seconds"),
            peak_memory=max(fact["peak_memory"] for fact in facts),
            units_per_second=mean("units_per_second"),
            bytes=round(mean("bytes")),
        ),
        importance={feature: round(importance[feature], 5) for feature in strongest},
        robustness=robustness,
    )
