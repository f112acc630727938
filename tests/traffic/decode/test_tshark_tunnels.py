"""tshark as judge: every link type and every wrapping leads both readers to the same packet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.differential.readings import address, readings
from tests.differential.tshark import Frame, frames
from tests.traffic.decode.links import LINKS, NOT_READ_BY_TSHARK
from tests.traffic.decode.test_layers import DST, PAYLOAD, SRC
from tests.traffic.decode.test_tunnels import WRAPPED
from veilwatch.traffic.capture.blocks import Interface
from veilwatch.traffic.capture.writer import PcapngWriter

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

WITHOUT_TSHARK = (
    *("L2TPv3", "GUE", "PPP on Ethernet", "EDSA", "Frame Relay in GRE", "ERSPAN III of IP"),
    *("MPLS pseudowire", "EoIP over IPv6", "EtherIP, halves", "MPLS in VXLAN-GPE"),
    # unless its frame control field is swapped, as tshark expects it there
    *("CAPWAP with 802.11, QoS", "CAPWAP with 802.11 of no binding"),
)
"""How wrappings' names begin of which tshark 4.0 shows nothing, or only by a preference."""


def read_by_tshark(items: Sequence[tuple[int, bytes]], path: Path) -> list[Frame]:
    """Write frames as one capture with an interface of each link type; return tshark's layers."""
    with PcapngWriter(path) as writer:
        for number, (link, data) in enumerate(items):
            writer.write(10**18 + number, data, interface=Interface(link, f"link{link}"))
    return list(frames(path))


def differing(frame: Frame) -> bool:
    """Whether tshark does not end at the packet that every frame of the tests holds."""
    found = [reading for reading in readings(frame) if not reading.quoted]
    want = {
        "src": address(SRC),
        "dst": address(DST),
        "src_port": 40000,
        "dst_port": 443,
        "payload_length": len(PAYLOAD),
    }
    return not found or {name: found[-1].fields.get(name) for name in want} != want


def test_tshark_finds_the_same_packet_behind_every_link_type(tmp_path: Path) -> None:
    items = {name: item for name, item in LINKS.items() if name not in NOT_READ_BY_TSHARK}
    read = read_by_tshark(list(items.values()), tmp_path / "links.pcapng")
    assert len(read) == len(items) > 90
    wrong = {name: f.path for name, f in zip(items, read, strict=True) if differing(f)}
    assert not wrong


def test_tshark_finds_the_same_packet_in_every_wrapping(tmp_path: Path) -> None:
    items = {
        name: data
        for name, (_, data) in WRAPPED.items()
        if not name.startswith(WITHOUT_TSHARK) and name != "CAPWAP with 802.11"
    }
    read = read_by_tshark([(1, data) for data in items.values()], tmp_path / "wrapped.pcapng")
    assert len(read) == len(items) > 60
    wrong = {name: f.path for name, f in zip(items, read, strict=True) if differing(f)}
    assert not wrong
