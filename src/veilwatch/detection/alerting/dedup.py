"""Repeats of what was reported: the first alert of a service passes, the others are held back.

Time is handed in, that of the sensor and not of packets, as it is people who are spared: a stamp of
a packet can be anything. It may step back, which opens no window again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from veilwatch.detection.alerting.person import Person
from veilwatch.schema.alerts import Alert

MAX_KEYS: Final = 65_536
"""Services of hosts that are remembered as reported, about 300 bytes each: beyond it the one that
was reported longest ago is forgotten, and the worst is an alert reported twice."""

Key = tuple[str, str, str, str, int, int]


def service_key(alert: Alert) -> Key:
    """Return what makes two alerts the same news: who, and which service at which address.

    Of a host alert it is the host alone.
    """
    if alert.kind != "flow":
        return (alert.kind, alert.host, alert.subscriber, "", 0, 0)
    return (
        *(alert.kind, alert.host, alert.subscriber),
        *(alert.dst_ip, alert.dst_port, alert.protocol),
    )


class Deduplicator:
    """Let the first alert of a service through, and hold back its repeats for a while.

    A repeat that is more severe than what was reported passes.

    Parameters
    ----------
    window_ns
        How long repeats are held back; 0 lets everything through.
    max_keys
        Bound of memory.

    Attributes
    ----------
    held
        Repeats held back since the start.
    """

    def __init__(self, window_ns: int, *, max_keys: int = MAX_KEYS) -> None:
        self._window_ns = window_ns
        self._max_keys = max_keys
        self._reported: OrderedDict[Key, tuple[int, int]] = OrderedDict()
        self.held = 0

    def admit(self, alert: Alert, now_ns: int) -> bool:
        """Tell whether the alert is news, and remember it if it is."""
        if not self._window_ns:
            return True
        key = service_key(alert)
        reported = self._reported.get(key)
        if (
            reported
            and abs(now_ns - reported[0]) < self._window_ns
            and alert.severity >= reported[1]
        ):
            self.held += 1
            return False
        self._reported[key] = (now_ns, alert.severity)
        self._reported.move_to_end(key)
        self._forget_old(now_ns)
        return True

    def _forget_old(self, now_ns: int) -> None:
        """Forget what no longer holds anything back: the state stays as small as the news."""
        while self._reported:
            reported_ns, _ = next(iter(self._reported.values()))
            if (
                len(self._reported) <= self._max_keys
                and abs(now_ns - reported_ns) < self._window_ns
            ):
                return
            self._reported.popitem(last=False)

    def adopt(self, host: str, subscriber: str) -> None:
        """Count what was reported of a host without subscriber to its subscriber."""
        theirs = [key for key in self._reported if key[1] == host and not key[2]]
        for key in theirs:
            reported = self._reported.pop(key)
            self._reported.setdefault((key[0], host, subscriber, *key[3:]), reported)

    def forget(self, alert: Alert) -> None:
        """Take back that the alert was reported, because it was held back after all."""
        self._reported.pop(service_key(alert), None)

    def forget_person(self, person: Person) -> int:
        """Forget that services of a person were reported; return how many."""
        theirs = [key for key in self._reported if person.has(key[1], key[2])]
        for key in theirs:
            del self._reported[key]
        return len(theirs)

    def state(self) -> list[list[Any]]:
        """Return what is remembered, as plain values."""
        return [[*key, *reported] for key, reported in self._reported.items()]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """Remember what `state` returned."""
        for kind, host, subscriber, dst_ip, dst_port, protocol, reported_ns, severity in state:
            self._reported[kind, host, subscriber, dst_ip, dst_port, protocol] = (
                reported_ns,
                severity,
            )
        while len(self._reported) > self._max_keys:
            self._reported.popitem(last=False)
