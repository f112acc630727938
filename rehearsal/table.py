"""The outcome as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from rehearsal.esm import ROUTES
from rehearsal.outcome import Found, Outcome


def tables(outcome: Outcome) -> Iterator[RenderableType]:
    """Yield what is printed, one table after the other."""
    yield Text(", ".join(f"{name} {value}" for name, value in outcome.settings.items()))
    yield _infections(outcome)
    yield _hosts(outcome)
    yield _stages(outcome)
    yield _delivery(outcome)
    yield _processes(outcome)
    yield _checks(outcome)


def _infections(outcome: Outcome) -> Table:
    found = sum(item.within_run for item in outcome.infections)
    kind = "emulated" if outcome.settings["traffic"] == "emulated" else "real, synthetic wrapping"
    table = Table(
        "family", "ransomware", "begins", "packets", "found by", "events", "named",
        "after 1st packet", "after deciding packet", *(f"then at {route}" for route in ROUTES),
        title=f"Infections ({kind}): {found} of {len(outcome.infections)} found within the run",
    )  # fmt: skip
    for item in outcome.infections:
        table.add_row(
            item.family,
            "yes" if item.ransomware else "",
            f"{item.begins_s:.0f} s",
            f"{item.packets:,}",
            _found(item),
            f"{item.events}" if item.events else "",
            item.named,
            _seconds(item.after_first_packet_s),
            _seconds(item.after_deciding_packet_s),
            *(_seconds(item.arrived_s.get(route)) for route in ROUTES),
        )
    return table


def _found(item: Found) -> str:
    if item.by:
        return item.by if item.within_run else f"{item.by}, at the end"
    return "held back" if item.incident_only else "not found"


def _hosts(outcome: Outcome) -> Table:
    said = outcome.hosts
    table = Table("hosts", "all", "alerted", "incidents", title="False alerts")
    table.add_row(
        "background, own pace",
        f"{said['background_hosts']:,}",
        f"{len(said['background_alerted'])}",
        f"{said['background_incidents']}",
    )
    table.add_row(
        "load (in maintenance: counted, not told)",
        f"{said['load_hosts']:,}",
        f"{len(said['load_alerted'])}",
        f"{said['load_incidents']}",
    )
    table.add_row("others (no subscribers)", "", f"{len(said['others_alerted'])}", "")
    return table


def _stages(outcome: Outcome) -> Table:
    table = Table("stage", "count", title="From wire to event")
    for name, count in outcome.stages.items():
        table.add_row(name, f"{count:,}")
    return table


def _delivery(outcome: Outcome) -> Table:
    table = Table(
        "delay", "events", "median", "95 %", "most", title="Delays, without those of the outage"
    )
    for name, said in outcome.delays.items():
        table.add_row(
            name,
            f"{said['count']:.0f}",
            *(_seconds(said.get(key)) for key in ("median_s", "p95_s", "most_s")),
        )
    return table


def _processes(outcome: Outcome) -> Table:
    table = Table(
        "process", "cores", "MiB, 1st quarter", "MiB, last quarter", "most", "restarts",
        title="Load",
    )  # fmt: skip
    for name, said in outcome.processes.items():
        table.add_row(
            name,
            f"{said['cores']:.2f}",
            *(f"{said[key]:.0f}" for key in ("rss_first_mb", "rss_last_mb", "rss_most_mb")),
            f"{said['restarts']:.0f}",
        )
    return table


def _checks(outcome: Outcome) -> Table:
    table = Table("check", "", "seen", title="Checks")
    for check in outcome.checks:
        mark = Text("ok", style="green") if check.good else Text("FAILED", style="bold red")
        table.add_row(check.name, mark, check.said)
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
