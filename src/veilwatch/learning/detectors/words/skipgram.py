"""Vectors of header words by Skip-gram with negative sampling (Mikolov et al., NIPS 2013)."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from gensim.models import Word2Vec

from veilwatch.learning.detectors.words.settings import WordSettings
from veilwatch.learning.detectors.words.steps import Matrix
from veilwatch.learning.detectors.words.vocabulary import Numbers, Vocabulary

MAX_WORDS: Final = 250_000
"""Most words an epoch; of more captures as many as that makes are read, evenly chosen. A few
hundred neighbours of a word say all that its vector can hold, and ten epochs of this many take
half a minute."""


def train_vectors(
    numbers: Numbers, vocabulary: Vocabulary, settings: WordSettings, seed: int
) -> Matrix:
    """Return a vector for each word, shape (words, dimensions); the same seed gives the same.

    The vector of no word is zero. A word that is never read, an unknown word of a field without
    rare words, lies in the middle of its field; where unknown words are skipped theirs are zero.

    Parameters
    ----------
    numbers
        Shape (captures, packets, fields): each capture is one sentence.
    """
    if settings.unknown == "skip":
        numbers = np.where(numbers > vocabulary.fields, numbers, np.int32(0))
    flat = numbers.reshape(len(numbers), -1)
    share = max(1.0, np.count_nonzero(flat) / MAX_WORDS)
    chosen = np.unique((np.arange(len(flat) / share) * share).astype(np.int64))
    sentences = [[str(word) for word in flat[row] if word] for row in chosen]
    vectors = np.zeros((len(vocabulary), settings.dimensions), np.float32)
    if any(sentences):
        model = Word2Vec(
            sentences,
            vector_size=settings.dimensions,
            window=settings.window,
            sg=1,
            hs=0,
            negative=settings.negatives,
            sample=0,  # words are few and all frequent: none is left out
            min_count=1,  # rare words are unknown words already
            epochs=settings.word_epochs,
            workers=1,  # several would race each other, and no seed repeat that
            seed=seed & 0x7FFFFFFF,
            hashfxn=_hash,
        )
        for word in model.wv.index_to_key:
            vectors[int(word)] = model.wv[word]
    if settings.unknown == "field":
        _fill(vectors, vocabulary)
    return vectors


def _hash(text: str) -> int:
    """Python's own hash differs from process to process."""
    return zlib.crc32(text.encode())


def _fill(vectors: Matrix, vocabulary: Vocabulary) -> None:
    """Give words without a vector the mean of their field's."""
    field = vocabulary.field_of()
    known = vectors.any(axis=1)
    for number in range(vocabulary.fields):
        own = field == number
        if (own & known).any():
            vectors[own & ~known] = vectors[own & known].mean(axis=0)
