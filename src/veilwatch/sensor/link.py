"""Flow tables from one process to another: bounded, ordered, and without ever waiting at the front.

Tables go as Arrow through a Unix socket that the receiver listens on. Each is acknowledged once it
was handled, and sent again to a receiver that was started anew, which knows by its number what it
had handled before. What cannot wait is dropped at the sender, and counted: first early reports,
whose flows come again, then the archive's claim on records, last the records themselves.
"""

from __future__ import annotations

import io
import selectors
import socket
import struct
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import polars as pl

from veilwatch.schema.flows import FlowTable

MAX_WAITING: Final = 65_536
"""Most rows that wait for the receiver, some 100 MiB: ten seconds of 6,500 flows a second."""

MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""Most bytes that wait for the receiver: twice what `MAX_WAITING` rows usually take. Names in a
row are as long as strangers make them."""

MAX_PARCEL_BYTES: Final = 32 * 1024 * 1024
"""Largest table that is sent as one, estimated: 16,384 flows take some 25 MiB. Larger ones go in
parts, so that no message takes the receiver longer than others."""

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Largest message: twice the largest table, as its size is an estimate."""

MAX_LOST: Final = 3
"""Receivers that may go away amid one message. Then it is sent in `PIECES`, each once more: what
ends who takes it is given up, counted, and holds up nothing else."""

PIECES: Final = 16
"""Parts of a message that receivers went away with: a part that cannot be taken costs no more than
a sixteenth of its rows."""

MESSAGE_S: Final = 5.0
"""How long a message may take from its first byte to its last: what is local and slower hangs,
and others wait behind it."""

RETRY_S: Final = 0.2
"""How often a receiver that is not there is looked for."""

MAX_RUNS: Final = 256
"""Senders whose last message is remembered: more than are started in a day of crashes."""

_MAGIC: Final = b"VWL1"
_HEADER: Final = struct.Struct(">4sBB2xQQqqII")
_ACK: Final = struct.Struct(">Q")
_REFUSED: Final = 0
"""Answer to a message that the receiver will never take; messages are numbered from 1 on."""


class Kind(IntEnum):
    """What a message holds."""

    EARLY = 1  # reports of live flows
    ENDED = 2  # records of flows


