"""Gradient-boosted trees on flow statistics (Ke et al., LightGBM, NeurIPS 2017)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

# Threads that wait must sleep, not spin: on a machine that has other work, spinning was measured
# to make training ten times slower. OpenMP reads this once, when LightGBM is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm

from veilwatch.errors import ModelError, TrainingError
from veilwatch.files import write_text
from veilwatch.learning.detectors.base import DetectorSettings, Scores, TrainingSet, require_schema
from veilwatch.learning.detectors.tree_text import MAX_TEXT, TreeTextError, check_trees, trees_alone
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

FILE: Final = "lightgbm.txt"

PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.3,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "num_boost_round": 200,
}
"""Settings that did best on flows with whole sources held out; see docs/evaluation.md."""


class LightGBMDetector:
    """LightGBM on `statistics` and `sequence`, kept in its own text format.

    Detectors of other units derive from it: they name their unit, feature sets and parameters.
    """

    name: ClassVar[str] = "lightgbm"
    feature_sets: ClassVar[Sequence[str]] = ("statistics", "sequence")
    unit: ClassVar[Unit] = "flow"
    parameters: ClassVar[dict[str, Any]] = PARAMETERS

    def __init__(self) -> None:
        self._booster: lightgbm.Booster | None = None
        self._schema: FeatureSchema | None = None

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Grow the trees; the same seed and data give the same trees.

        Raises
        ------
        TrainingError
            If units of one class are missing, or LightGBM refuses a parameter.
        """
        training.require_both_classes()
        self._booster = grow_trees(
            training.features,
            training.malicious.astype(np.float32),
            training.weight,
            {**self.parameters, **settings.parameters},
            settings,
        )
        self._schema = training.features.schema

    @property
    def _fitted(self) -> lightgbm.Booster:
        if self._booster is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        return self._booster

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return the probability that each unit is malicious, shape (n,)."""
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros(0)
        return np.asarray(self._fitted.predict(features.values), np.float64)

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return exact Shapley contributions (TreeSHAP, Lundberg et al. 2020)."""
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros((0, len(features.schema.features)))
        return np.asarray(self._fitted.predict(features.values, pred_contrib=True))[:, :-1]

    def importance(self) -> npt.NDArray[np.float64]:
        """Return the share of the total gain that each feature brought, shape (features,)."""
        gain = np.asarray(self._fitted.feature_importance("gain"), np.float64)
        return gain / max(float(gain.sum()), 1e-12)

    def save(self, folder: Path) -> list[str]:
        """Write the trees as text."""
        write_trees(folder / FILE, self._fitted)
        return [FILE]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> Self:
        """Read the trees.

        Raises
        ------
        ModelError
            If the file is missing, damaged or holds other features.
        """
        booster = read_trees(folder / FILE, schema)
        detector = cls()
        detector._booster = booster
        detector._schema = schema
        return detector


def grow_trees(
    features: FeatureFrame,
    label: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float64],
    parameters: Mapping[str, Any],
    settings: DetectorSettings,
) -> lightgbm.Booster:
    """Grow trees; the same seed and data give the same trees.

    Parameters
    ----------
    label, weight
        Class and weight of each unit, shape (units,).
    parameters
        LightGBM's own, `num_boost_round` among them.
    settings
        Seed and threads; its parameters are not looked at.

    Raises
    ------
    TrainingError
        If LightGBM refuses a parameter.
    """
    chosen = dict(parameters)
    rounds = int(chosen.pop("num_boost_round"))
    data = lightgbm.Dataset(
        features.values,
        label=label,
        weight=weight,
        feature_name=features.schema.names,
        free_raw_data=True,
    )
    chosen |= {
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads or os.cpu_count() or 1,
        "verbosity": -1,
    }
    try:
        return lightgbm.train(chosen, data, num_boost_round=rounds)
    except lightgbm.basic.LightGBMError as error:
        raise TrainingError(f"LightGBM: {error}", hint="check its parameters") from error


def read_trees(path: Path, schema: FeatureSchema) -> lightgbm.Booster:
    """Read trees as `Booster.model_to_string` wrote them.

    Raises
    ------
    ModelError
        If the file is missing, damaged or holds other features, or anything but whole trees.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TEXT + 1)
        checked = check_trees(content.decode("ascii"))
        booster = lightgbm.Booster(model_str=checked.text)
    except (OSError, UnicodeDecodeError, lightgbm.basic.LightGBMError) as error:
        raise ModelError(
            f"cannot load the trees: {error}", where=path, hint="train the model anew"
        ) from error
    except TreeTextError as error:
        raise ModelError(
            f"the trees are not as LightGBM writes them: {error}",
            where=path,
            hint="train the model anew",
        ) from error
    if booster.feature_name() != schema.names:
        raise ModelError(
            "the trees were grown on other features than the manifest says",
            where=path,
            hint="train the model anew",
        )
    return booster


def write_trees(path: Path, trees: lightgbm.Booster) -> None:
    """Write trees as text that `read_trees` takes, without the parameters that grew them.

    Trees that were read have no parameters: so both give the same bytes. What was chosen stands in
    the manifest.

    Raises
    ------
    TrainingError
        If parameters made them into what no model of ours is: larger than the bounds of
        `veilwatch.learning.detectors.tree_text`, with linear leaves or categories.
    """
    try:
        text = check_trees(trees_alone(trees.model_to_string())).text
    except TreeTextError as error:
        raise TrainingError(
            f"LightGBM made trees that cannot be served: {error}", hint="check its parameters"
        ) from error
    write_text(path, text)
