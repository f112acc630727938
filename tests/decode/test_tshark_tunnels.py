"""tshark as judge: every link type and every wrapping leads both readers to the same packet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.decode.links import LINKS, NOT_READ_BY_TSHARK
from tests.decode.test_layers import DST, PAYLOAD, SRC
from tests.decode.test_tunnels import WRAPPED
from tests.differential.readings import address, readings
from tests.differential.tshark import Frame, frames
from veilwatch.capture.blocks import Interface
from veilwatch.capture.writer import PcapngWriter

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

WITHOUT_TSHARK = (
    *("L2TPv3", "GUE", "PPP on Ethernet", "EDSA", "Frame Relay in GRE"),
    *("EoIP over IPv6", "EtherIP, halves", "CAPWAP with 802.11,", "MPLS in VXLAN-GPE"),
)
"""Wrappings of which tshark 4.0 shows nothing, or only by a preference."""


def read_by_tshark(items: Sequence[tuple[int, bytes]], path: Path) -> list[Frame]:
    """Write frames as one capture with an interface of each link type; return tshark's layers."""
    with PcapngWriter(path) as writer:
        for number, (link, data) in enumerate(items):
            writer.write(10**18 + number, data, interface=Interface(link, f"link{link}"))
    return list(frames(path))


def assert_inner_packet(frame: Frame, name: str) -> None:
    found = [reading for reading in readings(frame) if not reading.quoted]
    assert found, f"{name}: {frame.path}"
    last = found[-1].fields
    assert (last["src"], last["dst"]) == (address(SRC), address(DST)), f"{name}: {frame.path}"
    assert (last["src_port"], last["dst_port"]) == (40000, 443), f"{name}: {frame.path}"
    assert last["payload_length"] == len(PAYLOAD), f"{name}: {frame.path}"


def test_tshark_finds_the_same_packet_behind_every_link_type(tmp_path: Path) -> None:
    items = {name: item for name, item in LINKS.items() if name not in NOT_READ_BY_TSHARK}
    read = read_by_tshark(list(items.values()), tmp_path / "links.pcapng")
    assert len(read) == len(items) > 90
    for name, frame in zip(items, read, strict=True):
        assert_inner_packet(frame, name)


def test_tshark_finds_the_same_packet_in_every_wrapping(tmp_path: Path) -> None:
    items = {
        name: data for name, (_, data) in WRAPPED.items() if not name.startswith(WITHOUT_TSHARK)
    }
    read = read_by_tshark([(1, data) for data in items.values()], tmp_path / "wrapped.pcapng")
    assert len(read) == len(items) > 60
    for name, frame in zip(items, read, strict=True):
        assert_inner_packet(frame, name)