@dataclass(frozen=True, slots=True)
class Parcel:
    """A table on its way.

    Attributes
    ----------
    kind
        Early reports or records.
    table
        The flows.
    now_ns
        Time up to which packets had been taken when it was made, ns since the epoch; 0 unknown.
    made_ns
        When it was made, ns since the epoch by the sender's clock.
    archive
        Whether the archive may have it: not where the way is crowded.
    bytes
        What it takes in memory, estimated.
    """

    kind: Kind
    table: FlowTable
    now_ns: int
    made_ns: int
    archive: bool = True
    bytes: int = 0

    def parts(self, count: int) -> Iterator[Parcel]:
        """Yield it in at most so many parts with rows of their own."""
        frame = self.table.frame
        step = max(1, -(-frame.height // count))
        for start in range(0, frame.height, step):
            part = frame.slice(start, step)
            share = self.bytes * part.height // frame.height
            yield replace(self, table=FlowTable(part), bytes=share)


class Outbox:
    """What waits to be sent. Offering never blocks.

    Parameters
    ----------
    max_rows, max_bytes
        Most rows that wait, and what they may take; see `MAX_WAITING` and `MAX_WAITING_BYTES`.

    Attributes
    ----------
    dropped
        Rows by what became of them, each in one place: `early` and `ended` were not sent, `archive`
        was sent but not for the archive, `refused` the receiver would not take.
    """

    def __init__(self, max_rows: int = MAX_WAITING, *, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._waiting: deque[Parcel] = deque()
        self._rows = self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.dropped: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows that wait, those on their way included."""
        return self._rows

    @property
    def bytes(self) -> int:
        """What they take, estimated."""
        return self._bytes

    def offer(self, kind: Kind, table: FlowTable, now_ns: int) -> None:
        """Have a table sent, or dropped: the oldest early reports first, then the oldest records.

        What comes is worth more than what has waited: its alert is not late yet.
        """
        size = int(table.frame.estimated_size())
        whole = Parcel(kind, table, now_ns, time.time_ns(), True, size)
        count = -(-size // MAX_PARCEL_BYTES)
        for parcel in whole.parts(count) if count > 1 else (whole,):
            self._offer(parcel)

    def _offer(self, parcel: Parcel) -> None:
        kind, rows = parcel.kind, len(parcel.table)
        with self._changed:
            crowded = not self._fits(2 * rows, 2 * parcel.bytes, share=2)
            self._make_room(parcel)
            if not self._fits(rows, parcel.bytes):
                self.dropped[kind.name.lower()] += rows
                return
            self._waiting.append(replace(parcel, archive=kind is Kind.ENDED and not crowded))
            self._rows += rows
            self._bytes += parcel.bytes
            self._changed.notify()

    def _fits(self, rows: int, size: int, share: int = 1) -> bool:
        """Whether so much more fits into the bounds, or into a share of them."""
        return (
            self._rows * share + rows <= self._max_rows
            and self._bytes * share + size <= self._max_bytes
        )

    def take(self, timeout_s: float) -> Parcel | None:
        """Return what has waited longest, None if nothing comes within a time.

        Its rows count as waiting until `done`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            return self._waiting.popleft() if self._waiting else None

    def done(self, parcel: Parcel, *, refused: bool = False) -> None:
        """Say that a parcel has arrived, or that the receiver will not take it."""
        rows = len(parcel.table)
        with self._changed:
            self._rows -= rows
            self._bytes -= parcel.bytes
            if refused:
                self.dropped["refused"] += rows
            elif parcel.kind is Kind.ENDED and not parcel.archive:
                self.dropped["archive"] += rows

    def parted(self, parcel: Parcel, count: int) -> list[Parcel]:
        """Return a parcel that is on its way in parts, which count as waiting in its place."""
        parts = list(parcel.parts(count))
        with self._changed:
            self._bytes += sum(part.bytes for part in parts) - parcel.bytes
        return parts

    def close(self) -> None:
        """Have nobody wait for more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return self._rows == 0 and not self._waiting

    def _make_room(self, coming: Parcel) -> None:
        rows, size = len(coming.table), coming.bytes
        for sort in (Kind.EARLY, Kind.ENDED):
            # Early reports make no room for themselves by ending records.
            if sort > coming.kind or self._fits(rows, size):
                return
            kept: deque[Parcel] = deque()
            for parcel in self._waiting:
                if parcel.kind is sort and not self._fits(rows, size):
                    self._rows -= len(parcel.table)
                    self._bytes -= parcel.bytes
                    self.dropped[sort.name.lower()] += len(parcel.table)
                else:
                    kept.append(parcel)
            self._waiting = kept


class _Answer(IntEnum):
    """What became of a message."""

    HANDLED = 1
    REFUSED = 2
    UNSENT = 3  # the receiver went away before it had the whole of it
    LOST = 4  # the receiver went away with it


class Sender:
    """Send what an outbox holds, in a thread of its own, to whoever listens.

    Parameters
    ----------
    outbox
        What to send.
    path
        Unix socket of the receiver, which may come and go.
    run
        Identity of this process, which no other sender to the same receiver had: 0 to 2^64-1.
    """

    def __init__(self, outbox: Outbox, path: Path, run: int) -> None:
        self._outbox = outbox
        self._path = path
        self._run = run
        self._numbers = 0
        self._stopping = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self.sent_rows = 0
        self.connections = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, timeout_s: float) -> int:
        """Send the rest within a time; return how many rows are left unsent."""
        deadline = time.monotonic() + timeout_s
        while not self._outbox.is_empty and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stopping.set()
        self._outbox.close()
        self._thread.join(MESSAGE_S)
        return self._outbox.rows

    @property
    def is_alive(self) -> bool:
        """Whether the thread that sends is there."""
        return self._thread.is_alive()

    def _send_all(self) -> None:
        while not self._stopping.is_set():
            parcel = self._outbox.take(0.25)
            if parcel is not None:
                self._send(parcel, MAX_LOST)
        self._hang_up()

    def _send(self, parcel: Parcel, most_lost: int) -> None:
        """Send a parcel until it was taken or refused, in pieces if it cannot be sent whole."""
        message = self._written(parcel)
        if len(message) > MAX_MESSAGE:
            self._send_pieces(parcel, 2, most_lost)
            return
        lost = 0
        while not self._stopping.is_set():
            self._connection = self._connection or self._connected()
            if self._connection is None:
                self._stopping.wait(RETRY_S)
                continue
            answer = self._delivered(self._connection, message)
            if answer is _Answer.HANDLED or answer is _Answer.REFUSED:
                refused = answer is _Answer.REFUSED
                self.sent_rows += 0 if refused else len(parcel.table)
                self._outbox.done(parcel, refused=refused)
                return
            self._hang_up()
            lost += answer is _Answer.LOST and not self._stopping.is_set()
            if lost >= most_lost:
                self._send_pieces(parcel, PIECES if most_lost > 1 else 1, 1)
                return

    def _send_pieces(self, parcel: Parcel, count: int, most_lost: int) -> None:
        if count == 1 or len(parcel.table) < 2:
            self._outbox.done(parcel, refused=True)
            return
        for piece in self._outbox.parted(parcel, count):
            self._send(piece, most_lost)

    def _written(self, parcel: Parcel) -> bytes:
        self._numbers += 1
        stream = io.BytesIO(bytes(_HEADER.size))
        stream.seek(_HEADER.size)
        parcel.table.frame.write_ipc_stream(stream)
        length = stream.tell() - _HEADER.size
        stream.seek(0)
        stream.write(
            _HEADER.pack(
                *(_MAGIC, parcel.kind, parcel.archive, self._run, self._numbers),
                *(parcel.now_ns, parcel.made_ns, len(parcel.table), length),
            )
        )
        return stream.getvalue()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return None
        connection.settimeout(0.25)
        self.connections += 1
        return connection

    def _delivered(self, connection: socket.socket, message: bytes) -> _Answer:
        """Send one message and wait until it was handled."""
        left = memoryview(message)
        try:
            while left:
                with suppress(TimeoutError):
                    left = left[connection.send(left) :]
                if self._stopping.is_set() and left:
                    return _Answer.UNSENT
            answer = b""
            while len(answer) < _ACK.size:
                with suppress(TimeoutError):
                    more = connection.recv(_ACK.size - len(answer))
                    if not more:
                        return _Answer.LOST
                    answer += more
                if self._stopping.is_set() and len(answer) < _ACK.size:
                    return _Answer.LOST
        except OSError:
            # A refusal may have come before the whole message had left.
            if not left:
                return _Answer.LOST
            return _Answer.REFUSED if _was_refused(connection) else _Answer.UNSENT
        number = int(_ACK.unpack(answer)[0])
        if number == _REFUSED:
            return _Answer.REFUSED
        return _Answer.HANDLED if number == self._numbers else _Answer.LOST


def _was_refused(connection: socket.socket) -> bool:
    with suppress(OSError):
        answer = connection.recv(_ACK.size)
        return answer == _ACK.pack(_REFUSED)
    return False


@dataclass(slots=True)
class Message:
    """A parcel that has arrived.

    Attributes
    ----------
    parcel
        What was sent.
    run, number
        Which process sent it, and its how many-th message it is.
    """

    parcel: Parcel
    run: int
    number: int
    _inbox: Inbox
    _connection: socket.socket

    def done(self) -> None:
        """Say that it was handled: it will not come again."""
        self._inbox.acknowledge(self)


class Inbox:
    """Receive what several senders send.

    Parameters
    ----------
    path
        Unix socket to listen on, in a folder that nobody else can write to; what lies there of an
        earlier run is replaced.

    Attributes
    ----------
    refused
        Connections that were closed, by reason.
    repeated
        Messages that had been handled before, and were acknowledged once more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._handled: OrderedDict[int, int] = OrderedDict()
        self.refused: Counter[str] = Counter()
        self.repeated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def senders(self) -> int:
        """Senders that are connected."""
        return len(self._selector.get_map()) - 1

    def close(self) -> None:
        """Hear nobody any more."""
        for key in list(self._selector.get_map().values()):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            sock.close()
        self._selector.close()
        self._path.unlink(missing_ok=True)

    def messages(self, timeout_s: float = 0.25) -> Iterator[Message | None]:
        """Yield messages for ever; None where none came within a time, so that one can do else."""
        while True:
            ready = self._selector.select(timeout_s)
            if not ready:
                yield None
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept()
                    continue
                assert isinstance(key.fileobj, socket.socket)
                message = self._read(key.fileobj)
                if message is not None:
                    yield message

    def acknowledge(self, message: Message) -> None:
        """Say that a message was handled."""
        self._handled[message.run] = message.number
        self._handled.move_to_end(message.run)
        while len(self._handled) > MAX_RUNS:
            self._handled.popitem(last=False)
        self._answer(message._connection, message.number)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(MESSAGE_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> Message | None:
        """Take one message; None if the sender went away, or it was handled before."""
        try:
            head = self._exactly(connection, _HEADER.size)
            magic, kind, archive, run, number, now_ns, made_ns, rows, length = _HEADER.unpack(head)
            if magic != _MAGIC or length > MAX_MESSAGE or kind not in tuple(Kind):
                # What follows cannot be told from another message: there is no going on.
                self._answer(connection, _REFUSED)
                self._refuse(connection, "malformed")
                return None
            body = self._exactly(connection, length)
        except EOFError:
            self._refuse(connection, "")
            return None
        except TimeoutError:
            self._refuse(connection, "too slow")
            return None
        except OSError:
            self._refuse(connection, "broken")
            return None
        if number <= self._handled.get(run, 0):
            self.repeated += 1
            self._answer(connection, number)
            return None
        table = _table(body, rows)
        if table is None:
            # The sender is to drop it: sent again it would be no better.
            self._answer(connection, _REFUSED)
            self._refuse(connection, "malformed")
            return None
        parcel = Parcel(Kind(kind), table, now_ns, made_ns, bool(archive))
        return Message(parcel, run, number, self, connection)

    def _exactly(self, connection: socket.socket, count: int) -> bytearray:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            got = connection.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return content

    def _answer(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError):
            connection.sendall(_ACK.pack(number))

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        if reason:
            self.refused[reason] += 1
        self._selector.unregister(connection)
        connection.close()


def _table(body: bytearray, rows: int) -> FlowTable | None:
    """Return the table in a message, None where it is none."""
    try:
        table = FlowTable(pl.read_ipc_stream(io.BytesIO(body))).check()
    except Exception:  # whatever a reader of foreign bytes raises: it must not end the receiver
        return None
    return table if len(table) == rows else None
