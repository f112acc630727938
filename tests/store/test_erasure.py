"""One person is forgotten: all of theirs goes, byte by byte, and nothing of anybody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from tests.examples import examples
from tests.store.samples import make_event, make_incident
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import StoreError
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import Store

HOST = "10.45.0.7"
LIKE_IT = ("10.45.0.70", "10.45.0.77", "110.45.0.7", "10.45.0.1", "fd00::7")
SUBSCRIBERS = ("s-" + "a" * 16, "s-" + "b" * 16)


def everything(store: Store) -> dict[str, Any]:
    """Return all that a store holds, by table."""
    out: dict[str, Any] = {}
    with store._database.reading() as connection:
        for name in ("vw_events", "vw_verdicts", "vw_incidents", "vw_counters", "vw_state"):
            rows = connection.execute(text(f"SELECT * FROM {name}"))
            out[name] = sorted(map(tuple, rows))
    return out


def fill(store: Store, hosts: tuple[str, ...]) -> None:
    """Store events, verdicts and incidents of hosts; what is of one does not hang on others."""
    for n, host in enumerate((HOST, *LIKE_IT)):
        if host not in hosts:
            continue
        incident = make_incident(n, host=host)
        events = [
            make_event(10 * n + k, host=host, src_ip=host, incident=incident) for k in range(3)
        ]
        store.record(events, [incident, make_incident(50 + n, host=host, status="closed")])
        for event in events[:2]:
            store.judge(Verdict(event.event_id, VerdictKind.BENIGN, "ana", 1, "is known"))
    store.count({"packets": 3}, minute_ns=0, sensor="s1", run="a")


def count(store: Store, person: Person, *, dry_run: bool = False) -> tuple[int, int, int, int]:
    found = store.forget_person(person, dry_run=dry_run)
    return (len(found.event_ids), found.verdicts, len(found.incident_ids), found.elsewhere)


def test_one_host_goes_and_every_other_row_stays(store: Store, tmp_path: Path) -> None:
    person = Person(host=HOST)
    fill(store, (HOST, *LIKE_IT))
    with Store(str(tmp_path / "others.db")) as others:
        fill(others, LIKE_IT)
        expected = everything(others)
    before = everything(store)
    assert count(store, person, dry_run=True) == (3, 2, 2, 0)
    assert everything(store) == before
    assert count(store, person) == (3, 2, 2, 0)
    assert everything(store) == expected
    assert count(store, person) == (0, 0, 0, 0)
    assert everything(store) == expected


def test_an_ipv6_address_in_another_spelling(store: Store) -> None:
    fill(store, (HOST, "fd00::7"))
    assert count(store, Person(host="FD00:0:0:0::0007")) == (3, 2, 2, 0)
    assert {item.event.alert.host for item in store.events()} == {HOST}


def test_one_subscriber_goes_and_those_without_one_stay(store: Store) -> None:
    for n, subscriber in enumerate((*SUBSCRIBERS, "")):
        store.record(
            [make_event(n, subscriber=subscriber)], [make_incident(n, subscriber=subscriber)]
        )
    assert count(store, Person(subscriber=SUBSCRIBERS[0])) == (1, 0, 1, 0)
    assert {item.event.alert.subscriber for item in store.events()} == {SUBSCRIBERS[1], ""}
    assert {item.incident.subscriber for item in store.incidents()} == {SUBSCRIBERS[1], ""}


def test_an_event_whose_incident_bears_the_address_goes_as_well(store: Store) -> None:
    """A subscriber's address changed: the incident has the first one, the alert the second."""
    incident = make_incident(0, host=HOST, subscriber=SUBSCRIBERS[0])
    store.record(
        [make_event(1, host="10.45.0.8", subscriber=SUBSCRIBERS[0], incident=incident)], []
    )
    assert count(store, Person(host=HOST)) == (1, 0, 0, 0)


