"""What other programs call: captures to flows, features, alerts; a corpus to models, figures.

Each function takes plain values, loads what it needs when it is called, and raises `VeilwatchError`
for what the caller can mend. What there is to know of a result that was computed all the same is
reported to the `progress` that the caller hands in; without one it is a `VeilwatchWarning`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from veilwatch.errors import TrainingError, VeilwatchWarning
from veilwatch.files import BOXED_MODEL
from veilwatch.progress import Progress, Silent

if TYPE_CHECKING:
    import polars as pl

    from veilwatch.corpus.catalogue import Corpus
    from veilwatch.learning.comparison import Comparison
    from veilwatch.learning.detectors import Detector, DetectorSettings
    from veilwatch.learning.models import Model
    from veilwatch.runs import Detection, Evaluation
    from veilwatch.schema.features import FeatureFrame

Captures = str | Path | Sequence[str | Path]
"""Capture files (pcap, pcapng, also gzip or zstd), globs, folders, one or several; several are read
as one, in time order."""

CorpusSource = str | Path  # of a manifest

SPLITS: Final = ("source", "group", "flow")
"""What `evaluate` can hold out."""


class FlowOptions(TypedDict, total=False):
    """How captures become flows; all of it may be left out.

    Attributes
    ----------
    idle_timeout_s
        A flow ends after so long a silence, 120 s.
    active_timeout_s
        A longer flow is cut into records of so long, 1800 s.
    max_flows
        Most live flows; beyond it the oldest are ended.
    gtp_ports
        UDP ports at which GTP-U is looked for beside 2152.
    subscriber_key_file
        Secret key of subscribers' pseudonyms, at least 32 bytes, readable by its owner only.
        Without one pseudonyms last one call.
    """

    idle_timeout_s: float
    active_timeout_s: float
    max_flows: int
    gtp_ports: Sequence[int]
    subscriber_key_file: str | Path


class _Warnings(Silent):
    def note(self, message: str) -> None:
        """Warn of it."""
        warnings.warn(message, VeilwatchWarning, stacklevel=2)


_WARNINGS: Final = _Warnings()


def read_flows(
    captures: Captures, *, progress: Progress | None = None, **options: Unpack[FlowOptions]
) -> pl.DataFrame:
    """Return every flow of captures as one table; for captures whose flows fit into memory.

    Returns
    -------
    polars.DataFrame
        One row a flow; docs/flows.md explains the columns. `source` is the position of the capture
        in the order in which they were opened.

    Raises
    ------
    CaptureError
        If something cannot be opened, or is no capture. One that is cut gives what it holds and a
        warning.
    """
    import polars as pl

    return pl.concat(iter_flows(captures, progress=progress, **options))


def iter_flows(
    captures: Captures, *, progress: Progress | None = None, **options: Unpack[FlowOptions]
) -> Iterator[pl.DataFrame]:
    """Yield the flows of captures in tables of about 16,000, as they end; at least one table.

    Memory follows the flows that are alive and not the size of the captures.

    Raises
    ------
    CaptureError
        As `read_flows`, at the first table.
    """
    from veilwatch.traffic.pipeline import FlowReader

    listener = _ready(progress)
    with FlowReader(captures, **_reading(**options), progress=listener) as reader:
        for table in reader:
            yield table.frame


def compute_features(
    flows: pl.DataFrame,
    sets: str | Sequence[str] = ("statistics", "sequence"),
    *,
    shortcuts: bool = False,
) -> FeatureFrame:
    """Compute what a detector sees of flows, or of the host windows that they make.

    Parameters
    ----------
    flows
        What `read_flows` gives, or part of its rows; further columns do not matter.
    sets
        Feature sets side by side: `statistics`, `sequence`, `packets`, `flowpic`; or `host_window`
        alone. docs/features.md explains each feature.
    shortcuts
        Whether features that tell the place rather than the threat take part (ports, TTL …).

    Returns
    -------
    FeatureFrame
        With `to_polars()`, `to_pandas()`, `to_numpy()`, and `schema.names`.

    Raises
    ------
    VeilwatchError
        If a set is unknown, sets are of several units, or a column of the flows is missing.
    """
    from veilwatch.learning.features import compute_features
    from veilwatch.schema.flows import FlowTable

    names = (sets,) if isinstance(sets, str) else tuple(sets)
    return compute_features(FlowTable(flows).check(), names, shortcuts=shortcuts)


def load_model(folder: str | Path) -> Model:
    """Read a model that `save_model` or `veilwatch train` wrote.

    Nothing in a model is executed; what was changed after training is refused.

    Raises
    ------
    ModelError
        If it is missing, damaged, or made for other features.
    """
    from veilwatch.learning.models import load_model

    return load_model(Path(folder))


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a model into a folder, whole or not at all; an older model there is replaced.

    Raises
    ------
    OutputError, ModelError
        If it cannot be written, or the folder holds something that is no model.
    """
    from veilwatch.learning.models import save_model

    return save_model(Path(folder), model)


