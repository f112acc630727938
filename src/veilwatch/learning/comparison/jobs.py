"""One detector under one fold of one split: trained, judged, measured, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.files import replacing
from veilwatch.jit import source_hash
from veilwatch.learning.comparison.copies import copied_captures
from veilwatch.learning.comparison.memory import PeakMemory
from veilwatch.learning.comparison.plan import Split, make_split
from veilwatch.learning.comparison.robust import original_captures
from veilwatch.learning.detectors import DETECTORS, Detector, DetectorSettings
from veilwatch.learning.detectors.ensemble import MEMBERS, measure_scale
from veilwatch.learning.evaluation.labelled import read_labels
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.statistics import STATISTICS
from veilwatch.learning.training.units import Units, read_units
from veilwatch.schema.features import FeatureFrame, FeatureSchema
from veilwatch.schema.flows import FlowTable

METADATA: Final = "metadata"
"""Not a detector: LightGBM on the shortcuts of `statistics` alone (ports, TTL, windows, hour …).
What it tells apart, the laboratory tells apart and not the threat."""

TIMED_ROWS: Final = 20_000
"""Most units whose scoring is timed once more by itself, so that caches are warm."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked for.

    Attributes
    ----------
    manifest
        Path of the corpus.
    detector, split, fold
        Who is judged, and by what.
    folds, seed, threads
        As the user chose them.
    shortcuts, keep_background
        As in training.
    trials
        Manifest of changed captures to judge as well (`veilwatch.learning.comparison.robust`),
        empty for none. Its folder is named after what it holds.
    """

    manifest: str
    detector: str
    split: str
    fold: int
    folds: int
    seed: int
    threads: int
    shortcuts: bool
    keep_background: bool
    trials: str = ""

    def key(self, corpus: str) -> str:
        """Return what the result is filed under: everything that could change it."""
        parts = {k: v for k, v in asdict(self).items() if k not in ("manifest", "threads")}
        parts["trials"] = Path(self.trials).parent.name
        if self.detector != METADATA and (code := DETECTORS.code_version(self.detector)):
            parts["code"] = code  # of another package, which `code_hash` does not read
        text = json.dumps([parts, corpus, source_hash(), code_hash(LEARNS)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    rows
        int64, the units that were judged, shape (judged,).
    score
        float64, their scores, shape (judged,).
    facts
        `train_seconds`, `train_cpu_seconds`, `peak_memory` (bytes), `trained_units`,
        `units_per_second`, `bytes`; `importance` by feature where the detector knows it; `scale`
        of a detector that the ensemble hears.
    kept_rows, kept_score
        The same of units that were kept from learning to choose thresholds, shape (kept,).
    trial_rows, trial_score
        The same of the units of changed captures, shape (tried,).
    """

    rows: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    facts: dict[str, Any]
    kept_rows: npt.NDArray[np.int64]
    kept_score: npt.NDArray[np.float64]
    trial_rows: npt.NDArray[np.int64]
    trial_score: npt.NDArray[np.float64]


