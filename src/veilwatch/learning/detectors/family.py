"""Which family malicious flows look like, or none that is known.

Trees of many classes (Ke et al., LightGBM, NeurIPS 2017) are asked about one flow after the
other; what they say of a host's most malicious flows is added up. A model of this kind always has
a favourite: the name counts only where it is surer than it is of families that it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError
from veilwatch.learning.detectors.base import DetectorSettings, require_schema
from veilwatch.schema.features import FeatureFrame, FeatureSchema

if TYPE_CHECKING:
    import lightgbm

# LightGBM takes a second to load, and a model of another detector may name no families: the trees
# are imported where they are grown and read.

FILE: Final = "families.txt"

FEATURE_SETS: Final = ("statistics", "sequence")
"""What the trees see, whichever detector raised the alert; no shortcuts."""

EVIDENCE_FLOWS: Final = 32
"""Most flows of one host or capture that are asked about, the highest-scored ones: a sweep of
80,000 flows says no more of its family than its first dozens, and this bounds the work."""

EPSILON: Final = 1e-6
"""Probabilities are kept this far from 0: one odd flow takes at most 14 from a family."""

PARAMETERS: Final[dict[str, Any]] = {
    "objective": "multiclass",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 10,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.3,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "num_boost_round": 40,
}
"""Small trees, few of them: there are as many for each round as there are families."""


class FamilyModel:
    """Trees that tell families of malicious flows apart.

    Attributes
    ----------
    names
        The families that can be named, in the order of the columns of `log_probabilities`.
    """

    def __init__(self, names: Sequence[str], trees: lightgbm.Booster, schema: FeatureSchema):
        self.names = tuple(names)
        self._trees = trees
        self._schema = schema

    @classmethod
    def fit(
        cls,
        features: FeatureFrame,
        family: npt.NDArray[np.int64],
        weight: npt.NDArray[np.float64],
        names: Sequence[str],
        settings: DetectorSettings,
    ) -> FamilyModel:
        """Learn from malicious flows; the same flows and seed give the same model.

        Parameters
        ----------
        features
            The flows.
        family
            Index of each flow's family in `names`, shape (flows,).
        weight
            Weight of each flow, positive, shape (flows,).
        names
            Two families or more.
        settings
            Seed and threads. Its parameters are those of the detector and not looked at.

        Raises
        ------
        TrainingError
            If LightGBM refuses a parameter.
        """
        from veilwatch.learning.detectors.lightgbm import grow_trees

        parameters = {**PARAMETERS, "num_class": len(names)}
        label = family.astype(np.float32)
        return cls(
            names, grow_trees(features, label, weight, parameters, settings), features.schema
        )

    def log_probabilities(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the logarithm of each family's probability, shape (flows, families).

        Raises
        ------
        ModelError
            If the model was trained on another feature schema.
        """
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros((0, len(self.names)))
        found = np.asarray(self._trees.predict(features.values), np.float64)
        return np.asarray(np.log(np.maximum(found, EPSILON)))

    def save(self, folder: Path) -> list[str]:
        """Write the trees as text and return the file's name.

        Raises
        ------
        OutputError
            If the folder cannot be written to.
        """
        from veilwatch.learning.detectors.lightgbm import write_trees

        write_trees(folder / FILE, self._trees)
        return [FILE]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema, names: Sequence[str]) -> FamilyModel:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            If the file is missing, damaged, or made for other features or families.
        """
        from veilwatch.learning.detectors.lightgbm import read_trees

        trees = read_trees(folder / FILE, schema)
        if len(names) < 2 or trees.num_model_per_iteration() != len(names):
            raise ModelError(
                f"trees of {trees.num_model_per_iteration()} families, the manifest names "
                f"{len(names)}",
                where=folder / FILE,
                hint="train the model anew",
            )
        return cls(names, trees, schema)


def strongest(
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    most: int = EVIDENCE_FLOWS,
) -> npt.NDArray[np.intp]:
    """Return the rows of each group's highest scores, shape (rows,).

    Parameters
    ----------
    score, group
        Score of each flow and index of its host or capture, shape (flows,).
    most
        Rows returned for a group at most.
    """
    order = np.lexsort((-score, group))
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[rank < most]


def group_evidence(
    log_probability: npt.NDArray[np.float64], group: npt.NDArray[np.int64], groups: int
) -> npt.NDArray[np.float64]:
    """Return the mean log-probability of each family, shape (groups, families).

    Parameters
    ----------
    log_probability
        Of the flows that are asked about, shape (flows, families).
    group
        Index of each flow's host or capture, shape (flows,).
    groups
        Number of groups; one without flows gets NaN.
    """
    sums = np.zeros((groups, log_probability.shape[1]))
    np.add.at(sums, group, log_probability)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.bincount(group, minlength=groups)[:, None])


def name_groups(
    evidence: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the likeliest family of each group and how sure it is, both of shape (groups,).

    The certainty is the probability of the likeliest family against the next likeliest, 0.5 to 1,
    from the difference of their mean log-probabilities. It told families that were never seen
    better than the likeliest family's own probability did (docs/families.md): hosts that do many
    things fit no family in all of them. Groups without evidence have a certainty of 0.

    Parameters
    ----------
    evidence
        Mean log-probabilities, shape (groups, families), two families or more.
    """
    family = np.where(np.isnan(evidence), -np.inf, evidence).argmax(axis=1)
    second, first = np.partition(evidence, (-2, -1), axis=1)[:, -2:].T
    return family, np.nan_to_num(1 / (1 + np.exp(second - first)), nan=0.0)
