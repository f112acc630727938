"""MobileNetV2 (Sandler et al., CVPR 2018) for pictures of 32 x 32, and its ONNX form.

As in the paper: inverted residuals with linear bottlenecks, ReLU6, a last convolution of 1280
channels that a width below 1 does not narrow. Unlike there, the first layer has stride 1, as is
usual for small pictures: 32, 16, 8, 4 and 2 cells remain on a side where 224 pixels leave 112 to 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from veilwatch.learning.detectors.nets.graph import Graph


class Stage(NamedTuple):
    """A line of table 2 of the paper."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STAGES: Final = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
"""Table 2 of the paper."""

STEM: Final = 32
LAST: Final = 1280

DIVISOR: Final = 4
"""Channels are multiples of this. The authors take 8, for phones; at the small widths that do for a
picture of 32 cells, that would make the first stages as wide as they are at twice the width."""


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, rounded to `DIVISOR` but never down by more than a tenth.

    Examples
    --------
    >>> [scaled(n, 0.35) for n in (16, 24, 32, 320)]
    [8, 8, 12, 112]
    """
    wanted = channels * width
    rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * wanted else rounded


def _convolution(
    inside: int,
    outside: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    layers: list[Any] = [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
    ]
    return nn.Sequential(*layers) if linear else nn.Sequential(*layers, nn.ReLU6())


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """Expand, filter each channel, project without a nonlinearity; add what came in if it fits."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inside * expansion
        expand = [_convolution(inside, hidden, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            _convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            _convolution(hidden, outside, 1, linear=True),
        )
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Any) -> Any:
        """Return the block's answer, shape (batch, outside, height / stride, width / stride)."""
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV2(nn.Module):  # type: ignore[misc]
    """The network; the answer is a log-odds, shape (batch, 1).

    Parameters
    ----------
    channels
        Channels of a picture.
    width
        Multiplier of all channels but those of the last convolution.
    dropout
        Share of the last layer's inputs that is left out in training.
    """

    def __init__(self, channels: int, width: float, dropout: float) -> None:
        super().__init__()
        inside = scaled(STEM, width)
        blocks: list[Any] = [_convolution(channels, inside, 3)]
        for stage in STAGES:
            outside = scaled(stage.channels, width)
            for k in range(stage.repeats):
                stride = stage.stride if k == 0 else 1
                blocks.append(InvertedResidual(inside, outside, stride, stage.expansion))
                inside = outside
        last = scaled(LAST, max(width, 1.0))
        blocks.append(_convolution(inside, last, 1))
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(last, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, picture: Any) -> Any:
        """Return log-odds of pictures of shape (batch, channels, height, width)."""
        return self.answer(self.dropout(self.blocks(picture).mean(dim=(2, 3))))


def export(network: MobileNetV2, side: int, metadata: Mapping[str, str]) -> bytes:
    """Return the network as an ONNX file; batch normalisation becomes part of the convolutions."""
    graph = Graph()
    channels = network.blocks[0][0].in_channels
    at = graph.input("picture", ["batch", channels, side, side])
    limits = graph.weight(0.0), graph.weight(6.0)
    for block in network.blocks:
        if isinstance(block, InvertedResidual):
            before = at
            for layer in block.layers:
                at = _write_convolution(graph, at, layer, limits)
            if block.adds:
                at = graph.add("Add", before, at)
        else:
            at = _write_convolution(graph, at, block, limits)
    at = graph.add("Flatten", graph.add("GlobalAveragePool", at))
    weight, bias = (item.detach().numpy() for item in network.answer.parameters())
    at = graph.add("Gemm", at, graph.weight(weight), graph.weight(bias), transB=1)
    return graph.finish(at, metadata)


def _write_convolution(graph: Graph, at: str, layer: Any, limits: tuple[str, str]) -> str:
    convolution, norm, *rest = layer
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = convolution.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * scale
    at = graph.add(
        "Conv",
        at,
        *(graph.weight(item.detach().numpy()) for item in (weight, bias)),
        group=convolution.groups,
        kernel_shape=convolution.kernel_size,
        strides=convolution.stride,
        pads=convolution.padding * 2,
    )
    return graph.add("Clip", at, *limits) if rest else at
