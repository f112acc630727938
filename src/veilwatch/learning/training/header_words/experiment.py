"""The published header-word experiment on captures of a corpus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from veilwatch import __version__
from veilwatch.corpus.cache import content_hashes
from veilwatch.corpus.headers import load_headers
from veilwatch.corpus.manifest import CaptureEntry, read_manifest
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.header_words import FRAMEWORKS, HeaderWordsDetector
from veilwatch.learning.detectors.nets.frameworks import require_frameworks
from veilwatch.learning.detectors.words.settings import PUBLISHED as PUBLISHED_SETTING
from veilwatch.learning.features import capture_features
from veilwatch.learning.training.header_words.ablation import Trial, ablate
from veilwatch.learning.training.header_words.differences import differences
from veilwatch.learning.training.header_words.document import (
    PUBLISHED,
    Ablation,
    Figures,
    Numbers,
    Reproduction,
    Run,
    Setting,
    figures,
    median_accuracy,
)
from veilwatch.learning.training.header_words.sampling import (
    Draw,
    SamplingPlan,
    choose_plan,
    draw,
    merged,
    of_settings,
    publisher_plan,
    shrink_to_fit,
)
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.headers import HeaderTable

THRESHOLD: Final = 0.5
"""From which score on a capture is held to be malicious, as published: nothing is calibrated on so
few captures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A setting of the method that is run.

    Attributes
    ----------
    name, what
        For people.
    parameters
        Of the detector.
    shortcuts
        Whether it sees fields that tell the place.
    held_out
        What training and validation do not share.
    """

    name: str
    what: str
    parameters: Mapping[str, Any]
    shortcuts: bool
    held_out: Literal["group", "publisher"] = "group"


SETTINGS: Final = (
    Asked(
        "published",
        "every field's value is a word, the LSTM reads word by word",
        PUBLISHED_SETTING,
        True,
    ),
    Asked(
        "improved, raw",
        "every field's value is a word or unknown, the LSTM reads packet by packet",
        {"values": "raw"},
        True,
    ),
    Asked(
        "improved",
        "values in buckets, addresses and numbers left out, packet by packet",
        {},
        True,
    ),
    Asked(
        "improved, no place",
        "the same without ports, TTL, windows and lengths of bare packets",
        {},
        False,
    ),
    Asked(
        "published, publishers held out",
        "the published setting on captures of authors that training never met",
        PUBLISHED_SETTING,
        True,
        "publisher",
    ),
    Asked(
        "improved, no place, publishers held out",
        "the last improved setting on captures of authors that training never met",
        {},
        False,
        "publisher",
    ),
)


@dataclass(frozen=True, slots=True)
class ReproduceOptions:
    """What the user chooses.

    Attributes
    ----------
    seed
        Of the first run: draws captures and starts everything random.
    repeats
        Runs, each with the next seed.
    scaled
        Whether a corpus too small for the published numbers takes part in proportion.
    merge
        Families that stand under one name, and take part before others.
    benign
        Settings of the benign captures that take part; empty for all.
    ablation_s
        Seconds that the ablation may take; 0 for none.
    threads
        Of training; 0 takes every core.
    """

    seed: int = 7
    repeats: int = 1
    scaled: bool = False
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    benign: Sequence[str] = ()
    ablation_s: float = 0.0
    threads: int = 0


@dataclass(frozen=True, slots=True)
class _Captures:
    """Captures that hold an IP packet."""

    entries: list[CaptureEntry]
    tables: list[HeaderTable]


def reproduce(
    manifest: Path, options: ReproduceOptions, *, command: str = "", progress: Progress = SILENT
) -> Reproduction:
    """Run the published experiment, each setting on the same captures.

    Raises
    ------
    CorpusError
        If the manifest or a capture cannot be used.
    TrainingError
        If PyTorch, onnx or gensim is not installed, or the corpus has too few captures of a class.
    """
    require_frameworks(FRAMEWORKS)
    captures = _read(manifest, options.benign, progress)
    families = merged(captures.entries, options.merge)
    seeds = [options.seed + k for k in range(options.repeats)]
    plan = choose_plan(captures.entries, families, named=list(options.merge), scaled=options.scaled)
    by_group = _draws(captures.entries, plan, seeds, scaled=options.scaled)
    by_publisher, reason = _publishers_apart(captures.entries, seeds, options.scaled, progress)
    settings = [
        _setting(asked, captures, by_group, options, progress)
        if asked.held_out == "group"
        else _setting(asked, captures, by_publisher, options, progress, left_out=reason)
        for asked in SETTINGS
    ]
    plan = by_group.plan
    return Reproduction(
        veilwatch=__version__,
        command=command,
        manifest=str(manifest),
        emulated=any(_emulated(captures.entries[k]) for one in by_group.draws for k in one.train),
        exact=plan.scale == 1,
        scale=plan.scale,
        merged={name: list(items) for name, items in options.merge.items()},
        benign_settings=list(options.benign),
        classes=_numbers(captures.entries, plan),
        by_publisher=_numbers(captures.entries, by_publisher.plan) if by_publisher.draws else [],
        differs=differences(plan, options.merge, options.benign),
        published=PUBLISHED,
        settings=settings,
        ablation=_ablation(captures, by_group.draws[0], options, progress)
        if options.ablation_s
        else [],
    )


@dataclass(frozen=True, slots=True)
class _Draws:
    """The draws of a plan, one for each seed."""

    plan: SamplingPlan
    seeds: Sequence[int]
    draws: Sequence[Draw]


def _draws(
    entries: Sequence[CaptureEntry], plan: SamplingPlan, seeds: Sequence[int], *, scaled: bool
) -> _Draws:
    if scaled:
        plan = shrink_to_fit(entries, plan, seeds)
    return _Draws(plan, seeds, [draw(entries, plan, seed) for seed in seeds])


def _publishers_apart(
    entries: Sequence[CaptureEntry], seeds: Sequence[int], scaled: bool, progress: Progress
) -> tuple[_Draws, str]:
    """Return draws that part publishers; none, and why, where the corpus has too few of them."""
    plan = publisher_plan(entries, scaled=scaled)
    try:
        return _draws(entries, plan, seeds, scaled=scaled), ""
    except TrainingError as error:
        progress.note(f"publishers are not held out: {error.what}")
        return _Draws(plan, [], []), error.what


def _read(manifest: Path, benign: Sequence[str], progress: Progress) -> _Captures:
    entries = of_settings(read_manifest(manifest), benign)
    tables = load_headers(entries, content_hashes(entries), progress=progress)
    kept = [k for k, table in enumerate(tables) if len(table)]
    if len(kept) < len(entries):
        progress.note(f"{len(entries) - len(kept)} captures hold no IP packet and take no part")
    return _Captures([entries[k] for k in kept], [tables[k] for k in kept])


def _emulated(entry: CaptureEntry) -> bool:
    return entry.extra.get("emulated", "").lower() in ("1", "true")


def _numbers(entries: Sequence[CaptureEntry], plan: SamplingPlan) -> list[Numbers]:
    out = []
    for item in plan.classes:
        members = [entries[k] for k in item.rows]
        families = Counter(entry.family or "unnamed" for entry in members)
        out.append(
            Numbers(
                name=item.name,
                available=len(members),
                families=dict(families.most_common()),
                groups=len({entry.group for entry in members}),
                publishers=len({entry.publisher for entry in members}),
                published=item.published,
                train=item.train,
                validation=item.validate,
            )
        )
    return out


def _setting(
    asked: Asked,
    captures: _Captures,
    drawn: _Draws,
    options: ReproduceOptions,
    progress: Progress,
    *,
    left_out: str = "",
) -> Setting:
    runs = []
    for number, (one, seed) in enumerate(zip(drawn.draws, drawn.seeds, strict=True), 1):
        progress.start(f"{asked.name}: run {number} of {len(drawn.draws)}")
        runs.append(_run(asked, captures, one, DetectorSettings(seed, options.threads), progress))
    return Setting(
        name=asked.name,
        what=asked.what,
        parameters=dict(asked.parameters),
        shortcuts=asked.shortcuts,
        held_out=asked.held_out,
        left_out=left_out,
        runs=runs,
        median=median_accuracy(runs),
        together=_together([run.figures for run in runs]),
    )


def _together(parts: Sequence[Figures]) -> Figures:
    return figures(
        sum(part.malicious_found for part in parts),
        sum(part.malicious_missed for part in parts),
        sum(part.benign_alerted for part in parts),
        sum(part.benign_passed for part in parts),
    )


def _run(
    asked: Asked,
    captures: _Captures,
    drawn: Draw,
    settings: DetectorSettings,
    progress: Progress,
) -> Run:
    """Train on one draw and judge its validation captures."""
    began = time.monotonic()
    detector = HeaderWordsDetector()
    training = _training_set(captures, drawn.train, asked.shortcuts)
    parameters = dict(asked.parameters)
    detector.fit(
        training,
        DetectorSettings(settings.seed, settings.threads, parameters),
        progress,
    )
    judged = _training_set(captures, drawn.validate, asked.shortcuts)
    score = detector.predict_proba(judged.features)
    alert = score >= THRESHOLD
    names = [captures.entries[k].name for k in drawn.validate]
    wrong = np.flatnonzero(alert != judged.malicious)
    return Run(
        seed=settings.seed,
        figures=_figures(alert, judged.malicious),
        errors={names[k]: round(float(score[k]), 4) for k in wrong},
        known_words=detector.known_words(judged.features),
        seconds=round(time.monotonic() - began, 1),
    )


def _figures(alert: Any, malicious: Any) -> Figures:
    return figures(
        int((alert & malicious).sum()),
        int((~alert & malicious).sum()),
        int((alert & ~malicious).sum()),
        int((~alert & ~malicious).sum()),
    )


def _training_set(captures: _Captures, rows: Sequence[int], shortcuts: bool) -> TrainingSet:
    """Return captures as a detector learns from them, each worth the same as published."""
    entries = [captures.entries[k] for k in rows]
    features = capture_features(
        [captures.tables[k] for k in rows], ("header_words",), shortcuts=shortcuts
    )
    _, group = np.unique([entry.group for entry in entries], return_inverse=True)
    malicious = np.array([entry.label == "malicious" for entry in entries], bool)
    capture = np.arange(len(rows), dtype=np.int64)
    return TrainingSet(features, malicious, capture, group.astype(np.int64), np.ones(len(rows)))


def _ablation(
    captures: _Captures, drawn: Draw, options: ReproduceOptions, progress: Progress
) -> list[Ablation]:
    """Measure what fields are worth to the two settings that keep values as they are and bucket."""
    until = time.monotonic() + options.ablation_s
    settings = DetectorSettings(options.seed, options.threads)

    def accuracy(asked: Asked) -> float:
        found = _run(asked, captures, drawn, settings, SILENT).figures.accuracy.value
        return 0.0 if found is None else found

    trials = [
        Trial(asked.name, asked.parameters, asked.shortcuts, drop)
        for asked, drop in ((SETTINGS[2], True), (SETTINGS[1], False))
    ]

    def measure(trial: Trial, fields: Sequence[str]) -> float:
        return accuracy(
            Asked(trial.setting, "", {**trial.parameters, "fields": list(fields)}, trial.shortcuts)
        )

    return [ablate(trial, measure, until, progress) for trial in trials]
