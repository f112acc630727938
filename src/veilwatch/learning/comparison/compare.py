"""Detectors side by side under every split: run, resumed, gathered."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch import __version__
from veilwatch.corpus.cache import leave_quietly
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.errors import TrainingError, VeilwatchError
from veilwatch.files import make_folder
from veilwatch.learning.comparison.assembled import ENSEMBLE, assemble, is_assembled
from veilwatch.learning.comparison.document import (
    Change,
    Comparison,
    Cost,
    DetectorResult,
    Gate,
    SplitResult,
)
from veilwatch.learning.comparison.figures import Judged, own_thresholds, split_result
from veilwatch.learning.comparison.gates import (
    leak_gate,
    random_gap,
    refuse_equal_captures,
    shortcut_gate,
)
from veilwatch.learning.comparison.jobs import (
    METADATA,
    Job,
    Outcome,
    corpus_hash,
    read_outcome,
    run_job,
    units_of,
)
from veilwatch.learning.comparison.landscape import landscape
from veilwatch.learning.comparison.perturb import PERTURBATIONS
from veilwatch.learning.comparison.plan import SPLITS, Split, judged_folds, make_split
from veilwatch.learning.comparison.prevalence import prevalence_note
from veilwatch.learning.comparison.recommend import hardest_split, recommend
from veilwatch.learning.comparison.robust import (
    MANIFEST,
    PER_CLASS,
    changes,
    choose_captures,
    choose_split,
    make_trials,
    trials_key,
)
from veilwatch.learning.detectors import DETECTORS
from veilwatch.learning.evaluation.labelled import require_both_classes
from veilwatch.learning.models.store import WINDOW_DETECTOR
from veilwatch.learning.training.units import known_detector, read_units
from veilwatch.learning.training.windows import takes_windows
from veilwatch.progress import SILENT, Progress

KEPT_IMPORTANCES: Final = 25
"""Features whose importance is shown."""


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
    trained = [n for n in names if n != ENSEMBLE] if is_assembled(names) else names
    corpus = load_corpus(manifest, workers=options.workers, progress=progress)
    refuse_equal_captures(corpus)
    require_both_classes(read_units(corpus, "lightgbm").labels)
    notes = [f"{name}: {fault}" for name, fault in corpus.faults.items()]
    splits = _splits(corpus, options, notes)
    make_folder(results)
    content = corpus_hash(corpus)
    tried = choose_split(splits) if options.changed else None
    chosen = choose_captures(corpus, tried, options.changed, seed=options.seed) if tried else []
    trials = results / f"trials-{trials_key(content, chosen, options.seed)}" / MANIFEST
    jobs = {
        (name, split.name, fold): _job(
            manifest, options, name, split, fold, trials if split is tried else None
        )
        for name in [*trained, METADATA]
        for split in splits
        if name != METADATA or split.name == splits[0].name
        for fold in judged_folds(split, corpus.entries)
    }
    files = {place: results / f"{job.key(content)}.npz" for place, job in jobs.items()}
    changed: Corpus | None = None
    if tried:
        make_trials(corpus, chosen, trials.parent, seed=options.seed, progress=progress)
        # Read here first, so that workers find its flows in the cache.
        changed = load_corpus(trials, workers=options.workers, progress=progress)
    failed = _run([(jobs[place], files[place]) for place in jobs], options.workers, progress)
    for place in [place for place in jobs if files[place] in failed]:
        note = f"{place[0]}, split by {place[1]}: {failed[files[place]]}"
        if note not in notes:
            notes.append(note)
        del jobs[place]
    outcomes = {place: read_outcome(files[place]) for place in jobs}
    if is_assembled(names):
        outcomes |= assemble(outcomes)
    progress.start("figures", len(names) + 1)
    judged = {name: _judged(name, corpus, splits, outcomes, options) for name in [*names, METADATA]}
    made = []
    for name in [*names, METADATA]:
        mine = {place: o for place, o in outcomes.items() if place[0] == name}
        windows = judged.get(WINDOW_DETECTOR, {}) if name in names and takes_windows(name) else {}
        if mine:
            made.append(
                _result(name, corpus, splits, mine, judged[name], windows, options, changed, notes)
            )
        progress.advance()
    metadata = [result for result in made if result.name == METADATA]
    detectors = [result for result in made if result.name != METADATA and result.splits]
    if not detectors:
        raise TrainingError("no detector could be trained", hint="; ".join(notes[:3]))
    gates = [leak_gate(corpus, split) for split in splits if len(split.fold)]
    shortcut: Gate | None = shortcut_gate(metadata[0], detectors) if metadata else None
    notes += [gap for result in detectors if (gap := random_gap(result))]
    notes += [
        "Labels are by capture: background of an infected host counts as malicious, except where "
        "the figures say without background.",
        "At one infected flow in 10,000, a detection rate of 0.95 means a precision of 9 % at a "
        "false-positive rate of 0.001 and of 49 % at 0.0001.",
    ]
    advice = recommend(
        detectors, [*([shortcut] if shortcut else []), *gates], emulated=corpus.emulated
    )
    recommended = next(result for result in detectors if result.name == advice.detector)
    if rare := prevalence_note(recommended, hardest_split(detectors)):
        notes.append(rare)
    malicious = sum(entry.label == "malicious" for entry in corpus.entries)
    return Comparison(
        veilwatch=__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        emulated=corpus.emulated,
        corpus={
            "captures": len(corpus.entries),
            "malicious captures": malicious,
            "benign captures": len(corpus.entries) - malicious,
            "flows": corpus.flows.height,
            "sources": len({entry.source_repo for entry in corpus.entries}),
            "families": len({e.family for e in corpus.entries if e.label == "malicious"}),
            "hash": content[:16],
        },
        folds=options.folds,
        seed=options.seed,
        splits={split.name: SPLITS[split.name] for split in splits},
        detectors=detectors,
        gates=[*([shortcut] if shortcut else []), *gates],
        recommendation=advice,
        changes={name: change.doc for name, change in PERTURBATIONS.items()} if tried else {},
        notes=notes,
        map=landscape(corpus, seed=options.seed),
    )


def _splits(corpus: Corpus, options: CompareOptions, notes: list[str]) -> list[Split]:
    """Make every split that the corpus can fill; say which it cannot."""
    splits = []
    for name in options.splits:
        if name not in SPLITS:
            raise TrainingError(f"unknown split {name!r}", hint=f"known: {', '.join(SPLITS)}")
        try:
            splits.append(make_split(name, corpus.entries, folds=options.folds, seed=options.seed))
        except TrainingError as error:
            notes.append(f"split by {name} left out: {error.what} ({error.hint})")
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


def _run(work: Sequence[tuple[Job, Path]], workers: int, progress: Progress) -> dict[Path, str]:
    """Do what is missing; return why what could not be done could not."""
    missing = [(job, path) for job, path in work if not path.is_file()]
    progress.start(f"{len(missing)} of {len(work)} trainings to do", len(missing))
    failed: dict[Path, str] = {}

    def settle(path: Path, outcome: VeilwatchError | None) -> None:
        if outcome is not None:
            failed[path] = f"{outcome.what} ({outcome.hint})" if outcome.hint else outcome.what
        progress.advance()

    for path, error in _each(missing, min(workers, len(missing))):
        settle(path, error)
    return failed


def _each(
    work: Sequence[tuple[Job, Path]], workers: int
) -> Iterator[tuple[Path, VeilwatchError | None]]:
    if workers <= 1:
        for job, path in work:
            yield path, _attempt(job, path)
        return
    # Spawned, not forked: threads of Polars and of the learners do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=leave_quietly) as pool:
        futures = {pool.submit(_attempt, job, path): path for job, path in work}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker was ended from outside, most likely for want of memory",
                hint="run again with --workers 1: what is done is kept",
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _attempt(job: Job, path: Path) -> VeilwatchError | None:
    try:
        run_job(job, path)
    except VeilwatchError as error:
        return error
    except MemoryError:
        return TrainingError("not enough memory", hint="use fewer workers")
    return None


def _spread(
    size: int,
    parts: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]],
) -> npt.NDArray[np.float64]:
    """Return scores by unit, NaN where none was given, shape (size,)."""
    score = np.full(size, np.nan)
    for rows, given in parts:
        score[rows] = given
    return score


def _judged(
    name: str,
    corpus: Corpus,
    splits: Sequence[Split],
    outcomes: Mapping[tuple[str, str, int], Outcome],
    options: CompareOptions,
) -> dict[str, Judged]:
    """Return by split what one detector said of the units that it never saw."""
    labels = units_of(corpus, name, shortcuts=options.shortcuts).labels
    size = len(labels.capture)
    out = {}
    for split in splits:
        mine = {k: o for (who, by, k), o in outcomes.items() if (who, by) == (name, split.name)}
        if mine:
            out[split.name] = Judged(
                _spread(size, [(o.rows, o.score) for o in mine.values()]),
                labels,
                split.unit_folds(labels.capture, options.seed),
                {k: _spread(size, [(o.kept_rows, o.kept_score)]) for k, o in sorted(mine.items())},
            )
    return out


def _result(
    name: str,
    corpus: Corpus,
    splits: Sequence[Split],
    outcomes: Mapping[tuple[str, str, int], Outcome],
    judged: Mapping[str, Judged],
    windows: Mapping[str, Judged],
    options: CompareOptions,
    trials: Corpus | None,
    notes: list[str],
) -> DetectorResult:
    """Gather the folds of one detector.

    Parameters
    ----------
    judged, windows
        By split its scores, and those of host windows that are heard beside it.
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
        beside = windows.get(split.name)
        if beside is not None and not beside.kept.keys() >= own.kept.keys():
            beside = None  # a fold of the windows failed, which a note says
        try:
            limits = own_thresholds(own, options.target_rate)
        except TrainingError as error:
            notes.append(f"{name}, split by {split.name}: {error.what} ({error.hint})")
            continue
        results[split.name] = split_result(
            own, corpus.entries, split, limits, beside, seed=options.seed
        )
        tried = [(o.trial_rows, o.trial_score) for o in mine.values()]
        if trials is not None and any(len(rows) for rows, _ in tried):
            of_trials = units_of(trials, name, shortcuts=options.shortcuts).labels
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
