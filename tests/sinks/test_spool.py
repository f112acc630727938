"""The spool: nothing is lost by a crash, a full disk or any order of what happens."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.examples import examples
from tests.known import known
from tests.sinks.events import HOSTILE, make, many
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.backoff import JITTER, MAX_BACKOFF_S, backoff_s
from veilwatch.sinks.base import DeliveryFailure, Receipt
from veilwatch.sinks.spool import Spool
from veilwatch.sinks.wire import from_bytes, to_bytes

SECOND = 10**9
NOW = 1_800_000_000 * SECOND


def ids(events: list[Event]) -> list[str]:
    return [event.event_id for event in events]


def taken(events: list[Event]) -> Receipt:
    return Receipt(delivered=tuple(ids(events)))


@pytest.fixture
def spool(tmp_path: Path) -> Any:
    with Spool(tmp_path / "spool.db") as made:
        yield made


# ── wire ──────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(), max_size=20)


@given(texts, st.floats(), st.integers(), st.lists(texts, max_size=3))
@examples(60)
def test_events_come_back_from_bytes_unchanged(
    text: str, number: float, whole: int, several: list[str]
) -> None:
    event = make(3, name=text or "x")
    assert event.flow is not None
    flow = replace(
        event.flow,
        service=text,
        # A number that is not finite cannot be compared; the bytes below are.
        score=number,
        fwd_bytes=whole,
        tls_alpn=tuple(several),
    )
    event = replace(event, flow=flow, again=True, alert=replace(event.alert, score=number))
    back = from_bytes(to_bytes(event))
    assert to_bytes(back) == to_bytes(event)
    if number == number:
        # NaN is unlike itself; the bytes above are the same.
        reasons = [r for r in event.alert.reasons if r.value == r.value]
        assert [r for r in back.alert.reasons if r.value == r.value] == reasons
        plain = replace(event.alert, reasons=())
        assert replace(back.alert, reasons=()) == plain
        assert replace(back, alert=plain) == replace(event, alert=plain)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back(name: str, spool: Spool) -> None:
    event = make(1, name=HOSTILE[name])
    event = replace(event, alert=replace(event.alert, reasons=()))
    spool.append([event], ["a"])
    assert spool.take("a", 9, NOW) == [event]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"7", b"\xff", b'{"version":2}', b'{"version":1}', b"[" * 99_999]
)
def test_bytes_that_are_no_event_are_told(data: bytes) -> None:
    with pytest.raises(VeilwatchError, match="not a stored event"):
        from_bytes(data)


# ── queue ─────────────────────────────────────────────────────────────────────────────────────


def test_each_sink_gets_each_event_once_in_order(spool: Spool) -> None:
    events = many(5)
    assert spool.append(events, ["a", "b"]) == 5
    assert spool.append(events, ["a", "b"]) == 0
    assert spool.append(events[:2], ["c"]) == 2
    assert spool.sinks() == ["a", "b", "c"]
    for name in ("a", "b"):
        assert ids(spool.take(name, 3, NOW)) == ids(events[:3])
    spool.settle("a", taken(events[:3]), NOW)
    assert ids(spool.take("a", 9, NOW)) == ids(events[3:])
    assert spool.counts("a").pending == 2 and spool.counts("a").delivered == 3
    assert spool.counts("b").pending == 5 and spool.counts("b").oldest_ns == events[0].made_ns
    assert spool.keep_sinks(["a", "c"]) == 5 and spool.sinks() == ["a", "c"]


def test_what_was_sent_and_not_settled_is_sent_again_marked(tmp_path: Path) -> None:
    events = many(4)
    with Spool(tmp_path / "s") as spool:
        spool.append(events, ["a"])
        assert not any(event.again for event in spool.take("a", 2, NOW))
    with Spool(tmp_path / "s") as spool:
        assert [event.again for event in spool.take("a", 9, NOW)] == [True, True, False, False]


def test_a_sure_failure_is_not_marked_and_an_unsure_one_is(spool: Spool) -> None:
    events = many(2)
    spool.append(events, ["a"])
    spool.take("a", 9, NOW)
    again = (
        DeliveryFailure(events[0].event_id, "full"),
        DeliveryFailure(events[1].event_id, "?", unsure=True),
    )
    spool.settle("a", Receipt(again=again), NOW)
    assert [event.again for event in spool.take("a", 9, NOW + 100 * SECOND)] == [False, True]


def test_pauses_grow_to_a_bound(spool: Spool) -> None:
    event = make(1)
    spool.append([event], ["a"])
    now, pauses = NOW, []
    for _ in range(12):
        assert spool.take("a", 9, now)
        spool.settle("a", Receipt(again=(DeliveryFailure(event.event_id, "down"),)), now)
        assert not spool.take("a", 9, now + 100)
        due = spool._file._db.execute("SELECT next_ns FROM deliveries").fetchone()[0]
        pauses.append((due - now) / 1e9)
        now = due
    assert pauses[0] <= 1 and max(pauses) <= MAX_BACKOFF_S
    assert pauses[-1] >= MAX_BACKOFF_S * (1 - JITTER)
    assert spool.counts("a").pending == 1
    spool.settle("a", taken([event]), now)
    assert spool.counts("a").pending == 0 and spool.counts("a").oldest_ns == 0
    assert backoff_s(10**6, random.Random(1)) <= MAX_BACKOFF_S


def test_a_clock_set_back_does_not_stop_delivery(spool: Spool) -> None:
    event = make(1)
    spool.append([event], ["a"])
    spool.take("a", 9, NOW)
    spool.settle("a", Receipt(again=(DeliveryFailure(event.event_id, "down"),)), NOW)
    assert spool.take("a", 9, NOW - 3600 * SECOND)


def test_poison_is_set_aside_and_let_in_again(spool: Spool) -> None:
    events = many(3)
    spool.append(events, ["a"])
    spool.take("a", 9, NOW)
    spool.settle("a", Receipt(refused=(DeliveryFailure(events[1].event_id, "x" * 9999),)), NOW)
    (failure,) = spool.set_aside("a")
    assert failure.event_id == events[1].event_id and failure.reason == "x" * 300
    assert spool.counts("a").set_aside == 1 and spool.counts("a").pending == 2
    assert spool.readmit("a") == 1 and spool.counts("a").pending == 3


def test_a_row_that_is_damaged_is_set_aside(spool: Spool) -> None:
    spool.append(many(2), ["a"])
    with sqlite3.connect(spool.path) as db:
        db.execute("UPDATE events SET body = x'00' WHERE seq = 1")
    assert len(spool.take("a", 9, NOW)) == 1
    assert "not a stored event" in spool.set_aside("a")[0].reason


def test_what_the_receiver_lost_is_sent_once_more_marked(spool: Spool) -> None:
    events = many(4)
    spool.append(events, ["a"])
    spool.take("a", 9, NOW)
    spool.settle("a", taken(events), NOW)
    moment = events[2].made_ns
    assert spool.resend("a", moment, moment) == sum(e.made_ns == moment for e in events)
    assert all(event.again for event in spool.take("a", 9, NOW))
    assert spool.resend_ids("a", [events[0].event_id, "unknown"]) == 1
    assert [len(batch) for batch in spool.delivered("a", 0, 2**62, batch=1)] == [1, 1]


def test_delivered_events_make_room_first(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", max_events=10) as spool:
        first, second, third = many(6), many(6, 6), many(6, 12)
        spool.append(first, ["a"])
        spool.take("a", 9, NOW)
        spool.settle("a", taken(first[3:]), NOW)
        spool.append(second, ["a"])
        assert spool.size()[0] == 10 and spool.counts("a").dropped == 0
        spool.append(third, ["a"])
        assert spool.size()[0] == 10
        counts = spool.counts("a")
        assert counts.pending == 10 and counts.dropped == 5
        assert ids(spool.take("a", 99, NOW)) == ids([*first, *second, *third])[-10:]


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    one = len(to_bytes(make(1)))
    with Spool(tmp_path / "s", max_bytes=5 * one) as spool:
        spool.append(many(40), ["a"])
        assert spool.size()[1] <= 5 * one and spool.counts("a").dropped >= 34
        with sqlite3.connect(spool.path) as db:
            size = db.execute("SELECT sum(size) FROM events").fetchone()[0]
        assert spool.size()[1] == size


def test_what_is_older_than_it_may_be_goes_delivered_or_not(spool: Spool) -> None:
    events = [replace(event, made_ns=NOW + k * SECOND) for k, event in enumerate(many(1200))]
    spool.append(events, ["a", "b"])
    while batch := spool.take("a", 500, NOW):
        spool.settle("a", taken(batch), NOW)
    assert spool.forget(NOW) == 0
    assert spool.forget(NOW + 1100 * SECOND) == 1100
    assert spool.size()[0] == 100
    assert spool.counts("a").dropped == 0
    assert (spool.counts("b").dropped, spool.counts("b").pending) == (1100, 100)
    assert ids(spool.take("b", 200, NOW)) == ids(events[1100:])


HOST = "10.45.0.7"
SUBSCRIBER = "s-" + "a" * 16


def of(number: int, host: str, subscriber: str = "", *, incident_of: str = "") -> Event:
    """Return event `number` of a host, its incident of another one where it is named."""
    event = make(number)
    assert event.incident is not None
    return replace(
        event,
        alert=replace(event.alert, host=host, src_ip=host, subscriber=subscriber),
        incident=replace(event.incident, host=incident_of or host, subscriber=subscriber),
        flow=replace(known(event.flow), src_ip=host, subscriber=subscriber),
    )


def rows(path: Path) -> dict[str, Any]:
    """Return all that a spool holds, by table."""
    with sqlite3.connect(path) as db:
        return {
            name: db.execute(f"SELECT * FROM {name}").fetchall()
            for name in ("events", "deliveries", "waits", "totals", "counters")
        }


def test_one_host_s_events_go_whatever_became_of_them(spool: Spool) -> None:
    """Pending, being sent, delivered and set aside, and what others wait for stays as it is."""
    events = [of(n, HOST if n % 2 else "10.45.0.70") for n in range(10)]
    spool.append(events, ["a", "b"])
    spool.take("a", 8, NOW)
    spool.settle(
        "a", Receipt(tuple(ids(events[:4])), refused=(DeliveryFailure(ids(events)[5], "x"),)), NOW
    )
    before = rows(spool.path)
    person = Person(host=HOST)
    assert spool.forget_person(person, dry_run=True) == 5
    assert rows(spool.path) == before
    assert spool.forget_person(person) == 5
    after, stay = rows(spool.path), {seq for seq, *_ in before["events"] if seq % 2}
    for table in ("events", "waits"):
        assert after[table] == [row for row in before[table] if row[0] in stay]
    assert after["deliveries"] == [row for row in before["deliveries"] if row[0] in stay]
    assert after["totals"] == [(5, sum(row[3] for row in after["events"]))]
    # As when they are too old: what a sink had not taken is counted.
    assert (spool.counts("a").dropped, spool.counts("b").dropped) == (2, 5)
    assert spool.forget_person(person) == 0 and rows(spool.path) == after
    assert {e.alert.host for e in spool.take("b", 99, NOW)} == {"10.45.0.70"}
    assert spool.append([make(99)], ["a"]) == 1


def test_whose_an_event_is_hangs_on_no_text_that_a_stranger_chose(spool: Spool) -> None:
    quote = f'x","host":"{HOST}'
    events = [
        of(0, "110.45.0.7"),
        of(1, "10.45.0.1", incident_of=HOST),
        replace(of(2, "10.45.0.1"), sensor=quote, interface=f'"host":"{HOST}"'),
        of(3, "10.45.0.1", subscriber=SUBSCRIBER),
        of(4, "fd00::7"),
    ]
    spool.append(events, ["a"])
    assert spool.forget_person(Person(host=HOST)) == 1
    assert spool.forget_person(Person(subscriber=SUBSCRIBER)) == 1
    assert spool.forget_person(Person(host="fd00:0::7")) == 1
    assert ids(spool.take("a", 9, NOW)) == [events[0].event_id, events[2].event_id]


def test_a_damaged_event_goes_as_well(spool: Spool) -> None:
    spool.append([of(0, HOST), of(1, "10.45.0.1")], ["a"])
    with sqlite3.connect(spool.path) as db:
        db.execute("UPDATE events SET body = substr(body, 1, length(body) - 9)")
    assert spool.forget_person(Person(host=HOST)) == 1 and spool.size()[0] == 1


def test_no_byte_of_it_is_left_in_file_or_log(tmp_path: Path) -> None:
    def left() -> list[str]:
        return [p.name for p in tmp_path.iterdir() if HOST.encode() in p.read_bytes()]

    with Spool(tmp_path / "spool.db") as spool:
        # As most builds of SQLite are: what was deleted stays where it stood.
        spool._file._db.execute("PRAGMA secure_delete = OFF")
        for start in range(0, 200, 20):
            events = [of(n, HOST if n % 3 else "10.99.0.1") for n in range(start, start + 20)]
            spool.append(events, ["a"])
            theirs = [event for event in events if event.alert.host == HOST]
            refused = tuple(DeliveryFailure(name, f"{HOST}: no") for name in ids(theirs[:2]))
            spool.take("a", 20, NOW)
            spool.settle("a", Receipt(refused=refused), NOW)
        spool.forget(make(7).made_ns + 1)  # some pages are free already
        assert left()
        spool.forget_person(Person(host=HOST))
        assert left() == []
    assert left() == []


def test_who_reads_the_spool_meanwhile_keeps_the_bytes_and_that_is_told(
    spool: Spool,
) -> None:
    spool._file._db.execute("PRAGMA busy_timeout = 50")
    spool.append([of(0, HOST)], ["a"])
    reader = sqlite3.connect(spool.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM events").fetchall()
    with pytest.raises(OutputError, match=r"reads the spool.*run this again"):
        spool.forget_person(Person(host=HOST))
    reader.close()
    assert spool.forget_person(Person(host=HOST)) == 0
    assert all(HOST.encode() not in p.read_bytes() for p in spool.path.parent.iterdir())


def test_the_file_is_the_owner_s_alone(spool: Spool) -> None:
    spool.append(many(1), ["a"])
    for path in spool.path.parent.glob("spool.db*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_file_that_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match="damaged"):
        Spool(tmp_path / "s")
    with pytest.raises(OutputError, match="cannot use the spool"):
        Spool(tmp_path / "no" / "folder")


# ── faults ────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_is_told_and_passes(spool: Spool) -> None:
    spool.append(many(2), ["a"])
    pages = spool._file._db.execute("PRAGMA page_count").fetchone()[0]
    spool._file._db.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(OutputError, match="full"):
        spool.append(many(50, 10), ["a"])
    # What was there still goes out, and nothing of the batch is half there.
    assert len(spool.take("a", 99, NOW)) == 2
    spool.settle("a", taken(many(1)), NOW)
    spool._file._db.execute("PRAGMA max_page_count = 100000")
    assert spool.append(many(50, 10), ["a"]) == 50
    assert spool.counts("a").pending == 51


LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.sinks.events import many
from veilwatch.errors import OutputError
from veilwatch.sinks.spool import Spool
with Spool(Path(sys.argv[1])) as spool:
    spool.append(many(2), ["a"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    told = ""
    try:
        for start in range(0, 1000, 20):
            spool.append(many(20, 100 + start), ["a"])
    except OutputError as error:
        told = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    before = spool.counts("a").pending
    spool.append(many(5, 5000), ["a"])
    print(json.dumps([told, before, spool.counts("a").pending]))
"""


