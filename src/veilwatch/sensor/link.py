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
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.schema.flows import FlowTable

MAX_WAITING: Final = 65_536
"""Most rows that wait for the receiver, some 100 MiB: ten seconds of 6,500 flows a second."""

MAX_MESSAGE: Final = 256 * 1024 * 1024
"""Largest message: 16,384 flows take some 25 MiB."""

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
    """

    kind: Kind
    table: FlowTable
    now_ns: int
    made_ns: int
    archive: bool = True


class Outbox:
    """What waits to be sent. Offering never blocks.

    Parameters
    ----------
    max_rows
        Most rows that wait; see `MAX_WAITING`.

    Attributes
    ----------
    dropped
        Rows by what was dropped: `early`, `archive` (sent, but not for the archive), `ended`.
    """

    def __init__(self, max_rows: int = MAX_WAITING) -> None:
        self._max_rows = max_rows
        self._waiting: deque[Parcel] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._closed = False
        self.dropped: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows that wait, those on their way included."""
        return self._rows

    def offer(self, kind: Kind, table: FlowTable, now_ns: int) -> None:
        """Have a table sent, or dropped: the oldest early reports first, then the oldest records.

        What comes is worth more than what has waited: its alert is not late yet.
        """
        with self._changed:
            crowded = self._rows + len(table) > self._max_rows // 2
            archive = kind is Kind.ENDED and not crowded
            if kind is Kind.ENDED and crowded:
                self.dropped["archive"] += len(table)
            self._make_room(len(table), kind)
            if self._rows + len(table) > self._max_rows:
                self.dropped[kind.name.lower()] += len(table)
                return
            self._waiting.append(Parcel(kind, table, now_ns, time.time_ns(), archive))
            self._rows += len(table)
            self._changed.notify()

    def take(self, timeout_s: float) -> Parcel | None:
        """Return what has waited longest, None if nothing comes within a time.

        Its rows count as waiting until `done`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            return self._waiting.popleft() if self._waiting else None

    def done(self, parcel: Parcel) -> None:
        """Say that a parcel has arrived."""
        with self._changed:
            self._rows -= len(parcel.table)

    def close(self) -> None:
        """Have nobody wait for more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return self._rows == 0 and not self._waiting

    def _make_room(self, rows: int, kind: Kind) -> None:
        for sort in (Kind.EARLY, Kind.ENDED):
            # Early reports make no room for themselves by ending records.
            if sort > kind or self._rows + rows <= self._max_rows:
                return
            kept: deque[Parcel] = deque()
            for parcel in self._waiting:
                if parcel.kind is sort and self._rows + rows > self._max_rows:
                    self._rows -= len(parcel.table)
                    self.dropped[sort.name.lower()] += len(parcel.table)
                else:
                    kept.append(parcel)
            self._waiting = kept


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

    def _send_all(self) -> None:
        connection: socket.socket | None = None
        while not self._stopping.is_set():
            parcel = self._outbox.take(0.25)
            if parcel is None:
                continue
            message = self._written(parcel)
            while not self._stopping.is_set():
                connection = connection or self._connected()
                if connection is None:
                    self._stopping.wait(RETRY_S)
                elif self._delivered(connection, message):
                    self.sent_rows += len(parcel.table)
                    self._outbox.done(parcel)
                    break
                else:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

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

    def _delivered(self, connection: socket.socket, message: bytes) -> bool:
        """Send one message and wait until it was handled; False if the receiver went away."""
        try:
            view = memoryview(message)
            while view:
                with suppress(TimeoutError):
                    view = view[connection.send(view) :]
                if self._stopping.is_set():
                    return False
            answer = b""
            while len(answer) < _ACK.size:
                with suppress(TimeoutError):
                    more = connection.recv(_ACK.size - len(answer))
                    if not more:
                        return False
                    answer += more
                if self._stopping.is_set():
                    return False
        except OSError:
            return False
        return bool(_ACK.unpack(answer)[0] == self._numbers)


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
        try:
            table = FlowTable(pl.read_ipc_stream(io.BytesIO(body))).check()
        except (VeilwatchError, pl.exceptions.PolarsError, OSError):
            self._refuse(connection, "malformed")
            return None
        if len(table) != rows:
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
