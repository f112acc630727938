"""How many alerts go out: token buckets, and summaries of what found no token.

Nothing here forgets: of every alert handed in, either it is let through or it is in a count that
comes out. Time is handed in, that of the sensor and not of packets, as it is people who are spared:
a stamp of a packet can be anything. It may step back, which fills no bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from veilwatch.detection.alerting.person import Person
from veilwatch.schema.alerts import Alert
from veilwatch.schema.convert import alert_from_plain, alert_to_plain
from veilwatch.schema.flow_facts import FlowFacts, facts_from_plain, facts_to_plain
from veilwatch.schema.units import HOUR_NS, SECOND_NS

MAX_HOSTS: Final = 16_384
"""Hosts with a token bucket of their own. Beyond it the one that has been quiet longest starts
anew; the bucket of all hosts together still bounds what goes out."""

MAX_SUMMARIES: Final = 32
"""Hosts that get a summary of their own in one period; the others share one, or a scan of a
whole network would be reported in thousands of summaries."""


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
        self.tokens = min(self.burst, self.tokens + passed / HOUR_NS * self.per_hour)
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
        wait_ns = int(self._limits.summary_s * SECOND_NS)
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
