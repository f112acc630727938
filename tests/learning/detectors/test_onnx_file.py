"""A network from a stranger: what is let through, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veilwatch.errors import ModelError
from veilwatch.learning.detectors.nets import onnx_file
from veilwatch.learning.detectors.nets.onnx_file import read_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from veilwatch.learning.detectors.nets.graph import Graph  # noqa: E402


def network() -> Any:
    graph = Graph()
    at = graph.input("x", ["batch", 3])
    at = graph.add("Gemm", at, graph.weight(np.ones((1, 3))), graph.weight([0.5]), transB=1)
    return onnx.load_from_string(graph.finish(at, {"a": "b"}))


def write(model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_plain_network_passes_as_it_is(tmp_path: Path) -> None:
    model = network()
    assert read_onnx(write(model, tmp_path)) == model.SerializeToString()


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def location_alone(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def loops(model: Any) -> None:
    model.graph.node.append(helper.make_node("Loop", ["x"], ["y"]))


def inflates(model: Any) -> None:
    model.graph.node.append(helper.make_node("ConstantOfShape", ["x"], ["y"]))


def foreign(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"


def inner_graph(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", model.graph))


def function(model: Any) -> None:
    model.functions.append(
        helper.make_function("mine", "Gemm", ["x"], ["y"], [], [helper.make_opsetid("", 13)])
    )


def sparse(model: Any) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))


def many(model: Any) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    model.graph.node.extend([node] * (onnx_file.MAX_NODES + 1))


@pytest.mark.parametrize(
    "spoil",
    [external, location_alone, loops, inflates, foreign, inner_graph, function, sparse, many],
)
def test_what_no_network_of_ours_holds_is_refused(spoil: Any, tmp_path: Path) -> None:
    model = network()
    spoil(model)
    with pytest.raises(ModelError, match=r"network|weights"):
        read_onnx(write(model, tmp_path))


def test_weights_in_attributes_are_looked_at(tmp_path: Path) -> None:
    """An attribute may hold a tensor; none of our operators takes one."""
    model = network()
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    model.graph.node[0].attribute.append(helper.make_attribute("value", tensor))
    with pytest.raises(ModelError):
        read_onnx(write(model, tmp_path))


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(network(), tmp_path)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ModelError, match="larger"):
        read_onnx(path)


def test_any_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """Cut anywhere, or with any byte changed: a ModelError or a file that reads, nothing else."""
    content = network().SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    spoiled = [content[:length] for length in range(len(content))]
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= int(rng.integers(1, 256))
        spoiled.append(bytes(other))
    refused = 0
    for item in spoiled:
        path.write_bytes(item)
        try:
            read_onnx(path)
        except ModelError:
            refused += 1
    assert refused > len(content) // 2
