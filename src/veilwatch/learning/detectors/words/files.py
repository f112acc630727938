"""What a trained `header_words` is made of, as arrays in a file that holds nothing else."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError
from veilwatch.files import replacing
from veilwatch.learning.detectors.words.steps import Matrix
from veilwatch.learning.detectors.words.vocabulary import Vocabulary
from veilwatch.schema.headers import HEADER_PACKETS

MAX_BYTES: Final = 512 * 1024 * 1024
"""Largest file read, also unpacked: a million words of fifty dimensions take 210 MB, and a thousand
captures with every field as it stands have a few hundred thousand."""

MAX_FIELDS: Final = 256
"""Most fields of a vocabulary: packets have some thirty."""

DAMAGE: Final = (ValueError, TypeError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile)
"""What zipfile, NumPy and the checks here say of bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words of a detector and their vectors.

    Attributes
    ----------
    fields
        Names of the fields in the order in which a packet says them.
    packets
        Packets that are looked at.
    values
        "bucketed" or "raw".
    steps
        "packets" or "words".
    vocabulary
        The words.
    vectors
        float32 of shape (words, dimensions).
    schema
        Hash of the feature schema.
    """

    fields: tuple[str, ...]
    packets: int
    values: str
    steps: str
    vocabulary: Vocabulary
    vectors: Matrix
    schema: str


def write_lexicon(path: Path, lexicon: Lexicon) -> None:
    """Write a lexicon in NumPy's format, without pickle.

    Raises
    ------
    OutputError
        If the place cannot be written to.
    """
    with replacing(path) as stream:
        np.savez(
            stream,
            fields=np.array(lexicon.fields, np.str_),
            setting=np.array([lexicon.values, lexicon.steps, lexicon.schema], np.str_),
            packets=np.array([lexicon.packets], np.int64),
            words=lexicon.vocabulary.values,
            starts=lexicon.vocabulary.starts,
            vectors=lexicon.vectors,
        )


def read_lexicon(path: Path) -> Lexicon:
    """Read a lexicon without believing it.

    Raises
    ------
    ModelError
        If the file is missing, too large, not whole, or contradicts itself.
    """
    try:
        parts = _arrays(path)
        lexicon = _lexicon(parts)
    except OSError as error:
        raise ModelError(
            f"cannot read the words: {error.strerror or error}",
            where=path,
            hint="train the model anew",
        ) from error
    except DAMAGE as error:
        raise ModelError(
            f"the words are not whole: {error}", where=path, hint="train the model anew"
        ) from error
    return lexicon


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("the file is too large")
    with zipfile.ZipFile(path) as archive:
        if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
            raise ValueError("the file is too large unpacked")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _lexicon(parts: dict[str, npt.NDArray[Any]]) -> Lexicon:
    fields = tuple(map(str, parts["fields"].ravel()))
    values, steps, schema = map(str, parts["setting"].ravel())
    (packets,) = map(int, parts["packets"].ravel())
    vocabulary = Vocabulary(
        parts["words"].astype(np.int64, casting="safe"),
        parts["starts"].astype(np.int64, casting="safe"),
    )
    vectors = parts["vectors"].astype(np.float32, casting="safe")
    starts = vocabulary.starts
    fits = (
        0 < len(fields) <= MAX_FIELDS
        and len(set(fields)) == len(fields)
        and 0 < packets <= HEADER_PACKETS
        and values in ("bucketed", "raw")
        and steps in ("packets", "words")
        and vocabulary.values.ndim == starts.ndim == 1
        and len(starts) == len(fields) + 1
        and starts[0] == 0
        and (np.diff(starts) >= 0).all()
        and starts[-1] == len(vocabulary.values)
        and vectors.ndim == 2
        and len(vectors) == len(vocabulary)
        and bool(np.isfinite(vectors).all())
    )
    if not fits:
        raise ValueError("its parts do not fit each other")
    return Lexicon(fields, packets, values, steps, vocabulary, vectors, schema)
