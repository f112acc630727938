"""A recurrent network over the first 64 packets that tell something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from veilwatch.detectors.nets.detector import Matrix, NeuralDetector
from veilwatch.detectors.nets.disturb import without_packets
from veilwatch.detectors.nets.plan import Plan
from veilwatch.detectors.nets.server import Inputs
from veilwatch.features.told import BACKWARD, FIN, PSH, RST, SYN, TOLD

FLAGS: Final = (FIN, SYN, RST, PSH)

MAX_BYTES: Final = 65_535.0
"""Largest size that an IP packet can have."""

LINEAR_BYTES: Final = 1500.0
"""Sizes are also shown on a linear scale up to the MTU: near it the logarithm is too flat."""

MAX_GAP_S: Final = 1800.0
"""Longest silence within a flow: the meter's active timeout."""

JITTER: Final = 0.5
"""Deviation of the logarithm by which a disturbed flow is slower or faster."""


class LSTMDetector(NeuralDetector):
    """LSTM on the set `packets`."""

    name: ClassVar[str] = "lstm"
    feature_sets: ClassVar[Sequence[str]] = ("packets",)
    parameters: ClassVar[Mapping[str, Any]] = {"hidden": 64, "dropout": 0.2, "disturbance": 0.1}
    plan: ClassVar[Plan] = Plan(epochs=10, samples=16_384, learning_rate=3e-3)

    def build(self, parameters: Mapping[str, Any], features: int) -> Any:
        """Return the network."""
        from veilwatch.detectors.nets.packet_lstm import PacketLSTM

        # A size gives two numbers, a gap one, flags one each and the direction; a length one.
        channels = 4 + len(FLAGS) + (features // TOLD - 3)
        return PacketLSTM(channels, int(parameters["hidden"]), float(parameters["dropout"]))

    def export(self, module: Any, metadata: Mapping[str, str]) -> bytes:
        """Return the network as an ONNX file."""
        from veilwatch.detectors.nets.packet_lstm import export

        return export(module, metadata)

    def cost(self, values: Matrix) -> npt.NDArray[np.int64]:
        """Return the packets of each flow."""
        return np.asarray((~np.isnan(values[:, :TOLD])).sum(axis=1))

    def inputs(self, values: Matrix) -> Inputs:
        """Return steps (n, most packets, channels) and the packets of each flow (n,).

        A packet without a size is none: those behind it move up, and its gap is added to the next.
        A flow without any shows one step of zeros.
        """
        size, gap, flags, *lengths = np.moveaxis(values.reshape(len(values), -1, TOLD), 1, 0)
        there = ~np.isnan(size)
        count = np.maximum(there.sum(axis=1), 1)
        order = np.argsort(~there, axis=1, kind="stable")[:, : int(count.max(initial=1))]

        def ordered(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(part, order, axis=1)

        time = np.cumsum(_bounded(gap, 0.0, MAX_GAP_S), axis=1, dtype=np.float64)
        time = ordered(time)
        pause = np.diff(time, axis=1, prepend=time[:, :1])
        bits = ordered(_bounded(flags, 0.0, 31.0)).astype(np.int64)
        sizes = ordered(_bounded(size, -MAX_BYTES, MAX_BYTES))
        channels = [
            _logarithm(sizes),
            np.clip(sizes / LINEAR_BYTES, -2.0, 2.0),
            _logarithm(pause * 1000.0),
            np.where(bits & BACKWARD, -1.0, 1.0),
            *(bits & flag > 0 for flag in FLAGS),
            *(_logarithm(ordered(_bounded(part, -MAX_BYTES, MAX_BYTES))) for part in lengths),
        ]
        steps = np.stack(channels, axis=2).astype(np.float32) * ordered(there)[:, :, None]
        return np.ascontiguousarray(steps, np.float32), count.astype(np.int32)

    def disturb(self, values: Matrix, rng: np.random.Generator, strength: float) -> Matrix:
        """Lose packets, cut flows, and make them slower or faster."""
        out = values.copy()
        size, gap = out[:, :TOLD], out[:, TOLD : 2 * TOLD]
        size[without_packets(size.shape, rng, strength)] = np.nan
        gap *= np.exp(rng.normal(0.0, JITTER, (len(out), 1))).astype(np.float32)
        return out

    def pieces(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Take out one packet at a time; what it brought stands at its size."""
        row, packet = np.nonzero(~np.isnan(values[:, :TOLD]))
        columns = np.zeros((len(row), values.shape[1]), bool)
        columns[np.arange(len(row)), packet] = True
        return row, columns


def _bounded(part: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    """Return numbers within bounds, 0 for what is none."""
    return np.asarray(np.clip(np.nan_to_num(part), low, high), np.float32)


def _logarithm(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the signed logarithm, about -3 to 3 for sizes of packets and silences in ms."""
    return np.asarray(np.sign(part) * np.log1p(np.abs(part)) / 4.0)
