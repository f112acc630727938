"""What TCP did in a capture, counted by both sides, and why the counts differ where they do.

tshark's marks are heuristics: it calls a segment with old numbers a retransmission or out of
order by the time since its neighbours, and one that was acknowledged before it was seen spurious.
So what has old numbers is compared as one sum: `retransmissions` repeat bytes, `out_of_order`
counts both what fills a hole and what comes past one, and tshark's sum lies between the first and
both together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from tests.differential.readings import readings
from tests.differential.tshark import frames
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.flow.meter import MAX_TIMEOUT_S
from veilwatch.traffic.pipeline import FlowReader

LONGEST: Final = MeterConfig(
    idle_timeout_s=MAX_TIMEOUT_S, active_timeout_s=MAX_TIMEOUT_S, linger_s=MAX_TIMEOUT_S
)
MEASURES: Final = (
    *("retransmissions", "out_of_order", "keep_alives", "zero_windows"),
    *("duplicates", "fragments"),
)

TCP: Final = 6
SYN: Final = 2
RST: Final = 4

AGREES = "agrees"
COPIES = "a packet seen twice is counted once here"
LONGER = "an IP length beyond the frame is believed here"
SPURIOUS = "tshark calls new bytes spurious that were acknowledged before they were seen"
PARTLY_NEW = "a segment that repeats bytes and adds new ones is a retransmission in tshark only"
PROBES = "tshark tells probes of a closed window from keep-alives"
BARE = "tshark lets a bare acknowledgement's number say what was sent unseen"


def ours(capture: Path) -> Counter[str]:
    """Sum up what the meter counted."""
    with FlowReader([capture], config=LONGEST) as reader:
        frame = reader.read_all().frame.filter(pl.col("protocol") == TCP)
    sums: Counter[str] = Counter()
    for name in MEASURES:
        sums[name] = int(frame[f"fwd_{name}"].sum()) + int(frame[f"bwd_{name}"].sum())
    return sums


def theirs(capture: Path) -> Counter[str]:
    """Sum up what tshark marked; of payload packets only where it is about old and new bytes."""
    sums: Counter[str] = Counter()
    sent: dict[tuple[int, ...], int] = {}
    for frame in frames(capture):
        real = [reading for reading in readings(frame) if not reading.quoted]
        if not real or "tcp_flags" not in real[-1].fields:
            continue
        fields = real[-1].fields
        sums["zero_windows"] += fields["tcp_window"] == 0 and not fields["tcp_flags"] & RST
        sums["keep_alives"] += "keep_alive" in frame.analysis
        sums["probes"] += "zero_window_probe" in frame.analysis
        sums["longer"] += "exceeds packet length" in frame.expert
        way = tuple(fields[name] for name in ("src", "dst", "src_port", "dst_port"))
        if fields["tcp_flags"] & SYN:
            sent.pop(way, None)
        if fields["payload_length"] > 0:
            start, before = fields["tcp_seq"], sent.get(way, 0)
            end = start + fields["payload_length"]
            if {"retransmission", "out_of_order"} & frame.analysis:
                sums["old"] += 1
                if before <= start:
                    sums["spurious" if "spurious_retransmission" in frame.analysis else "bare"] += 1
                elif before < end:
                    sums["partly new"] += 1
            sums["past a hole"] += "lost_segment" in frame.analysis
            sent[way] = max(before, end)
    return sums


def compare(capture: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each measure, why it differs ('' for no reason known) or that it agrees, and sums."""
    here, there = ours(capture), theirs(capture)
    for measure, reason in (
        ("zero windows", zero_windows(here, there)),
        ("keep-alives", keep_alives(here, there)),
        ("old bytes", old_bytes(here, there)),
        ("past a hole", past_a_hole(here, there)),
    ):
        if not reason and here["duplicates"]:
            reason = COPIES
        if not reason and there["longer"]:
            reason = LONGER
        yield measure, reason, f"{dict(here)} is {dict(there)} in tshark"


def zero_windows(here: Counter[str], there: Counter[str]) -> str:
    """Compare packets with a window of 0."""
    return AGREES if here["zero_windows"] == there["zero_windows"] else ""


def keep_alives(here: Counter[str], there: Counter[str]) -> str:
    """Compare probes for an answer."""
    more = here["keep_alives"] - there["keep_alives"]
    if more == 0:
        return AGREES
    if more < 0:
        return BARE
    return PROBES if more <= there["probes"] else ""


def old_bytes(here: Counter[str], there: Counter[str]) -> str:
    """Compare segments with old numbers."""
    least = here["retransmissions"]
    most = least + here["out_of_order"]
    surplus = there["old"] - most
    if least <= there["old"] and surplus <= 0:
        return AGREES
    if surplus <= 0:
        return ""
    for reason, name in ((PARTLY_NEW, "partly new"), (SPURIOUS, "spurious"), (BARE, "bare")):
        if surplus <= there[name]:
            return reason
        surplus -= there[name]
    return ""


def past_a_hole(here: Counter[str], there: Counter[str]) -> str:
    """Compare segments before which something is missing: tshark marks the first of them."""
    return AGREES if here["out_of_order"] >= there["past a hole"] else ""
