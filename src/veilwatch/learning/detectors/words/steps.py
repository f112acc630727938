"""From numbered words to what the network takes step by step."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.words.settings import Steps
from veilwatch.learning.detectors.words.vocabulary import Numbers

MAX_STEPS: Final = 384
"""Most steps of a capture. An LSTM over a thousand captures of as many steps trains in a minute,
and what it has read longer ago it has forgotten."""

PADDING: Final = -2.0
"""Added to the cells past the last step: below anything that a cell can be, so that the largest
value of a cell is never one of those."""

Matrix = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int32]


def step_words(numbers: Numbers, steps: Steps, vectors: Matrix) -> Numbers:
    """Return the words of each step, shape (captures, steps, words a step).

    A word whose vector is zero says nothing: it is as if the packet lacked it.

    Parameters
    ----------
    numbers
        Shape (captures, packets, fields).
    """
    speaks: npt.NDArray[np.bool_] = np.any(vectors, axis=1)
    numbers = np.where(speaks[numbers], numbers, np.int32(0))
    if steps == "packets":
        return numbers[:, :MAX_STEPS]
    # Words that a packet lacks take no step: a stable sort moves them behind the others.
    flat = numbers.reshape(len(numbers), -1)
    order = np.argsort(flat == 0, axis=1, kind="stable")[:, :MAX_STEPS]
    return np.take_along_axis(flat, order, axis=1)[:, :, None]


def step_counts(words: Numbers) -> Counts:
    """Return how many steps of each capture hold a word, at least 1, shape (captures,)."""
    used: npt.NDArray[np.bool_] = np.any(words > 0, axis=2)
    ends = words.shape[1] - np.argmax(used[:, ::-1], axis=1)
    return np.where(used.any(axis=1), ends, 1).astype(np.int32)


def inputs_of(words: Numbers, vectors: Matrix) -> tuple[Matrix, Counts, Matrix]:
    """Return what the network takes.

    Returns
    -------
    steps
        The vectors of each step's words side by side, shape (captures, steps, inputs).
    count
        Steps that count, shape (captures,).
    padding
        0 for steps that count and `PADDING` for the others, shape (captures, steps, 1).
    """
    count = step_counts(words)
    past = np.arange(words.shape[1]) >= count[:, None]
    padding = np.where(past, np.float32(PADDING), np.float32(0))[:, :, None]
    return vectors[words].reshape(*words.shape[:2], -1), count, padding
