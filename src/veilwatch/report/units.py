"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from veilwatch.schema.units import DAY_NS, DAY_S, HOUR_NS, HOUR_S, SECOND_NS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_ABBREVIATED: Final = (
    *("tls", "dtls", "ssl", "quic", "ssh", "ike", "dns", "http", "rtsp", "sip", "ssdp", "smb"),
    *("smtp", "ftp", "pop3", "imap", "irc", "rdp", "vnc", "stun", "mqtt", "ldap", "snmp", "tds"),
    *("xmpp", "tftp", "dhcp", "ntp"),
)
_SERVICES: Final = {name: name.upper() for name in _ABBREVIATED} | {
    "bittorrent": "BitTorrent",
    "dcerpc": "DCE/RPC",
    "kerberos": "Kerberos",
    "mysql": "MySQL",
    "netbios": "NetBIOS",
    "openvpn": "OpenVPN",
    "postgresql": "PostgreSQL",
    "socks": "SOCKS",
    "stratum": "Stratum",
    "telnet": "Telnet",
    "wireguard": "WireGuard",
}
"""Recognised services as people write them (`veilwatch.traffic.handshake.services`)."""


def number(value: float) -> str:
    """Return a count with thousands separated."""
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Return a number of bytes with a decimal unit.

    Examples
    --------
    >>> size(999), size(12_345), size(9_990_000)
    ('999 B', '12.3 kB', '9.99 MB')
    """
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5 or unit == "PB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def bit_rate(bytes_per_s: float) -> str:
    """Return a rate of bytes as bits a second, the unit of links.

    Examples
    --------
    >>> bit_rate(1_250_000), bit_rate(3)
    ('10 Mbit/s', '24 bit/s')
    """
    return f"{size(bytes_per_s * 8)[:-1]}bit/s"


def share(part: float, whole: float = 1.0) -> str:
    """Return a share in per cent, a dash where there is nothing to share."""
    return percent(part / whole) if whole else "–"


def percent(value: float | None) -> str:
    """Return a rate in per cent with the figures that matter; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    scaled = value * 100
    if value in (0, 1):
        return f"{scaled:.0f} %"
    if scaled > 99.9:
        return "> 99.9 %"
    if scaled < 0.01:
        return "< 0.01 %"
    return f"{scaled:.1f} %" if scaled >= 1 else f"{scaled:.2g} %"


def target(value: float | None) -> str:
    """Return a rate that somebody chose, without places that only look exact."""
    return "–" if value is None else f"{value * 100:g} %"


def endpoint(ip: str, port: int) -> str:
    """Return address and port as in a URL; the address alone for port 0.

    Examples
    --------
    >>> endpoint("192.0.2.1", 443), endpoint("2001:db8::1", 443), endpoint("192.0.2.1", 0)
    ('192.0.2.1:443', '[2001:db8::1]:443', '192.0.2.1')
    """
    if not port:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def rate(value: float | None) -> str:
    """Return a figure between 0 and 1 with three places; a dash for None."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def score(value: float) -> str:
    """Return a score; never 1.000 or 0.000 where it is neither."""
    if 0.9995 <= value < 1:
        return "> 0.999"
    return "< 0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def one_in(value: float) -> str:
    """Return a small rate as its inverse: 0.001 as "1,000"."""
    return number(1 / value)


def moment(ns: int) -> datetime:
    """Return a packet time as UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def date_time(ns: int | None) -> str:
    """Return a packet time to the second in UTC; a dash for None."""
    return "–" if ns is None else f"{moment(ns):%Y-%m-%d %H:%M:%S}"


def date_minute(ns: int | None) -> str:
    """Return a packet time to the minute in UTC; a dash for None."""
    return date_time(ns)[:16]


def date(ns: int) -> str:
    """Return the day of a packet time, UTC."""
    return date_time(ns)[:10]


def period(first_ns: int, last_ns: int | None) -> str:
    """Return from when to when, the day once where both have it.

    Examples
    --------
    >>> period(1_780_303_244 * 10**9, 1_780_305_694 * 10**9)
    '2026-06-01 08:40:44 – 09:21:34'
    """
    first, last = date_time(first_ns), date_time(last_ns)
    if last_ns is None or first == last:
        return first
    return f"{first} – {last[11:] if first[:10] == last[:10] else last}"


def words(name: str) -> str:
    """Return an internal name as words: `host_window` as "host window"."""
    return name.replace("_", " ").replace(".", ": ")


def timestamp(written: str) -> str:
    """Return a time of ISO 8601 in the form of the reports; what is none as it is.

    Examples
    --------
    >>> timestamp("2026-05-30T13:02:03+02:00"), timestamp("by day")
    ('2026-05-30 11:02:03 UTC', 'by day')
    """
    if not _TIMESTAMP.fullmatch(written):
        return written
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        return written
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M:%S}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def service(name: str) -> str:
    """Return a service as people write it: TLS, WireGuard; '' stays.

    Examples
    --------
    >>> service("tls"), service("wireguard"), service("")
    ('TLS', 'WireGuard', '')
    """
    return _SERVICES.get(name, name)


def clock(ns: int, span_ns: int) -> str:
    """Return a packet time as short as the span around it allows."""
    when = moment(ns)
    if span_ns <= 10 * SECOND_NS:
        return f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}"
    if span_ns <= 600 * SECOND_NS:
        return f"{when:%H:%M:%S}"
    if span_ns <= 36 * HOUR_NS:
        return f"{when:%H:%M}"
    if span_ns <= 10 * DAY_NS:
        return f"{when:%m-%d %H:%M}"
    return f"{when:%Y-%m-%d}"


def duration(ns: int) -> str:
    """Return a span with at most two units.

    Examples
    --------
    >>> duration(1_500_000), duration(95 * 10**9), duration(93_600 * 10**9)
    ('1.5 ms', '1 min 35 s', '1 d 2 h')
    """
    if ns < SECOND_NS:
        return f"{ns / 1e6:.3g} ms"
    seconds = round(ns / SECOND_NS)
    if seconds < 60:
        return f"{ns / SECOND_NS:.3g} s"
    if seconds < HOUR_S:
        return _two_units(seconds, 60, "min", 1, "s")
    if seconds < DAY_S:
        return _two_units(seconds, HOUR_S, "h", 60, "min")
    return _two_units(seconds, DAY_S, "d", HOUR_S, "h")


def _two_units(seconds: int, big: int, big_name: str, small: int, small_name: str) -> str:
    rest = seconds % big // small
    return f"{seconds // big:,} {big_name}" + (f" {rest} {small_name}" if rest else "")
