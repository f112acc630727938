"""`veilwatch inspect`: what captures carry, and what could not be read of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import typer
from rich.text import Text

from veilwatch.cli import live, reading, sessions
from veilwatch.cli.options import (
    DEFAULTS,
    CapturesOrInterface,
    GtpPorts,
    SubscriberKeyFile,
    SubscriberRotation,
    key_ring,
)
from veilwatch.cli.terminal import AsJson, Quiet, console, warn, warn_of_faults, working
from veilwatch.report.listing import Listing, numbers, texts, whole
from veilwatch.schema.captures import FileReport
from veilwatch.schema.packets import Status
from veilwatch.schema.text import MAX_CELL, visible
from veilwatch.traffic.subscriber import Rotation

SHOWN_TUNNELS: Final = 20
"""Pairs of tunnel end points shown on the console."""

MAX_TUNNELS: Final = 65_536
"""Pairs of tunnel end points that are counted: more than a core network has."""

SHOWN_FILES: Final = 200
"""Files shown on the console."""


def command(
    captures: CapturesOrInterface = None,
    interface: live.Interface = None,
    duration: live.Duration = None,
    ring_mb: live.RingMb = live.DEFAULTS.ring_mb,
    snaplen: live.Snaplen = live.DEFAULTS.snaplen,
    workers: live.Workers = 1,
    user: live.User = None,
    gtp_port: GtpPorts = None,
    subscriber_key_file: SubscriberKeyFile = None,
    subscriber_rotation: SubscriberRotation = Rotation.NONE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show files, the balance of packets, services, tunnels and the sessions of subscribers.

    Every packet is accounted for.

    Example: `veilwatch inspect n3.pcapng`
    """
    options = live.LiveOptions(interface, duration, ring_mb, snaplen, workers, user)
    options.check(captures)
    services: Counter[str] = Counter()
    tunnels: Counter[tuple[str, str]] = Counter()
    flows = inside = 0
    with (
        working(quiet or as_json) as progress,
        live.open_reader(
            captures,
            options,
            config=DEFAULTS,
            gtp_ports=gtp_port or (),
            subscriber_keys=key_ring(subscriber_key_file, subscriber_rotation),
            progress=progress,
        ) as reader,
    ):
        for table in reader:
            flows += len(table)
            frame = table.frame
            services.update(dict(frame["service"].value_counts().iter_rows()))
            pairs = _tunnel_pairs(frame)
            inside += sum(pairs.values())
            for pair, count in pairs.items():
                if pair in tunnels or len(tunnels) < MAX_TUNNELS:
                    tunnels[pair] += count
    result = {
        "files": [asdict(report) for report in reader.captures.files],
        "packets": reader.captures.packets,
        "balance": reader.balance,
        "flows": flows,
        "flows_in_tunnels": inside,
        **reader.metering,
        "services": dict(services.most_common()),
        "tunnels": [
            {"end_points": list(pair), "flows": count} for pair, count in tunnels.most_common()
        ],
        **sessions.as_json(reader.subscribers),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _print(result, reader.captures.files)
        sessions.print_sessions(reader.subscribers)
    warn_of_faults(reader.captures, quiet=quiet or as_json)
    if why := reading.nothing_decoded(reader.captures, reader.balance):
        warn(why)
    reading.settle(reader.captures, reader.balance)


def _tunnel_pairs(frame: pl.DataFrame) -> dict[tuple[str, str], int]:
    """Count flows by their unordered pair of tunnel end points."""
    pairs = (
        frame.lazy()
        .filter(pl.col("gtp_depth") > 0)
        .group_by(
            a=pl.min_horizontal("outer_src_ip", "outer_dst_ip"),
            b=pl.max_horizontal("outer_src_ip", "outer_dst_ip"),
        )
        .len()
        .collect()
    )
    return {(a, b): count for a, b, count in pairs.iter_rows()}


def _print(result: dict[str, Any], files: list[FileReport]) -> None:
    table = Listing(
        [
            *(*texts("file"), *whole("format"), *numbers("packets"), *whole("first packet (UTC)")),
            *(*numbers("seconds"), *texts("note")),
        ]
    )
    for report in files[:SHOWN_FILES]:
        first, last = report.first_ns, report.last_ns
        span = "" if first is None or last is None else f"{(last - first) / 1e9:,.1f}"
        table.add(
            *(
                Text(visible(report.name, MAX_CELL)),
                report.format,
                f"{report.packets:,}",
                _when(first),
            ),
            *(span, Text(visible(report.fault, MAX_CELL), style="yellow")),
        )
    console.print(table)
    if len(files) > SHOWN_FILES:
        console.print(f"… and {len(files) - SHOWN_FILES} more files")

    for report in [report for report in files if report.notes][:SHOWN_FILES]:
        for note in report.notes:
            console.print(Text(visible(f"{report.name}: {note}"), style="yellow"))

    for report in files:
        if report.live is not None:
            for line in (live.summary(report), *report.live.warnings):
                console.print(Text(visible(line)))

    console.print()
    balance = Listing([*numbers("packets"), *texts("what became of them")], title="Balance")
    statuses = {status.name for status in Status}
    for name, count in result["balance"].items():
        if name in statuses and count:
            balance.add(f"{count:,}", name.lower().replace("_", " "))
    balance.add(f"{result['packets']:,}", Text("read", style="bold"))
    console.print(balance)
    console.print()

    extra = {k: v for k, v in result["balance"].items() if k.islower() and v}
    extra.pop("packets_read", None)
    if extra:
        console.print(
            "Among them: "
            + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in extra.items())
        )
    services = ", ".join(f"{n or 'unknown'} {c:,}" for n, c in result["services"].items())
    console.print(
        Text(
            f"Flows: {result['flows']:,}, {result['flows_in_tunnels']:,} of them in GTP-U"
            + (f" ({services})" if services else "")
        )
    )
    for tunnel in result["tunnels"][:SHOWN_TUNNELS]:
        console.print(Text(f"  {' ↔ '.join(tunnel['end_points'])}: {tunnel['flows']:,} flows"))
    if len(result["tunnels"]) > SHOWN_TUNNELS:
        console.print(f"  … and {len(result['tunnels']) - SHOWN_TUNNELS} more pairs of end points")


def _when(time_ns: int | None) -> str:
    if time_ns is None:
        return ""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "beyond the calendar"
