"""SecBuzzer ESM's side of the three routes: strict, and away for a while.

Each route notes when it got which event, and whether that was marked as a possible repetition.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.sinks.receivers import Elasticsearch, EsmSocketReceiver, Receiver, esm_record

from rehearsal.network import Network

ROUTES: Final = ("A", "B", "C")

_LOOK_S: Final = 0.05


class Arrival(NamedTuple):
    """One copy of an event."""

    at_ns: int
    marked: bool


Arrivals = defaultdict[str, list[Arrival]]
"""Copies of each event, by its id."""


def _note(arrivals: Arrivals, record: dict[str, Any]) -> None:
    told = record["alert"]["metadata"]
    arrivals[told["event_id"][0]].append(Arrival(time.time_ns(), bool(told.get("resend"))))


class _Socket(EsmSocketReceiver):
    """Route A: Fluent Bit's socket."""

    def __init__(self, path: Path, arrivals: Arrivals) -> None:
        super().__init__(path)
        self._arrivals = arrivals

    def take(self, record: dict[str, Any]) -> None:
        _note(self._arrivals, record)


class _Files(Receiver):
    """Route B: Fluentd, which tails the files of a folder."""

    def __init__(self, folder: Path, arrivals: Arrivals) -> None:
        super().__init__()
        self._folder = folder
        self._arrivals = arrivals
        self._read: dict[str, int] = {}

    def _serve(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self._tail()
        self._tail()

    def _tail(self) -> None:
        for file in sorted(self._folder.glob("eve*.json")):
            with file.open("rb") as stream:
                stream.seek(self._read.get(file.name, 0))
                for line in stream.read().split(b"\n")[:-1]:
                    _note(self._arrivals, esm_record(line))
                    self._read[file.name] = self._read.get(file.name, 0) + len(line) + 1


class _Elastic(Elasticsearch):
    """Route C: Elasticsearch, which keeps what it has while it is away."""

    def __init__(self, port: int, arrivals: Arrivals, before: _Elastic | None) -> None:
        super().__init__(port=port)
        self._arrivals = arrivals
        if before is not None:
            self.documents, self.writes = before.documents, before.writes

    def store(self, place: tuple[str, str], document: dict[str, Any]) -> None:
        super().store(place, document)
        self._arrivals[place[1]].append(Arrival(time.time_ns(), False))


class Esm:
    """All routes, from entering the block to leaving it.

    Attributes
    ----------
    arrivals
        By route and event.
    faults
        What broke a rule, in words.
    """

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        self._socket_path = folder / "eve.socket"
        self._folder = folder / "suricata"
        self._folder.mkdir()
        self.arrivals: dict[str, Arrivals] = {route: defaultdict(list) for route in ROUTES}
        self._files = _Files(self._folder, self.arrivals["B"])
        self._socket: _Socket | None = None
        self._elastic: _Elastic | None = None
        self._last: _Elastic | None = None
        self._port = 0
        self._faults: list[BaseException] = []

    def __enter__(self) -> Esm:
        self._files.__enter__()
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()
        self._leave(self._files)

    @property
    def urls(self) -> list[str]:
        """Return what the sensor is told of the routes."""
        return [
            f"secbuzzer+unix://{self._socket_path}",
            f"secbuzzer+file://{self._folder}",
            f"secbuzzer+http://127.0.0.1:{self._port}",
        ]

    @property
    def documents(self) -> int:
        """Return how many documents route C holds."""
        return len(self._last.documents) if self._last else 0

    @property
    def faults(self) -> list[str]:
        """Return what broke a rule."""
        receivers = [one for one in (self._files, self._socket, self._elastic) if one]
        found = self._faults + [fault for one in receivers for fault in one.faults]
        return [f"{type(fault).__name__}: {fault}" for fault in found]

    def go_away(self) -> None:
        """Have the receivers of A and C end; what they were sent already is read first."""
        self._socket_path.unlink(missing_ok=True)
        time.sleep(2 * _LOOK_S)  # the reader empties its queue, and nobody finds it any more
        for receiver in (self._socket, self._elastic):
            if receiver is not None:
                self._leave(receiver)
        self._socket = self._elastic = None

    def come_back(self) -> None:
        """Have them listen again."""
        self._socket = _Socket(self._socket_path, self.arrivals["A"])
        self._socket.__enter__()
        with self._network.entered("sensor"):
            self._elastic = _Elastic(self._port, self.arrivals["C"], self._last)
        self._port, self._last = self._elastic.port, self._elastic
        self._elastic.__enter__()

    def _leave(self, receiver: Receiver) -> None:
        receiver.__exit__(ValueError, None, None)  # faults are told in the end, not raised
        self._faults += receiver.faults
