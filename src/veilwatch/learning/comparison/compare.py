"""Detectors side by side under every split: run, resumed, gathered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from veilwatch import __version__
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.errors import TrainingError
from veilwatch.files import make_folder
from veilwatch.learning.comparison.assembled import ENSEMBLE, assemble, is_assembled
from veilwatch.learning.comparison.document import (
    Comparison,
    DetectorResult,
)
from veilwatch.learning.comparison.figures import Judged
from veilwatch.learning.comparison.gates import (
    leak_gate,
    random_gap,
    refuse_equal_captures,
    shortcut_gate,
)
from veilwatch.learning.comparison.gather import Outcomes, detector_result, judged_by_split
from veilwatch.learning.comparison.hosts import Decided, decide, takes_decision
from veilwatch.learning.comparison.jobs import (
    METADATA,
    Job,
    corpus_hash,
    read_outcome,
)
from veilwatch.learning.comparison.pca_map import pca_map
from veilwatch.learning.comparison.perturb import PERTURBATIONS
from veilwatch.learning.comparison.plan import SPLITS, Split, judged_folds, make_split
from veilwatch.learning.comparison.prevalence import prevalence_note
from veilwatch.learning.comparison.recommend import hardest_split, recommend
from veilwatch.learning.comparison.robust import (
    MANIFEST,
    PER_CLASS,
    choose_captures,
    choose_split,
    make_trials,
    trials_key,
)
from veilwatch.learning.comparison.workers import run_jobs
from veilwatch.learning.detectors import DETECTORS, DetectorSettings
from veilwatch.learning.evaluation.labelled import require_both_classes
from veilwatch.learning.training.hosts import judges_flows
from veilwatch.learning.training.units import known_detector, read_units
from veilwatch.progress import SILENT, Progress

LIMITS: Final = (
    "Labels are by capture: background of an infected host counts as malicious, except where "
    "the figures say without background.",
    "Used hosts are merged captures: the traffic of benign hosts moved to the address and the time "
    "of a capture. How people use an infected host is emulated by that, not recorded.",
    "At one infected flow in 10,000, a detection rate of 0.95 means a precision of 9 % at a "
    "false-positive rate of 0.001 and of 49 % at 0.0001.",
)
"""What limits every comparison."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What the user chooses.

    Attributes
    ----------
    detectors
        Names; empty takes all.
    splits
        Keys of `SPLITS`.
    folds, seed, target_rate, shortcuts, keep_background
        As in training.
    changed
        Most captures of each class that are also judged after their traffic was changed.
    workers
        Processes that train at one time, each with one thread.
    """

    detectors: Sequence[str] = ()
    splits: Sequence[str] = tuple(SPLITS)
    folds: int = 5
    seed: int = 7
    target_rate: float = 0.01
    shortcuts: bool = False
    keep_background: bool = False
    changed: int = PER_CLASS
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def names(self) -> list[str]:
        """Detectors to compare.

        Raises
        ------
        TrainingError
            If one is unknown or named twice.
        """
        names = list(self.detectors) or list(DETECTORS)
        for name in names:
            known_detector(name)
        if len(set(names)) < len(names):
            raise TrainingError("a detector is named twice", hint="name each once")
        return names


def compare(
    manifest: Path,
    results: Path,
    options: CompareOptions,
    *,
    command: str = "",
    progress: Progress = SILENT,
) -> Comparison:
    """Compare detectors on a labelled corpus.

    Parameters
    ----------
    results
        Folder in which each fold's result is kept: a second run, or one after an interruption,
        trains only what is missing there.

    Raises
    ------
    TrainingError
        If nothing can be compared: one class, no split that the corpus can fill.
    CorpusError
        If one capture stands under two labels.
    """
    names = options.names
    corpus = load_corpus(manifest, workers=options.workers, progress=progress)
    refuse_equal_captures(corpus)
    require_both_classes(read_units(corpus, "lightgbm").labels)
    notes = [f"{name}: {fault}" for name, fault in corpus.faults.items()]
    splits = _splits(corpus, options, notes)
    make_folder(results)
    content = corpus_hash(corpus)
    trials = _trials(corpus, content, splits, results, options, progress)
    outcomes = _train(manifest, corpus, content, splits, trials, results, options, notes, progress)
    judged = {
        name: judged_by_split(
            name, corpus, splits, outcomes, shortcuts=options.shortcuts, seed=options.seed
        )
        for name in [*names, METADATA]
    }
    decided = _decide(corpus, content, splits, judged, results, options, notes, progress)
    made = _results(corpus, splits, outcomes, judged, decided, trials, options, notes, progress)
    metadata = [result for result in made if result.name == METADATA]
    detectors = [result for result in made if result.name != METADATA and result.splits]
    if not detectors:
        raise TrainingError("no detector could be trained", hint="; ".join(notes[:3]))
    gates = [leak_gate(corpus, split) for split in splits if len(split.fold)]
    if metadata and (gate := shortcut_gate(metadata[0], detectors)):
        gates.insert(0, gate)
    notes += [gap for result in detectors if (gap := random_gap(result))]
    notes += LIMITS
    advice = recommend(detectors, gates, emulated=corpus.emulated)
    recommended = next(result for result in detectors if result.name == advice.detector)
    if rare := prevalence_note(recommended, hardest_split(detectors)):
        notes.append(rare)
    return Comparison(
        veilwatch=__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        emulated=corpus.emulated,
        corpus=_numbers(corpus, content),
        folds=options.folds,
        seed=options.seed,
        splits={split.name: SPLITS[split.name] for split in splits},
        detectors=detectors,
        gates=gates,
        recommendation=advice,
        changes={name: change.doc for name, change in PERTURBATIONS.items()} if trials else {},
        notes=notes,
        map=pca_map(corpus, seed=options.seed),
    )


@dataclass(frozen=True, slots=True)
class _Trials:
    """Captures whose traffic was changed, under the split that they are judged by."""

    split: Split
    manifest: Path
    corpus: Corpus


def _trials(
    corpus: Corpus,
    content: str,
    splits: Sequence[Split],
    results: Path,
    options: CompareOptions,
    progress: Progress,
) -> _Trials | None:
    """Write the changed captures and read their flows, so that workers find these in the cache."""
    split = choose_split(splits) if options.changed else None
    if split is None:
        return None
    chosen = choose_captures(corpus, split, options.changed, seed=options.seed)
    key = trials_key(content, chosen, options.seed)
    manifest = results / f"trials-{key}" / MANIFEST
    make_trials(corpus, chosen, manifest.parent, seed=options.seed, progress=progress)
    changed = load_corpus(manifest, workers=options.workers, progress=progress)
    return _Trials(split, manifest, changed)


def _train(
    manifest: Path,
    corpus: Corpus,
    content: str,
    splits: Sequence[Split],
    trials: _Trials | None,
    results: Path,
    options: CompareOptions,
    notes: list[str],
    progress: Progress,
) -> Outcomes:
    """Train every detector on every fold that has no result yet; notes take what failed."""
    names = options.names
    trained = [name for name in names if name != ENSEMBLE] if is_assembled(names) else names
    jobs = {
        (name, split.name, fold): _job(
            manifest,
            options,
            name,
            split,
            fold,
            trials.manifest if trials and trials.split is split else None,
        )
        for name in [*trained, METADATA]
        for split in splits
        if name != METADATA or split.name == splits[0].name
        for fold in judged_folds(split, corpus.entries)
    }
    files = {place: results / f"{job.key(content)}.npz" for place, job in jobs.items()}
    failed = run_jobs([(jobs[place], files[place]) for place in jobs], options.workers, progress)
    for place in [place for place in jobs if files[place] in failed]:
        note = f"{place[0]}, split by {place[1]}: {failed[files[place]]}"
        if note not in notes:
            notes.append(note)
        del jobs[place]
    outcomes = {place: read_outcome(files[place]) for place in jobs}
    return outcomes | assemble(outcomes) if is_assembled(names) else outcomes


JudgedBy = dict[str, dict[str, Judged]]
"""What detectors said, by detector and split."""

DecidedBy = dict[str, dict[str, Decided]]
"""What was decided about hosts, by detector and split."""


def _decide(
    corpus: Corpus,
    content: str,
    splits: Sequence[Split],
    judged: JudgedBy,
    results: Path,
    options: CompareOptions,
    notes: list[str],
    progress: Progress,
) -> DecidedBy:
    """Decide about hosts beside every detector of flows, split by split: parts of one are large."""
    settings = DetectorSettings(seed=options.seed, threads=options.workers)
    decided: DecidedBy = {name: {} for name in judged}
    for split in splits:
        folds = judged_folds(split, corpus.entries)
        scores = {
            name: mine[split.name].score
            for name, mine in judged.items()
            if name != METADATA
            and judges_flows(name)
            and split.name in mine
            and sorted(mine[split.name].kept) == folds  # a note says which fold failed
        }
        if not scores or not takes_decision(split):
            continue
        try:
            found = decide(
                *(corpus, content, split, scores, results, settings, options.target_rate, progress)
            )
        except TrainingError as error:
            notes.append(
                f"split by {split.name}: captures are judged by flows alone: {error.what} "
                f"({error.hint})"
            )
            continue
        for name, hosts in found.items():
            decided[name][split.name] = hosts
    return decided


def _results(
    corpus: Corpus,
    splits: Sequence[Split],
    outcomes: Outcomes,
    judged: JudgedBy,
    decided: DecidedBy,
    trials: _Trials | None,
    options: CompareOptions,
    notes: list[str],
    progress: Progress,
) -> list[DetectorResult]:
    """Gather the folds of each detector, and of the baseline that sees metadata only."""
    progress.start("figures", len(judged))
    made = []
    for name in judged:
        mine = {place: outcome for place, outcome in outcomes.items() if place[0] == name}
        if mine:
            made.append(
                detector_result(
                    name,
                    corpus,
                    splits,
                    mine,
                    judged[name],
                    decided[name],
                    trials.corpus if trials else None,
                    notes,
                    target_rate=options.target_rate,
                    shortcuts=options.shortcuts,
                    seed=options.seed,
                )
            )
        progress.advance()
    return made


def _numbers(corpus: Corpus, content: str) -> dict[str, int | str]:
    malicious = sum(entry.label == "malicious" for entry in corpus.entries)
    return {
        "captures": len(corpus.entries),
        "malicious captures": malicious,
        "benign captures": len(corpus.entries) - malicious,
        "flows": corpus.flows.height,
        "sources": len({entry.source_repo for entry in corpus.entries}),
        "families": len({e.family for e in corpus.entries if e.label == "malicious"}),
        "hash": content[:16],
    }


def _splits(corpus: Corpus, options: CompareOptions, notes: list[str]) -> list[Split]:
    """Make every split that the corpus can fill, the hardest first; say which it cannot."""
    if unknown := [name for name in options.splits if name not in SPLITS]:
        raise TrainingError(f"unknown split {unknown[0]!r}", hint=f"known: {', '.join(SPLITS)}")
    splits: list[Split] = []
    for name in [name for name in SPLITS if name in options.splits]:
        try:
            split = make_split(name, corpus.entries, folds=options.folds, seed=options.seed)
        except TrainingError as error:
            notes.append(f"split by {name} left out: {error.what} ({error.hint})")
            continue
        # Without publishers in the manifest each source is one: nobody trains the same twice.
        same = (s.name for s in splits if len(s.fold) and np.array_equal(s.fold, split.fold))
        if known := next(same, None):
            notes.append(f"split by {name} left out: it holds out what {known} does")
            continue
        splits.append(split)
    if not splits:
        raise TrainingError(
            f"the corpus can fill no split: {notes[-1] if notes else 'none was asked for'}",
            hint="use fewer folds, or add captures",
        )
    return splits


def _job(
    manifest: Path,
    options: CompareOptions,
    name: str,
    split: Split,
    fold: int,
    trials: Path | None,
) -> Job:
    return Job(
        str(manifest.resolve()),
        name,
        split.name,
        fold,
        options.folds,
        options.seed,
        1 if options.workers > 1 else 0,
        options.shortcuts,
        options.keep_background,
        "" if trials is None or name == METADATA else str(trials.resolve()),
    )
