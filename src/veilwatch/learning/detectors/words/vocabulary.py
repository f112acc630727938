"""The vocabulary of header words, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.words.fields import NO_WORD, Words

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that training saw often enough, field by field.

    Word 0 is no word at all; words 1 … F are the unknown words of the F fields; then come the
    known words of the first field in rising order, those of the second, and so on.

    Attributes
    ----------
    values
        int64, values of the known words, field after field.
    starts
        int64 of shape (F + 1,): where each field's values begin in `values`, and their end.
    """

    values: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def learn(cls, words: Words, min_captures: int) -> Self:
        """Take the words that appear in at least so many captures.

        Parameters
        ----------
        words
            Shape (captures, packets, fields).
        """
        parts = [_frequent(words[:, :, field], min_captures) for field in range(words.shape[2])]
        starts = np.cumsum([0, *map(len, parts)]).astype(np.int64)
        return cls(np.concatenate([*parts, np.zeros(0, np.int64)]), starts)

    @property
    def fields(self) -> int:
        """Number of fields."""
        return len(self.starts) - 1

    def __len__(self) -> int:
        return 1 + self.fields + len(self.values)

    def numbers(self, words: Words) -> Numbers:
        """Return the number of each word, same shape."""
        out = np.zeros(words.shape, np.int32)
        for field in range(self.fields):
            start, end = self.starts[field : field + 2]
            known = self.values[start:end]
            said = words[:, :, field]
            place = np.searchsorted(known, said)
            hit = np.zeros(said.shape, bool)
            inside = place < len(known)
            hit[inside] = known[place[inside]] == said[inside]
            number = np.where(hit, 1 + self.fields + start + place, 1 + field)
            out[:, :, field] = np.where(said == NO_WORD, 0, number)
        return out

    def field_of(self) -> npt.NDArray[np.int64]:
        """Return the field of each word, shape (words,); -1 for no word."""
        known = np.repeat(np.arange(self.fields), np.diff(self.starts))
        return np.concatenate([[-1], np.arange(self.fields), known])

    def hide(self, numbers: Numbers, hidden: npt.NDArray[np.bool_]) -> Numbers:
        """Return the same words with some of them unknown."""
        unknown = np.arange(1, 1 + self.fields, dtype=np.int32)
        return np.where(hidden & (numbers > 0), unknown, numbers)


def _frequent(said: npt.NDArray[Any], min_captures: int) -> npt.NDArray[np.int64]:
    """Return the values of one field that appear in enough captures, rising."""
    capture, _ = np.nonzero(said != NO_WORD)
    values = said[said != NO_WORD]
    if not len(values):
        return np.zeros(0, np.int64)
    pairs = np.unique(np.stack([values, capture]), axis=1)
    found, captures = np.unique(pairs[0], return_counts=True)
    return np.asarray(found[captures >= min_captures], np.int64)
