"""Naming of families: trees over malicious flows, and a threshold for "none that is known".

The threshold comes from malware that the trees had not seen: in each fold whole families are left
out of learning, and with them some groups of the families that stay. What the trees say of the
first shows how sure they are when they cannot be right, what they say of the second how sure they
are when they can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.detectors.content import carries_content
from veilwatch.learning.detectors.family import (
    EVIDENCE_FLOWS,
    FEATURE_SETS,
    FamilyModel,
    group_evidence,
    name_groups,
    strongest,
)
from veilwatch.learning.evaluation.calibration import conformal_threshold
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.features import compute_features
from veilwatch.learning.models import FamilyCard, FamilyFigures
from veilwatch.learning.models.manifest import MAX_FAMILIES, MAX_FAMILY_NAME
from veilwatch.learning.training.weights import family_weights
from veilwatch.progress import Progress
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

MIN_CAPTURES: Final = 4
"""Captures that a family is learned from: fewer show one infection, not what they share."""

MIN_GROUPS: Final = 2
"""Groups that these come from, so that one can be held out and another be learned from."""

MIN_FAMILIES: Final = 3
"""Families to learn: with one left out, there must be two to tell apart."""

MAX_FLOWS: Final = 200
"""Most flows learned from one capture, the highest-scored ones: a sweep of 80,000 looks alike."""

FOLDS: Final = 5

UNKNOWN_NAMED: Final = 0.1
"""Share of captures of unknown families that may be given a name."""

NO_FAMILY: Final = ("+", "unspecified")
"""What the name of a family holds that is none: two families at once, or nobody knows which."""


@dataclass(frozen=True, slots=True)
class Deal:
    """Who is held out when. Arrays have one entry a capture of the corpus.

    Attributes
    ----------
    names
        Families that can be learned.
    family
        int64, index in `names`; -1 for captures of other families and of none.
    left_out
        int64, fold that leaves out the capture's whole family; -1 where its family is none.
    held_out
        int64, fold that holds out the capture's group while its family is learned; -1 where its
        family cannot be learned.
    """

    names: list[str]
    family: npt.NDArray[np.int64]
    left_out: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]

    @property
    def folds(self) -> int:
        """Number of folds, 0 where nothing can be learned."""
        return min(FOLDS, len(self.names))


def deal_families(entries: Sequence[CaptureEntry], seed: int) -> Deal:
    """Deal families out to folds that leave them out, and their groups to the other folds.

    The families that can be learned come first, the largest of them first, so that folds leave
    out about as much as one another. Groups of one family are spread over folds, so that what
    is held out of a family is never all of it. A group stays whole even if it holds several
    families; of those, only the first is sure to be spread.
    """
    malicious = [k for k, entry in enumerate(entries) if entry.label == "malicious"]
    count = Counter(entries[k].family for k in malicious if _is_family(entries[k].family))
    groups = {
        name: sorted({entries[k].group for k in malicious if entries[k].family == name})
        for name in count
    }
    names = sorted(
        name for name in count if count[name] >= MIN_CAPTURES and len(groups[name]) >= MIN_GROUPS
    )
    names = sorted(sorted(names, key=lambda name: -count[name])[:MAX_FAMILIES])
    none = np.full(len(entries), -1)
    deal = Deal(names, none, none.copy(), none.copy())
    if len(names) < MIN_FAMILIES:
        return Deal([], *(none.copy() for _ in range(3)))
    rng = np.random.default_rng(seed)
    shuffled = sorted(rng.permutation(sorted(count)).tolist(), key=lambda name: -count[name])
    turn = {name: k for k, name in enumerate(sorted(shuffled, key=lambda n: n not in names))}
    fold_of: dict[str, int] = {}
    for name in sorted(names, key=turn.__getitem__):
        for k, group in enumerate(rng.permutation(groups[name]).tolist()):
            fold_of.setdefault(group, (turn[name] + 1 + k % (deal.folds - 1)) % deal.folds)
    for k in malicious:
        name = entries[k].family
        if name in turn:
            deal.left_out[k] = turn[name] % deal.folds
        if name in names:
            deal.family[k] = names.index(name)
            deal.held_out[k] = fold_of[entries[k].group]
    return deal


def _is_family(name: str) -> bool:
    return 0 < len(name) <= MAX_FAMILY_NAME and not any(mark in name for mark in NO_FAMILY)


@dataclass(frozen=True, slots=True)
class _Flows:
    """Some flows of the corpus: their features and, for each, its capture."""

    features: FeatureFrame
    capture: npt.NDArray[np.int64]

    def take(self, chosen: npt.NDArray[np.bool_]) -> _Flows:
        return _Flows(self.features.take(np.flatnonzero(chosen)), self.capture[chosen])


@dataclass(frozen=True, slots=True)
class Judged:
    """What the trees said of captures that they had not learned from, one entry a capture.

    Attributes
    ----------
    named
        int64, likeliest of `Deal.names`; -1 where the capture was not asked about.
    certainty
        float64, how sure that is.
    fold
        int64, the fold.
    """

    named: npt.NDArray[np.int64]
    certainty: npt.NDArray[np.float64]
    fold: npt.NDArray[np.int64]

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Whether each capture was asked about."""
        return self.named >= 0


