"""Several detectors of different kinds, heard together.

Trees on statistics and networks on packets err on different flows. Their log-odds are brought to
one scale and averaged with equal weights: weights that are learned need flows that no member has
learned from, and with few sources equal weights lose less than what such flows cost (Dawes, The
robust beauty of improper linear models, American Psychologist 34, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veilwatch.errors import ModelError, TrainingError
from veilwatch.files import write_text
from veilwatch.learning.detectors.base import (
    Detector,
    DetectorSettings,
    Scores,
    TrainingSet,
    require_schema,
)
from veilwatch.learning.detectors.evidence import log_odds, probability
from veilwatch.learning.features import feature_schema
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

FILE: Final = "ensemble.json"

MAX_BYTES: Final = 1024 * 1024
"""Largest description read: one of a few members takes some hundred bytes."""

SPREAD: Final = 3.0
"""Log-odds of a flow that every member holds for an average malicious flow: 0.95 as a score."""

MIN_DISTANCE: Final = 1e-3
"""Least distance between the classes, in log-odds, by which a member is scaled: one that tells
nothing apart must not have its noise blown up."""

MEMBERS: Final = ("lightgbm", "catboost", "lstm")
"""Who is heard. Not `mobilenet`: alone it finds far less than any of these under every split, and
with equal weights that costs the others more than it adds (docs/evaluation.md)."""


class Scale(BaseModel):
    """Where the two classes lie on a member's scale: middle and half the distance, log-odds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    middle: float
    half: float = Field(gt=0)


class _Description(BaseModel):
    """What `ensemble.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: dict[str, Scale]


class EnsembleDetector:
    """The flow detectors of `MEMBERS`, averaged on one scale."""

    name: ClassVar[str] = "ensemble"
    feature_sets: ClassVar[Sequence[str]] = ("statistics", "sequence", "packets")
    unit: ClassVar[Unit] = "flow"

    def __init__(self) -> None:
        self._members: dict[str, Detector] = {}
        self._scales: dict[str, Scale] = {}
        self._schema: FeatureSchema | None = None

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Train each member on its own feature sets.

        `settings.parameters` holds the parameters of each member by its name, and under `members`
        the names of those that take part if not all do.

        Raises
        ------
        TrainingError
            If flows of one class are missing, or a member cannot be trained.
        """
        training.require_both_classes()
        chosen = settings.parameters.get("members", MEMBERS)
        unknown = {*settings.parameters, *chosen} - {*MEMBERS, "members"}
        if unknown:
            raise TrainingError(
                f"the ensemble has no member {min(unknown)!r}",
                hint=f"parameters are given by member: {', '.join(MEMBERS)}",
            )
        self._members, self._scales = {}, {}
        for name in [name for name in MEMBERS if name in chosen]:
            member = _kind(name)()
            part = TrainingSet(
                _part(training.features, name),
                training.malicious,
                training.capture,
                training.group,
                training.weight,
            )
            checkpoints = settings.checkpoints
            own = DetectorSettings(
                settings.seed,
                settings.threads,
                settings.parameters.get(name, {}),
                None if checkpoints is None else checkpoints / name,
            )
            member.fit(part, own, progress)
            self._members[name] = member
            self._scales[name] = measure_scale(member.predict_proba(part.features), training)
        self._schema = training.features.schema

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return the score of each flow, shape (n,)."""
        require_schema(self._schema, features)
        if not len(features):
            return np.zeros(0)
        return combine(
            [
                (member.predict_proba(_part(features, name)), scale)
                for name, member, scale in self._each()
            ]
        )

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the members' contributions side by side, on the ensemble's scale."""
        require_schema(self._schema, features)
        out = np.zeros((len(features), len(features.schema.features)))
        for name, member, scale in self._each():
            parts = member.explain(_part(features, name))
            out[:, _columns(features.schema, name)] += (
                parts * SPREAD / scale.half / len(self._members)
            )
        return out

    def save(self, folder: Path) -> list[str]:
        """Write every member's files and how they are weighed."""
        if self._schema is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        files = [file for member in self._members.values() for file in member.save(folder)]
        description = _Description(members=self._scales)
        write_text(folder / FILE, description.model_dump_json(indent=1) + "\n")
        return [FILE, *files]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> EnsembleDetector:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            If a file is missing, damaged or made for other features.
        """
        path = folder / FILE
        try:
            with path.open("rb") as stream:
                description = _Description.model_validate_json(stream.read(MAX_BYTES))
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"cannot load the ensemble: {reason}", where=path, hint="train the model anew"
            ) from error
        if not description.members or not set(description.members) <= set(MEMBERS):
            raise ModelError(
                "the ensemble has members that this version has not",
                where=path,
                hint="train the model anew",
            )
        whole = feature_schema(cls.feature_sets, shortcuts=_with_shortcuts(schema))
        if schema.names != whole.names:
            raise ModelError(
                "the ensemble was trained on other features than the manifest says",
                where=path,
                hint="train the model anew",
            )
        detector = cls()
        for name in [name for name in MEMBERS if name in description.members]:
            detector._members[name] = _kind(name).load(folder, _member_schema(schema, name))
            detector._scales[name] = description.members[name]
        detector._schema = schema
        return detector

    def _each(self) -> list[tuple[str, Detector, Scale]]:
        return [(name, self._members[name], self._scales[name]) for name in self._members]


def _kind(name: str) -> type[Detector]:
    # The table of detectors names this one: it can only be asked once both exist.
    from veilwatch.learning.detectors import DETECTORS

    return DETECTORS[name]


def _with_shortcuts(schema: FeatureSchema) -> bool:
    return schema.set_name.endswith("+shortcuts")


def _member_schema(schema: FeatureSchema, member: str) -> FeatureSchema:
    """Return the schema that a member was trained on; the ensemble's columns lie side by side."""
    return feature_schema(_kind(member).feature_sets, shortcuts=_with_shortcuts(schema))


def _columns(schema: FeatureSchema, member: str) -> npt.NDArray[np.intp]:
    place = {name: k for k, name in enumerate(schema.names)}
    return np.array([place[name] for name in _member_schema(schema, member).names], np.intp)


def _part(features: FeatureFrame, member: str) -> FeatureFrame:
    """Return what one member sees."""
    schema = _member_schema(features.schema, member)
    return FeatureFrame(
        schema,
        np.ascontiguousarray(features.values[:, _columns(features.schema, member)]),
        features.keys,
    )


def measure_scale(score: Scores, training: TrainingSet) -> Scale:
    """Measure where the classes lie on a member's scale, each flow by its weight.

    Parameters
    ----------
    score
        What the member says of the flows it learned from, shape (n,).
    """
    odds = log_odds(score)
    high, low = (
        float(np.average(odds[mask], weights=training.weight[mask]))
        for mask in (training.malicious, ~training.malicious)
    )
    return Scale(middle=(high + low) / 2, half=max(high - low, MIN_DISTANCE) / 2)


def combine(parts: Sequence[tuple[Scores, Scale]]) -> Scores:
    """Return the ensemble's score of flows, given each member's and its scale, shape (n,)."""
    said = [(log_odds(score) - scale.middle) / scale.half for score, scale in parts]
    return probability(SPREAD * np.mean(said, axis=0))