def corpus_hash(corpus: Corpus) -> str:
    """Return a hash over what was labelled how."""
    rows = [
        (
            *(corpus.hashes[e.name], e.label, e.family, e.group, e.publisher, e.source_repo),
            *(e.capture_start, e.malicious_endpoints),
        )
        for e in corpus.entries
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def run_job(job: Job, target: Path) -> Path:
    """Do a job and file its result under `target`; what lies there already is kept."""
    if target.is_file():
        return target
    corpus = _corpus(job.manifest)
    units = _units(job.manifest, job.detector, job.shortcuts)
    labels = units.labels
    split = make_split(job.split, corpus.entries, folds=job.folds, seed=job.seed)
    fold = split.unit_folds(labels.capture, job.seed)
    rows = np.flatnonzero(fold == job.fold)
    known = (fold >= 0) & split.learned_from(fold, job.fold)
    if len(split.fold):
        copies = copied_captures(corpus, split.fold == job.fold)
        known &= ~copies[labels.capture]
    kept = split.kept_for_thresholds(corpus.entries, job.fold, job.seed)[labels.capture] & known
    learned = np.flatnonzero(known & ~kept & ~units.left_out(job.seed))
    training = units.training_set(corpus, job.seed, keep_background=job.keep_background)
    training = training.take(learned)
    detector = DETECTORS["lightgbm" if job.detector == METADATA else job.detector]()
    memory = PeakMemory()
    wall, cpu = time.perf_counter(), time.process_time()
    detector.fit(training, DetectorSettings(seed=job.seed, threads=job.threads))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    score = detector.predict_proba(units.features.take(rows))
    with tempfile.TemporaryDirectory() as folder:
        size = sum((Path(folder) / name).stat().st_size for name in detector.save(Path(folder)))
    facts: dict[str, Any] = {
        "train_seconds": round(wall, 3),
        "train_cpu_seconds": round(cpu, 3),
        "peak_memory": memory.peak(),
        "trained_units": len(learned),
        "units_per_second": _rate(detector, units.features.take(rows[:TIMED_ROWS])),
        "bytes": size,
    }
    if job.detector in MEMBERS:
        scale = measure_scale(detector.predict_proba(training.features), training)
        facts["scale"] = scale.model_dump()
    importance = getattr(detector, "importance", None)
    if importance is not None:
        names = units.features.schema.names
        facts["importance"] = dict(zip(names, np.round(importance(), 6).tolist(), strict=True))
    kept_rows = np.flatnonzero(kept)
    tried, trial_score = _try(job, detector, split)
    with replacing(target) as stream:
        np.savez(
            stream,
            rows=rows,
            score=score,
            facts=np.array(json.dumps(facts)),
            kept_rows=kept_rows,
            kept_score=detector.predict_proba(units.features.take(kept_rows)),
            trial_rows=tried,
            trial_score=trial_score,
        )
    return target


def _try(
    job: Job, detector: Detector, split: Split
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Judge the changed captures of the fold that the detector never saw."""
    if not job.trials:
        return np.zeros(0, np.intp), np.zeros(0)
    # Folds of one detector follow each other: the changed captures are read once for all of them.
    trials = _corpus_of_trials(job.trials)
    units = _units_of_trials(job.trials, job.detector, job.shortcuts)
    fold = split.fold[original_captures(trials)]
    rows = np.flatnonzero(fold[units.labels.capture] == job.fold)
    return rows, detector.predict_proba(units.features.take(rows))


def read_outcome(path: Path) -> Outcome:
    """Read what `run_job` filed."""
    with np.load(path, allow_pickle=False) as file:
        return Outcome(
            file["rows"].astype(np.int64),
            file["score"].astype(np.float64),
            json.loads(str(file["facts"])),
            file["kept_rows"].astype(np.int64),
            file["kept_score"].astype(np.float64),
            file["trial_rows"].astype(np.int64),
            file["trial_score"].astype(np.float64),
        )


def units_of(corpus: Corpus, detector: str, *, shortcuts: bool) -> Units:
    """Return the units that a detector, or the metadata gate, judges."""
    if detector != METADATA:
        return read_units(corpus, detector, shortcuts=shortcuts)
    # The lengths and gaps of single packets are shortcuts too, but no metadata: they also show what
    # was said, and a model of them would blame the place for it.
    features = compute_features(FlowTable(corpus.flows), (STATISTICS.name,), shortcuts=True)
    specs = features.schema.features
    columns = [k for k, spec in enumerate(specs) if spec.shortcut]
    schema = FeatureSchema(METADATA, 1, tuple(specs[k] for k in columns))
    values = np.ascontiguousarray(features.values[:, columns])
    return Units(FeatureFrame(schema, values, features.keys), read_labels(corpus))


def _rate(detector: Any, features: FeatureFrame) -> float:
    """Return the units a second that a warm detector scores."""
    began = time.perf_counter()
    detector.predict_proba(features)
    return round(len(features) / max(time.perf_counter() - began, 1e-9), 1)


@lru_cache(maxsize=1)
def _corpus(manifest: str) -> Corpus:
    return load_corpus(Path(manifest), workers=1)


@lru_cache(maxsize=1)
def _units(manifest: str, detector: str, shortcuts: bool) -> Units:
    return units_of(_corpus(manifest), detector, shortcuts=shortcuts)


@lru_cache(maxsize=1)
def _corpus_of_trials(manifest: str) -> Corpus:
    return load_corpus(Path(manifest), workers=1)


@lru_cache(maxsize=1)
def _units_of_trials(manifest: str, detector: str, shortcuts: bool) -> Units:
    return units_of(_corpus_of_trials(manifest), detector, shortcuts=shortcuts)


LEARNS: Final = (
    *("corpus", "learning/features", "learning/detectors"),
    *("learning/evaluation/labelled.py", "learning/evaluation/splits.py"),
    *("learning/training/units.py", "learning/training/weights.py"),
    *(f"learning/comparison/{name}.py" for name in ("copies", "jobs", "perturb", "plan", "robust")),
)
"""Code that learns, that scores, and that chooses what is learned from. What only
reads the scores may change and leave them valid."""


@lru_cache(maxsize=2)
def code_hash(places: tuple[str, ...]) -> str:
    """Return a hash over code, given as files and folders below the package."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for place in places:
        files = [root / place] if place.endswith(".py") else sorted((root / place).rglob("*.py"))
        for path in files:
            digest.update(path.read_bytes())
    return digest.hexdigest()
