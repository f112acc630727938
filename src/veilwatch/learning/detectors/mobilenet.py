"""A convolutional network over the picture of a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.nets.architecture import Matrix
from veilwatch.learning.detectors.nets.detector import NeuralDetector
from veilwatch.learning.detectors.nets.plan import Plan
from veilwatch.learning.detectors.nets.server import Inputs
from veilwatch.learning.features.flowpic import CELLS, SIDE
from veilwatch.learning.features.informative import NETWORK_PACKETS

SHADES: Final = (np.log1p(np.arange(NETWORK_PACKETS + 1)) / np.log(2.0)).astype(np.float32)
"""What a cell with so many packets looks like: one packet gives 1, all 64 give 6."""

EMPTY: Final = -1
"""Cell of a packet that is not there."""


class MobileNetDetector(NeuralDetector):
    """MobileNetV2 on the set `flowpic`."""

    name: ClassVar[str] = "mobilenet"
    feature_sets: ClassVar[Sequence[str]] = ("flowpic",)
    parameters: ClassVar[Mapping[str, Any]] = {"width": 0.25, "dropout": 0.2}
    plan: ClassVar[Plan] = Plan(epochs=6, samples=8192, checked=2048, learning_rate=3e-3)

    def build(self, parameters: Mapping[str, Any], features: int) -> Any:
        """Return the network, with its memory laid out as convolutions like it."""
        import torch

        from veilwatch.learning.detectors.nets.mobilenet_v2 import MobileNetV2

        channels = features // NETWORK_PACKETS * 4
        network = MobileNetV2(channels, float(parameters["width"]), float(parameters["dropout"]))
        return network.to(memory_format=torch.channels_last)

    def export(self, module: Any, metadata: Mapping[str, str]) -> bytes:
        """Return the network as an ONNX file."""
        from veilwatch.learning.detectors.nets.mobilenet_v2 import export

        return export(module, SIDE, metadata)

    def cost(self, values: Matrix) -> npt.NDArray[np.int64]:
        """Every picture costs the same."""
        return np.zeros(len(values), np.int64)

    def inputs(self, values: Matrix) -> Inputs:
        """Return pictures, shape (n, channels, 32, 32)."""
        cells = _cells(values)
        flows, kinds, _ = cells.shape
        flow, kind, packet = np.nonzero(cells != EMPTY)
        place = (flow * kinds + kind) * CELLS + cells[flow, kind, packet]
        found = np.bincount(place, minlength=flows * kinds * CELLS)
        counts = found.astype(np.uint8).reshape(flows, kinds * 2, SIDE, SIDE)
        # Packets of at least a row's size that came until a column's time.
        heaped = counts[:, :, ::-1].cumsum(axis=2, dtype=np.uint8)[:, :, ::-1]
        heaped = heaped.cumsum(axis=3, dtype=np.uint8)
        return (SHADES[np.concatenate([counts, heaped], axis=1)],)

    def distinct(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the first row of each picture, and which picture each row is.

        Most flows have one or two packets, and there are few such pictures: 144,000 flows of real
        captures make 11,000.
        """
        cells = np.sort(_cells(values), axis=2).reshape(values.shape)
        whole = cells.view(np.dtype((np.void, cells.dtype.itemsize * values.shape[1])))[:, 0]
        _, first, which = np.unique(whole, return_index=True, return_inverse=True)
        return first, which

    def pieces(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Take out one cell at a time; its packets share what it brought."""
        cells = _cells(values)
        kinds = cells.shape[1]
        flow, kind, packet = np.nonzero(cells != EMPTY)
        place = (flow * kinds + kind) * CELLS + cells[flow, kind, packet]
        filled, which = np.unique(place, return_inverse=True)
        columns = np.zeros((len(filled), values.shape[1]), bool)
        columns[which, kind * NETWORK_PACKETS + packet] = True
        return filled // (kinds * CELLS), columns


def _cells(values: Matrix) -> npt.NDArray[np.int16]:
    """Return cells of shape (n, kinds, 64); a number that is no cell is none."""
    with np.errstate(invalid="ignore"):
        real = (values >= 0) & (values < CELLS)
    cells = np.where(real, values, EMPTY).astype(np.int16)
    return cells.reshape(len(values), values.shape[1] // NETWORK_PACKETS, NETWORK_PACKETS)
