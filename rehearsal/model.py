"""A model that has not seen what is played."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from veilwatch.corpus.catalogue import load_corpus
from veilwatch.corpus.manifest import CaptureEntry, write_manifest
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.models import save_model
from veilwatch.learning.training import TrainingOptions, train_model
from veilwatch.progress import Progress


def train_without(
    entries: Sequence[CaptureEntry],
    manifest: Path,
    held_out: Collection[str],
    out: Path,
    *,
    rounds: int | None,
    progress: Progress,
) -> int:
    """Train on all captures but those of some groups; return on how many.

    Parameters
    ----------
    manifest
        Of the corpus; the one of what was learned is written beside the model.
    rounds
        Rounds of boosting where fewer than usual are wanted, for a quick test.
    """
    learned = [entry for entry in entries if entry.group not in held_out]
    # Paths in a manifest are relative to it, so the shortened one needs a way to the captures.
    folder = out.parent / "learned"
    folder.mkdir(exist_ok=True)
    for top in {Path(entry.name).parts[0] for entry in learned}:
        link = folder / top
        if not link.exists():
            link.symlink_to((manifest.parent / top).resolve())
    shortened = folder / "MANIFEST.csv"
    write_manifest(shortened, learned)
    corpus = load_corpus(shortened, progress=progress)
    settings = DetectorSettings(seed=7)
    options = TrainingOptions(settings=settings)
    if rounds is not None:
        settings = DetectorSettings(seed=7, threads=1, parameters={"num_boost_round": rounds})
        options = TrainingOptions(folds=2, families=False, settings=settings)
    save_model(out, train_model(corpus, shortened, options, progress=progress))
    return len(learned)
