"""Model folders: written whole or not at all, and read without being believed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import make_model
from veilwatch.errors import ModelError, OutputError, VeilwatchError
from veilwatch.learning.checks.units import random_evidence
from veilwatch.learning.features import FEATURE_SETS
from veilwatch.learning.models import Model, load_model, persistence, save_model

KINDS = ("channel", "host", "member", "window")
"""What folders of detectors are called."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("corpus"))[0]


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    """A model on disk."""
    return save_model(tmp_path / "model", model)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text


def test_a_loaded_model_is_the_saved_one(model: Model, folder: Path) -> None:
    loaded = load_model(folder)
    table = random_flows(80, seed=3)
    features = loaded.features(table)
    np.testing.assert_array_equal(loaded.score(features), model.score(features))
    np.testing.assert_array_equal(loaded.explain(features), model.explain(features))
    assert loaded.manifest == model.manifest.model_copy(update={"files": loaded.manifest.files})
    assert sorted(loaded.manifest.files) == [
        f"{kind}-{k}/lightgbm.txt" for kind in KINDS for k in (0, 1)
    ]
    windows, channels = loaded.window_features(table), loaded.channel_features(table)
    np.testing.assert_array_equal(loaded.score_windows(windows), model.score_windows(windows))
    np.testing.assert_array_equal(loaded.score_channels(channels), model.score_channels(channels))
    np.testing.assert_array_equal(
        loaded.explain_channels(channels), model.explain_channels(channels)
    )
    evidence = random_evidence(80, seed=3)
    np.testing.assert_array_equal(loaded.decide(evidence), model.decide(evidence))
    assert sorted(tree(folder)) == sorted([*loaded.manifest.files, "model.json"])


def test_a_loaded_model_is_saved_as_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = save_model(tmp_path / "again", load_model(folder))
    assert tree(again) == tree(folder)
    assert save_model(folder, load_model(folder)) == folder
    assert tree(folder) == tree(again)


def test_an_older_model_is_replaced_and_nothing_is_left_behind(model: Model, folder: Path) -> None:
    (folder / "member-7").mkdir()
    (folder / "member-7" / "lightgbm.txt").write_text("from an older model with more members")
    save_model(folder, model)
    assert len(load_model(folder).members) == 2
    assert not (folder / "member-7").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_others_may_read_the_folder_as_the_umask_says(folder: Path) -> None:
    fresh = folder.parent / "fresh"
    fresh.mkdir()
    assert folder.stat().st_mode == (folder / "member-0").stat().st_mode == fresh.stat().st_mode


class Full:
    """A detector whose disk is full."""

    def __init__(self, after: int) -> None:
        self.after = after

    def save(self, folder: Path) -> list[str]:
        (folder / "half").write_bytes(b"x" * self.after)
        raise OSError(28, "No space left on device")


