"""Allow-lists: what is known to be harmless here, why, and until when.

A list is a TOML text with one table an entry:

    [[allow]]
    reason = "backup to the second site, ticket 4711"
    until  = 2026-12-31
    host   = "10.20.0.0/16"
    name   = ".backup.example"
    port   = [443, "8000-8100"]

All criteria of an entry must hold, one of several values in a criterion suffices. Every entry
ends some day: what nobody renews is looked at again. A server name is what the client claims, so
an entry that names the destination's network as well is the safer one.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.units import SECOND_NS

MAX_ENTRIES: Final = 1000
"""Most entries of a list: it is kept by hand, and each alert is held against all of them."""

MAX_VALUES: Final = 256
"""Most values of one criterion, for the same reason."""

MAX_REASON: Final = 500
"""Longest reason in characters: it is a line in a report."""

CRITERIA: Final = ("host", "subscriber", "destination", "name", "ja3", "ja4", "port")

_HEADER = re.compile(r"^\s*\[\[\s*allow\s*\]\]")
_JA3 = re.compile(r"[0-9a-f]{32}")
_JA4 = re.compile(r"[a-z0-9]{10}_[0-9a-f]{12}_[0-9a-f]{12}")


class Span(NamedTuple):
    """Addresses of a network: numbers compare faster than networks do."""

    version: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AllowEntry:
    """What one entry allows. An empty criterion holds for everything.

    Attributes
    ----------
    reason
        Why, in words.
    until_ns
        From this time on it does not match any more, ns since the epoch.
    hosts, destinations
        Networks of the initiator and of the responder.
    subscribers
        Pseudonyms.
    names
        Server names in lower case; one with a leading dot matches the domain and all below it.
    ja3, ja4
        Fingerprints of the client.
    ports
        First and last port of the responder.
    line
        Where the entry begins in its file, 0 unknown.
    """

    reason: str
    until_ns: int
    hosts: tuple[Span, ...] = ()
    subscribers: frozenset[str] = frozenset()
    destinations: tuple[Span, ...] = ()
    names: tuple[str, ...] = ()
    ja3: frozenset[str] = frozenset()
    ja4: frozenset[str] = frozenset()
    ports: tuple[tuple[int, int], ...] = ()
    line: int = 0

    @property
    def of_flows(self) -> bool:
        """Whether it speaks of single flows and not of a host as a whole."""
        return bool(self.destinations or self.names or self.ja3 or self.ja4 or self.ports)

    def matches(self, alert: Alert, flow: FlowFacts) -> bool:
        """Tell whether every criterion holds for the alert, whatever the time is.

        An entry that speaks of flows never matches the alert of a host: a host that also talks
        to an allowed server is not harmless for that.
        """
        if alert.kind != "flow" and self.of_flows:
            return False
        return (
            (not self.hosts or _inside(alert.host, self.hosts))
            and (not self.ports or _between(alert.dst_port, self.ports))
            and (not self.subscribers or alert.subscriber in self.subscribers)
            and (not self.destinations or _inside(alert.dst_ip, self.destinations))
            and (not self.names or _named(flow, self.names))
            and (not self.ja3 or flow.ja3 in self.ja3)
            and (not self.ja4 or flow.ja4 in self.ja4)
        )


@dataclass(frozen=True, slots=True)
class AllowList:
    r"""Entries in the order of their file.

    Examples
    --------
    >>> allow = parse_allow('[[allow]]\nreason="lab"\nuntil=2030-01-01\nhost="10.0.0.0/8"')
    >>> [entry.reason for entry in allow.entries]
    ['lab']
    """

    entries: tuple[AllowEntry, ...] = ()

    def match(self, alert: Alert, flow: FlowFacts, now_ns: int) -> AllowEntry | None:
        """Return the first entry that allows the alert and has not expired, else None."""
        for entry in self.entries:
            if now_ns < entry.until_ns and entry.matches(alert, flow):
                return entry
        return None

    def expired(self, now_ns: int) -> list[AllowEntry]:
        """Return the entries that no longer match: to be renewed or removed."""
        return [entry for entry in self.entries if now_ns >= entry.until_ns]


def parse_allow(text: str, where: object = "allow-list") -> AllowList:
    """Read an allow-list.

    Parameters
    ----------
    text
        The TOML text.
    where
        Its place, for errors.

    Raises
    ------
    VeilwatchError
        If the text is no TOML, or an entry has no reason or end, an unknown key, a value that
        does not fit, no criterion, or allows everything; the error names file and line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VeilwatchError(f"not TOML: {error}", where=where) from error
    unknown = sorted(set(document) - {"allow"})
    tables = document.get("allow", [])
    if unknown or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise VeilwatchError(
            f"unknown key {unknown[0]!r}" if unknown else "`allow` is no list of tables",
            where=where,
            hint="every entry begins with a line [[allow]]",
        )
    if len(tables) > MAX_ENTRIES:
        raise VeilwatchError(f"{len(tables):,} entries, at most {MAX_ENTRIES:,}", where=where)
    lines = [n for n, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if len(lines) != len(tables):  # written some other way: better no line than a wrong one
        lines = [0] * len(tables)
    return AllowList(
        tuple(_entry(table, line, where) for table, line in zip(tables, lines, strict=True))
    )


def _entry(table: Mapping[str, Any], line: int, where: object) -> AllowEntry:
    place = f"{where}:{line}" if line else where
    try:
        return _checked(table, line)
    except ValueError as error:
        raise VeilwatchError(str(error), where=place, hint="see docs/sensor-config.md") from error


def _checked(table: Mapping[str, Any], line: int) -> AllowEntry:
    unknown = sorted(set(table) - {"reason", "until", *CRITERIA})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    reason = table.get("reason")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON:
        raise ValueError(f"an entry needs a reason of 1 to {MAX_REASON} characters")
    entry = AllowEntry(
        reason=reason.strip(),
        until_ns=_until(table.get("until")),
        hosts=_networks(table, "host"),
        subscribers=frozenset(_texts(table, "subscriber")),
        destinations=_networks(table, "destination"),
        names=tuple(_name(text) for text in _texts(table, "name")),
        ja3=frozenset(_fingerprints(table, "ja3", _JA3)),
        ja4=frozenset(_fingerprints(table, "ja4", _JA4)),
        ports=tuple(map(_ports, _values(table, "port"))),
        line=line,
    )
    named = [name for name in CRITERIA if name in table]
    everything = all(
        name in ("host", "destination") and _holds_all(_networks(table, name)) for name in named
    )
    if everything:
        raise ValueError(
            "the entry allows everything; name "
            f"{', '.join(CRITERIA[:-1])} or {CRITERIA[-1]}, narrower than /0"
        )
    return entry


def _holds_all(spans: tuple[Span, ...]) -> bool:
    return any(last - first >= (1 << (32 if v == 4 else 128)) - 1 for v, first, last in spans)


def _until(value: object) -> int:
    """Return the first nanosecond after `until`: a date counts to its end, UTC."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif isinstance(value, date):
        if value == date.max:
            raise ValueError("`until` is too far away")
        moment = datetime.combine(value + timedelta(days=1), time(), UTC)
    else:
        raise ValueError("an entry needs `until`, a date such as 2026-12-31 without quotes")
    return int(moment.timestamp()) * SECOND_NS


def _values(table: Mapping[str, Any], key: str) -> Sequence[Any]:
    if key not in table:
        return ()
    value = table[key]
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES:
        raise ValueError(f"`{key}` has {len(values)} values, 1 to {MAX_VALUES} are possible")
    return values


def _texts(table: Mapping[str, Any], key: str) -> Iterable[str]:
    for value in _values(table, key):
        if not isinstance(value, str) or not value:
            raise ValueError(f"`{key}` holds {value!r}, which is no text")
        yield value


def _networks(table: Mapping[str, Any], key: str) -> tuple[Span, ...]:
    found = []
    for text in _texts(table, key):
        try:
            network = ipaddress.ip_network(text, strict=True)
            ends = int(network.network_address), int(network.broadcast_address)
            found.append(Span(network.version, *ends))
        except ValueError as error:
            raise ValueError(f"`{key}` holds {text!r}: {error}") from error
    return tuple(found)


def _name(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not name.strip(".") or "*" in name or any(c.isspace() for c in name):
        raise ValueError(f"`name` holds {text!r}; write server.example, or .example for all below")
    return name


def _fingerprints(table: Mapping[str, Any], key: str, form: re.Pattern[str]) -> Iterable[str]:
    for text in _texts(table, key):
        if not form.fullmatch(text.lower()):
            raise ValueError(f"`{key}` holds {text!r}, which is no {key.upper()} fingerprint")
        yield text.lower()


def _ports(value: object) -> tuple[int, int]:
    first, dash, last = str(value).partition("-")
    if isinstance(value, bool) or not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f'`port` holds {value!r}; write 443 or "8000-8100"')
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= 65_535:
        raise ValueError(f"`port` holds {value!r}, ports go from 0 to 65535")
    return low, high


@lru_cache(maxsize=4096)  # the same host is held against every entry, and alerts again
def _address(text: str) -> tuple[int, int]:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return (0, 0)  # of no version
    return (parsed.version, int(parsed))


def _inside(address: str, spans: tuple[Span, ...]) -> bool:
    version, number = _address(address)
    for of, first, last in spans:  # noqa: SIM110 - any() takes three times as long
        if first <= number <= last and of == version:
            return True
    return False


def _between(port: int, spans: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= port <= last for first, last in spans)


def _named(flow: FlowFacts, names: tuple[str, ...]) -> bool:
    asked = flow.asked_name.lower().removesuffix(".")
    if not asked:
        return False
    return any(
        f".{asked}".endswith(name) if name.startswith(".") else asked == name for name in names
    )
