"""From labelled captures to words, their vectors, and a network that ONNX Runtime serves."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from veilwatch.errors import TrainingError
from veilwatch.learning.detectors.base import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.nets.loop import repeatable
from veilwatch.learning.detectors.nets.server import SCHEMA, Network
from veilwatch.learning.detectors.words.fields import speaking_fields, words_of
from veilwatch.learning.detectors.words.files import Lexicon
from veilwatch.learning.detectors.words.network import WordLSTM, export
from veilwatch.learning.detectors.words.settings import WordSettings
from veilwatch.learning.detectors.words.skipgram import train_vectors
from veilwatch.learning.detectors.words.steps import inputs_of, step_words
from veilwatch.learning.detectors.words.vocabulary import Numbers, Vocabulary
from veilwatch.progress import Progress

PARITY: Final = 1e-4
"""Largest difference in log-odds between a trained network and its exported form."""

COMPARED: Final = 256
"""Captures on which the two are compared."""


def fit_words(
    training: TrainingSet, chosen: WordSettings, settings: DetectorSettings, progress: Progress
) -> tuple[Lexicon, Network]:
    """Learn the words of captures and a network over them.

    Raises
    ------
    TrainingError
        If a field does not exist, or the exported network answers otherwise than the trained one.
    """
    schema = training.features.schema
    fields = speaking_fields(schema, chosen.values, chosen.fields)
    words = words_of(training.features, fields, chosen.packets, chosen.values)
    vocabulary = Vocabulary.learn(words, chosen.min_captures)
    numbers = vocabulary.numbers(words)
    progress.start(f"vectors of {len(vocabulary):,} words")
    vectors = train_vectors(numbers, vocabulary, chosen, settings.seed)
    lexicon = Lexicon(
        fields, chosen.packets, chosen.values, chosen.steps, vocabulary, vectors, schema.hash
    )
    with repeatable(settings.seed, settings.threads or os.cpu_count() or 1):
        module = _train(training, numbers, lexicon, chosen, settings.seed, progress)
        network = Network(export(module, {SCHEMA: schema.hash}))
        _check_parity(module, network, step_words(numbers, chosen.steps, vectors), vectors)
    return lexicon, network


def _train(
    training: TrainingSet,
    numbers: Numbers,
    lexicon: Lexicon,
    chosen: WordSettings,
    seed: int,
    progress: Progress,
) -> WordLSTM:
    """Train a network with Adam (Kingma & Ba 2015) on weighted cross-entropy."""
    width = lexicon.vectors.shape[1]
    inputs = width * (len(lexicon.fields) if chosen.steps == "packets" else 1)
    module = WordLSTM(inputs, chosen.hidden, chosen.dropout, chosen.pool)
    optimizer = torch.optim.Adam(module.parameters(), lr=chosen.learning_rate)
    target = training.malicious.astype(np.float32)
    weight = (training.weight / training.weight.mean()).astype(np.float32)
    rng = np.random.default_rng([seed, 2])
    progress.start("training the LSTM over them", chosen.epochs)
    module.train()
    for _ in range(chosen.epochs):
        order = rng.permutation(len(numbers))
        for start in range(0, len(order), chosen.batch):
            rows = order[start : start + chosen.batch]
            seen = numbers[rows]
            if chosen.forget:
                seen = lexicon.vocabulary.hide(seen, rng.random(seen.shape) < chosen.forget)
            answer = _answer(
                module, step_words(seen, chosen.steps, lexicon.vectors), lexicon.vectors
            )
            loss = functional.binary_cross_entropy_with_logits(
                answer, torch.from_numpy(target[rows]), torch.from_numpy(weight[rows])
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
        progress.advance()
    module.eval()
    return module


def _answer(module: WordLSTM, words: Numbers, vectors: Any) -> Any:
    """Return log-odds of captures; steps past the longest of them are left out."""
    steps, count, padding = inputs_of(words, vectors)
    most = int(count.max())
    parts = steps[:, :most], count, padding[:, :most]
    return module(*map(torch.from_numpy, map(np.ascontiguousarray, parts)))[:, 0]


def _check_parity(module: WordLSTM, network: Network, words: Numbers, vectors: Any) -> None:
    """Refuse an exported network that does not answer like the trained one.

    Raises
    ------
    TrainingError
        If their log-odds differ by more than `PARITY` on some capture.
    """
    some = words[:: max(1, len(words) // COMPARED)]
    with torch.no_grad():
        wanted = _answer(module, some, vectors).numpy()
    found = network.logits(len(some), lambda rows: inputs_of(some[rows], vectors))
    worst = float(np.abs(found - wanted).max())
    if not worst <= PARITY:  # not a number is no agreement either
        raise TrainingError(
            f"the exported header_words answers {worst:.1e} away from the trained one",
            hint="report this with the versions of torch, onnx and onnxruntime",
        )
