"""The training loop: what it holds back, how it goes on, what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.learning.training.factory import (
    QUICK_LSTM,
    QUICK_MOBILENET,
    make_training_set,
    own_training_set,
)
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DETECTORS, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.nets.plan import Plan, split_parameters
from veilwatch.learning.detectors.nets.sampling import HELD_BACK, draw, hold_back

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

SETTINGS = {"lstm": QUICK_LSTM, "mobilenet": QUICK_MOBILENET}
TINY: dict[str, Any] = {"epochs": 3, "patience": 3, "samples": 64, "batch": 16}


class Interrupted:
    """Presses Ctrl-C at the first step of an epoch, and keeps what it is told."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.epochs = at, 0
        self.notes: list[str] = []

    def start(self, task: str, total: float | None = None) -> None:
        self.epochs += 1
        assert total and total >= 1

    def advance(self, amount: float = 1.0) -> None:
        if self.epochs == self.at:
            raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.notes.append(message)


def flows(name: str) -> TrainingSet:
    return own_training_set(name, rows=80)


def tiny(name: str, **changes: Any) -> DetectorSettings:
    settings = SETTINGS[name]
    return replace(settings, parameters=settings.parameters | TINY | changes)


def scores(
    name: str, settings: DetectorSettings, progress: Interrupted | None = None
) -> np.ndarray:
    detector, training = DETECTORS[name](), flows(name)
    detector.fit(training, settings, progress or Interrupted())
    return detector.predict_proba(training.features)


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_is_as_if_never_interrupted(name: str, tmp_path: Path) -> None:
    wanted = scores(name, tiny(name))
    settings = replace(tiny(name), checkpoints=tmp_path / "new")
    stopped = Interrupted(at=2)
    with pytest.raises(KeyboardInterrupt):
        scores(name, settings, stopped)
    resumed = Interrupted()
    np.testing.assert_array_equal(scores(name, settings, resumed), wanted)
    assert resumed.epochs == 2 and "after epoch 1" in resumed.notes[0]
    # A fold that was finished before the interruption costs nothing the second time.
    again = Interrupted()
    np.testing.assert_array_equal(scores(name, settings, again), wanted)
    assert again.epochs == 0


def test_a_checkpoint_of_something_else_is_not_used(tmp_path: Path) -> None:
    settings = replace(tiny("lstm"), checkpoints=tmp_path)
    scores("lstm", settings)
    for other in (
        replace(settings, seed=settings.seed + 1),
        replace(settings, parameters=settings.parameters | {"learning_rate": 0.001}),
        replace(settings, parameters=settings.parameters | {"hidden": 9}),
    ):
        progress = Interrupted()
        scores("lstm", other, progress)
        assert progress.epochs == 3 and not progress.notes
    training = flows("lstm")
    progress = Interrupted()
    heavier = replace(training, weight=training.weight * np.where(training.malicious, 2, 1))
    DETECTORS["lstm"]().fit(heavier, settings, progress)
    assert progress.epochs == 3


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other arrays", "other shapes", "list"])
def test_a_damaged_checkpoint_begins_anew(damage: str, tmp_path: Path) -> None:
    settings = replace(tiny("lstm"), checkpoints=tmp_path)
    wanted = scores("lstm", settings)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, epoch=np.array(2))
    elif damage == "list":
        path.unlink()
        path.mkdir()
    elif damage == "other shapes":
        with np.load(path) as archive:
            np.savez(path, **{k: v[..., :1] if v.ndim else v for k, v in dict(archive).items()})
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"no", "empty": b""}[damage])
    progress = Interrupted()
    if damage == "list":
        path.rmdir()
    np.testing.assert_array_equal(scores("lstm", settings, progress), wanted)
    assert progress.epochs == 3


def test_a_checkpoint_holds_no_objects(tmp_path: Path) -> None:
    scores("lstm", replace(tiny("lstm"), checkpoints=tmp_path))
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[key].dtype.kind in "fiu" for key in archive)


def test_settings_of_the_framework_are_left_as_they_were() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state = torch.random.get_rng_state()
    small = np.float32(1e-39)
    scores("lstm", replace(tiny("lstm"), threads=2))
    with pytest.raises(KeyboardInterrupt):
        scores("lstm", replace(tiny("lstm"), threads=2), Interrupted(at=1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert small * np.float32(1) > 0  # denormal numbers are numbers again


def test_an_export_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = DETECTORS["lstm"]
    export = kind.export

    def spoiled(self: Any, module: Any, metadata: Any) -> Any:
        with torch.no_grad():
            module.answer.bias += 0.001
            content = export(self, module, metadata)
            module.answer.bias -= 0.001
        return content

    monkeypatch.setattr(kind, "export", spoiled)
    with pytest.raises(TrainingError, match=r"scores \d\.\de-04 away"):
        scores("lstm", tiny("lstm"))


def test_without_the_frameworks_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "veilwatch.learning.detectors.nets.frameworks.find_spec",
        lambda name: None if name == "onnx" else 1,
    )
    with pytest.raises(TrainingError, match=r"onnx.*\.\[train\]"):
        scores("lstm", tiny("lstm"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hiden", 3),
        ("hidden", 0),
        ("hidden", 2.5),
        ("epochs", True),
        ("batch", "64"),
        ("learning_rate", float("nan")),
        ("learning_rate", -1.0),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("smoothing", 1.5),
        ("hidden", 10**8),
    ],
)
def test_bad_parameters_are_one_line(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=name):
        scores("lstm", tiny("lstm", **{name: value}))


def test_parameters_find_their_place() -> None:
    own, plan = split_parameters({"hidden": 64}, Plan(), {"hidden": 8, "epochs": 2, "clip": 3})
    assert own == {"hidden": 8}
    assert (plan.epochs, plan.clip, plan.batch) == (2, 3, Plan().batch)


def test_rows_are_drawn_as_often_as_they_weigh() -> None:
    rng = np.random.default_rng(4)
    weight = rng.gamma(0.3, 1.0, 500)
    weight[::7] = 0.0
    drawn = draw(weight, 3000, rng)
    expected = weight / weight.sum() * 3000
    counts = np.bincount(drawn, minlength=500)
    assert (np.abs(counts - expected) < 1).all()
    assert (counts[::7] == 0).all()
    assert not np.array_equal(drawn, np.sort(drawn))


def test_whole_groups_are_held_back() -> None:
    training = make_training_set(300)
    held = hold_back(training, np.random.default_rng(0))
    for group in np.unique(training.group):
        assert len(np.unique(held[training.group == group])) == 1
    for label in (True, False):
        own = training.malicious == label
        # Five groups of a class, each more than the share: the lightest one.
        assert held[own].mean() == pytest.approx(0.2)


def test_no_more_than_the_share_is_held_back() -> None:
    training = make_training_set(400)
    group = np.arange(400)
    group[training.malicious & (np.arange(400) < 300)] = 9999  # one large group
    held = hold_back(replace(training, group=group), np.random.default_rng(1))
    for label in (True, False):
        assert 0 < held[training.malicious == label].mean() <= HELD_BACK
    assert not held[group == 9999].any()


def test_one_group_of_a_class_leaves_nothing_to_hold_back() -> None:
    training = make_training_set(60)
    lonely = replace(training, group=np.where(training.malicious, 0, training.group))
    assert not hold_back(lonely, np.random.default_rng(0)).any()
    detector = DETECTORS["lstm"]()
    progress = Interrupted()
    training = flows("lstm")
    detector.fit(
        replace(training, group=training.malicious.astype(np.int64)), tiny("lstm"), progress
    )
    assert progress.epochs == 3  # nothing to stop by
