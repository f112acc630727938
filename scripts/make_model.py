"""Train the model that ships with the package, and write its card.

    python -m scripts.make_model MANIFEST.csv [--check]

The same corpus gives the same bytes: one thread, one seed, and a date that is given. With `--check`
nothing is written; the script fails where the model in the package is another one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scripts.model_card import model_card

from veilwatch.corpus.catalogue import load_corpus
from veilwatch.files import BOXED_MODEL, write_text
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.models import load_model, save_model
from veilwatch.learning.training import TrainingOptions, train_model

DATE = "1796083200"
"""2026-12-01, the date of the corpus."""

OPTIONS = TrainingOptions(detector="lightgbm", settings=DetectorSettings(seed=7, threads=1))


def main() -> None:
    """Train, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    os.environ["SOURCE_DATE_EPOCH"] = DATE
    corpus = load_corpus(args.manifest)
    model = train_model(corpus, args.manifest, OPTIONS, name="the model of the package")
    if args.check:
        with tempfile.TemporaryDirectory() as folder:
            made = save_model(Path(folder) / "model", model)
            if load_model(made).manifest != load_model(BOXED_MODEL).manifest:
                sys.exit("the model of the package is not what this corpus gives")
        return
    save_model(BOXED_MODEL, model)
    card = model_card(load_model(BOXED_MODEL).manifest, corpus.entries)
    write_text(Path("docs/model-card.md"), card)
    size = sum(path.stat().st_size for path in BOXED_MODEL.rglob("*") if path.is_file())
    print(f"{BOXED_MODEL}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
