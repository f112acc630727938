"""Gradient-boosted oblivious trees (Prokhorenkova et al., CatBoost, NeurIPS 2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError, OutputError, TrainingError
from veilwatch.extras import from_extra
from veilwatch.files import replacing
from veilwatch.learning.detectors.base import DetectorSettings, Scores, TrainingSet, require_schema
from veilwatch.learning.detectors.evidence import probability
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

with from_extra("catboost", "a model with CatBoost"):
    import catboost

FILE: Final = "catboost.cbm"

MAGIC: Final = b"CBM1"
"""First bytes of CatBoost's own format, which holds numbers and names and nothing that runs."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Largest file read: a thousand trees of depth 10 with 1,000 features take below 20 MB."""

SAMPLED_ROWS: Final = 32
"""Fewer rows than this are all taken for every tree: CatBoost refuses to draw an empty sample."""

PARAMETERS: Final[dict[str, Any]] = {
    "iterations": 200,
    "learning_rate": 0.1,
    "depth": 6,
    "l2_leaf_reg": 5.0,
    "rsm": 0.3,
    "border_count": 127,
    "bootstrap_type": "Bernoulli",
    "subsample": 0.7,
    "random_strength": 1.0,
}
"""Settings that did best with whole sources held out; see docs/evaluation.md."""


class CatBoostDetector:
    """CatBoost on `statistics` and `sequence`, kept in its own binary format."""

    name: ClassVar[str] = "catboost"
    feature_sets: ClassVar[Sequence[str]] = ("statistics", "sequence")
    unit: ClassVar[Unit] = "flow"

    def __init__(self) -> None:
        self._trees: Any = None
        self._content = b""  # of the file that the trees came from, empty for grown ones
        self._schema: FeatureSchema | None = None

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Grow the trees; the same seed and data give the same trees.

        Raises
        ------
        TrainingError
            If flows of one class are missing, or CatBoost refuses a parameter.
        """
        training.require_both_classes()
        chosen = {
            **PARAMETERS,
            **settings.parameters,
            "loss_function": "Logloss",
            "random_seed": settings.seed,
            "thread_count": settings.threads or os.cpu_count() or 1,
            # Nothing is written beside the model, nothing printed.
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
        values = np.ascontiguousarray(training.features.values, np.float32)
        if not _tells_anything(values):
            # CatBoost refuses constant columns. One that varies, in a tree that may say nothing,
            # gives even odds to everything.
            values = values.copy()
            values[:, 0] = np.arange(len(values)) % 2
            chosen |= {"iterations": 1, "l2_leaf_reg": 1e12}
        if len(values) < SAMPLED_ROWS:
            del chosen["subsample"]
            chosen["bootstrap_type"] = "No"
        try:
            trees = catboost.CatBoost(chosen)
            trees.fit(
                catboost.Pool(
                    values,
                    label=training.malicious.astype(np.int8),
                    weight=training.weight,
                    feature_names=training.features.schema.names,
                )
            )
        except catboost.CatBoostError as error:
            raise TrainingError(f"CatBoost: {error}", hint="check its parameters") from error
        self._trees, self._content, self._schema = trees, b"", training.features.schema

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return the probability that each flow is malicious, shape (n,)."""
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros(0)
        odds = self._trees.predict(_pool(features), thread_count=1)
        return probability(np.asarray(odds, np.float64))

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return exact Shapley contributions (TreeSHAP, Lundberg et al. 2020)."""
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros((0, len(features.schema.features)))
        parts = self._trees.get_feature_importance(
            _pool(features), type="ShapValues", thread_count=1
        )
        return np.asarray(parts, np.float64)[:, :-1]

    def importance(self) -> npt.NDArray[np.float64]:
        """Return the share of all changes of the prediction that each feature made, (features,)."""
        if self._trees is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        change = np.asarray(self._trees.get_feature_importance(), np.float64)
        return change / max(float(change.sum()), 1e-12)

    def save(self, folder: Path) -> list[str]:
        """Write the trees, those of a file as the same bytes."""
        if self._trees is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        # CatBoost writes what it has read in another order, with rounded parameters.
        if self._content:
            with replacing(folder / FILE) as stream:
                stream.write(self._content)
            return [FILE]
        try:
            self._trees.save_model(str(folder / FILE))
        except (OSError, catboost.CatBoostError) as error:
            raise OutputError(f"cannot write the trees: {error}", where=folder / FILE) from error
        return [FILE]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> CatBoostDetector:
        """Read the trees.

        Raises
        ------
        ModelError
            If the file is missing, damaged or holds other features.
        """
        path = folder / FILE
        trees = catboost.CatBoost()
        try:
            content = _whole_content(path)
            # By path and not from memory: only so does CatBoost verify the structure.
            trees.load_model(str(path))
        except (OSError, catboost.CatBoostError) as error:
            raise ModelError(
                f"cannot load the trees: {error}", where=path, hint="train the model anew"
            ) from error
        if trees.feature_names_ != schema.names:
            raise ModelError(
                "the trees were grown on other features than the manifest says",
                where=path,
                hint="train the model anew",
            )
        detector = cls()
        detector._trees, detector._content, detector._schema = trees, content, schema
        return detector


def _whole_content(path: Path) -> bytes:
    """Read a file; refuse one that is not CatBoost's, or was cut or lengthened."""
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    size = len(content)
    whole = content.startswith(MAGIC) and int.from_bytes(content[4:8], "little") + 8 == size
    if not whole or size > MAX_BYTES:
        raise ModelError("the trees are not whole", where=path, hint="train the model anew")
    return content


def _pool(features: FeatureFrame) -> Any:
    return catboost.Pool(
        np.ascontiguousarray(features.values, np.float32), feature_names=features.schema.names
    )


def _tells_anything(values: npt.NDArray[np.float32]) -> bool:
    """Whether any column differs between rows, NaN taken for a value of its own."""
    first = values[:1]
    return bool(((values != first) & ~(np.isnan(values) & np.isnan(first))).any())
