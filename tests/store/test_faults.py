"""A store that is killed, full or fought over keeps what it said that it has."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.samples import make_event, make_incident
from veilwatch.errors import StoreDamagedError, StoreError, StoreFullError
from veilwatch.store import EventFilter, Retention, Store, set_aside
from veilwatch.store.database import _told
from veilwatch.store.tables import state

WRITER = """
import sys
from tests.store.samples import make_event, make_incident
from veilwatch.store import Store
store = Store(sys.argv[1])
begin = (store.load_state("next") or 0)
for n in range(begin, 10**6):
    events = [make_event(10 * n + k) for k in range(10)]
    store.record(events, [make_incident(0, alerts=n + 1)], state={"next": n + 1})
    print(n + 1, flush=True)
"""


def killed_while_writing(url: str, batches: int) -> int:
    """Let a process write until it has said so many batches, kill it, return what it said last."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = 0
    for _ in range(batches):
        said = int(process.stdout.readline())
    time.sleep(0.003 * (batches % 5))
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else said


def test_killed_while_writing(url: str) -> None:
    for batches in (3, 7):
        said = killed_while_writing(url, batches)
        with Store(url, create=False) as store:
            done = store.load_state("next")
            # What was acknowledged is there; events, incident and state stand together.
            assert done in (said, said + 1)
            assert len(list(store.events())) == 10 * done
            assert store.incidents()[0].incident.alerts == done
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def test_a_full_disk_is_told_and_harms_nothing(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2048)
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))
    with Store(str(disk / "x.db")) as store:
        store.record([make_event(0)], [make_incident(0)], state={"n": 0})
        n = 0
        with pytest.raises(StoreFullError, match="the disk is full, nothing was written"):
            for n in range(1, 10_000):
                store.record([make_event(10 * n + k) for k in range(10)], [], state={"n": n})
        assert n > 3
        # Reading goes on, and a failed write left nothing.
        assert store.load_state("n") == n - 1
        assert len(list(store.events())) == 1 + 10 * (n - 1)
        for _ in range(3):
            with pytest.raises(StoreFullError):
                store.record([make_event(10**6 + k) for k in range(200)])
        ballast.unlink()
        store.record([make_event(10 * n + k) for k in range(10)], [], state={"n": n})
        assert store.load_state("n") == n
    with Store(str(disk / "x.db"), create=False) as store:
        assert len(list(store.events())) == 1 + 10 * n


def test_a_full_disk_is_told_where_no_small_disk_can_be_mounted(tmp_path: Path) -> None:
    with Store(str(tmp_path / "x.db")) as store:
        store.record([make_event(0)])
        with store._database.bare() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreFullError):
            store.record([make_event(n) for n in range(1, 500)])
        assert len(list(store.events())) == 1


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        timer.start()
        # People read meanwhile.
        assert list(store.events()) == []
        store.record([make_event(0)])
        timer.join()
        other.close()
        assert len(list(store.events())) == 1


def test_two_writers_and_a_reader(url: str) -> None:
    faults: list[BaseException] = []

    def write(first: int) -> None:
        try:
            with Store(url) as store:
                for n in range(first, first + 40):
                    store.record([make_event(n)], [make_incident(n % 3, alerts=n)])
        except BaseException as error:
            faults.append(error)

    Store(url).close()
    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 20)]
    for thread in threads:
        thread.start()
    with Store(url, create=False) as store:
        while any(thread.is_alive() for thread in threads):
            seen = [s.event.event_id for s in store.events()]
            assert len(seen) == len(set(seen))
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(list(store.events())) == 60  # twenty were written by both


def test_a_server_that_restarts_costs_no_more_than_an_error(postgres_server: str) -> None:
    with Store(f"{postgres_server}/postgres") as store:
        store.record([make_event(0)])
        with store._database.bare() as connection:
            own = connection.info.backend_pid
        with Store(f"{postgres_server}/postgres") as other, other._database.bare() as killer:
            killer.execute("SELECT pg_terminate_backend(%s)", [own])
            killer.commit()
        store.record([make_event(1)])
        assert len(list(store.events())) == 2
        store.retain(Retention(days=0.001), now_ns=2**62)


def test_faults_of_a_server_are_told_apart() -> None:
    class Full(Exception):
        sqlstate = "53100"

    class Other(Exception):
        sqlstate = "42601"

    told = _told(Full("no space"), Full("no space"), "db")
    assert isinstance(told, StoreFullError) and "disk is full" in str(told)
    other = _told(Other(), Other("syntax\nLINE 1: x"), "db")
    assert not isinstance(other, StoreFullError) and str(other) == "db: syntax"


def test_a_number_that_no_database_holds(store: Store) -> None:
    with pytest.raises(StoreError):
        list(store.events(EventFilter(since_ns=2**64)))
    with pytest.raises(StoreError):
        store.record([make_event(0, last_ns=2**64)])
    assert list(store.events()) == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "folder" / "x" / ("y" * 300)):
        with pytest.raises(StoreError) as caught:
            Store(str(path))
        assert "\n" not in str(caught.value)


def test_damage_in_the_middle_of_the_file_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store(str(path)) as store:
        store.record([make_event(n) for n in range(300)])
        store.retain(Retention(days=1), now_ns=0)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError), Store(str(path), create=False) as store:
        json.dumps([s.event.event_id for s in store.events(EventFilter(host="10.0.0.5"))])
    (tmp_path / "x.db-wal").write_bytes(b"left over")
    aside = set_aside(str(path), now_ns=0)
    assert aside.name == "x.db.damaged-19700101T000000Z" and aside.is_file()
    with Store(str(path)) as store:
        store.record([make_event(0)])
        assert len(list(store.events())) == 1
    with pytest.raises(StoreError, match="only a file"):
        set_aside("postgresql://u@h/d", now_ns=0)


def test_who_holds_the_store_is_waited_for_and_then_named(url: str) -> None:
    with Store(url) as holder, Store(url, create=False, patience_s=0.3) as store:
        with holder._database.writing() as connection:
            if not url.startswith("sqlite"):
                connection.exec_driver_sql(f"LOCK TABLE {state.name}")
            began_s = time.monotonic()
            with pytest.raises(StoreError, match="another process holds the store for too long"):
                store.save_state({"n": 1})
            assert time.monotonic() - began_s < 5
        store.save_state({"n": 2})
        assert store.load_state("n") == 2
