"""What `veilwatch inspect` shows of sessions and subscribers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from veilwatch.cli.terminal import console
from veilwatch.report.listing import Listing, numbers, texts, whole
from veilwatch.schema.forms import teid_text
from veilwatch.schema.sessions import Session, SubscriberReport, TunnelEnd
from veilwatch.schema.text import visible

SHOWN_SESSIONS: Final = 50
"""Sessions shown on the console, those with most flows first."""

SHOWN_ENDS: Final = 6
"""F-TEIDs shown of one session, the newest; handovers may give it dozens."""

SHOWN_PAIRS: Final = 10
"""Pairs of tunnel end points shown whose flows have no subscriber."""


def as_json(report: SubscriberReport) -> dict[str, Any]:
    """Return sessions and counters as `--json` prints them."""
    return {
        "sessions": [asdict(session) for session in report.sessions],
        "control": {**report.counters, "note": report.note},
    }


def print_sessions(report: SubscriberReport) -> None:
    """Print sessions, what control traffic was read and what could not be attributed."""
    sessions = sorted(report.sessions, key=lambda s: (-s.flows, s.created_ns, s.number))
    if sessions:
        _print_table(sessions)
    counters = report.counters
    _print_counts("Control messages", counters["messages"])
    _print_counts("Of control traffic not read or not applied", counters["refused"])
    flows = counters["flows"]
    if flows:
        console.print(
            f"Flows with subscriber: {flows.get('control', 0):,} by control traffic, "
            f"{flows.get('learned', 0):,} learned; ambiguous: {flows.get('ambiguous', 0):,}"
        )
    for item in counters["unattributed"][:SHOWN_PAIRS]:
        pair = " ↔ ".join(item["end_points"])
        console.print(Text(f"  {pair}: {item['flows']:,} flows without subscriber"))
    if report.note:
        console.print(Text(report.note, style="yellow"))


def _print_table(sessions: list[Session]) -> None:
    table = Listing(
        [
            *(*whole("subscriber"), *texts("APN"), *whole("UE address", "tunnel ends")),
            *(*texts("location"), *whole("from – to (UTC)"), *numbers("handovers", "flows")),
        ],
        title="Sessions",
    )
    console.print()
    for session in sessions[:SHOWN_SESSIONS]:
        name = session.subscriber or "unknown"
        if session.subscriber_by == "learned":
            name += "\n(learned)"
        place = ", ".join(filter(None, (session.location, session.rat)))
        table.add(
            name,
            Text(visible(session.apn)),
            "\n".join(session.addresses),
            "\n".join(map(_end, session.tunnels[-SHOWN_ENDS:])),
            Text(visible(place)),
            f"{_clock(session.created_ns)} –\n{_clock(session.ended_ns)} {session.end_reason}",
            f"{session.handovers:,}",
            f"{session.flows:,}",
        )
    console.print(table)
    if len(sessions) > SHOWN_SESSIONS:
        console.print(f"… and {len(sessions) - SHOWN_SESSIONS:,} more sessions")


def _end(end: TunnelEnd) -> str:
    former = "" if end.last_ns is None else " (former)"
    return f"{end.role or '?'} {end.address} {teid_text(end.teid)}{former}"


def _clock(time_ns: int | None) -> str:
    if time_ns is None:
        return ""
    # Packet time is 64 bits of ns: it stays within the calendar of datetime.
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _print_counts(title: str, counts: dict[str, int]) -> None:
    if counts:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        console.print(Text(f"{title}: {listed}"))