def detect(
    captures: Captures,
    model: Model | str | Path | None = None,
    *,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **options: Unpack[FlowOptions],
) -> Detection:
    """Score captures: flows, hosts, alerts.

    Parameters
    ----------
    model
        A model of flows, or its folder; None for the model that ships with the package.
    output
        Folder for what `veilwatch detect` writes: `eve.json`, `flows.parquet` with every column,
        `report.html`, `summary.json`; files of these names there are replaced. None writes nothing.

    Returns
    -------
    Detection
        With `flows`, `hosts`, `alerts`, and `report(path)`, which writes the page.

    Raises
    ------
    CaptureError, ModelError, OutputError
        If something cannot be read, judged or written.
    """
    from veilwatch.runs import run_detection

    listener = _ready(progress)
    return run_detection(
        captures,
        _model(model),
        None if output is None else Path(output),
        **_reading(**options),
        progress=listener,
    )


def load_corpus(
    manifest: CorpusSource, *, workers: int = 1, progress: Progress | None = None
) -> Corpus:
    """Read labelled captures: a manifest (docs/evaluation.md) and the flows of what it names.

    Flows are kept in the cache: a second call, also of another process, reads no packet again.

    Parameters
    ----------
    workers
        Processes that read captures; 0 takes every core. With more than one a script runs this
        behind `if __name__ == "__main__":`, because each of them imports the script.

    Raises
    ------
    CorpusError
        If the manifest, or a capture that it names, cannot be used. A capture that is cut gives
        what it holds and a warning.
    """
    from veilwatch.corpus.catalogue import load_corpus

    listener = _ready(progress)
    corpus = load_corpus(Path(manifest), workers=workers or None, progress=listener)
    for name, fault in corpus.faults.items():
        listener.note(f"{name}: {fault}")
    return corpus


