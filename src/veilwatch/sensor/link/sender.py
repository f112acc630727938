"""Send what an outbox holds, and send again what its receiver did not handle."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final

from veilwatch.sensor.link.message import ACK, MAX_MESSAGE, MESSAGE_S, REFUSED, encode
from veilwatch.sensor.link.outbox import Outbox
from veilwatch.sensor.link.parcel import Parcel

MAX_LOST: Final = 3
"""Receivers that may go away amid one message. Then it is sent in `PIECES`, each once more: what
ends who takes it is given up, counted, and holds up nothing else."""

PIECES: Final = 16
"""Parts of a message that receivers went away with: a part that cannot be taken costs no more than
a sixteenth of its rows."""

RETRY_S: Final = 0.2
"""How often a receiver that is not there is looked for."""


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
        self._numbers += 1
        message = encode(parcel, self._run, self._numbers)
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
            while len(answer) < ACK.size:
                with suppress(TimeoutError):
                    more = connection.recv(ACK.size - len(answer))
                    if not more:
                        return _Answer.LOST
                    answer += more
                if self._stopping.is_set() and len(answer) < ACK.size:
                    return _Answer.LOST
        except OSError:
            # A refusal may have come before the whole message had left.
            if not left:
                return _Answer.LOST
            return _Answer.REFUSED if _was_refused(connection) else _Answer.UNSENT
        number = int(ACK.unpack(answer)[0])
        if number == REFUSED:
            return _Answer.REFUSED
        return _Answer.HANDLED if number == self._numbers else _Answer.LOST


def _was_refused(connection: socket.socket) -> bool:
    with suppress(OSError):
        answer = connection.recv(ACK.size)
        return answer == ACK.pack(REFUSED)
    return False
