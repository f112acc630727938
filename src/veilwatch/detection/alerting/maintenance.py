"""Times in which alerts of some hosts are expected, and counted only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from veilwatch.schema.alerts import Alert
from veilwatch.schema.units import SECOND_NS

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A time in which alerts of some hosts are counted and not reported.

    Attributes
    ----------
    reason
        Why, in words.
    begins_ns, ends_ns
        Span, ns since the epoch; the end is outside.
    networks
        Hosts concerned; empty for all.
    minutes
        First and last minute of the day (UTC; the last is outside) in which it holds; a first
        that is not before the last runs over midnight. None for the whole day.
    weekdays
        Days on which it begins, 0 Monday; empty for every day.
    """

    reason: str
    begins_ns: int
    ends_ns: int
    networks: tuple[Network, ...] = ()
    minutes: tuple[int, int] | None = None
    weekdays: frozenset[int] = frozenset()

    def covers(self, alert: Alert, at_ns: int) -> bool:
        """Tell whether an alert at a time falls into the window."""
        if not (self.begins_ns <= at_ns < self.ends_ns and self._in_hours(at_ns)):
            return False
        if not self.networks:
            return True
        try:
            host = ipaddress.ip_address(alert.host)
        except ValueError:
            return False
        return any(host in network for network in self.networks)

    def _in_hours(self, now_ns: int) -> bool:
        now = datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if self.minutes is None:
            return not self.weekdays or day in self.weekdays
        first, last = self.minutes
        if first < last:
            began, inside = day, first <= minute < last
        else:  # over midnight: in the morning it is yesterday's window
            began = day if minute >= first else (day - 1) % 7
            inside = minute >= first or minute < last
        return inside and (not self.weekdays or began in self.weekdays)