def train(
    corpus: Corpus | CorpusSource,
    *,
    detector: str = "lightgbm",
    target_fpr: float = 0.01,
    folds: int = 5,
    split: Literal["group", "source"] = "group",
    shortcuts: bool = False,
    keep_background: bool = False,
    hosts: bool = True,
    families: bool = True,
    prior: float = 0.001,
    seed: int = 7,
    threads: int = 0,
    parameters: Mapping[str, Any] | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Model:
    """Train a detector on labelled captures and choose its thresholds on folds that it never saw.

    Parameters
    ----------
    corpus
        What `load_corpus` gave, or its manifest.
    detector
        Name of one of ours or of an installed plugin.
    target_fpr
        False-positive rate that thresholds aim at.
    folds, split
        Parts of the corpus, and what stays together in one: a `group` of one source, family and
        day, or a `source`.
    shortcuts
        Whether features that tell the place rather than the threat take part.
    keep_background
        Whether updates, advertising and the like of infected hosts are learned as malicious too.
    hosts
        Whether hosts are decided about by their channels and windows as well, learned on hosts that
        people use, and not by their flows alone.
    families
        Whether the model learns to name malware families.
    prior
        Share of infected hosts where the model will be used.
    seed, threads
        Of everything random; of a training, 0 takes every core.
    parameters
        Values that replace a detector's own.
    name
        Of the model; made from detector and manifest unless given.

    Returns
    -------
    Model
        For `save_model` or `detect`; `manifest.held_out` holds its figures on held-out captures.

    Raises
    ------
    TrainingError, CorpusError
        If nothing honest can be learned from the corpus.
    """
    from veilwatch.learning.training import TrainingOptions, train_model

    _known(split, SPLITS[:2])
    listener = _ready(progress)
    labelled = _corpus(corpus, listener)
    if labelled.manifest is None:
        raise TrainingError(
            "a model names the manifest that it was trained on, and this corpus has none",
            hint="load it with load_corpus",
        )
    options = TrainingOptions(
        detector=detector,
        target_rate=target_fpr,
        folds=folds,
        split=split,
        shortcuts=shortcuts,
        keep_background=keep_background,
        prior=prior,
        hosts=hosts,
        families=families,
        settings=_settings(seed, threads, parameters),
    )
    return train_model(labelled, labelled.manifest, options, name=name, progress=listener)


def evaluate(
    corpus: Corpus | CorpusSource,
    model: Model | str | Path | None = None,
    *,
    split: Literal["source", "group", "flow"] | None = None,
    detector: str = "lightgbm",
    target_fpr: float = 0.01,
    folds: int = 5,
    shortcuts: bool = False,
    keep_background: bool = False,
    seed: int = 7,
    threads: int = 0,
    parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure detection and false-positive rates on labelled captures.

    Parameters
    ----------
    model
        A model, or its folder, that is held against the corpus; captures that it learned from do
        not count.
    split
        Without a model: train and test within the corpus, and hold out whole sources (`source`),
        groups of one source, family and day (`group`), or single flows (`flow`, which flatters).
        The other parameters, as in `train`, are of this.

    Returns
    -------
    Evaluation
        With `figures`, and `report(path)` for a page (`.html`) or the figures (`.json`).

    Raises
    ------
    TrainingError, CorpusError, ModelError
        If there are both a model and a split, or none, or nothing can be measured.
    """
    from veilwatch.learning.training import TrainingOptions
    from veilwatch.runs import run_cross_validation, run_evaluation

    if (model is None) == (split is None):
        raise TrainingError("give either a model or a split")
    if split is not None:
        _known(split, SPLITS)
    listener = _ready(progress)
    trained = None if model is None else _model(model)
    labelled = _corpus(corpus, listener)
    if trained is not None:
        return run_evaluation(labelled, trained)
    assert split is not None
    options = TrainingOptions(
        detector=detector,
        target_rate=target_fpr,
        folds=folds,
        shortcuts=shortcuts,
        keep_background=keep_background,
        settings=_settings(seed, threads, parameters),
    )
    return run_cross_validation(labelled, split, options, progress=listener)


def compare(
    manifest: CorpusSource,
    output: str | Path,
    *,
    detectors: Sequence[str] = (),
    splits: Sequence[str] = (),
    folds: int = 5,
    target_fpr: float = 0.01,
    shortcuts: bool = False,
    keep_background: bool = False,
    changed: int = 40,
    seed: int = 7,
    workers: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Compare detectors under every split, with gates against leaks and shortcuts.

    Parameters
    ----------
    output
        Folder for what `veilwatch compare` writes: page, tables, `comparison.json`. Results of
        single folds are kept there too: a second call trains only what is missing.
    detectors
        Names; empty takes all.
    splits
        Of `source`, `group`, `family`, `time`, `flow`; empty takes all.
    changed
        Captures of each class that are judged again after their traffic was changed (padding, loss,
        jitter …); 0 leaves it out.
    workers
        Processes that train at one time, with a thread each; 0 takes every core. With more than one
        a script runs this behind `if __name__ == "__main__":`, as `load_corpus`.
    folds, target_fpr, shortcuts, keep_background, seed
        As in `train`.

    Raises
    ------
    TrainingError, CorpusError, OutputError
        If nothing can be compared, or the results cannot be written.
    """
    from veilwatch.learning.comparison import SPLITS, CompareOptions
    from veilwatch.runs import run_comparison

    options = CompareOptions(
        detectors=tuple(detectors),
        splits=tuple(splits) or tuple(SPLITS),
        folds=folds,
        seed=seed,
        target_rate=target_fpr,
        shortcuts=shortcuts,
        keep_background=keep_background,
        changed=changed,
        workers=workers or os.cpu_count() or 1,
    )
    return run_comparison(Path(manifest), Path(output), options, progress=_ready(progress))


def check_detector(
    detector: str | type[Detector], settings: DetectorSettings | None = None
) -> None:
    """Run a detector through every rule that detectors have to keep; for authors of plugins.

    Parameters
    ----------
    detector
        Its class, or the name of one that is installed.
    settings
        Settings with which it trains quickly: it is trained some twenty times.

    Raises
    ------
    PluginError
        If it breaks a rule; all that it breaks are named.
    """
    from veilwatch.learning.checks import check_detector

    check_detector(detector, settings)


def build_lab(
    folder: str | Path, *, seed: int = 7, scale: float = 1.0, progress: Progress | None = None
) -> Path:
    """Write emulated labelled captures, to try things on; return their manifest.

    Nothing is sent anywhere. Figures on emulated traffic say nothing about real malware.

    Parameters
    ----------
    scale
        Factor on the number of flows.
    """
    from veilwatch.corpus.lab import build_lab

    return build_lab(Path(folder), seed=seed, scale=scale, progress=progress or _WARNINGS)


def field_capture(
    path: str | Path,
    *,
    seed: int = 11,
    subscribers: int = 60,
    infected: int = 5,
    scale: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Write one emulated capture of a busy link with a few infected subscribers.

    Returns
    -------
    Path
        The table that says who is infected, `<name>.truth.csv`.
    """
    from veilwatch.corpus.lab import field_capture

    return field_capture(
        Path(path),
        seed=seed,
        subscribers=subscribers,
        infected=infected,
        scale=scale,
        progress=progress or _WARNINGS,
    )


def _ready(progress: Progress | None) -> Progress:
    """Return who is told of the work, with the kernels compiled."""
    from veilwatch.traffic.pipeline import warm

    listener: Progress = progress or _WARNINGS
    warm(listener)
    return listener


def _reading(
    *,
    gtp_ports: Sequence[int] = (),
    subscriber_key_file: str | Path | None = None,
    **meter: Any,
) -> dict[str, Any]:
    """Return what `FlowReader` takes; what is no option is a TypeError."""
    from veilwatch.traffic.flow import MeterConfig
    from veilwatch.traffic.subscriber import KeyRing, read_key_file

    unknown = meter.keys() - FlowOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    keys = None if subscriber_key_file is None else read_key_file(Path(subscriber_key_file))
    return {
        "config": MeterConfig(**meter),
        "gtp_ports": tuple(gtp_ports),
        "subscriber_keys": KeyRing(keys),
    }


def _model(model: Model | str | Path | None) -> Model:
    if model is None:
        model = BOXED_MODEL
    return load_model(model) if isinstance(model, str | Path) else model


def _corpus(corpus: Corpus | CorpusSource, progress: Progress) -> Corpus:
    return load_corpus(corpus, progress=progress) if isinstance(corpus, str | Path) else corpus


def _settings(seed: int, threads: int, parameters: Mapping[str, Any] | None) -> DetectorSettings:
    from veilwatch.learning.detectors import DetectorSettings

    return DetectorSettings(seed=seed, threads=threads, parameters=dict(parameters or {}))


def _known(split: str, splits: Sequence[str]) -> None:
    if split not in splits:
        raise TrainingError(f"unknown split {split[:40]!r}", hint=f"known: {', '.join(splits)}")
