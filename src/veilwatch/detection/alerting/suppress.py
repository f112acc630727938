"""Which alerts are reported at once, and which are counted and reported in one line later.

Nothing here forgets: of every alert handed in, either it is let through or it is in a count that
comes out. Time is handed in, that of the sensor and not of packets, as it is people who are spared:
a stamp of a packet can be anything. It may step back: a step back neither opens a window again nor
fills a bucket.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from veilwatch.detection.alerting.person import Person
from veilwatch.schema.alerts import Alert
from veilwatch.schema.convert import alert_from_plain, alert_to_plain
from veilwatch.schema.flow_facts import FlowFacts, facts_from_plain, facts_to_plain

SECOND: Final = 10**9
MINUTES_A_DAY: Final = 1440

MAX_KEYS: Final = 65_536
"""Services of hosts that are remembered as reported, about 300 bytes each: beyond it the one that
was reported longest ago is forgotten, and the worst is an alert reported twice."""

MAX_HOSTS: Final = 16_384
"""Hosts with a token bucket of their own. Beyond it the one that has been quiet longest starts
anew; the bucket of all hosts together still bounds what goes out."""

MAX_SUMMARIES: Final = 32
"""Hosts that get a summary of their own in one period; the others share one, or a scan of a
whole network would be reported in thousands of summaries."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
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
        now = datetime.fromtimestamp(now_ns // SECOND, UTC)
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


@dataclass(slots=True)
class TokenBucket:
    """`burst` alerts at once and `per_hour` in the long run.

    Examples
    --------
    >>> bucket = TokenBucket(per_hour=3600, burst=2)
    >>> [bucket.take(0), bucket.take(0), bucket.take(0), bucket.take(10**9)]
    [True, True, False, True]
    """

    per_hour: float
    burst: float
    tokens: float = field(default=-1.0)
    at_ns: int = 0

    def take(self, now_ns: int) -> bool:
        """Take a token if there is one."""
        self._fill(now_ns)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def give_back(self) -> None:
        """Return the token that was taken last."""
        self.tokens = min(self.burst, self.tokens + 1.0)

    def is_full(self, now_ns: int) -> bool:
        """Tell whether it is as a new one would be."""
        self._fill(now_ns)
        return self.tokens >= self.burst

    def _fill(self, now_ns: int) -> None:
        if self.tokens < 0:
            self.tokens, self.at_ns = self.burst, now_ns
        # After a step back of the clock time counts from there, or the bucket would stay empty
        # for as long as the step was.
        passed = max(0, now_ns - self.at_ns)
        self.tokens = min(self.burst, self.tokens + passed / (3600 * SECOND) * self.per_hour)
        self.at_ns = now_ns


@dataclass(slots=True)
class HeldBack:
    """Alerts that a limit held back.

    Attributes
    ----------
    host
        Whose limit it was, '' the limit of all hosts together.
    count
        How many.
    since_ns, until_ns
        When the first and the last were held back.
    strongest, flow
        The one with the highest severity, then score; the first of equals.
    hosts
        Their hosts, counted up to `MAX_HOSTS`.
    first_ns, last_ns
        Earliest and latest of their last packets, packet time.
    """

    host: str
    count: int
    since_ns: int
    until_ns: int
    strongest: Alert
    flow: FlowFacts
    hosts: set[str]
    first_ns: int
    last_ns: int

    def add(self, alert: Alert, flow: FlowFacts, now_ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.until_ns = max(self.until_ns, now_ns)
        self.first_ns = min(self.first_ns, alert.last_ns)
        self.last_ns = max(self.last_ns, alert.last_ns)
        if (-alert.severity, alert.score) > (-self.strongest.severity, self.strongest.score):
            self.strongest, self.flow = alert, flow
        if len(self.hosts) < MAX_HOSTS:
            self.hosts.add(alert.host)

    def forget_person(self, person: Person) -> bool:
        """Forget that a person is among the hosts; tell whether their alert stands for all."""
        self.hosts.discard(person.host)
        return person.has(self.strongest.host, self.strongest.subscriber)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many alerts go out.

    Attributes
    ----------
    host_per_hour, host_burst
        Of one host or subscriber.
    per_hour, burst
        Of all together.
    summary_s
        How long alerts are held back before a summary reports them.
    """

    host_per_hour: float = 12.0
    host_burst: int = 6
    per_hour: float = 240.0
    burst: int = 60
    summary_s: float = 900.0


class RateLimiter:
    """Token buckets of each host and of all together; what finds no token is summed up.

    Alerts of hosts of which nothing has been reported yet have as many tokens again, of their own:
    a few hosts that alert by mistake all the time must not keep a new infection silent.

    Parameters
    ----------
    limits
        The rates.

    Attributes
    ----------
    held
        Alerts held back since the start.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._all = TokenBucket(limits.per_hour, limits.burst)
        self._new = TokenBucket(limits.per_hour, limits.burst)
        self._hosts: OrderedDict[str, TokenBucket] = OrderedDict()
        self._held: OrderedDict[str, HeldBack] = OrderedDict()
        self.held = 0

    def admit(self, alert: Alert, flow: FlowFacts, now_ns: int, *, new: bool = False) -> bool:
        """Tell whether the alert may go out now; if not it is counted for a summary.

        Parameters
        ----------
        new
            Whether nothing was reported of its host's incident yet.
        """
        name = alert.subscriber or alert.host
        bucket = self._hosts.get(name)
        if bucket is None:
            bucket = TokenBucket(self._limits.host_per_hour, self._limits.host_burst)
            self._hosts[name] = bucket
            if len(self._hosts) > MAX_HOSTS:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(name)
        if not bucket.take(now_ns):
            self._hold(name, alert, flow, now_ns)
            return False
        if not self._all.take(now_ns) and not (new and self._new.take(now_ns)):
            bucket.give_back()
            self._hold("", alert, flow, now_ns)
            return False
        return True

    def adopt(self, host: str, subscriber: str) -> None:
        """Count the tokens that a host without subscriber took to its subscriber."""
        bucket = self._hosts.pop(host, None)
        if bucket is not None:
            self._hosts.setdefault(subscriber, bucket)

    def _hold(self, name: str, alert: Alert, flow: FlowFacts, now_ns: int) -> None:
        self.held += 1
        if name not in self._held and len(self._held) >= MAX_SUMMARIES:
            name = ""
        if name in self._held:
            self._held[name].add(alert, flow, now_ns)
        else:
            at_ns = alert.last_ns
            self._held[name] = HeldBack(
                name, 1, now_ns, now_ns, alert, flow, {alert.host}, at_ns, at_ns
            )

    def due(self, now_ns: int, *, all_of_them: bool = False) -> list[HeldBack]:
        """Return the summaries whose time has come, and begin new counts.

        Parameters
        ----------
        now_ns
            The time.
        all_of_them
            Whether to return those whose time has not come as well: at the end.
        """
        while self._hosts and next(iter(self._hosts.values())).is_full(now_ns):
            self._hosts.popitem(last=False)  # a new one would be the same
        wait_ns = int(self._limits.summary_s * SECOND)
        ready = [
            name
            for name, held in self._held.items()
            if all_of_them or abs(now_ns - held.since_ns) >= wait_ns
        ]
        return [self._held.pop(name) for name in ready]

    def forget_person(self, person: Person) -> int:
        """Forget a person's tokens and held-back alerts; return how many entries went.

        A summary whose strongest alert is theirs goes whole, that of all hosts together as well:
        no other alert is kept that could stand for the rest. The incidents of the rest have them.
        """
        theirs = [name for name, held in self._held.items() if held.forget_person(person)]
        for name in theirs:
            del self._held[name]
        return len(theirs) + (self._hosts.pop(person.name, None) is not None)

    def state(self) -> dict[str, Any]:
        """Return tokens and what is held back, as plain values.

        A restart must neither lose the count nor let everything through once more.
        """
        held_back = [
            {
                "host": held.host,
                "count": held.count,
                "since_ns": held.since_ns,
                "until_ns": held.until_ns,
                "strongest": alert_to_plain(held.strongest),
                "flow": facts_to_plain(held.flow),
                "hosts": sorted(held.hosts),
                "first_ns": held.first_ns,
                "last_ns": held.last_ns,
            }
            for held in self._held.values()
        ]
        return {
            "held": held_back,
            "all": [self._all.tokens, self._all.at_ns],
            "new": [self._new.tokens, self._new.at_ns],
            "hosts": [[name, b.tokens, b.at_ns] for name, b in self._hosts.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, under the limits of now."""
        limits = self._limits
        tokens, at_ns = state["all"]
        self._all = TokenBucket(limits.per_hour, limits.burst, float(tokens), int(at_ns))
        tokens, at_ns = state["new"]
        self._new = TokenBucket(limits.per_hour, limits.burst, float(tokens), int(at_ns))
        for name, tokens, at_ns in state["hosts"][-MAX_HOSTS:]:
            self._hosts[str(name)] = TokenBucket(
                limits.host_per_hour, limits.host_burst, float(tokens), int(at_ns)
            )
        for plain in state["held"]:
            self._held[plain["host"]] = HeldBack(
                **{
                    "first_ns": plain["since_ns"],  # earlier releases had one time for both
                    "last_ns": plain["until_ns"],
                    **plain,
                    "strongest": alert_from_plain(plain["strongest"]),
                    "flow": facts_from_plain(plain["flow"]),
                    "hosts": set(plain["hosts"]),
                }
            )
