"""A store that hangs holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.sensor.field import drop, lines, running, status, until, write_config
from tests.store.conftest import postgres_server, url
from tests.store.samples import make_event
from veilwatch.errors import StoreError
from veilwatch.sensor.patience import PatientStore
from veilwatch.store import Store

__all__ = ["postgres_server", "url"]


class Hanging(Store):
    """A store that hangs while it is told to."""

    free = threading.Event()

    def record(self, *args: object, **words: object) -> list[str]:
        self.free.wait()
        return super().record(*args, **words)  # type: ignore[arg-type]


@pytest.fixture
def hanging(tmp_path: Path) -> PatientStore:
    Hanging.free.clear()
    return PatientStore(lambda: Hanging(str(tmp_path / "x.db")), patience_s=0.2)


def test_who_asks_is_told_in_time_and_what_was_asked_is_done_later(hanging: PatientStore) -> None:
    hanging.save_state({"n": 1})
    began_s = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        hanging.record([make_event(0)])
    assert time.monotonic() - began_s < 5
    began_s = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreError, match="does not answer"):
            hanging.load_state("n")
    assert time.monotonic() - began_s < 0.2 * 50  # nobody waits again
    Hanging.free.set()
    until(lambda: _answers(hanging), 10)
    assert hanging.record([make_event(0)]) == []  # it had been stored after all
    assert len(hanging.record([make_event(1)])) == 1
    hanging.close()


def processes(*words: str) -> list[int]:
    """Return the processes that pgrep finds, at least one."""
    found = subprocess.run(["pgrep", *words], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


def _answers(store: PatientStore) -> bool:
    try:
        return bool(store.load_state("n") == 1)
    except StoreError:
        return False


def test_faults_are_those_of_the_store(tmp_path: Path) -> None:
    place = tmp_path / "later"
    place.write_text("")  # a file where a folder has to be
    store = PatientStore(partial(Store, str(place / "x.db")))
    with pytest.raises(StoreError, match="cannot make the store"):
        store.save_state({"n": 1})
    store.in_passing(lambda opened: opened.save_state({"n": 1}))
    until(lambda: store.faults == 1, 10)
    place.unlink()
    store.save_state({"n": 2})  # opened now
    assert store.load_state("n") == 2
    store.close()
    with Store(str(place / "x.db"), create=False) as found:
        assert found.load_state("n") == 2


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_server_that_hangs_keeps_no_alert_from_the_sinks(url: str, place: Path) -> None:
    config = write_config(
        place,
        source=f'folder = "{place / "drop"}"\nquiet_s = 1.0',
        flow="idle_timeout_s = 1.0",
        sinks=[f"jsonl+file://{place / 'out'}"],
        store=f'url = "{url}"',
    )

    def told(number: int) -> bool:
        network = f"10.0.{number}."
        return any(event["alert"]["host"].startswith(network) for event in lines(place / "out"))

    def kept() -> set[str]:
        with Store(url, create=False) as store:
            return {item.event.event_id for item in store.events()}

    with running(config):
        until(lambda: status(place).get("ready"))
        port = url.rpartition("/")[0].rpartition(":")[2]
        servers = processes("-f", f"^/.*postgres .* -p {port} ")
        servers += processes("-P", str(servers[0]))
        for pid in servers:
            os.kill(pid, signal.SIGSTOP)
        try:
            drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
            until(lambda: told(1))
            until(lambda: status(place)["children"]["judge"].get("backlog"))
            time.sleep(12)  # longer than what hangs may live
            drop(place / "corpus" / "malicious" / "5.pcapng", place / "drop", "two.pcapng")
            until(lambda: told(5))
            assert {one["restarts"] for one in status(place)["children"].values()} == {0}
        finally:
            for pid in servers:
                os.kill(pid, signal.SIGCONT)
        until(lambda: status(place)["children"]["judge"].get("backlog") == 0)
        until(lambda: {event["event_id"] for event in lines(place / "out")} == kept())
