"""A recurrent network over the first 64 packets that tell something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.nets.architecture import Matrix
from veilwatch.learning.detectors.nets.detector import NeuralDetector
from veilwatch.learning.detectors.nets.piecewise import piecewise
from veilwatch.learning.detectors.nets.plan import Plan
from veilwatch.learning.detectors.nets.server import Inputs
from veilwatch.learning.features.informative import BACKWARD, FIN, NETWORK_PACKETS, PSH, RST, SYN

FLAGS: Final = (FIN, SYN, RST, PSH)

MAX_GAP_S: Final = 1800.0
"""Longest silence within a flow: the meter's active timeout."""

MAX_SIZE: Final = 1461
"""Sizes from here on look alike: the largest segment of a path of 1,500, and what offload made."""

SIZE_EDGES: Final = np.array([0, *(1 + (MAX_SIZE - 1) * (np.arange(20) / 19) ** 2)], np.float32)
"""Edges of ranges of sizes in bytes, wider towards the largest."""

GAP_EDGES: Final = np.array([0, *np.geomspace(1e-4, 600, 14)], np.float32)
"""Edges of ranges of silences in seconds, each 3.3 times the one before."""

SIZE_CHANNELS: Final = 2 * (len(SIZE_EDGES) - 1)
SIZE_CODES: Final = np.concatenate(
    [
        piecewise(sign * np.arange(-MAX_SIZE, MAX_SIZE + 1, dtype=np.float32), SIZE_EDGES)
        for sign in (1, -1)
    ],
    axis=1,
)
"""Code of each size from `-MAX_SIZE` on: first its ranges if forward, then those if backward."""

CHANNELS: Final = SIZE_CHANNELS + len(GAP_EDGES) - 1 + 2 + len(FLAGS)
"""Numbers that describe a packet: its size, one way or the other, the silence before it, that it
is there, whether it came from the responder, and its flags."""


class LSTMDetector(NeuralDetector):
    """LSTM on the set `packets`."""

    name: ClassVar[str] = "lstm"
    feature_sets: ClassVar[Sequence[str]] = ("packets",)
    parameters: ClassVar[Mapping[str, Any]] = {"hidden": 64, "dropout": 0.2}
    plan: ClassVar[Plan] = Plan(epochs=16, patience=5, samples=49_152, learning_rate=3e-3)

    def build(self, parameters: Mapping[str, Any], features: int) -> Any:
        """Return the network."""
        from veilwatch.learning.detectors.nets.packet_lstm import PacketLSTM

        # What `packets` holds beyond size, gap and flags are lengths, coded like sizes.
        channels = CHANNELS + SIZE_CHANNELS * (features // NETWORK_PACKETS - 3)
        return PacketLSTM(channels, int(parameters["hidden"]), float(parameters["dropout"]))

    def export(self, module: Any, metadata: Mapping[str, str]) -> bytes:
        """Return the network as an ONNX file."""
        from veilwatch.learning.detectors.nets.packet_lstm import export

        return export(module, metadata)

    def cost(self, values: Matrix) -> npt.NDArray[np.int64]:
        """Return the packets of each flow."""
        return np.asarray((~np.isnan(values[:, :NETWORK_PACKETS])).sum(axis=1))

    def inputs(self, values: Matrix) -> Inputs:
        """Return steps (n, most packets, channels) and the packets of each flow (n,).

        A packet without a size is none: those behind it move up, and its gap is added to the next.
        A flow without any shows one step of zeros.
        """
        size, gap, flags, *lengths = values.reshape(
            len(values), values.shape[1] // NETWORK_PACKETS, NETWORK_PACKETS
        ).swapaxes(0, 1)
        there = ~np.isnan(size)
        count = np.maximum(there.sum(axis=1), 1)
        order = np.argsort(~there, axis=1, kind="stable")[:, : int(count.max(initial=1))]

        def ordered(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(part, order, axis=1)

        time = np.cumsum(_bounded(gap, 0.0, MAX_GAP_S), axis=1, dtype=np.float64)
        pause = np.diff(ordered(time), axis=1, prepend=0.0)
        pause[:, 0] = 0.0
        bits = ordered(_bounded(flags, 0.0, 31.0)).astype(np.int64)
        channels = [piecewise(pause.astype(np.float32), GAP_EDGES)]
        for part in (size, *lengths):
            signed = ordered(_bounded(part, -MAX_SIZE, MAX_SIZE)).astype(np.int64)
            channels.append(SIZE_CODES[signed + MAX_SIZE])
        marks = [np.ones(order.shape, bool), *(bits & bit > 0 for bit in (BACKWARD, *FLAGS))]
        channels.append(np.stack(marks, axis=2))
        steps = np.concatenate(channels, axis=2, dtype=np.float32)
        steps[~ordered(there)] = 0.0
        return steps, count.astype(np.int32)

    def distinct(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Take each flow for another: short ones, which are often alike, cost little."""
        rows = np.arange(len(values))
        return rows, rows

    def pieces(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Take out one packet at a time; what it brought stands at its size."""
        row, packet = np.nonzero(~np.isnan(values[:, :NETWORK_PACKETS]))
        columns = np.zeros((len(row), values.shape[1]), bool)
        columns[np.arange(len(row)), packet] = True
        return row, columns


def _bounded(part: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    """Return numbers within bounds, 0 for what is none."""
    return np.asarray(np.clip(np.nan_to_num(part), low, high), np.float32)
