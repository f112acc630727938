"""Words of packet headers, their Skip-gram vectors, and an LSTM: one verdict a capture.

The published method takes every header field of every packet as a word, field and value together,
and reads a capture word by word. Words such as addresses name a laboratory, and a word that
training never met has no vector. The improved setting, which is the default, says of each value
what holds in other places too, has an unknown word for each field that training learns to live
with, and reads packet by packet (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError
from veilwatch.files import replacing
from veilwatch.learning.detectors.base import DetectorSettings, Scores, TrainingSet, require_schema
from veilwatch.learning.detectors.evidence import probability
from veilwatch.learning.detectors.nets.frameworks import require_frameworks
from veilwatch.learning.detectors.nets.onnx_file import read_onnx
from veilwatch.learning.detectors.nets.server import Network
from veilwatch.learning.detectors.words.fields import BUCKETS, RAW, columns_of, words_of
from veilwatch.learning.detectors.words.files import Lexicon, read_lexicon, write_lexicon
from veilwatch.learning.detectors.words.settings import Steps, word_settings
from veilwatch.learning.detectors.words.steps import inputs_of, step_words
from veilwatch.learning.detectors.words.vocabulary import Numbers
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

WORDS: Final = "header_words.npz"
NETWORK: Final = "header_words.onnx"

FRAMEWORKS: Final = ("torch", "onnx", "gensim")
"""What training needs and serving does without."""


class HeaderWordsDetector:
    """Skip-gram and LSTM on `header_words`."""

    name: ClassVar[str] = "header_words"
    feature_sets: ClassVar[Sequence[str]] = ("header_words",)
    unit: ClassVar[Unit] = "capture"

    def __init__(self) -> None:
        self._lexicon: Lexicon | None = None
        self._network: Network | None = None
        self._schema: FeatureSchema | None = None

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Train; the same captures, seed, threads and processor give the same scores.

        Raises
        ------
        TrainingError
            If captures of one class are missing, a parameter does not fit, PyTorch, onnx or
            gensim is not installed, or the exported network answers otherwise than the trained one.
        """
        training.require_both_classes()
        chosen = word_settings(settings.parameters)
        require_frameworks(FRAMEWORKS)
        from veilwatch.learning.detectors.words.fit import fit_words

        self._lexicon, self._network = fit_words(training, chosen, settings, progress)
        self._schema = training.features.schema

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return the probability that each capture is malicious, shape (n,)."""
        require_schema(self._schema, features)
        return probability(self._logits(self._numbers(features)))

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what the log-odds lose when a word is not known (occlusion).

        The words of a packet are hidden together, and those of a field: hiding them one by one
        would take a hundred times as long, and the network hardly misses a single word. Half of
        what a packet brought is shared out among its words in proportion to what their fields
        brought, and half of what a field brought among its words by what their packets brought.
        """
        require_schema(self._schema, features)
        lexicon, _ = self._fitted
        out = np.zeros((len(features), len(features.schema.features)))
        numbers = self._numbers(features)
        columns = columns_of(features.schema, lexicon.fields, lexicon.packets)
        for row, words in enumerate(numbers):
            out[row, columns] = self._parts(words)
        return out

    def known_words(self, features: FeatureFrame) -> float:
        """Return the share of the words of captures that training had met, 0…1; 1 for no words."""
        require_schema(self._schema, features)
        numbers, fields = self._numbers(features), len(self._fitted[0].fields)
        said = np.count_nonzero(numbers)
        return np.count_nonzero(numbers > fields) / said if said else 1.0

    def _parts(self, words: Numbers) -> npt.NDArray[np.float64]:
        """Return what each word of one capture brought, shape (packets, fields)."""
        lexicon, _ = self._fitted
        packets, fields = words.shape
        hidden = np.zeros((1 + packets + fields, packets, fields), bool)
        hidden[1 + np.arange(packets), np.arange(packets)] = True
        hidden[1 + packets + np.arange(fields), :, np.arange(fields)] = True
        odds = self._logits(lexicon.vocabulary.hide(np.broadcast_to(words, hidden.shape), hidden))
        brought = odds[0] - odds[1:]
        by_packet, by_field = brought[:packets, None], brought[None, packets:]
        said = words > 0
        of_packet = _shares(said * np.abs(by_field), said, axis=1)
        of_field = _shares(said * np.abs(by_packet), said, axis=0)
        return np.asarray((by_packet * of_packet + by_field * of_field) / 2)

    def save(self, folder: Path) -> list[str]:
        """Write the words with their vectors, and the network as an ONNX file."""
        lexicon, network = self._fitted
        write_lexicon(folder / WORDS, lexicon)
        with replacing(folder / NETWORK) as stream:
            stream.write(network.content)
        return [WORDS, NETWORK]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> HeaderWordsDetector:
        """Read the words and the network.

        Raises
        ------
        ModelError
            If a file is missing, damaged, holds more than it should, or was made for other
            features.
        """
        lexicon = read_lexicon(folder / WORDS)
        network = Network(read_onnx(folder / NETWORK), folder / NETWORK)
        if not lexicon.schema == network.schema == schema.hash:
            raise ModelError(
                "the words were learned from other features than the manifest says",
                where=folder / WORDS,
                hint="train the model anew",
            )
        detector = cls()
        detector._lexicon, detector._network, detector._schema = lexicon, network, schema
        detector._check(folder / WORDS)
        return detector

    def _check(self, path: Path) -> None:
        """Refuse words that the features do not have or the network does not take."""
        lexicon, _ = self._fitted
        assert self._schema is not None
        known = BUCKETS if lexicon.values == "bucketed" else RAW
        try:
            columns_of(self._schema, lexicon.fields, lexicon.packets)
            fits = all(field in known for field in lexicon.fields)
        except KeyError:
            fits = False
        if not fits:
            raise ModelError(
                "the words are of fields that the features lack",
                where=path,
                hint="train the model anew",
            )
        self._logits(np.zeros((1, lexicon.packets, len(lexicon.fields)), np.int32))

    def _numbers(self, features: FeatureFrame) -> Numbers:
        """Return the number of each word, shape (captures, packets, fields)."""
        lexicon, _ = self._fitted
        values = cast("Literal['bucketed', 'raw']", lexicon.values)
        words = words_of(features, lexicon.fields, lexicon.packets, values)
        return lexicon.vocabulary.numbers(words)

    def _logits(self, numbers: Numbers) -> npt.NDArray[np.float64]:
        lexicon, network = self._fitted
        words = step_words(numbers, cast(Steps, lexicon.steps), lexicon.vectors)
        return network.logits(len(words), lambda rows: inputs_of(words[rows], lexicon.vectors))

    @property
    def _fitted(self) -> tuple[Lexicon, Network]:
        if self._lexicon is None or self._network is None:
            raise ModelError("the detector has not been trained", hint="run veilwatch train")
        return self._lexicon, self._network


def _shares(
    amount: npt.NDArray[np.float64], said: npt.NDArray[np.bool_], axis: int
) -> npt.NDArray[np.float64]:
    """Return each word's part of its packet (axis 1) or field (axis 0), even where all are 0."""
    total = amount.sum(axis=axis, keepdims=True)
    even = said / np.maximum(said.sum(axis=axis, keepdims=True), 1)
    return np.where(total > 0, amount / np.where(total > 0, total, 1), even)
