"""An LSTM over packets (Hochreiter & Schmidhuber 1997), and its ONNX form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from veilwatch.learning.detectors.nets.graph import Graph


class PacketLSTM(nn.Module):  # type: ignore[misc]
    """One LSTM layer whose state after a flow's last packet is weighed into a log-odds.

    Parameters
    ----------
    channels
        Numbers that describe a packet.
    hidden
        Cells.
    dropout
        Share of the last state that is left out in training.
    """

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(hidden, 1)

    def forward(self, steps: Any, length: Any) -> Any:
        """Return log-odds, shape (batch, 1).

        Parameters
        ----------
        steps
            Packets, shape (batch, most packets, channels).
        length
            Packets of each flow, at least 1, shape (batch,).
        """
        states, _ = self.lstm(steps)
        last = (length.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])
        return self.answer(self.dropout(states.gather(1, last)[:, 0]))


def export(network: PacketLSTM, metadata: Mapping[str, str]) -> bytes:
    """Return the network as an ONNX file."""
    lstm = network.lstm
    hidden, channels = lstm.hidden_size, lstm.input_size
    graph = Graph()
    steps = graph.input("steps", ["batch", "packets", channels])
    length = graph.input("length", ["batch"], whole=True)

    def gates(parameter: Any) -> Any:
        """PyTorch keeps input, forget, cell and output gate in this order; ONNX i, o, f, c."""
        i, f, c, o = parameter.detach().numpy().reshape(4, hidden, -1)
        return np.concatenate([i, o, f, c])

    bias = np.concatenate([gates(lstm.bias_ih_l0), gates(lstm.bias_hh_l0)])
    # Packets come first in ONNX; of the outputs (all states, last state) the second is taken.
    last = graph.add(
        "LSTM",
        graph.add("Transpose", steps, perm=[1, 0, 2]),
        graph.weight(gates(lstm.weight_ih_l0)[None]),
        graph.weight(gates(lstm.weight_hh_l0)[None]),
        graph.weight(bias.reshape(1, -1)),
        length,
        outputs=2,
        hidden_size=hidden,
    )
    state = graph.add("Squeeze", last, graph.weight([0], np.int64))
    weight, answer = (item.detach().numpy() for item in network.answer.parameters())
    out = graph.add("Gemm", state, graph.weight(weight), graph.weight(answer), transB=1)
    return graph.finish(out, metadata)