def test_a_write_that_the_system_cuts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "s")],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, before, after = json.loads(done.stdout)
    assert "cannot use the spool" in told and "free some space" in told
    assert before >= 2 and after == before + 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_full_of_events_still_lets_them_out(small_disk: Path) -> None:
    with Spool(small_disk / "s") as spool:
        count = 0
        with pytest.raises(OutputError, match="full"):
            for count in range(0, 100_000, 50):
                spool.append(many(50, count), ["a"])
        with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * 65_536):
                pass
        with pytest.raises(OutputError, match="full"):
            spool.append(many(50, count), ["a"])
        before = spool.counts("a")
        assert before.pending == count and before.dropped == 0
        while events := spool.take("a", 200, NOW):
            spool.settle("a", taken(events), NOW)
        assert spool.counts("a").delivered == count
        # Nobody freed anything: what was delivered makes way for what comes.
        assert spool.append(many(50, count), ["a"]) == 50
    with Spool(small_disk / "s") as spool:
        assert spool.counts("a").pending == 50


WRITER = """
import sys
from pathlib import Path
from tests.sinks.events import many
from veilwatch.sinks.base import Receipt
from veilwatch.sinks.spool import Spool
spool = Spool(Path(sys.argv[1]))
for number in range(100_000):
    (event,) = many(1, number)
    spool.append([event], ["a"])
    print("kept", event.event_id, flush=True)
    if number % 3 == 2:
        events = spool.take("a", 2, 2**62)
        print("sent", *(e.event_id for e in events), flush=True)
        spool.settle("a", Receipt(delivered=tuple(e.event_id for e in events)), 2**62)
        print("settled", *(e.event_id for e in events), flush=True)
"""


