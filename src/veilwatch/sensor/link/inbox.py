"""Receive flow tables that several processes send."""

from __future__ import annotations

import selectors
import socket
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from veilwatch.closing import Closeable
from veilwatch.sensor.link.message import (
    ACK,
    HEADER,
    MESSAGE_S,
    REFUSED,
    decode_header,
    decode_table,
)
from veilwatch.sensor.link.parcel import Parcel

MAX_RUNS: Final = 256
"""Senders whose last message is remembered: more than are started in a day of crashes."""


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


class Inbox(Closeable):
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
            head = self._exactly(connection, HEADER.size)
            header = decode_header(head)
            if header is None:
                # What follows cannot be told from another message: there is no going on.
                self._answer(connection, REFUSED)
                self._refuse(connection, "malformed")
                return None
            body = self._exactly(connection, header.length)
        except EOFError:
            self._refuse(connection, "")
            return None
        except TimeoutError:
            self._refuse(connection, "too slow")
            return None
        except OSError:
            self._refuse(connection, "broken")
            return None
        if header.number <= self._handled.get(header.run, 0):
            self.repeated += 1
            self._answer(connection, header.number)
            return None
        table = decode_table(body, header.rows)
        if table is None:
            # The sender is to drop it: sent again it would be no better.
            self._answer(connection, REFUSED)
            self._refuse(connection, "malformed")
            return None
        parcel = Parcel(header.kind, table, header.now_ns, header.made_ns, header.archive)
        return Message(parcel, header.run, header.number, self, connection)

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
            connection.sendall(ACK.pack(number))

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        if reason:
            self.refused[reason] += 1
        self._selector.unregister(connection)
        connection.close()