def test_an_incident_that_the_sensor_holds_to_be_theirs_goes_as_well(store: Store) -> None:
    """Else nobody would ever close it."""
    ones = [make_incident(n, host="10.45.0.8", subscriber=SUBSCRIBERS[0]) for n in range(2)]
    store.record([], ones)
    ids = (ones[0].incident_id, "0" * 32)
    for dry_run in (True, False):
        found = store.forget_person(Person(host=HOST), ids, dry_run=dry_run)
        assert found.incident_ids == ids[:1]
    assert [item.incident for item in store.incidents()] == ones[1:]


def test_what_names_it_in_the_evidence_of_others_stays_and_is_told(store: Store) -> None:
    quote = f'{HOST}","host":"{HOST}'
    others = [
        make_event(1, host="10.45.0.1", dst_ip=HOST),
        make_event(2, host="10.45.0.1", application=quote, subscriber=quote, family=quote),
        make_event(3, host="10.45.0.1", application=HOST),
        make_event(4, host="10.45.0.1", application=f"{HOST}.example"),
    ]
    store.record(others)
    before = everything(store)
    assert count(store, Person(host=HOST)) == (0, 0, 0, 3)
    assert everything(store) == before


def test_state_goes_with_the_rows_or_not_at_all(store: Store) -> None:
    fill(store, (HOST,))
    store.save_state({"desk": {"open": [HOST]}, "scores/s1/7": {"units": 1}})
    with pytest.raises((ValueError, TypeError)):
        store.forget_person(Person(host=HOST), state={"desk": object()})
    assert len(list(store.events())) == 3
    store.forget_person(Person(host=HOST), state={"desk": {"open": []}})
    assert store.load_state("desk") == {"open": []}
    assert store.load_state("scores/s1/7") == {"units": 1}
    assert list(store.events()) == []


def test_many_events_go_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.store.erasure.STEP", 7)
    store.record([make_event(n, host=HOST) for n in range(50)])
    store.record([make_event(99, host="10.45.0.8")])
    for item in store.events():
        store.judge(Verdict(item.event.event_id, VerdictKind.BENIGN, "ana", 1))
    assert count(store, Person(host=HOST), dry_run=True) == (50, 50, 0, 0)
    assert count(store, Person(host=HOST)) == (50, 50, 0, 0)
    assert [len(item.verdicts) for item in store.events()] == [1]


@examples(20)
@given(
    st.lists(st.tuples(st.sampled_from((HOST, *LIKE_IT)), st.integers(0, 3)), max_size=30),
    st.sampled_from((HOST, *LIKE_IT)),
)
def test_any_store_without_a_host(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[str, int]], address: str
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with Store(str(folder / "a.db")) as store, Store(str(folder / "b.db")) as others:
        for n, (host, said) in enumerate(items):
            incident = make_incident(n, host=host)
            event = make_event(n, host=host, incident=incident)
            for each in (store, others) if host != address else (store,):
                each.record([event], [incident])
                for k in range(said):
                    each.judge(Verdict(event.event_id, VerdictKind.UNKNOWN, "bo", k))
        store.forget_person(Person(host=address))
        assert everything(store) == everything(others)


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────


def bytes_in(folder: Path, words: str) -> list[str]:
    """Return the names of the files that hold these words."""
    return [path.name for path in folder.iterdir() if words.encode() in path.read_bytes()]


def leave_remains(store: Store) -> None:
    """Have SQLite leave what was deleted where it stood, as most builds of it do."""
    with store._database.bare() as connection:
        connection.execute("PRAGMA secure_delete = OFF")


@pytest.mark.parametrize("deleted", [True, False])
def test_no_byte_of_it_is_left_in_file_or_log(tmp_path: Path, deleted: bool) -> None:
    """Also of rows that were written over, deleted by age, or had moved."""
    path = tmp_path / "veilwatch.db"
    with Store(str(path)) as store:
        leave_remains(store)
        for n in range(300):
            host = HOST if n % 3 == 0 else f"10.99.{n // 250}.{n % 250}"
            store.record(
                [make_event(n, host=host, family="x" * n)],
                [make_incident(n % 20, host=host, family="y" * n)],
                state={"desk": {"open": [HOST] * (n % 40), "pad": "z" * (300 - n)}},
            )
            if n == 150 and deleted:
                with store._database.writing() as connection:
                    connection.exec_driver_sql("DELETE FROM vw_events WHERE severity = 2")
        assert bytes_in(tmp_path, HOST)
        kept = [row for row in everything(store)["vw_events"] if row[5] != HOST]
        store.forget_person(Person(host=HOST), state={"desk": {"open": []}})
        assert bytes_in(tmp_path, HOST) == []
        assert everything(store)["vw_events"] == kept
    assert bytes_in(tmp_path, HOST) == []
    assert path.stat().st_mode & 0o077 == 0


