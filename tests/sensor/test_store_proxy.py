"""A store that hangs holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.sensor.field import drop, lines, running, status, until, write_config
from tests.store.conftest import postgres_server, url
from tests.store.samples import make_event
from veilwatch.errors import StoreError, UnexpectedStoreError
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.store import Store

__all__ = ["postgres_server", "url"]


class Hanging(Store):
    """A store that hangs while it is told to."""

    free = threading.Event()

    def record(self, *args: Any, **words: Any) -> list[str]:
        self.free.wait()
        return super().record(*args, **words)


@pytest.fixture
def hanging(tmp_path: Path) -> StoreProxy:
    Hanging.free.clear()
    return StoreProxy(lambda: Hanging(str(tmp_path / "x.db")), patience_s=0.2)


def test_who_asks_is_told_in_time_and_what_was_asked_is_done_later(hanging: StoreProxy) -> None:
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


def _answers(store: StoreProxy) -> bool:
    try:
        return bool(store.load_state("n") == 1)
    except StoreError:
        return False


def test_faults_are_those_of_the_store(tmp_path: Path) -> None:
    place = tmp_path / "later"
    place.write_text("")  # a file where a folder has to be
    store = StoreProxy(partial(Store, str(place / "x.db")))
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


@pytest.mark.parametrize("fault", [TypeError("no such field"), SystemExit(3), MemoryError()])
def test_what_nobody_foresaw_is_neither_done_nor_the_end(
    tmp_path: Path, fault: BaseException
) -> None:
    faults = [fault] * 3

    class Broken(Store):
        def record(self, *args: Any, **words: Any) -> list[str]:
            if faults:
                raise faults.pop()
            return super().record(*args, **words)

    opened: list[Store] = []
    notes: list[str] = []

    def open_store() -> Store:
        opened.append(Broken(str(tmp_path / "x.db")))
        return opened[-1]

    store = StoreProxy(open_store, note=notes.append)
    for _ in range(3):
        with pytest.raises(UnexpectedStoreError, match=type(fault).__name__) as told:
            store.record([make_event(0)])
        assert "\n" not in str(told.value) and "test_store_proxy.py" in str(told.value)
        assert store.is_alive
    assert len(store.record([make_event(0)])) == 1  # it had not been stored
    assert len(opened) == 4  # each time anew
    assert store.faults == 3 and len(notes) == 1
    store.close()


def test_a_fault_that_nobody_waits_for_is_said_once(tmp_path: Path) -> None:
    notes: list[str] = []
    store = StoreProxy(partial(Store, str(tmp_path / "x.db")), note=notes.append)
    nothing: dict[str, int] = {}
    for _ in range(3):
        store.in_passing(lambda opened: nothing["missing"])
    until(lambda: store.faults == 3, 10)
    assert len(notes) == 1 and "KeyError: 'missing'" in notes[0]
    store.save_state({"n": 1})
    assert store.load_state("n") == 1
    store.close()


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
