"""Trees of many families, and how flows add up to a host's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.learning.training.factory import MARKS, QUICK, family_flows
from veilwatch.errors import ModelError
from veilwatch.learning.detectors.family import (
    EPSILON,
    FEATURE_SETS,
    FamilyModel,
    group_evidence,
    name_groups,
    strongest,
)
from veilwatch.learning.features import compute_features
from veilwatch.schema.features import FeatureFrame

NAMES = tuple(f"family-{k}" for k in range(len(MARKS)))


def flows(seed: int, rows: int = 300) -> tuple[FeatureFrame, np.ndarray]:
    family = np.arange(rows) % len(MARKS)
    return compute_features(family_flows(family, seed=seed), FEATURE_SETS), family


def fit(seed: int = 3) -> FamilyModel:
    features, family = flows(0)
    return FamilyModel.fit(features, family, np.ones(len(family)), NAMES, replace(QUICK, seed=seed))


@pytest.fixture(scope="module")
def model() -> FamilyModel:
    return fit()


def test_probabilities_of_flows_tell_families_apart(model: FamilyModel) -> None:
    features, family = flows(1)
    said = model.log_probabilities(features)
    assert said.shape == (len(family), len(NAMES))
    np.testing.assert_allclose(np.exp(said).sum(axis=1), 1, atol=len(NAMES) * EPSILON)
    assert (said.argmax(axis=1) == family).mean() > 0.95
    assert model.log_probabilities(features.take(np.arange(0))).shape == (0, len(NAMES))


def test_the_seed_decides(model: FamilyModel) -> None:
    features, _ = flows(1)
    np.testing.assert_array_equal(
        fit().log_probabilities(features), model.log_probabilities(features)
    )
    assert not np.array_equal(fit(4).log_probabilities(features), model.log_probabilities(features))


def test_a_saved_model_says_the_same(model: FamilyModel, tmp_path: Path) -> None:
    features, _ = flows(1)
    assert model.save(tmp_path) == [path.name for path in tmp_path.iterdir()]
    loaded = FamilyModel.load(tmp_path, features.schema, NAMES)
    assert loaded.names == model.names
    np.testing.assert_array_equal(
        loaded.log_probabilities(features), model.log_probabilities(features)
    )


def test_a_loaded_model_is_saved_as_the_same_bytes(model: FamilyModel, tmp_path: Path) -> None:
    (name,) = model.save(tmp_path)
    before = (tmp_path / name).read_bytes()
    FamilyModel.load(tmp_path, flows(1, 5)[0].schema, NAMES).save(tmp_path)
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary"])
def test_damaged_files_are_refused(damage: str, model: FamilyModel, tmp_path: Path) -> None:
    schema = flows(1, 5)[0].schema
    path = tmp_path / model.save(tmp_path)[0]
    content = path.read_bytes()
    damaged = {"empty": b"", "cut": content[: len(content) // 2], "binary": b"\xff\xfe\0" * 99}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(ModelError):
        FamilyModel.load(tmp_path, schema, NAMES)


def test_other_features_and_other_families_are_refused(model: FamilyModel, tmp_path: Path) -> None:
    schema = flows(1, 5)[0].schema
    model.save(tmp_path)
    first, second, *rest = schema.features
    with pytest.raises(ModelError, match="other features"):
        FamilyModel.load(tmp_path, replace(schema, features=(second, first, *rest)), NAMES)
    for names in ((), NAMES[:-1], (*NAMES, "more")):
        with pytest.raises(ModelError, match=f"the manifest names {len(names)}"):
            FamilyModel.load(tmp_path, schema, names)
    with pytest.raises(ModelError, match="schema"):
        model.log_probabilities(compute_features(family_flows(np.zeros(3), seed=1), ["sequence"]))


def test_the_strongest_rows_of_each_group() -> None:
    rng = np.random.default_rng(0)
    score, group = rng.random(200), rng.integers(0, 9, 200) * 3
    found = strongest(score, group, 4)
    wanted = {
        row
        for g in set(group)
        for row in sorted(np.flatnonzero(group == g), key=lambda r: -score[r])[:4]
    }
    assert len(found) == len(wanted) and set(found.tolist()) == wanted


def test_evidence_is_the_mean_and_its_lead_the_certainty() -> None:
    said = np.log([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    evidence = group_evidence(said, np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(evidence[0], (said[0] + said[1]) / 2)
    assert np.isnan(evidence[1]).all()
    family, certainty = name_groups(evidence)
    assert (family[0], family[2]) == (0, 2)
    # √(0.8·0.2) against √(0.1·0.7), and 0.8 against 0.1
    np.testing.assert_allclose(certainty, [0.4 / (0.4 + 0.07**0.5), 0, 0.8 / 0.9])
