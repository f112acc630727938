"""What came of a rehearsal: figures, and checks of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from rehearsal.esm import ROUTES, Esm
from rehearsal.traffic import Infection, Traffic
from veilwatch.schema.events import Event, EventKind
from veilwatch.schema.flows import EndReason
from veilwatch.sensor.config import EarlySection
from veilwatch.store import Store

NS: Final = 10**9

Samples = Sequence[tuple[float, dict[str, Any]]]


@dataclass
class Found:
    """What became of one infection; delays in seconds, None where there is none."""

    family: str
    ransomware: bool
    capture: str
    hosts: list[str]
    packets: int
    begins_s: float
    span_s: float
    events: int = 0
    by: str = ""
    within_run: bool = False
    named: str = ""
    after_first_packet_s: float | None = None
    after_deciding_packet_s: float | None = None
    arrived_s: dict[str, float] = field(default_factory=dict)
    incident_only: bool = False


@dataclass
class Check:
    """One thing that has to be so."""

    name: str
    good: bool
    said: str


@dataclass
class Outcome:
    """Everything that the table shows."""

    settings: dict[str, Any]
    infections: list[Found]
    hosts: dict[str, Any]
    stages: dict[str, int]
    delivery: dict[str, dict[str, int]]
    delays: dict[str, dict[str, float]]
    processes: dict[str, dict[str, float]]
    checks: list[Check]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def read_events(state: Path) -> tuple[list[Event], list[str]]:
    """Return the events of the store, oldest first, and the hosts of its incidents."""
    with Store(str(state / "veilwatch.db"), create=False) as store:
        events = [item.event for item in store.events(newest_first=False)]
        return events, [item.incident.host for item in store.incidents()]


def first_packets(state: Path, hosts: Sequence[str]) -> int | None:
    """Return when the sensor saw the first packet of some hosts, from its archive of flows."""
    files = [str(file) for file in sorted((state / "flows").glob("*.parquet"))]
    if not files:
        return None
    ends = pl.col("src_ip").is_in(hosts) | pl.col("dst_ip").is_in(hosts)
    found = pl.scan_parquet(files).filter(ends).select(pl.col("first_ns").min()).collect().item()
    return None if found is None else int(found)


def judge_infection(
    infection: Infection,
    events: Sequence[Event],
    incidents: Sequence[str],
    esm: Esm,
    *,
    first_ns: int,
    end_ns: int,
) -> Found:
    """Say whether and how fast an infection was found.

    Parameters
    ----------
    first_ns
        Its first packet, as the sensor saw it.
    end_ns
        End of the run: what is told later comes of the flows that the sensor ends with itself.
    """
    out = Found(
        infection.family, infection.ransomware, infection.capture, infection.hosts,
        infection.packets, infection.begins_s, infection.span_s,
    )  # fmt: skip
    mine = [event for event in events if _alerts(event) and event.alert.host in infection.hosts]
    out.events = len(mine)
    out.incident_only = not mine and any(host in infection.hosts for host in incidents)
    if not mine:
        return out
    first = min(mine, key=lambda event: event.made_ns)
    out.by = first.kind.value
    out.within_run = first.made_ns <= end_ns
    out.named = next((event.alert.family for event in mine if event.alert.family), "")
    out.after_first_packet_s = round((first.made_ns - first_ns) / NS, 2)
    out.after_deciding_packet_s = round((first.made_ns - first.alert.last_ns) / NS, 2)
    for route in ROUTES:
        copies = esm.arrivals[route].get(first.event_id)
        if copies:
            out.arrived_s[route] = round((copies[0].at_ns - first.made_ns) / NS, 2)
    return out


def host_figures(traffic: Traffic, events: Sequence[Event], incidents: list[str]) -> dict[str, Any]:
    """Count hosts that were alerted and should not have been."""
    infected = {host for infection in traffic.infections for host in infection.hosts}
    alerted = {event.alert.host for event in events if _alerts(event)}
    known = infected | traffic.background_hosts | traffic.load_hosts
    return {
        "background_hosts": len(traffic.background_hosts),
        "background_alerted": sorted(alerted & traffic.background_hosts),
        "background_incidents": sum(host in traffic.background_hosts for host in incidents),
        "load_hosts": len(traffic.load_hosts),
        "load_alerted": sorted(alerted & traffic.load_hosts),
        "load_incidents": sum(host in traffic.load_hosts for host in incidents),
        "others_alerted": sorted(alerted - known),
        "incidents": len(incidents),
    }


def delivery_figures(events: Sequence[Event], esm: Esm) -> dict[str, dict[str, int]]:
    """Count what arrived on each route."""
    wanted = {event.event_id for event in events}
    out = {}
    for route in ROUTES:
        arrivals = esm.arrivals[route]
        later = [copy for copies in arrivals.values() for copy in copies[1:]]
        out[route] = {
            "stored": len(wanted),
            "arrived": len(wanted & arrivals.keys()),
            "unknown": len(arrivals.keys() - wanted),
            "copies": len(later),
            "unmarked_copies": sum(not copy.marked for copy in later),
        }
    return out


def delay_figures(
    events: Sequence[Event],
    esm: Esm,
    *,
    outage_ns: tuple[int, int],
    end_ns: int,
) -> dict[str, dict[str, float]]:
    """Return quantiles of how long alerts took; arrivals of events made outside the outage."""
    made: defaultdict[str, list[float]] = defaultdict(list)
    silence_s = EarlySection().silence_s
    for event in events:
        if event.kind is EventKind.FLOW and event.made_ns <= end_ns:
            delay_s = (event.made_ns - event.alert.last_ns) / NS
            alive = event.flow is not None and event.flow.end_reason == EndReason.EARLY
            # That a flow is silent is known once it has been for so long.
            silent = alive and delay_s >= silence_s
            made["silent" if silent else "live" if alive else "ended"].append(
                delay_s - silence_s * silent
            )
    out = {
        "event of a live flow after deciding packet": _quantiles(made["live"]),
        f"event of a silent flow after {silence_s:g} s of silence": _quantiles(made["silent"]),
        "event of an ended flow after its last packet": _quantiles(made["ended"]),
    }
    for route in ROUTES:
        arrived = [
            (copies[0].at_ns - event.made_ns) / NS
            for event in events
            if (copies := esm.arrivals[route].get(event.event_id))
            and not outage_ns[0] - NS <= event.made_ns <= outage_ns[1]
        ]
        out[f"arrival on {route} after event"] = _quantiles(arrived)
    return out


def total(samples: Samples, child: str, name: str) -> float:
    """Return what a process counted, over all its starts."""
    last: dict[int, float] = {}
    for _, status in samples:
        said = status.get("children", {}).get(child, {})
        if name in said:
            last[int(said.get("restarts", 0))] = float(said[name])
    return sum(last.values())


def table_total(samples: Samples, child: str, name: str) -> dict[str, int]:
    """Return a table of counts of a process, over all its starts."""
    last: dict[int, dict[str, int]] = {}
    for _, status in samples:
        said = status.get("children", {}).get(child, {})
        if name in said:
            last[int(said.get("restarts", 0))] = dict(said[name])
    out: dict[str, int] = {}
    for counts in last.values():
        for entry, count in counts.items():
            out[entry] = out.get(entry, 0) + int(count)
    return out


def process_figures(samples: Samples, seconds: float) -> dict[str, dict[str, float]]:
    """Return CPU and memory of each process while traffic was sent."""
    out = {}
    traffic = [(at_s, status) for at_s, status in samples if 0 <= at_s <= seconds]
    children = sorted({name for _, status in traffic for name in status.get("children", {})})
    for child in children:
        used = total(traffic, child, "cpu_s") - total(traffic[:1], child, "cpu_s")
        sizes = [
            said["rss"] / 2**20
            for _, status in traffic
            if "rss" in (said := status["children"].get(child, {}))
        ]
        quarter = max(1, len(sizes) // 4)
        last = traffic[-1][1]["children"].get(child, {})
        out[child] = {
            "cores": round(used / seconds, 2),
            "rss_first_mb": round(statistics.fmean(sizes[:quarter]), 1) if sizes else 0.0,
            "rss_last_mb": round(statistics.fmean(sizes[-quarter:]), 1) if sizes else 0.0,
            "rss_most_mb": round(max(sizes, default=0.0), 1),
            "restarts": float(last.get("restarts", 0)),
        }
    return out


def _alerts(event: Event) -> bool:
    return event.kind in (EventKind.FLOW, EventKind.HOST)


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    values = sorted(values)
    return {
        "count": len(values),
        "median_s": round(statistics.median(values), 2),
        "p95_s": round(values[min(len(values) - 1, int(0.95 * len(values)))], 2),
        "most_s": round(values[-1], 2),
    }
