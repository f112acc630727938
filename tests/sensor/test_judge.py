"""The scoring process: which part gets what, and what a reload changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.detection.alerting.frames import live_scores, scored_flows, scored_hosts
from tests.learning.training.factory import make_model
from tests.sensor.stubs import make_config, write_config
from veilwatch.detection.alerting.gate import GATE_STATE
from veilwatch.errors import VeilwatchError
from veilwatch.learning.models import save_model
from veilwatch.schema.flows import FlowTable
from veilwatch.sensor import judge, settings
from veilwatch.sensor.judge import JudgeJob, JudgeWork
from veilwatch.sensor.link import Kind, Parcel
from veilwatch.sensor.serve import Scored
from veilwatch.sensor.sitemodel import EMULATED
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store

A, B = "10.0.0.1", "10.0.0.2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder / "model", make_model(folder)[0])


class Rig:
    """The work of a scoring process, with the store and spool that it writes to."""

    def __init__(self, folder: Path, spool: Spool) -> None:
        sinks = f'[sinks]\nurls = ["jsonl+file://{folder}/out.jsonl"]\n'
        self.folder, self.spool = folder, spool
        self.config = make_config(folder, sinks)
        self.store = StoreProxy(partial(settings.store, self.config))
        job = JudgeJob(self.config, "run", folder / "sensor.toml")
        self.work = JudgeWork(job, self.store, spool)

    def hand_over(self, *flows: tuple[int, str, float], early: bool = False) -> None:
        scores = live_scores(scored_flows(*flows), scored_hosts())
        kind = Kind.EARLY if early else Kind.ENDED
        parcel = Parcel(kind, FlowTable.empty(), 0, 0, archive=not early)
        self.work.hand_over(Scored(scores, parcel))

    def write(self, text: str) -> None:
        sinks = f'[sinks]\nurls = ["jsonl+file://{self.folder}/out.jsonl"]\n'
        write_config(self.folder, sinks + text)

    @property
    def notes(self) -> list[str]:
        return [note.partition(" ")[2] for note in self.work.status()["notes"]]

    @property
    def stored(self) -> list[Any]:
        with Store(self.config.store_url) as store:
            return list(store.events())


@pytest.fixture
def rig(tmp_path: Path, model: Path) -> Iterator[Rig]:
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "state").mkdir(mode=0o700)
    with Spool(tmp_path / "state" / "spool.db") as spool:
        made = Rig(tmp_path, spool)
        yield made
        made.store.close()


def test_an_alert_is_spooled_and_stored(rig: Rig) -> None:
    rig.hand_over((1, A, 0.9), (2, B, 0.1))
    assert [item.event.alert.host for item in rig.stored] == [A, A]  # with its incident
    (sink,) = rig.spool.sinks()
    assert rig.spool.counts(sink).pending == 2
    said = rig.work.status()
    assert (said["alerts"], said["fate"]) == ({"flow": 1}, {"told": 1})
    assert said["delay_count"] + said["incidents"] >= 1


def test_reports_of_live_flows_are_alerted_on_and_not_recorded(rig: Rig) -> None:
    rig.hand_over((1, A, 0.9), early=True)
    said = rig.work.status()
    assert said["alerts"] == {"flow": 1}
    assert said.get("flows", 0) == 0 and sum(said["score"]) == 0
    rig.hand_over((1, A, 0.9), (2, B, 0.1))
    rig.work.close()
    said = rig.work.status()
    assert said["flows"] == 2 and sum(said["score"]) == 2
    assert len(list(rig.config.archive_folder.glob("flows-*.parquet"))) == 1
    with Store(rig.config.store_url) as store:
        assert store.load_state(GATE_STATE) is not None


def test_a_flow_that_was_reported_early_is_a_repeat_at_its_end(rig: Rig) -> None:
    rig.hand_over((1, A, 0.9), early=True)
    rig.hand_over((1, A, 0.9))
    assert rig.work.status()["fate"] == {"told": 1, "repeat": 1}


def test_a_reload_changes_the_policy_and_names_what_waits(rig: Rig) -> None:
    allow = rig.folder / "allow.toml"
    allow.write_text(f'[[allow]]\nreason = "ours"\nuntil = 2099-01-01\nhost = ["{A}"]\n')
    rig.write(f'[alerts]\nallow_file = "{allow}"\n[flow]\nmax_flows = 4096\n')
    rig.work.reload()
    rig.hand_over((1, A, 0.9))
    assert rig.work.status()["fate"] == {"allowed": 1}
    assert "these hold from the next start on: flow.max_flows" in rig.notes


@pytest.mark.parametrize(
    "text",
    ["[alerts]\nallow_file = '/nowhere'\n", "[alerts]\nno_such_key = 1\n", "[alerts\n"],
)
def test_a_configuration_that_cannot_be_read_changes_nothing(rig: Rig, text: str) -> None:
    rig.write(text)
    with pytest.raises(VeilwatchError):
        rig.work.reload()
    rig.hand_over((1, A, 0.9))
    assert rig.work.status()["fate"] == {"told": 1}


def test_an_emulated_model_is_noted_at_start_and_at_each_reload(rig: Rig) -> None:
    emulated = rig.work.status()["emulated_model"]
    assert (EMULATED in rig.notes) == emulated
    rig.work.reload()
    assert rig.notes.count(EMULATED) == 2 * emulated


def test_notes_are_the_latest_and_bounded(rig: Rig) -> None:
    for number in range(9):
        rig.work.note(f"{number} " + "x" * 1000)
    assert [note[0] for note in rig.notes] == ["6", "7", "8"]
    assert all(len(note) <= judge.MAX_NOTE for note in rig.notes)


def test_a_thread_of_the_store_that_has_ended_ends_the_process(rig: Rig) -> None:
    rig.work.idle()
    rig.store.close()
    with pytest.raises(VeilwatchError, match="a thread has ended: store"):
        rig.work.idle()


def test_windows_are_judged_while_no_table_comes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]  # the rig was made by this clock
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    looks: list[float] = []

    def look() -> Any:
        looks.append(now[0])
        return live_scores(hosts=scored_hosts((A, "", 0.9)))

    monkeypatch.setattr(rig.work.scorer, "judge_current", look)
    now[0] += rig.config.windows.every_s
    rig.work.idle()
    assert not looks  # nothing has been scored yet
    rig.hand_over((1, A, 0.4))
    now[0] += rig.config.windows.every_s
    rig.work.idle()
    rig.work.idle()
    assert len(looks) == 1
    assert rig.work.status()["alerts"] == {"host": 1}
