"""Wrapped packets of real captures: the innermost addresses are those that tshark finds."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from veilwatch.capture import open_captures
from veilwatch.decode import Decoder
from veilwatch.errors import CaptureError
from veilwatch.schema.packets import Status

TUNNELS = ("mpls", "pppoe", "gre", "erspan", "ip_in_ip", "vxlan", "geneve", "teredo")

MOST_PACKETS = 20_000
"""Packets compared of one capture: what follows repeats it."""

AGREE = "agreement"
QUOTED = "tshark goes on into the packet that an ICMP error quotes"
VXLAN_LINUX = "VXLAN on port 8472, which tshark takes for another protocol"
BIG_TCP = "tshark does not look into a datagram of length 0, which offload leaves on its host"
FROM_PORT = "VXLAN or GENEVE that comes from its port instead of going to it stays UDP"

EXPECTED = {AGREE: 3_544, QUOTED: 11, VXLAN_LINUX: 8, BIG_TCP: 4, FROM_PORT: 2}
"""With tshark 4.0.17."""

Ends = tuple[int, int]


def number(address: str) -> int:
    parsed = ip_address(address)
    return int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)


def ours(path: Path) -> tuple[dict[int, Ends], dict[str, int]]:
    """Return the innermost end points of decoded packets by number, and what was counted."""
    decoder = Decoder()
    found: dict[int, Ends] = {}
    with open_captures([path]) as stream:
        for block in stream:
            packets = decoder.decode(block).packets
            for row in packets[packets["status"] == Status.OK]:
                source = int(row["src_hi"]) << 64 | int(row["src_lo"])
                found[int(row["number"])] = source, int(row["dst_hi"]) << 64 | int(row["dst_lo"])
            if len(found) >= MOST_PACKETS:
                break
    return found, decoder.balance


def theirs(path: Path) -> dict[int, tuple[list[str], list[Ends], list[str]]]:
    """Return tshark's layers, end points from the outermost in, and UDP ports, by number."""
    fields = ("frame.number", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
    command = ["tshark", "-n", "-r", str(path), "-c", str(MOST_PACKETS), "-T", "fields"]
    for field in (*fields, "udp.port"):
        command += ["-e", field]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    rows = {}
    for line in lines.splitlines():
        frame, layers, *columns, ports = line.split("\t")
        values = [iter(column.split(",")) for column in columns]
        chain = []
        for layer in layers.split(":"):
            pair = {"ip": values[:2], "ipv6": values[2:]}.get(layer, [])
            ends = [next(value, "") for value in pair]
            if all(ends) and ends:  # a header that was cut has a layer and no addresses
                chain.append((number(ends[0]), number(ends[1])))
        rows[int(frame)] = layers.split(":"), chain, ports.split(",")
    return rows


def reason(mine: Ends, layers: list[str], chain: list[Ends], ports: list[str]) -> str:
    """Return why the two agree or not, '' for no good reason."""
    if mine == chain[-1]:
        return AGREE
    if mine in chain and set(layers) & {"icmp", "icmpv6"}:
        return QUOTED
    if "8472" in ports and mine not in chain:
        return VXLAN_LINUX
    if layers[-1] == "udp" and mine not in chain:
        return BIG_TCP
    if len(chain) > 1 and mine == chain[-2] and ports[0] in ("4790", "6081"):
        return FROM_PORT
    return ""


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_innermost_addresses_agree_with_tshark(corpus_path: Path) -> None:
    reasons: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    faults = []
    for folder in ("hostile", "gtp"):
        for path in sorted(p for p in (corpus_path / folder).rglob("*") if p.is_file()):
            try:
                found, balance = ours(path)
            except CaptureError:
                continue
            if not any(balance[name] for name in TUNNELS):
                continue
            counted.update({name: balance[name] for name in TUNNELS})
            rows = theirs(path)
            for frame, mine in found.items():
                layers, chain, ports = rows.get(frame, ([], [], []))
                if not chain:  # beyond what tshark read, or nothing that it calls IP
                    continue
                why = reason(mine, layers, chain, ports)
                reasons[why] += 1
                if not why:
                    faults.append(f"{path.name} frame {frame}: {layers} {chain} is {mine} here")
    assert not faults, "\n".join(faults[:20])
    assert reasons == EXPECTED
    assert all(counted[name] for name in TUNNELS), counted
