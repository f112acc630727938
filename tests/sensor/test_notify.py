"""What systemd is told, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from veilwatch.sensor.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else "\0" + name)
        receiver.settimeout(5)
        yield receiver, name if request.param == "path" else "@" + name


def test_a_life(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.alive()
    assert receiver.recv(4096) == b"EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1"
    notifier.say("waiting for ingest-0\nREADY=1")  # one line, whatever it holds
    notifier.say("waiting for ingest-0\nREADY=1")
    assert receiver.recv(4096) == b"STATUS=waiting for ingest-0 READY=1"
    notifier.ready()
    notifier.ready()
    assert receiver.recv(4096) == b"READY=1"
    notifier.alive()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    notifier.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"


def test_nobody_is_told_where_nobody_asked() -> None:
    Notifier({}).ready()


def test_a_manager_that_is_gone_or_full_stops_nothing(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()
    name = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    sender.sendto(b"x", name)
        Notifier({"NOTIFY_SOCKET": name}).alive()
