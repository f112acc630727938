"""What a network is and what it sees, apart from how it is trained and served."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.nets.plan import Plan
from veilwatch.learning.detectors.nets.server import Inputs, Network

Matrix = npt.NDArray[np.float32]


class Architecture(ABC):
    """A network over the packets of a flow."""

    name: ClassVar[str]

    parameters: ClassVar[Mapping[str, Any]]
    """What the network itself can be told, with its defaults."""

    plan: ClassVar[Plan]
    """How it is trained unless told otherwise."""

    @abstractmethod
    def build(self, parameters: Mapping[str, Any], features: int) -> Any:
        """Return the untrained `torch.nn.Module` for values with `features` columns."""

    @abstractmethod
    def export(self, module: Any, metadata: Mapping[str, str]) -> bytes:
        """Return a trained module as an ONNX file."""

    @abstractmethod
    def inputs(self, values: Matrix) -> Inputs:
        """Return what the network takes for flows of shape (n, features), whatever they hold."""

    @abstractmethod
    def cost(self, values: Matrix) -> npt.NDArray[np.int64]:
        """Return what each flow costs beside others: flows of like cost share a batch."""

    @abstractmethod
    def distinct(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the first row of each thing that the network sees, and which each row is (n,)."""

    @abstractmethod
    def pieces(self, values: Matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Return what can be taken out of each flow: row (m,), and columns (m, features)."""

    def logits(self, network: Network, values: Matrix) -> npt.NDArray[np.float64]:
        """Return the log-odds of flows, shape (n,)."""
        first, which = self.distinct(values)
        order = first[np.argsort(self.cost(values[first]), kind="stable")]
        out = np.empty(len(values))
        out[order] = network.logits(len(order), lambda rows: self.inputs(values[order[rows]]))
        return np.asarray(out[first[which]])
