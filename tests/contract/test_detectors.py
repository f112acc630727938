"""Every detector of ours keeps the rules that are shipped for those of others, and some more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.learning.training.factory import QUICK, QUICK_BY_DETECTOR
from veilwatch.errors import ModelError, TrainingError
from veilwatch.learning.checks import CHECKS, Candidate
from veilwatch.learning.checks.units import widened
from veilwatch.learning.detectors import DETECTORS
from veilwatch.learning.detectors.host import HostDetector

SETTINGS = QUICK_BY_DETECTOR | {HostDetector.name: QUICK}
"""Those that users choose, and the one that decides about hosts."""


@cache
def candidate(name: str) -> Candidate:
    """A detector on trial; made once, since no rule changes it."""
    kind = HostDetector if name == HostDetector.name else DETECTORS[name]
    return Candidate(kind, SETTINGS[name])


def test_every_detector_is_tried() -> None:
    assert set(DETECTORS) == set(QUICK_BY_DETECTOR)
    assert all(DETECTORS[name].name == name for name in DETECTORS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SETTINGS)
def test_it_keeps_the_rule(name: str, check: Callable[[Candidate], None]) -> None:
    check(candidate(name))


@pytest.mark.parametrize("name", SETTINGS)
def test_another_seed_gives_another_detector(name: str) -> None:
    on = candidate(name)
    other = on.fit(on.training, on.settings.seed + 1)
    assert not np.array_equal(on.fitted.predict_proba(on.unseen), other.predict_proba(on.unseen))


@pytest.mark.parametrize("name", SETTINGS)
def test_errors_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    on = candidate(name)
    untrained = on.kind()
    for asked in (untrained.predict_proba, untrained.explain):
        with pytest.raises(ModelError, match="not been trained"):
            asked(on.unseen)
    with pytest.raises(ModelError, match="not been trained"):
        untrained.save(tmp_path)
    schema = on.unseen.schema
    newer = replace(on.unseen, schema=replace(schema, version=schema.version + 1))
    for features in (widened(on.unseen), newer):
        for asked in (on.fitted.predict_proba, on.fitted.explain):
            with pytest.raises(ModelError, match="schema"):
                asked(features)
    on.fitted.save(tmp_path)
    first, second, *rest = schema.features
    for specs in ((second, first, *rest), (second, *rest), (first, first, second, *rest)):
        with pytest.raises(ModelError, match="other features"):
            on.kind.load(tmp_path, replace(schema, features=specs))


@pytest.mark.parametrize("kept", ["malicious", "benign", "nothing"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_class_and_the_unit_that_are_missing_are_named(name: str, kept: str) -> None:
    on = candidate(name)
    rows = {
        "malicious": np.flatnonzero(on.training.malicious),
        "benign": np.flatnonzero(~on.training.malicious),
        "nothing": np.zeros(0, np.intp),
    }[kept]
    unit = on.kind.unit.replace("_", " ")
    with pytest.raises(TrainingError, match=rf"no (malicious|benign) {unit}"):
        on.fit(on.training.take(rows))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_loaded_detector_is_saved_as_the_same_bytes(name: str, tmp_path: Path) -> None:
    on = candidate(name)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    files = on.fitted.save(first)
    assert on.kind.load(first, on.unseen.schema).save(second) == files
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