class Interrupted(Full):
    def save(self, folder: Path) -> list[str]:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("second", "error"), [(Full(9), OutputError), (Interrupted(0), KeyboardInterrupt)]
)
def test_a_failure_half_way_leaves_the_older_model(
    second: Any, error: type[BaseException], model: Model, folder: Path
) -> None:
    before = tree(folder)
    with pytest.raises(error):
        save_model(folder, replace(model, members=[model.members[0], second]))
    assert tree(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_of_the_exchange_leaves_the_older_model(
    error: BaseException, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = tree(folder), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        save_model(folder, model)
    assert tree(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("beside", ["notes.txt", "member-x", "model.json.bak", ".hidden"])
@pytest.mark.parametrize("with_model", [True, False])
def test_a_folder_that_holds_anything_else_is_not_touched(
    beside: str, with_model: bool, model: Model, folder: Path
) -> None:
    if not with_model:
        shutil.rmtree(folder)
        folder.mkdir()
    (folder / beside).write_text("dear to somebody")
    before = tree(folder)
    with pytest.raises(ModelError, match="something that is not a model") as caught:
        save_model(folder, model)
    assert str(caught.value.where).endswith(beside)
    assert tree(folder) == before


def test_a_file_is_not_a_folder(model: Model, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    for place in (tmp_path / "model", tmp_path / "model" / "below"):
        with pytest.raises(VeilwatchError):
            save_model(place, model)
    assert (tmp_path / "model").read_text() == "a file"


def test_an_empty_folder_and_a_damaged_model_are_replaced(model: Model, tmp_path: Path) -> None:
    empty, damaged = tmp_path / "empty", tmp_path / "damaged"
    empty.mkdir()
    damaged.mkdir()
    (damaged / "model.json").write_text("{")
    for place in (empty, damaged, tmp_path / "new" / "deep"):
        save_model(place, model)
        assert len(load_model(place).members) == 2


def test_a_link_to_a_model_stays_a_link(model: Model, folder: Path) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder)
    save_model(link, model)
    assert link.is_symlink()
    assert len(load_model(link).members) == 2


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_no_model(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    assert_refused(tmp_path / place, "no model here")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 2}', b"[" * 100_000, b'{"a":' * 5000],
    ids=["empty", "cut", "list", "null", "binary", "fields", "deep list", "deep object"],
)
def test_a_manifest_that_is_none(content: bytes, folder: Path) -> None:
    (folder / "model.json").write_bytes(content)
    assert_refused(folder, "cannot read the manifest")


def test_a_manifest_cut_anywhere(folder: Path) -> None:
    content = (folder / "model.json").read_bytes().rstrip()
    for length in range(0, len(content), len(content) // 40):
        (folder / "model.json").write_bytes(content[:length])
        assert_refused(folder, "cannot read the manifest")


def test_a_manifest_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "MAX_MANIFEST_BYTES", 100)
    assert_refused(folder, "too large")


NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=1), "unknown model format 1"),
        (lambda d: d.update(format=3), "unknown model format 3"),
        (lambda d: d.update(format=5), "unknown model format 5"),
        (lambda d: d.update(detector="oracle"), "unknown detector 'oracle'"),
        (lambda d: d.update(members=[]), "0 members"),
        (lambda d: d.update(members=["member-0"] * 65), "65 members"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d["thresholds"].update(unit="high"), "thresholds.unit"),
        (lambda d: d["thresholds"].update(unit=NOT_A_NUMBER), "thresholds.unit"),
        (lambda d: d["features"].update(hash="0" * 16), "feature schema 0000000000000000"),
        (lambda d: d["features"].update(shortcuts=True), "feature schema"),
        (lambda d: d["features"].update(sets=["statistics"]), "feature schema"),
        (lambda d: d["features"].update(sets=["magic"]), "unknown feature set 'magic'"),
        (lambda d: d["features"].update(sets=["sequence"] * 2), "named twice"),
        (lambda d: d["files"].popitem(), "changed after training"),
        (lambda d: d["files"].update({"member-0/more.txt": "0"}), "changed after training"),
        (lambda d: d["files"].update({"member-0/lightgbm.txt": "0" * 64}), "changed after"),
        (lambda d: d["members"].append("member-2"), "changed after training"),
        (lambda d: d["hosts"].update(members=[]), "0 members"),
        (lambda d: d["hosts"]["channels"].update(members=["channel-0"] * 65), "65 members"),
        (lambda d: d["hosts"]["windows"]["members"].append("window-2"), "changed after training"),
        (lambda d: d["hosts"]["members"].append("host-2"), "changed after training"),
        (lambda d: d["hosts"].update(threshold="high"), "hosts.threshold"),
        (lambda d: d["hosts"].update(threshold=NOT_A_NUMBER), "hosts.threshold"),
        (lambda d: d["hosts"].pop("blends"), "hosts.blends"),
        (lambda d: d["hosts"].update(extra=1), "hosts.extra"),
        (lambda d: d["hosts"]["features"].update(hash="0" * 16), "feature schema 0{16}"),
        (lambda d: d["hosts"]["channels"]["features"].update(hash="0" * 16), "schema 0{16}"),
        (lambda d: d["hosts"]["windows"]["features"].update(hash="0" * 16), "schema 0{16}"),
        (lambda d: d["hosts"]["channels"]["features"].update(sets=["magic"]), "unknown feature"),
        # What decided before channels were heard: a model of an older format.
        (lambda d: d.update(windows=d.pop("hosts")["windows"]), "cannot read the manifest"),
        (lambda d: d.update(hosts=None), "changed after training"),
    ],
)
def test_a_manifest_that_promises_something_else(
    change: Callable[[dict[str, Any]], object], message: str, folder: Path
) -> None:
    edit(folder, change)
    assert_refused(folder, message)