def train_families(
    corpus: Corpus,
    labels: Labels,
    score: npt.NDArray[np.float64],
    flow_threshold: float,
    settings: DetectorSettings,
    progress: Progress,
) -> tuple[FamilyModel, FamilyCard] | None:
    """Learn to name families and when not to; None where the corpus does not show enough of them.

    Parameters
    ----------
    labels
        Truth of the corpus by flow.
    score
        Score of each flow by detectors that did not learn from its fold, shape (flows,).
    flow_threshold
        Flows from this score on are asked about if they carry content
        (`veilwatch.learning.detectors.content`); the same holds for `veilwatch.detection.scoring`.
    """
    if labels.unit != "flow":
        progress.note("no families are named: the detector does not judge flows")
        return None
    deal = deal_families(corpus.entries, settings.seed)
    if not deal.names:
        progress.note(
            f"no families are named: fewer than {MIN_FAMILIES} have {MIN_CAPTURES} captures in "
            f"{MIN_GROUPS} groups"
        )
        return None
    learned = labels.malicious & ~labels.background & (deal.family >= 0)[labels.capture]
    lessons = _flows(corpus, labels, score, learned, MAX_FLOWS)
    content = corpus.flows.select(carries_content()).to_series().to_numpy()
    asked = labels.malicious & (deal.left_out >= 0)[labels.capture] & (score >= flow_threshold)
    asked &= content
    questions = _flows(corpus, labels, score, asked, EVIDENCE_FLOWS)
    known, unknown = judge_folds(lessons, questions, deal, settings, progress)
    if not unknown.asked.any():
        progress.note("no families are named: the detector raises no capture to try it on")
        return None
    progress.start(f"naming {len(deal.names)} families")
    model = _fit(lessons, deal.family, deal.names, settings)
    return model, FamilyCard(
        names=deal.names,
        ransomware=[name for name in deal.names if _is_ransomware(corpus.entries, name)],
        features=lessons.features.schema.hash,
        threshold=conformal_threshold(unknown.certainty[unknown.asked], UNKNOWN_NAMED),
        target_rate=UNKNOWN_NAMED,
        flow_threshold=flow_threshold,
        captures=len(np.unique(lessons.capture)),
        flows=len(lessons.capture),
        held_out=figures(known, unknown, deal, [entry.family for entry in corpus.entries]),
    )


def _is_ransomware(entries: Sequence[CaptureEntry], family: str) -> bool:
    said = [entry.is_ransomware for entry in entries if entry.family == family]
    return 2 * sum(said) > len(said)


