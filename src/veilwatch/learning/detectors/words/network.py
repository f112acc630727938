"""An LSTM over header words as Keras would begin it, and its ONNX form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from veilwatch.learning.detectors.nets.graph import Graph
from veilwatch.learning.detectors.words.settings import Pool


class WordLSTM(nn.Module):  # type: ignore[misc]
    """One LSTM layer, dropout, and one log-odds.

    It begins as Keras' layers do: kernels uniform after Glorot & Bengio (2010), recurrent kernels
    orthogonal, biases zero and one for the forget gate (Jozefowicz et al. 2015).

    Parameters
    ----------
    inputs
        Numbers a step.
    hidden
        Cells.
    dropout
        Share of what is judged that is left out in training.
    pool
        What is judged, see `WordSettings`.
    """

    def __init__(self, inputs: int, hidden: int, dropout: float, pool: Pool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(hidden, 1)
        self.pool = pool
        # Keras draws a kernel of all four gates at once, (inputs, 4 hidden) and (hidden, 4 hidden).
        nn.init.xavier_uniform_(self.lstm.weight_ih_l0)
        nn.init.orthogonal_(self.lstm.weight_hh_l0)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.lstm.bias_ih_l0.data[hidden : 2 * hidden] = 1
        nn.init.xavier_uniform_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, steps: Any, count: Any, padding: Any) -> Any:
        """Return log-odds, shape (batch, 1), of what `inputs_of` gives."""
        states, _ = self.lstm(steps)
        if self.pool == "max":
            judged = (states * (padding == 0) + padding).amax(dim=1)
        else:
            last = (count.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])
            judged = states.gather(1, last)[:, 0]
        return self.answer(self.dropout(judged))


def export(network: WordLSTM, metadata: Mapping[str, str]) -> bytes:
    """Return the network as an ONNX file."""
    lstm = network.lstm
    hidden, inputs = lstm.hidden_size, lstm.input_size
    graph = Graph()
    steps = graph.input("steps", ["batch", "steps", inputs])
    count = graph.input("count", ["batch"], whole=True)

    def gates(parameter: Any) -> Any:
        """PyTorch keeps input, forget, cell and output gate in this order; ONNX i, o, f, c."""
        i, f, c, o = parameter.detach().numpy().reshape(4, hidden, -1)
        return np.concatenate([i, o, f, c])

    bias = np.concatenate([gates(lstm.bias_ih_l0), gates(lstm.bias_hh_l0)])
    layer = (
        graph.add("Transpose", steps, perm=[1, 0, 2]),  # steps come first in ONNX
        graph.weight(gates(lstm.weight_ih_l0)[None]),
        graph.weight(gates(lstm.weight_hh_l0)[None]),
        graph.weight(bias.reshape(1, -1)),
        count,
    )
    if network.pool == "max":
        padding = graph.input("padding", ["batch", "steps", 1])
        # States past the last step are zero there: what is added puts them out of the way.
        states = graph.add("LSTM", *layer, hidden_size=hidden)
        states = graph.add("Squeeze", states, graph.weight([1], np.int64))
        states = graph.add("Add", states, graph.add("Transpose", padding, perm=[1, 0, 2]))
        judged = graph.add("ReduceMax", states, axes=[0], keepdims=0)
    else:
        last = graph.add("LSTM", *layer, outputs=2, hidden_size=hidden)
        judged = graph.add("Squeeze", last, graph.weight([0], np.int64))
    weight, answer = (item.detach().numpy() for item in network.answer.parameters())
    out = graph.add("Gemm", judged, graph.weight(weight), graph.weight(answer), transB=1)
    return graph.finish(out, metadata)
