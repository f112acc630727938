"""What all networks do alike as detectors: train, serve, explain, keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError
from veilwatch.files import replacing
from veilwatch.learning.detectors.base import DetectorSettings, Scores, TrainingSet, require_schema
from veilwatch.learning.detectors.evidence import probability
from veilwatch.learning.detectors.nets.architecture import Architecture, Matrix
from veilwatch.learning.detectors.nets.onnx_file import read_onnx
from veilwatch.learning.detectors.nets.plan import split_parameters
from veilwatch.learning.detectors.nets.server import Network
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

EXPLAINED: Final = 64
"""Flows explained at a time: each becomes up to 64 flows that lack something, and memory stays
below 10 MB."""


class NeuralDetector(Architecture):
    """A network over the packets of a flow, trained in PyTorch and served by ONNX Runtime.

    A subclass says what the network is and what it sees; everything else is here.
    """

    feature_sets: ClassVar[Sequence[str]]
    unit: ClassVar[Unit] = "flow"

    def __init__(self) -> None:
        self._network: Network | None = None
        self._schema: FeatureSchema | None = None

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Train; the same flows, seed, threads and processor give the same network.

        Raises
        ------
        TrainingError
            If flows of one class are missing, a parameter does not fit, PyTorch or onnx is not
            installed, or the exported network answers otherwise than the trained one.
        """
        training.require_both_classes()
        parameters, plan = split_parameters(self.parameters, self.plan, settings.parameters)
        from veilwatch.learning.detectors.nets.frameworks import require_frameworks

        require_frameworks()
        from veilwatch.learning.detectors.nets.fit import fit_network

        self._network = fit_network(self, training, parameters, plan, settings, progress)
        self._schema = training.features.schema

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return the probability that each flow is malicious, shape (n,)."""
        require_schema(self._schema, features)
        return probability(self.logits(self._fitted, _matrix(features)))

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what the log-odds lose with each packet (occlusion, Zeiler & Fergus 2014).

        Packets that the network sees as one thing share what it brought.
        """
        require_schema(self._schema, features)
        network, values = self._fitted, _matrix(features)
        out = np.zeros(values.shape)
        for start in range(0, len(values), EXPLAINED):
            part = values[start : start + EXPLAINED]
            row, columns = self.pieces(part)
            lacking = np.where(columns, np.float32(np.nan), part[row])
            brought = self.logits(network, part)[row] - self.logits(network, lacking)
            share = columns * (brought / np.maximum(columns.sum(axis=1), 1))[:, None]
            np.add.at(out, start + row, share)
        return out

    def save(self, folder: Path) -> list[str]:
        """Write the network as an ONNX file."""
        network = self._fitted
        with replacing(folder / self._file()) as stream:
            stream.write(network.content)
        return [self._file()]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> Self:
        """Read the network.

        Raises
        ------
        ModelError
            If the file is missing, damaged, holds more than a network of ours, or was trained on
            other features.
        """
        path = folder / cls._file()
        network = Network(read_onnx(path), path)
        if network.schema != schema.hash:
            raise ModelError(
                "the network was trained on other features than the manifest says",
                where=path,
                hint="train the model anew",
            )
        detector = cls()
        detector._network, detector._schema = network, schema
        return detector

    @classmethod
    def _file(cls) -> str:
        return f"{cls.name}.onnx"

    @property
    def _fitted(self) -> Network:
        if self._network is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        return self._network


def _matrix(features: FeatureFrame) -> Matrix:
    return np.asarray(features.values, np.float32)