def _flows(
    corpus: Corpus,
    labels: Labels,
    score: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.bool_],
    most: int,
) -> _Flows:
    """Return the highest-scored of the chosen flows of each capture, with their features."""
    rows = np.flatnonzero(chosen)
    rows = np.sort(rows[strongest(score[rows], labels.capture[rows], most)])
    table = FlowTable(corpus.flows[rows])
    return _Flows(compute_features(table, FEATURE_SETS), labels.capture[rows])


def _fit(
    lessons: _Flows,
    family: npt.NDArray[np.int64],
    names: Sequence[str],
    settings: DetectorSettings,
) -> FamilyModel:
    """Learn from flows whose captures are of the families given by capture."""
    label = family[lessons.capture]
    weight = family_weights(lessons.capture, label)
    return FamilyModel.fit(lessons.features, label, weight, names, settings)


def judge_folds(
    lessons: _Flows,
    questions: _Flows,
    deal: Deal,
    settings: DetectorSettings,
    progress: Progress,
) -> tuple[Judged, Judged]:
    """Return what trees say of captures of families they know, and of families they do not."""
    captures = len(deal.family)
    known, unknown = (
        Judged(np.full(captures, -1), np.zeros(captures), np.full(captures, -1)) for _ in range(2)
    )
    for fold in range(deal.folds):
        progress.start(f"naming families, fold {fold + 1} of {deal.folds}")
        stays = (deal.family >= 0) & (deal.left_out != fold) & (deal.held_out != fold)
        here = lessons.take(stays[lessons.capture])
        present = np.unique(deal.family[here.capture])
        if len(present) < 2:
            continue
        among = np.searchsorted(present, deal.family)
        model = _fit(here, among, [deal.names[k] for k in present], settings)
        evidence = group_evidence(
            model.log_probabilities(questions.features), questions.capture, captures
        )
        best, certainty = name_groups(evidence)
        reached = ~np.isnan(evidence[:, 0])
        learned = np.isin(deal.family, present) & (deal.left_out != fold)
        for judged, mine in (
            (known, reached & learned & (deal.held_out == fold)),
            (unknown, reached & (deal.left_out == fold)),
        ):
            judged.named[mine] = present[best[mine]]
            judged.certainty[mine] = certainty[mine]
            judged.fold[mine] = fold
    return known, unknown


def figures(known: Judged, unknown: Judged, deal: Deal, families: Sequence[str]) -> FamilyFigures:
    """Count right names, wrong names and none, each fold at a threshold that the others set.

    Parameters
    ----------
    families
        Family of each capture, shape (captures,).
    """
    limit = np.full(deal.folds, np.inf)
    for fold in range(deal.folds):
        others = unknown.asked & (unknown.fold != fold)
        if others.any():
            limit[fold] = conformal_threshold(unknown.certainty[others], UNKNOWN_NAMED)
    named = known.asked & (known.certainty >= limit[known.fold])
    right = named & (known.named == deal.family)
    silent = unknown.asked & (unknown.certainty < limit[unknown.fold])

    def counts(mine: npt.NDArray[np.bool_]) -> dict[str, int]:
        return {
            "known_captures": int((mine & known.asked).sum()),
            "named_rightly": int((mine & right).sum()),
            "named_wrongly": int((mine & named & ~right).sum()),
            "called_unknown": int((mine & known.asked & ~named).sum()),
            "unknown_captures": int((mine & unknown.asked).sum()),
            "unknown_called_unknown": int((mine & silent).sum()),
        }

    everything = np.ones(len(deal.family), bool)
    return FamilyFigures(
        **counts(everything),
        unknown_families=len({families[k] for k in np.flatnonzero(unknown.asked).tolist()}),
        not_raised=int(((deal.left_out >= 0) & ~unknown.asked).sum()),
        by_family={name: counts(deal.family == k) for k, name in enumerate(deal.names)},
    )