@pytest.mark.parametrize("where", ["members", "hosts", "channels", "windows"])
@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc", "member-0/..", "..", ".", "", "member-0/../../outside", "member-0\n"],
)
def test_members_cannot_lie_outside(name: str, where: str, folder: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        card = document["hosts"]
        lists = {"members": document["members"], "hosts": card["members"]}
        lists |= {part: card[part]["members"] for part in ("channels", "windows")}
        lists[where].append(name)

    shutil.copytree(folder / "member-0", folder.parent / "outside")
    edit(folder, add)
    assert_refused(folder, "cannot be a member")


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "member-0/../../outside", "model.json", "member-0"]
)
def test_files_cannot_lie_outside(name: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    edit(folder, lambda d: d["files"].update({name: persistence._sha256(outside)}))
    assert_refused(folder, "is missing, or was changed after training")


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_byte_is_noticed(kind: str, folder: Path) -> None:
    file = folder / f"{kind}-1" / "lightgbm.txt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert_refused(folder, "changed after training")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_and_an_added_file_are_noticed(kind: str, folder: Path) -> None:
    (folder / f"{kind}-0" / "more.txt").write_text("more")
    assert_refused(folder, "changed after training")
    (folder / f"{kind}-0" / "more.txt").unlink()
    (folder / f"{kind}-0" / "lightgbm.txt").unlink()
    assert_refused(folder, "missing")


def test_a_model_of_windows_decides_about_no_host(folder: Path) -> None:
    """Channels and windows are heard beside flows, and beside nothing else."""

    def promise(document: dict[str, Any]) -> None:
        document["detector"] = "host_window"
        document["features"] = document["hosts"]["windows"]["features"]

    edit(folder, promise)
    assert_refused(folder, "does not judge flows")


def test_a_part_in_the_place_of_another_is_refused(folder: Path) -> None:
    """Trees over windows are none over channels, and the hashes are right."""

    def swap(document: dict[str, Any]) -> None:
        card = document["hosts"]
        card["channels"]["members"], card["windows"]["members"] = (
            card["windows"]["members"],
            card["channels"]["members"],
        )

    edit(folder, swap)
    assert_refused(folder, "other features")


def test_links_inside_are_refused_even_if_the_content_is_right(folder: Path) -> None:
    file, elsewhere = folder / "member-0" / "lightgbm.txt", folder.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert_refused(folder, "changed after training")
    file.unlink()
    elsewhere.rename(file)
    load_model(folder)
    (folder / "member-1").rename(elsewhere)
    (folder / "member-1").symlink_to(elsewhere)
    assert_refused(folder, "changed after training")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    file = folder / "member-0" / "lightgbm.txt"
    file.unlink()
    os.mkfifo(file)
    assert_refused(folder, "changed after training")


def test_a_feature_set_of_another_version_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(FEATURE_SETS["sequence"], version=FEATURE_SETS["sequence"].version + 1)
    monkeypatch.setitem(FEATURE_SETS, "sequence", newer)
    assert_refused(folder, "trained on feature schema")


def test_an_unreadable_file_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(persistence, "_sha256", refuse)
    assert_refused(folder, "Permission denied")


def test_a_member_that_grew_on_other_features(folder: Path) -> None:
    """The manifest and the hashes agree, the trees inside do not."""
    file = folder / "member-0" / "lightgbm.txt"
    text = file.read_text().replace("fwd_packets", "fwd_parcels")
    assert text != file.read_text()
    file.write_text(text)
    edit(folder, lambda d: d["files"].update({"member-0/lightgbm.txt": persistence._sha256(file)}))
    assert_refused(folder, "other features")