def test_bytes_that_an_interruption_left_go_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(str(tmp_path / "x.db")) as store:
        leave_remains(store)
        fill(store, (HOST, "fd00::7"))
        store.save_state({"desk": [HOST] * 50})
        store.save_state({"desk": []})
        forget_interrupted(store, monkeypatch)
        assert bytes_in(tmp_path, HOST)
        assert count(store, Person(host=HOST)) == (0, 0, 0, 0)
        assert bytes_in(tmp_path, HOST) == []


def test_rows_leave_no_bytes_even_if_the_files_are_not_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(str(tmp_path / "x.db")) as store:
        leave_remains(store)
        store.record([make_event(0, host=HOST)])
        forget_interrupted(store, monkeypatch)
    assert bytes_in(tmp_path, HOST) == []


def forget_interrupted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the host's rows deleted, and press Ctrl-C before the files are written anew."""

    def interrupted(_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("veilwatch.store.erasure.scrub", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.forget_person(Person(host=HOST))


def test_who_reads_meanwhile_keeps_the_bytes_and_that_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with Store(path) as store, Store(path, patience_s=0.1) as forgetful:
        fill(store, (HOST,))
        with store._database.reading() as reader:
            reader.execute(text("SELECT * FROM vw_events")).all()
            with pytest.raises(StoreError, match=r"reads the store.*run this again"):
                forgetful.forget_person(Person(host=HOST))
        assert count(forgetful, Person(host=HOST)) == (0, 0, 0, 0)
        assert bytes_in(tmp_path, HOST) == []


@pytest.fixture
def postgres(url: str, tmp_path: Path) -> Iterator[Store]:
    """A store in PostgreSQL, where its files can be read."""
    if url.startswith("sqlite"):
        pytest.skip("of PostgreSQL only")
    with Store(url) as store:
        yield store


def test_no_byte_of_it_is_left_in_files_of_postgresql(postgres: Store) -> None:
    fill(postgres, (HOST, *LIKE_IT))
    postgres.save_state({"desk": {"open": [HOST]}})
    quoted = json.dumps(HOST)

    def stored() -> bytes:
        found = b""
        with postgres._database.reading() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("CHECKPOINT"))
            (folder,) = connection.execute(text("SHOW data_directory")).one()
            for name in ("vw_events", "vw_incidents", "vw_state"):
                (place,) = connection.execute(text(f"SELECT pg_relation_filepath('{name}')")).one()
                found += (Path(folder) / place).read_bytes()
        return found

    before = stored()
    assert quoted.encode() in before and b"10.45.0.70" in before
    postgres.forget_person(Person(host=HOST), state={"desk": {"open": []}})
    after = stored()
    assert quoted.encode() not in after and b"10.45.0.70" in after
    # A column is no part of a document: it stands there without quotes.
    assert after.count(HOST.encode()) == sum(after.count(h.encode()) for h in LIKE_IT if HOST in h)


def test_a_lock_on_postgresql_is_told(postgres: Store, url: str) -> None:
    fill(postgres, (HOST,))
    with postgres._database.reading() as reader, Store(url, patience_s=0.2) as forgetful:
        reader.execute(text("SELECT * FROM vw_events")).all()
        with pytest.raises(StoreError, match=r"holds the store.*run this again"):
            forgetful.forget_person(Person(host=HOST))
    assert count(postgres, Person(host=HOST)) == (0, 0, 0, 0)
