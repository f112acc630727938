"""Tables between processes: order, bounds, receivers and senders that die."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.learning.features.factory import random_flows
from veilwatch.schema.flows import FlowTable
from veilwatch.sensor.link import Inbox, Kind, Message, Outbox, Sender
from veilwatch.sensor.link import inbox as inbox_module
from veilwatch.sensor.link import message as message_module
from veilwatch.sensor.link import outbox as outbox_module
from veilwatch.sensor.link import sender as sender_module


def table(rows: int, seed: int = 0) -> FlowTable:
    return random_flows(rows, seed=seed)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "scores.sock"


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(100)


@pytest.fixture
def sender(outbox: Outbox, place: Path) -> Iterator[Sender]:
    made = Sender(outbox, place, 42)
    made.start()
    yield made
    made.finish(0.0)


def receive(inbox: Inbox, count: int, *, done: bool = True) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + 30
    for message in inbox.messages(0.05):
        assert time.monotonic() < deadline
        if message is not None:
            found.append(message)
            if done:
                message.done()
        if len(found) == count:
            break
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tables_arrive_as_they_were_in_their_order(
    outbox: Outbox, sender: Sender, place: Path
) -> None:
    tables = [table(7, 1), table(0), table(20, 2)]
    kinds = [Kind.EARLY, Kind.ENDED, Kind.ENDED]
    with Inbox(place) as inbox:
        for k, (kind, one) in enumerate(zip(kinds, tables, strict=True)):
            outbox.offer(kind, one, k)
        messages = receive(inbox, 3)
        wait_for(lambda: outbox.is_empty)
    assert [message.parcel.kind for message in messages] == kinds
    assert [message.parcel.now_ns for message in messages] == [0, 1, 2]
    for message, one in zip(messages, tables, strict=True):
        assert message.parcel.table.frame.equals(one.frame)
        assert message.parcel.archive == (message.parcel.kind is Kind.ENDED)
    assert sender.sent_rows == 27
    assert place.exists() is False


def test_offering_never_waits_and_early_reports_go_first() -> None:
    outbox = Outbox(100)
    began = time.monotonic()
    for kind, rows in ((Kind.EARLY, 20), (Kind.ENDED, 30), (Kind.EARLY, 20), (Kind.ENDED, 30)):
        outbox.offer(kind, table(rows), 0)
    assert outbox.rows == 100
    assert outbox.dropped == {}  # what waits is not lost to the archive before it was sent
    outbox.offer(Kind.ENDED, table(10), 0)
    assert outbox.dropped == {"early": 20}
    outbox.offer(Kind.ENDED, table(40), 0)
    assert outbox.dropped["early"] == 40
    assert outbox.dropped["ended"] == 30  # the oldest
    outbox.offer(Kind.EARLY, table(90), 0)  # makes no room at the cost of records
    assert outbox.dropped["early"] == 130
    outbox.offer(Kind.ENDED, table(101), 0)
    assert outbox.dropped["ended"] == 30 + 80 + 101
    assert outbox.rows <= 100
    assert time.monotonic() - began < 5


def test_what_a_dead_receiver_had_not_handled_comes_again(
    outbox: Outbox, sender: Sender, place: Path
) -> None:
    with Inbox(place) as inbox:
        outbox.offer(Kind.ENDED, table(3), 1)
        receive(inbox, 1)
        outbox.offer(Kind.ENDED, table(4), 2)
        (lost,) = receive(inbox, 1, done=False)
    with Inbox(place) as inbox:
        (again,) = receive(inbox, 1)
        assert (again.number, again.parcel.now_ns) == (lost.number, 2)
        assert inbox.repeated == 0
    assert sender.connections >= 2


def test_what_was_handled_is_not_handled_twice(
    outbox: Outbox, sender: Sender, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Inbox(place) as inbox:
        outbox.offer(Kind.ENDED, table(3), 1)
        # The acknowledgement is lost, and with it the connection.
        monkeypatch.setattr(Inbox, "_answer", lambda self, connection, number: connection.close())
        receive(inbox, 1)
        inbox._selector.unregister(
            next(
                iter(
                    key.fileobj
                    for key in inbox._selector.get_map().values()
                    if key.fileobj is not inbox._listener
                )
            )
        )
        monkeypatch.undo()
        outbox.offer(Kind.ENDED, table(4), 2)
        (second,) = receive(inbox, 1)
        assert second.parcel.now_ns == 2
        assert inbox.repeated == 1


def test_a_sender_that_dies_in_the_middle_of_a_message_leaves_nothing(place: Path) -> None:
    with Inbox(place) as inbox:
        broken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        broken.connect(str(place))
        broken.sendall(b"VWL1\x02")
        broken.close()
        outbox = Outbox(100)
        sender = Sender(outbox, place, 7)
        sender.start()
        outbox.offer(Kind.ENDED, table(5), 3)
        (message,) = receive(inbox, 1)
        assert len(message.parcel.table) == 5
        assert sender.finish(5.0) == 0


def test_strangers_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MESSAGE_S", 0.2)
    head = message_module.HEADER
    good = (b"VWL1", 2, 1, 1, 1, 0, 0, 5)
    said = [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(100),
        head.pack(*good, message_module.MAX_MESSAGE + 1),
        head.pack(b"VWL1", 9, 1, 1, 1, 0, 0, 5, 0),
        head.pack(*good, 10) + b"not arrow!",
        head.pack(*good, 10) + b"slow",
    ]
    with Inbox(place) as inbox:
        assert place.stat().st_mode & 0o077 == 0
        strangers = []
        for content in said:
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stranger.connect(str(place))
            stranger.sendall(content)
            strangers.append(stranger)
        messages = inbox.messages(0.05)
        wait_for(lambda: next(messages) is None and sum(inbox.refused.values()) == 5)
        assert inbox.refused == {"malformed": 4, "too slow": 1}
        assert inbox.senders == 0
        for stranger in strangers:
            stranger.close()


def test_finishing_is_bounded_and_says_what_is_left(place: Path) -> None:
    outbox = Outbox(100)
    sender = Sender(outbox, place, 7)
    sender.start()
    outbox.offer(Kind.ENDED, table(5), 3)
    outbox.offer(Kind.EARLY, table(6), 3)
    began = time.monotonic()
    assert sender.finish(0.3) == 11
    assert time.monotonic() - began < 2
    assert threading.active_count() < 20


def test_every_row_is_counted_in_one_place(place: Path) -> None:
    outbox = Outbox(100)
    kinds = [(Kind.EARLY, 30), (Kind.ENDED, 60), (Kind.ENDED, 70), (Kind.EARLY, 9)] * 3
    with Inbox(place) as inbox:
        for kind, rows in kinds:
            outbox.offer(kind, table(rows), 0)
        sender = Sender(outbox, place, 7)
        sender.start()
        messages = inbox.messages(0.05)
        received = []
        while not outbox.is_empty:
            message = next(messages)
            if message is not None:
                received.append(message.parcel)
                message.done()
                time.sleep(0.05)
        assert sender.finish(5.0) == 0
    offered = sum(rows for _, rows in kinds)
    archived_not = sum(
        len(one.table) for one in received if one.kind is Kind.ENDED and not one.archive
    )
    assert outbox.dropped["archive"] == archived_not > 0
    assert sender.sent_rows + outbox.dropped["early"] + outbox.dropped["ended"] == offered


def test_tables_are_bounded_by_what_they_take(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = int(table(40).frame.estimated_size())
    monkeypatch.setattr(outbox_module, "MAX_PARCEL_BYTES", size // 4)
    outbox = Outbox(1000, max_bytes=2 * size)
    outbox.offer(Kind.ENDED, table(40), 0)
    assert outbox.rows == 40 and outbox.bytes <= size
    for _ in range(3):
        outbox.offer(Kind.ENDED, table(40), 0)
    assert outbox.bytes <= 2 * size and outbox.dropped["ended"] >= 60
    # A table whose size was estimated too low goes in parts all the same.
    monkeypatch.setattr(sender_module, "MAX_MESSAGE", size // 6)
    sender = Sender(outbox, place, 7)
    left = outbox.rows
    with Inbox(place) as inbox:
        sender.start()
        received = 0
        for message in inbox.messages(0.05):
            if message is not None:
                received += len(message.parcel.table)
                message.done()
            if outbox.is_empty:
                break
        assert sender.finish(5.0) == 0
    assert received + outbox.dropped["refused"] == left
    assert (outbox.rows, outbox.bytes) == (0, 0)


def test_what_is_refused_is_dropped_and_the_next_is_sent(
    outbox: Outbox, sender: Sender, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = message_module.decode_table
    monkeypatch.setattr(
        inbox_module, "decode_table", lambda body, rows: None if rows == 3 else read(body, rows)
    )
    with Inbox(place) as inbox:
        outbox.offer(Kind.ENDED, table(3), 1)
        outbox.offer(Kind.ENDED, table(4), 2)
        (message,) = receive(inbox, 1)
        assert message.parcel.now_ns == 2
        wait_for(lambda: outbox.is_empty)
    assert outbox.dropped == {"refused": 3}
    assert sender.sent_rows == 4


def test_what_ends_its_receiver_is_given_up_and_what_is_beside_it_arrives(
    outbox: Outbox, sender: Sender, place: Path
) -> None:
    frame = table(32).frame
    poison = frame["flow_id"][5]
    outbox.offer(Kind.ENDED, FlowTable(frame), 1)
    outbox.offer(Kind.ENDED, table(4), 2)
    taken: list[Message] = []
    deaths = 0
    while sum(len(message.parcel.table) for message in taken) < 34:
        with Inbox(place) as inbox:  # a receiver that dies of one row
            for message in inbox.messages(0.05):
                if message is None:
                    continue
                if poison in message.parcel.table.frame["flow_id"] and message.parcel.now_ns == 1:
                    deaths += 1
                    break
                taken.append(message)
                message.done()
                if len(taken) == 16:
                    break
    wait_for(lambda: outbox.is_empty)
    assert deaths == sender_module.MAX_LOST + 1
    assert outbox.dropped == {"refused": 2}
    assert sender.sent_rows == 34
