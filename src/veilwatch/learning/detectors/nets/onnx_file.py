"""Looking into an ONNX file before a runtime is trusted with it.

A model file may come from anybody. ONNX can name files beside it as places of weights, call
itself in loops and make tensors of any size out of a few bytes, so this reads the file's few
protobuf fields that say so (https://github.com/onnx/onnx, onnx.proto) and lets pass only what
our own networks are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from veilwatch.errors import ModelError

MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest file read: MobileNetV2 at its full width takes 9 MB."""

MAX_NODES: Final = 4096
"""Most operations of a graph: MobileNetV2 has about a hundred."""

OPERATORS: Final = frozenset(
    (
        *("Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "LSTM", "ReduceMax"),
        *("Squeeze", "Transpose"),
    )
)
"""Operators of our networks. None of them loops, or makes more out of its inputs than they are."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_PARTS = (5, 6, 10, 11, 22, 23)  # a tensor, a graph, several of them, sparse ones
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int | memoryview]


def read_onnx(path: Path) -> bytes:
    """Read an ONNX file and refuse one that holds more than weights and plain layers.

    Raises
    ------
    ModelError
        If it is missing, too large, not whole, or uses what no network of ours does.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"cannot read the network: {error.strerror or error}",
            where=path,
            hint="train the model anew",
        ) from error
    if len(content) > MAX_BYTES:
        _refuse(path, f"the network is larger than {MAX_BYTES >> 20} MiB")
    try:
        graphs = [value for number, value in _fields(memoryview(content)) if number == _MODEL_GRAPH]
        if len(graphs) != 1:
            _refuse(path, "the file holds no network")
        if any(number == _MODEL_FUNCTIONS for number, _ in _fields(memoryview(content))):
            _refuse(path, "the network defines functions")
        _check_graph(_message(graphs[0]), path)
    except ValueError as error:
        raise ModelError(
            f"the network is not whole: {error}", where=path, hint="train the model anew"
        ) from error
    return content


def _check_graph(graph: memoryview, path: Path) -> None:
    nodes = 0
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            nodes += 1
            if nodes > MAX_NODES:
                _refuse(path, f"the network has more than {MAX_NODES} operations")
            _check_node(_message(value), path)
        elif number == _GRAPH_SPARSE:
            _refuse(path, "the network has sparse weights")
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(_message(value), path)


def _check_node(node: memoryview, path: Path) -> None:
    for number, value in _fields(node):
        if number == _NODE_OPERATOR:
            name = bytes(_message(value)).decode("ascii", "replace")
            if name not in OPERATORS:
                _refuse(path, f"the network uses the operator {name[:40]!r}")
        elif number == _NODE_DOMAIN and len(_message(value)):
            _refuse(path, "the network uses operators that are not ONNX's own")
        elif number == _NODE_ATTRIBUTE and any(
            inner in _ATTRIBUTE_PARTS for inner, _ in _fields(_message(value))
        ):
            _refuse(path, "the network holds another or its weights inside an operation")


def _check_tensor(tensor: memoryview, path: Path) -> None:
    if any(number in (_TENSOR_EXTERNAL, _TENSOR_LOCATION) for number, _ in _fields(tensor)):
        _refuse(path, "weights of the network lie in another file")


def _refuse(path: Path, what: str) -> NoReturn:
    raise ModelError(what, where=path, hint="train the model anew")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a part should")
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """Walk the fields of a protobuf message (protobuf.dev, Encoding).

    Raises
    ------
    ValueError
        If it is cut or no message.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > end:
            raise ValueError("it ends too early")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):  # ten bytes hold 64 bits
        if at >= len(message):
            raise ValueError("it ends too early")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
