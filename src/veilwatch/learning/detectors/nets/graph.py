"""Writing a network as an ONNX file, layer by layer.

By hand, so that training needs no exporter: the file holds what `onnx_file.OPERATORS` names and
nothing else, and does not change with PyTorch's version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 13
"""Every operator used here has been the same since; all ONNX Runtimes that we take serve it."""

IR_VERSION: Final = 8


class Graph:
    """An ONNX graph that grows layer by layer; the batch is its only free dimension."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def input(self, name: str, shape: list[int | str], *, whole: bool = False) -> str:
        """Declare an input; a name in `shape` is a dimension that each call may choose."""
        kind = TensorProto.INT32 if whole else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, values: npt.ArrayLike, kind: type[np.generic] = np.float32) -> str:
        """Add constant values and return their name."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add an operation and return the name of its last output; the others are not used."""
        name = f"n{len(self._nodes)}"
        names = [""] * (outputs - 1) + [name]
        self._nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def finish(self, output: str, metadata: Mapping[str, str]) -> bytes:
        """Return the file, checked, with `output` of shape (batch, 1) as its answer."""
        graph = helper.make_graph(
            self._nodes,
            "veilwatch",
            self._inputs,
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 1])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