@pytest.mark.parametrize("pause_s", [0.05, 0.3])
def test_kill_9_in_the_middle_loses_nothing(tmp_path: Path, pause_s: float) -> None:
    path = tmp_path / "spool.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
    told = [line.split() for line in lines if line.endswith("\n")]
    kept = {words[1] for words in told if words[0] == "kept"}
    sent = {name for words in told if words[0] == "sent" for name in words[1:]}
    settled = {name for words in told if words[0] == "settled" for name in words[1:]}
    with Spool(path) as spool:
        left = spool.take("a", 10_000, 2**62)
    names = set(ids(left))
    assert len(kept) >= 3 and kept <= names | sent
    assert not names & settled
    assert {e.event_id for e in left if not e.again}.isdisjoint(sent)


class Peer:
    """Keeps documents by id, as route C does, and counts every arrival, as A and B do."""

    def __init__(self) -> None:
        self.arrivals: Counter[str] = Counter()
        self.unmarked: Counter[str] = Counter()
        self.documents: dict[str, int] = {}


STEPS = st.lists(
    st.sampled_from(["append", "deliver", "fail", "unsure", "poison", "half", "crash", "die"]),
    max_size=25,
)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_order_delivers_all_at_least_once_and_by_id_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("spool") / "s"
    peer, appended, poisoned, now, number = Peer(), set(), set(), NOW, 0
    spool = Spool(path)

    def arrive(events: list[Event]) -> None:
        for event in events:
            peer.arrivals[event.event_id] += 1
            peer.unmarked[event.event_id] += not event.again
            peer.documents.setdefault(event.event_id, number)

    for step in [*steps, "crash", *["deliver"] * 12]:
        now += 200 * SECOND
        if step == "append":
            events = many(3, number)
            spool.append(events, ["a"])
            appended |= set(ids(events))
            number += 2  # the next batch begins with an event that is known already
            continue
        if step == "crash":
            spool.close()
            spool = Spool(path)
            continue
        events = spool.take("a", 4, now)
        half = events[: len(events) // 2]
        if step == "deliver":
            arrive(events)
            spool.settle("a", taken(events), now)
        elif step == "half":
            arrive(half)
            left = tuple(DeliveryFailure(e.event_id, "later") for e in events[len(half) :])
            spool.settle("a", Receipt(tuple(ids(half)), left), now)
        elif step == "fail":
            again = tuple(DeliveryFailure(event.event_id, "down") for event in events)
            spool.settle("a", Receipt(again=again), now)
        elif step == "unsure":
            arrive(half)
            again = tuple(DeliveryFailure(event.event_id, "silent", True) for event in events)
            spool.settle("a", Receipt(again=again), now)
        elif step == "poison":
            refused = tuple(DeliveryFailure(event.event_id, "bad") for event in events[:1])
            poisoned |= {failure.event_id for failure in refused}
            left = tuple(DeliveryFailure(e.event_id, "later") for e in events[1:])
            spool.settle("a", Receipt(refused=refused, again=left), now)
        elif step == "die":
            arrive(half)
            spool.close()
            spool = Spool(path)
    assert set(peer.arrivals) >= appended - poisoned
    assert set(peer.documents) == set(peer.arrivals) <= appended
    assert all(count <= 1 for count in peer.unmarked.values()), "a second arrival unmarked"
    assert {t.event_id for t in spool.set_aside("a")} == poisoned
    assert spool.counts("a").pending == 0
    spool.close()
