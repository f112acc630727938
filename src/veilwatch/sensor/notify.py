"""Telling systemd that the service is ready, alive or ending (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

MORE_US: Final = 30_000_000
"""Time to get ready that is asked for anew all the while: an interface may come hours after us, and
a sensor that waits for it is no reason to start another one."""

MAX_STATUS: Final = 200
"""Characters of a status: it is one line of a terminal."""


class Notifier:
    """Send states to systemd where it asked for them, and nothing elsewhere.

    Parameters
    ----------
    environment
        Where `NOTIFY_SOCKET` stands.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket.
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._ready = False
        self._said = ""

    def ready(self) -> None:
        """Say once that the service works."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog; before the service is ready, ask for more time as well."""
        self._send("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={MORE_US}\nWATCHDOG=1")

    def say(self, status: str) -> None:
        """Say in one line what `systemctl status` is to show; nothing if it said so before."""
        if status != self._said:
            self._said = status
            self._send(f"STATUS={' '.join(status.split())[:MAX_STATUS]}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._path:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0.2)
            sender.sendto(state.encode(errors="replace"), self._path)
