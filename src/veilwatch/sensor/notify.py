"""Telling systemd that the service is ready, alive or ending (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


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

    def ready(self) -> None:
        """Say once that the service works."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._path:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0.2)
            sender.sendto(state.encode(), self._path)
