"""Words of headers: what is said of a value, unknown words, vectors, and what is kept on disk."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.learning.features.factory import random_headers
from tests.learning.training.factory import QUICK_WORDS, own_features, own_training_set
from veilwatch.errors import ModelError, TrainingError
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.detectors.header_words import NETWORK, WORDS, HeaderWordsDetector
from veilwatch.learning.detectors.nets import frameworks
from veilwatch.learning.detectors.words.fields import (
    BUCKETS,
    NO_WORD,
    RAW,
    RELATION,
    speaking_fields,
    words_of,
)
from veilwatch.learning.detectors.words.settings import PUBLISHED, word_settings
from veilwatch.learning.detectors.words.steps import MAX_STEPS, PADDING, inputs_of, step_words
from veilwatch.learning.detectors.words.vocabulary import Vocabulary
from veilwatch.learning.features import capture_features, feature_schema
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.headers import ABSENT, HEADER_FIELDS, HeaderTable

COLUMN = {field.name: k for k, field in enumerate(HEADER_FIELDS)}
NAME = "header_words"


def said(field: str, values: list[int], *, raw: bool = False) -> list[int]:
    """Return the words of one field over the first packets of a capture."""
    table = np.full((len(values), len(HEADER_FIELDS)), ABSENT, np.int64)
    table[:, COLUMN[field]] = values
    features = capture_features([HeaderTable(table)], (NAME,), shortcuts=True)
    words = words_of(features, [field], len(values) + 1, "raw" if raw else "bucketed")
    assert words[0, -1, 0] == NO_WORD  # past the last packet
    return [int(word) for word in words[0, :-1, 0]]


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("payload", [0, 1, 2, 3, 4, 1023, 1024, ABSENT], [0, 1, 2, 2, 3, 10, 11, NO_WORD]),
        ("gap", [0, 999_999, 10**6, 10**9, 99 * 10**9, 10**13], [0, 0, 1, 4, 5, 6]),
        ("ip_ttl", [1, 32, 33, 64, 65, 128, 129, 255], [0, 0, 1, 1, 2, 2, 3, 3]),
        ("tcp_dst_port", [443, 53, 81, 1023, 1024, 49151, 49152], [443, 53, 1, 1, 2, 2, 3]),
        ("control", [2, 18, 24], [2, 18, 24]),
    ],
)
def test_buckets(field: str, values: list[int], words: list[int]) -> None:
    assert said(field, values) == words


def test_what_a_flow_is_to_those_before_it() -> None:
    same, new, earlier = (RELATION[name] for name in ("same", "new", "earlier"))
    assert said("flow", [0, 0, 1, 0, 0, 2]) == [new, same, new, earlier, same, new]


def test_raw_words_are_the_values_themselves() -> None:
    assert said("tcp_seq", [2**32 - 1, 0, ABSENT], raw=True) == [2**32 - 1, 0, NO_WORD]
    assert said("eth_src", [2**48 - 1], raw=True) == [2**48 - 1]


def test_no_bucket_tells_one_host_or_connection() -> None:
    identifying = {"eth_src", "eth_dst", "ip_src", "ip_dst", "ip_id", "tcp_seq", "tcp_ack"}
    identifying |= {"tcp_checksum", "udp_checksum", "ip_checksum", "vlan_tags", "ip_tos"}
    assert not identifying & set(BUCKETS)
    assert identifying <= set(RAW)
    plain = feature_schema((NAME,))
    place = {"ip_ttl", "ip_length", "tcp_window", "tcp_offset", "tcp_src_port", "udp_dst_port"}
    assert not place & set(speaking_fields(plain, "bucketed", ()))
    assert place < set(speaking_fields(feature_schema((NAME,), shortcuts=True), "bucketed", ()))


def test_a_vocabulary_numbers_words_and_knows_what_it_does_not_know() -> None:
    words = np.array([[[5, 7], [6, NO_WORD]], [[5, 9], [5, 9]]])  # (captures, packets, fields)
    vocabulary = Vocabulary.learn(words, 1)
    assert vocabulary.values.tolist() == [5, 6, 7, 9]
    assert vocabulary.starts.tolist() == [0, 2, 4]
    assert len(vocabulary) == 7
    assert vocabulary.numbers(words).tolist() == [[[3, 5], [4, 0]], [[3, 6], [3, 6]]]
    strange = np.array([[[99, 5], [-1, 10**9]]])
    assert vocabulary.numbers(strange).tolist() == [[[1, 2], [0, 2]]]
    assert vocabulary.field_of().tolist() == [-1, 0, 1, 0, 0, 1, 1]


def test_a_word_counts_by_captures_and_not_by_packets() -> None:
    words = np.array([[[5], [6], [6], [6]], [[5], [7], [NO_WORD], [NO_WORD]]])
    assert Vocabulary.learn(words, 2).values.tolist() == [5]
    assert Vocabulary.learn(words, 3).values.tolist() == []


def test_hidden_words_are_unknown_and_absent_ones_stay_absent() -> None:
    vocabulary = Vocabulary.learn(np.array([[[5, 7]]]), 1)
    numbers = np.array([[[3, 4], [0, 4]]], np.int32)
    hidden = np.array([[[True, False], [True, True]]])
    assert vocabulary.hide(numbers, hidden).tolist() == [[[1, 4], [0, 2]]]


def test_word_by_word_leaves_no_step_to_what_is_absent() -> None:
    numbers = np.array([[[3, 0, 4], [0, 5, 0]], [[0, 0, 0], [0, 0, 6]]], np.int32)
    vectors = np.arange(14, dtype=np.float32).reshape(7, 2)
    words = step_words(numbers, "words", vectors)
    assert words[:, :, 0].tolist() == [[3, 4, 5, 0, 0, 0], [6, 0, 0, 0, 0, 0]]
    steps, count, padding = inputs_of(words, vectors)
    assert steps.shape == (2, 6, 2) and count.tolist() == [3, 1]
    assert steps[0, 1].tolist() == [8, 9]
    assert padding[:, :, 0].tolist() == [[0] * 3 + [PADDING] * 3, [0] + [PADDING] * 5]


def test_a_word_without_a_vector_takes_no_step() -> None:
    numbers = np.array([[[1, 2], [2, 1], [3, 0]]], np.int32)
    vectors = np.array([[0, 0], [0, 0], [3, 4], [5, 6]], np.float32)
    assert step_words(numbers, "words", vectors)[0, :, 0].tolist() == [2, 2, 3, 0, 0, 0]
    packets = step_words(numbers, "packets", vectors)
    assert packets[0].tolist() == [[0, 2], [2, 0], [3, 0]]


def test_packet_by_packet_sets_vectors_side_by_side() -> None:
    numbers = np.array([[[1, 2], [0, 0], [2, 0], [0, 0]]], np.int32)
    vectors = np.array([[0, 0], [1, 2], [3, 4]], np.float32)
    steps, count, _ = inputs_of(step_words(numbers, "packets", vectors), vectors)
    assert steps[0].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0]]
    assert count.tolist() == [3]


def test_steps_are_bounded_and_a_capture_without_words_has_one() -> None:
    words = step_words(np.ones((1, 64, 31), np.int32), "words", np.ones((2, 2), np.float32))
    assert words.shape == (1, MAX_STEPS, 1)
    assert inputs_of(np.zeros((1, 3, 1), np.int32), np.zeros((1, 2), np.float32))[1].tolist() == [1]


@pytest.fixture(scope="module")
def fitted() -> HeaderWordsDetector:
    detector = HeaderWordsDetector()
    detector.fit(own_training_set(NAME), QUICK_WORDS)
    return detector


def test_skipped_words_have_no_vector_and_change_no_verdict() -> None:
    parameters = {**QUICK_WORDS.parameters, **PUBLISHED, "packets": 6, "min_captures": 8}
    training = own_training_set(NAME)
    detector = HeaderWordsDetector()
    detector.fit(training, replace(QUICK_WORDS, parameters=parameters))
    lexicon = detector._fitted[0]
    fields = lexicon.vocabulary.fields
    assert not lexicon.vectors[: 1 + fields].any() and lexicon.vectors[1 + fields :].any(1).all()
    assert detector.known_words(training.features) < 1
    column = training.features.schema.names.index("ip_protocol_1")
    assert "ip_protocol" in lexicon.fields
    scores = []
    for strange in (251, 252, np.nan):
        values = training.features.values.copy()
        values[:, column] = strange
        scores.append(detector.predict_proba(replace(training.features, values=values)))
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])
    assert not np.array_equal(scores[0], detector.predict_proba(training.features))


def test_vectors_of_no_word_and_of_unknown_words(fitted: HeaderWordsDetector) -> None:
    lexicon = fitted._fitted[0]
    assert not lexicon.vectors[0].any()
    assert lexicon.vectors[1:].any(axis=1).sum() >= len(lexicon.vocabulary) - 1 - len(
        lexicon.fields
    )
    for number in range(lexicon.vocabulary.fields):  # a field without rare words: their mean
        own = lexicon.vocabulary.field_of() == number
        own[: 1 + lexicon.vocabulary.fields] = False
        if own.any():
            assert lexicon.vectors[1 + number].any()


def test_words_that_training_never_met_are_all_the_same(fitted: HeaderWordsDetector) -> None:
    features = own_features(NAME, 20, seed=4)
    columns = [k for k, name in enumerate(features.schema.names) if name.startswith("icmp_type")]

    def with_types(value: float) -> FeatureFrame:
        values = features.values.copy()
        values[:, columns] = value
        return replace(features, values=values)

    one, other = with_types(1e6), with_types(1e7)
    np.testing.assert_array_equal(fitted.predict_proba(one), fitted.predict_proba(other))
    assert not np.array_equal(fitted.predict_proba(one), fitted.predict_proba(features))
    fields = len(fitted._fitted[0].fields)
    known = np.count_nonzero(fitted._numbers(one) > fields)
    assert fitted.known_words(one) == pytest.approx(known / np.count_nonzero(fitted._numbers(one)))
    assert fitted.known_words(one) < 1


def test_the_published_setting_learns_and_serves_what_it_learned(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"packets": 3, "dimensions": 4, "word_epochs": 1, "hidden": 4}
    settings = DetectorSettings(3, 1, {**PUBLISHED, **quick, "epochs": 2})
    malicious = np.arange(40) % 2 == 1
    features = capture_features(random_headers(40, malicious=malicious), (NAME,), shortcuts=True)
    training = replace(own_training_set(NAME, rows=40), features=features)
    detector = HeaderWordsDetector()
    detector.fit(training, settings)  # refuses by itself what the exported network answers wrongly
    lexicon = detector._fitted[0]
    assert (lexicon.values, lexicon.steps, lexicon.packets) == ("raw", "words", 3)
    assert lexicon.fields == RAW
    detector.save(tmp_path)
    again = HeaderWordsDetector.load(tmp_path, features.schema)
    np.testing.assert_array_equal(again.predict_proba(features), detector.predict_proba(features))


def test_explanations_add_up_to_what_packets_and_fields_brought(
    fitted: HeaderWordsDetector,
) -> None:
    features = own_features(NAME, 3, seed=8)
    parts = fitted.explain(features)
    numbers = fitted._numbers(features)
    lexicon = fitted._fitted[0]
    whole = fitted._logits(numbers)
    for row in range(len(features)):
        brought = 0.0
        for axis, size in enumerate(numbers.shape[1:]):
            for k in range(size):
                hidden = np.zeros(numbers.shape[1:], bool)
                hidden[(k, slice(None)) if axis == 0 else (slice(None), k)] = True
                if not (numbers[row][hidden] > 0).any():
                    continue
                less = fitted._logits(lexicon.vocabulary.hide(numbers[row : row + 1], hidden[None]))
                brought += float(whole[row] - less[0]) / 2
        assert parts[row].sum() == pytest.approx(brought, abs=1e-6)
    unused = [k for k, name in enumerate(features.schema.names) if name.endswith("_40")]
    assert not parts[:, unused].any()


@pytest.mark.parametrize(
    "parameters",
    [
        {"packets": 0},
        {"packets": 65},
        {"packets": "8"},
        {"dropout": 1.0},
        {"steps": "bytes"},
        {"layers": 3},
        {"learning_rate": float("nan")},
    ],
)
def test_parameters_out_of_bounds_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=next(iter(parameters))):
        word_settings(parameters)


def test_fields_that_are_not_there_are_refused() -> None:
    settings = replace(QUICK_WORDS, parameters={"fields": ["ip_ttl"]})  # a shortcut
    with pytest.raises(TrainingError, match="no field 'ip_ttl'"):
        HeaderWordsDetector().fit(own_training_set(NAME, rows=20), settings)


@pytest.mark.parametrize("missing", ["torch", "onnx", "gensim"])
def test_what_training_needs_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        frameworks, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(TrainingError, match=missing) as caught:
        HeaderWordsDetector().fit(own_training_set(NAME, rows=20), QUICK_WORDS)
    assert ".[train]" in caught.value.hint


def rewritten(path: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    """Put another array into a saved lexicon."""
    with np.load(path) as archive:
        parts = dict(archive)
    parts[name] = array
    np.savez(path, **parts)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("vectors", np.zeros((3, 6), np.float32)),
        ("vectors", np.zeros((3, 6), object)),
        ("vectors", np.zeros((3, 6), np.complex128)),
        ("starts", np.array([0, 5, 3], np.int64)),
        ("starts", np.array([[0, 1]], np.int64)),
        ("packets", np.array([10_000], np.int64)),
        ("packets", np.array([1, 2], np.int64)),
        ("fields", np.array(["ip_ttl"] * 9)),
        ("fields", np.array([f"ghost{k}" for k in range(9)])),
        ("setting", np.array(["raw", "bytes", "x"])),
    ],
)
def test_words_that_contradict_themselves_are_refused(
    name: str, array: np.ndarray[Any, Any], fitted: HeaderWordsDetector, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    rewritten(tmp_path / WORDS, name, array)
    with pytest.raises(ModelError):
        HeaderWordsDetector.load(tmp_path, own_features(NAME, 1).schema)


def test_vectors_that_are_no_numbers_are_refused(
    fitted: HeaderWordsDetector, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    vectors = fitted._fitted[0].vectors.copy()
    vectors[2, 1] = np.nan
    rewritten(tmp_path / WORDS, "vectors", vectors)
    with pytest.raises(ModelError, match="do not fit"):
        HeaderWordsDetector.load(tmp_path, own_features(NAME, 1).schema)


def test_vectors_of_another_width_than_the_network_takes_are_refused(
    fitted: HeaderWordsDetector, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    vectors = fitted._fitted[0].vectors
    rewritten(tmp_path / WORDS, "vectors", np.concatenate([vectors, vectors], axis=1))
    with pytest.raises(ModelError, match="does not take"):
        HeaderWordsDetector.load(tmp_path, own_features(NAME, 1).schema)


def test_a_file_that_would_fill_the_memory_is_refused(
    fitted: HeaderWordsDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted.save(tmp_path)
    packed = io.BytesIO()
    np.save(packed, np.zeros(1_000_000, np.float32))
    with zipfile.ZipFile(tmp_path / WORDS, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.npy", packed.getvalue())
    monkeypatch.setattr("veilwatch.learning.detectors.words.files.MAX_BYTES", 100_000)
    assert (tmp_path / WORDS).stat().st_size < 100_000
    with pytest.raises(ModelError, match="too large unpacked"):
        HeaderWordsDetector.load(tmp_path, own_features(NAME, 1).schema)


def test_a_network_of_another_training_is_refused(
    fitted: HeaderWordsDetector, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    (tmp_path / NETWORK).write_bytes(b"not a network")
    with pytest.raises(ModelError):
        HeaderWordsDetector.load(tmp_path, own_features(NAME, 1).schema)
