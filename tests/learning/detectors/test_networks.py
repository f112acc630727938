"""The two architectures, against their papers and against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from veilwatch.learning.detectors.nets.server import BLOCK, SCHEMA, Network

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from veilwatch.learning.detectors.nets import mobilenet_v2, packet_lstm  # noqa: E402
from veilwatch.learning.detectors.nets.mobilenet_v2 import InvertedResidual, MobileNetV2  # noqa: E402
from veilwatch.learning.detectors.nets.packet_lstm import PacketLSTM  # noqa: E402


def lively(module: Any, *inputs: Any) -> Any:
    """Give every normalisation a scale and a shift of its own, and the statistics of `inputs`."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.uniform_(-0.5, 0.5)
            layer.momentum = None  # the mean of all batches
    module.train()(*inputs)
    return module.eval()


def test_table_2_of_the_paper() -> None:
    """t, c, n, s of each stage at full width; the sides are those of 32 cells and a stem of 1."""
    network = MobileNetV2(2, 1.0, 0.0).eval()
    picture = torch.zeros(1, 2, 32, 32)
    seen = []
    for block in network.blocks:
        before = picture.shape[1]
        picture = block(picture)
        expansion = 0
        if isinstance(block, InvertedResidual):
            # The depthwise convolution of a block is as wide as its expansion.
            (depthwise,) = (m for m in block.modules() if getattr(m, "groups", 1) > 1)
            assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
            expansion = depthwise.in_channels // before
        seen.append((expansion, picture.shape[1], picture.shape[2]))
    assert seen == [
        (0, 32, 32),
        (1, 16, 32),
        *[(6, 24, 16)] * 2,
        *[(6, 32, 8)] * 3,
        *[(6, 64, 4)] * 4,
        *[(6, 96, 4)] * 3,
        *[(6, 160, 2)] * 3,
        (6, 320, 2),
        (0, 1280, 2),
    ]
    assert network(torch.zeros(3, 2, 32, 32)).shape == (3, 1)


def test_residuals_where_the_paper_has_them() -> None:
    adds = [b.adds for b in MobileNetV2(2, 1.0, 0.0).blocks if isinstance(b, InvertedResidual)]
    first = {0, 1, 3, 6, 10, 13, 16}  # the first block of each stage changes channels or stride
    assert adds == [k not in first for k in range(17)]


def test_bottlenecks_are_linear() -> None:
    for block in MobileNetV2(2, 0.35, 0.0).blocks:
        if isinstance(block, InvertedResidual):
            *inner, last = block.layers
            assert not any(isinstance(m, torch.nn.ReLU6) for m in last.modules())
            assert all(isinstance(layer[-1], torch.nn.ReLU6) for layer in inner)


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_parameters_counted_by_hand(width: float) -> None:
    def scaled(channels: int) -> int:
        return mobilenet_v2.scaled(channels, width)

    inside = scaled(32)
    count = 2 * 9 * inside + 2 * inside
    for t, c, n, _ in [
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ]:
        for _ in range(n):
            hidden, outside = inside * t, scaled(c)
            if t > 1:
                count += inside * hidden + 2 * hidden
            count += 9 * hidden + 2 * hidden + hidden * outside + 2 * outside
            inside = outside
    count += inside * 1280 + 2 * 1280 + 1280 + 1
    network = MobileNetV2(2, width, 0.2)
    assert sum(part.numel() for part in network.parameters()) == count
    if width == 1.0:
        # The paper's network has 3.50 million with a stem of 3 channels and 1000 classes.
        assert count + 9 * 32 + 1281 * 999 == 3_504_872


def test_channels_are_multiples_and_never_much_narrower() -> None:
    for channels in (16, 24, 32, 64, 96, 160, 320):
        for width in (0.05, 0.2, 0.35, 0.5, 0.75, 1.0):
            found = mobilenet_v2.scaled(channels, width)
            assert found % mobilenet_v2.DIVISOR == 0
            assert found >= 0.9 * channels * width


def test_the_exported_picture_network_answers_alike() -> None:
    torch.manual_seed(1)
    pictures = torch.rand(BLOCK + 3, 6, 32, 32)
    module = lively(MobileNetV2(6, 0.25, 0.3), pictures)
    network = Network(mobilenet_v2.export(module, 32, {SCHEMA: "abc"}))
    assert network.schema == "abc"
    with torch.no_grad():
        wanted = module(pictures)[:, 0].numpy()
    assert np.ptp(wanted) > 1e-3
    found = network.logits(len(pictures), lambda rows: (pictures[rows].numpy(),))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def naive_lstm(module: Any, steps: np.ndarray) -> float:
    """One flow through an LSTM, gate by gate."""
    part = {
        name: value.detach().numpy().astype(np.float64) for name, value in module.named_parameters()
    }
    hidden = cell = np.zeros(module.lstm.hidden_size)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-x)))

    for step in steps:
        i, f, g, o = np.split(
            part["lstm.weight_ih_l0"] @ step
            + part["lstm.bias_ih_l0"]
            + part["lstm.weight_hh_l0"] @ hidden
            + part["lstm.bias_hh_l0"],
            4,
        )
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
    return float(part["answer.weight"][0] @ hidden + part["answer.bias"][0])


def test_the_exported_lstm_answers_like_plain_numpy() -> None:
    torch.manual_seed(3)
    module = PacketLSTM(7, 5, 0.4).eval()
    network = Network(packet_lstm.export(module, {}))
    rng = np.random.default_rng(0)
    length = rng.integers(1, 12, 90).astype(np.int32)
    steps = rng.normal(0, 2, (90, 12, 7)).astype(np.float32)  # what lies past the end is noise
    found = network.logits(90, lambda rows: (steps[rows], length[rows]))
    wanted = [naive_lstm(module, s[:n]) for s, n in zip(steps, length, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with torch.no_grad():
        answer = module(torch.from_numpy(steps), torch.from_numpy(length))[:, 0].numpy()
    np.testing.assert_allclose(answer, wanted, atol=1e-5)
