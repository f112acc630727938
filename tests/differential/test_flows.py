"""Flows of real captures against tshark: 5-tuples, packets and bytes by direction, connections.

With time-outs longer than any capture, every TCP or UDP packet of a 5-tuple and direction has to
be in the table, with its bytes, and TCP connections are told apart by the reuse of ports alone.
"""

from __future__ import annotations

import csv
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import polars as pl
import pytest

from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.flow.meter import MAX_TIMEOUT_S
from veilwatch.traffic.pipeline import FlowReader

pytestmark = [pytest.mark.corpus, pytest.mark.slow]

TCP, UDP = 6, 17
EndPoint = tuple[str, int]
Direction = tuple[int, EndPoint, EndPoint]

FIELDS = (
    *("frame.protocols", "ip.src", "ip.dst", "ip.len", "ipv6.src", "ipv6.dst", "ipv6.plen"),
    *("tcp.srcport", "tcp.dstport", "tcp.stream", "udp.srcport", "udp.dstport", "udp.stream"),
)
PACKETS = "packets and bytes of a direction agree"
COPIES = "a packet seen twice is counted once here"
FRAGMENTS = "later fragments are counted to their flow here"
STREAMS = "number of connections of a 5-tuple agrees"
EXPECTED_REASONS = {
    COPIES: 21,
    FRAGMENTS: 7,
    "tshark begins a second conversation when it recognises the protocol": 3,
    "the clock jumps by more than the longest time-out": 1,
}
CLOCK_JUMPS = "benign/nDPI/collectd-a6a8a7.pcap.gz"
ODD_CAPTURES = (
    CLOCK_JUMPS,
    "benign/nDPI/ajp-3c2918.pcap.gz",
    "benign/nDPI/dns-070fd7.pcap.gz",
    "benign/nDPI/dns_fragmented-8c5b67.pcap.gz",
    "benign/nDPI/vnc-26b1e0.pcap.gz",
    "benign/nDPI/syslog-312b4b.pcap.gz",
    "benign/TracePcap/zoom-e72b3b.pcap.gz",
    "benign/mercury/new-stats-telemetry-test-148415.pcap.gz",
    "benign/mercury/smb-c2c325.pcap.gz",
    "benign/suricata-verify/input-2f33b3.pcap.gz",
    "malicious/Hancitor/2017-10-30-Hancitor-malspam-traffic-example-48e3ee.pcap.gz",
)
"""Captures that hold each kind of disagreement, and attempts made again after a refusal."""

SECOND_CONVERSATION_PORTS = {161, 162, 6900}
"""SNMP and VNC: tshark's dissectors begin a conversation of their own on the same 5-tuple."""

SAMPLE_STRIDE = 31
LARGEST_SAMPLED = 300_000


def sample(folder: Path) -> Iterator[str]:
    with (folder / "MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        names = [row["file"] for row in csv.DictReader(stream)]
    yield from ODD_CAPTURES
    for name in names[::SAMPLE_STRIDE]:
        if name not in ODD_CAPTURES and (folder / name).stat().st_size <= LARGEST_SAMPLED:
            yield name


class Seen:
    """Packets and bytes of each direction, and connections of each 5-tuple.

    `copies` and `fragments` are packets that tshark counts, and that it does not.
    """

    def __init__(self) -> None:
        self.traffic: dict[Direction, list[int]] = defaultdict(lambda: [0, 0])
        self.copies: Counter[Direction] = Counter()
        self.fragments: Counter[Direction] = Counter()
        self.streams: dict[Direction, set[object]] = defaultdict(set)

    def add(self, direction: Direction, stream: object, packets: int, size: int) -> None:
        if packets:
            self.traffic[direction][0] += packets
            self.traffic[direction][1] += size
        protocol, *ends = direction
        first, second = sorted(ends)
        self.streams[protocol, first, second].add(stream)


def ours(path: Path) -> Seen:
    longest = MeterConfig(
        idle_timeout_s=MAX_TIMEOUT_S, active_timeout_s=MAX_TIMEOUT_S, linger_s=MAX_TIMEOUT_S
    )
    with FlowReader([path], config=longest) as reader:
        frame = reader.read_all().frame
    seen = Seen()
    frame = frame.filter(pl.col("protocol").is_in([TCP, UDP]), pl.col("gtp_depth") == 0)
    for row in frame.iter_rows(named=True):
        source, target = (row["src_ip"], row["src_port"]), (row["dst_ip"], row["dst_port"])
        protocol, flow = row["protocol"], row["flow_id"]
        for way, a, b in (("fwd", source, target), ("bwd", target, source)):
            direction = protocol, a, b
            seen.add(direction, flow, row[f"{way}_packets"], row[f"{way}_bytes"])
            seen.copies[direction] += row[f"{way}_duplicates"]
            seen.fragments[direction] += row[f"{way}_fragments"]
    return seen


def theirs(path: Path) -> Seen:
    """What tshark saw."""
    command = ["tshark", "-r", str(path), "-n", "-T", "fields", "-E", "occurrence=l"]
    command += ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]
    command += [argument for field in FIELDS for argument in ("-e", field)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    seen = Seen()
    for line in output.splitlines():
        row = dict(zip(FIELDS, line.split("\t"), strict=True))
        layers = row["frame.protocols"].split(":")
        transport = next((name for name in reversed(layers) if name in ("tcp", "udp")), "")
        if not transport or {"icmp", "icmpv6", "gtp"} & {*layers}:
            continue  # quoted in an ICMP error, or compared by the GTP-U test
        if not row[f"{transport}.srcport"]:
            continue  # a later fragment
        network = next(name for name in reversed(layers) if name in ("ip", "ipv6"))
        source, target = (
            (
                str(ip_address(row[f"{network}.{end}"])),
                int(row[f"{transport}.{end}port"]),
            )
            for end in ("src", "dst")
        )
        size = int(row["ip.len"]) if network == "ip" else 40 + int(row["ipv6.plen"])
        number = TCP if transport == "tcp" else UDP
        seen.add((number, source, target), row[f"{transport}.stream"], 1, size)
    return seen


def excuse(here: Seen, there: Seen, direction: Direction) -> str:
    """Why the packets of a direction differ, if their numbers bear that out."""
    copies, fragments = here.copies[direction], here.fragments[direction]
    packets = here.traffic[direction][0] + copies - fragments
    if packets != there.traffic[direction][0] or not copies + fragments:
        return ""
    return COPIES if copies else FRAGMENTS


def test_flows_agree_with_tshark(corpus_path: Path) -> None:
    agreed: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for name in sample(corpus_path):
        here = ours(corpus_path / name)
        there = theirs(corpus_path / name)
        for direction in here.traffic.keys() | there.traffic.keys():
            if here.traffic.get(direction) == there.traffic.get(direction):
                agreed[PACKETS] += 1
            elif excused := excuse(here, there, direction):
                reasons[excused] += 1
            else:
                reasons[f"{name} {direction}"] += 1
        for ends in here.streams.keys() & there.streams.keys():
            mine, other = len(here.streams[ends]), len(there.streams[ends])
            if mine == other:
                agreed[STREAMS] += 1
            elif mine < other and {port for _, port in ends[1:]} & SECOND_CONVERSATION_PORTS:
                reasons["tshark begins a second conversation when it recognises the protocol"] += 1
            elif name == CLOCK_JUMPS:
                reasons["the clock jumps by more than the longest time-out"] += 1
            else:
                reasons[f"{name} {ends}: {mine} connections, {other} in tshark"] += 1
    assert reasons == EXPECTED_REASONS
    assert agreed[PACKETS] >= 1000
    assert agreed[STREAMS] >= 500
