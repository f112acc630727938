"""Flow tables that keep the whole contract: played by the lab, or drawn at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from veilwatch.corpus.lab.activities import Pool, Stage, perform
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import Activity, load_profiles
from veilwatch.corpus.lab.world import make_user
from veilwatch.learning.checks.units import LATE, random_flows, random_headers, random_windows
from veilwatch.schema.flows import FlowTable
from veilwatch.traffic.capture import PcapngWriter
from veilwatch.traffic.pipeline import FlowReader

__all__ = ["LATE", "random_flows", "random_headers", "random_windows"]

START = datetime(2026, 3, 1, 9, tzinfo=UTC)


class Inner(NamedTuple):
    """An IP packet at the capture point."""

    ts_ns: int
    data: bytes


def played_packets(*, seed: int = 3, scale: float = 0.06) -> list[Inner]:
    """Return the inner packets of two lab activities of each kind, real TLS handshakes among them.

    Sweeps meet no answer, so that there are flows with one direction only.
    """
    chosen: dict[type, list[tuple[str, Activity]]] = defaultdict(list)
    for profile in load_profiles():
        for activity in profile.variant[0].activity:
            chosen[type(activity)].append((profile.name, activity))
    out = []
    for name, activity in [pair for pairs in chosen.values() for pair in pairs[:2]]:
        draw = Draw(seed, name)
        stage = Stage(
            epoch_ns=int(START.timestamp()) * 10**9,
            users=[make_user(draw)],
            draw=draw,
            scale=scale,
            pool=Pool(f"{seed}/{name}", START),
        )
        for flow in perform(activity, stage):
            out += [Inner(packet.ts_ns, packet.data) for packet in flow.packets]
    return sorted(out)


def ethernet(data: bytes) -> bytes:
    """An IP packet in an Ethernet frame."""
    return bytes.fromhex("02000000000a02000000000b0800") + data


def write(path: Path, packets: Iterable[Inner], frame: Callable[[bytes], bytes] = ethernet) -> Path:
    """Write a capture with each packet framed by `frame`."""
    with PcapngWriter(path, link=1) as writer:
        for packet in packets:
            data = frame(packet.data)
            writer.write(packet.ts_ns, data, len(data))
    return path


def read(path: Path) -> FlowTable:
    """Return the flows of a capture."""
    with FlowReader([path]) as reader:
        return reader.read_all()
