"""Packets of blends, block by block; whole files are looked at in test_blend_files.py."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from tests.corpus.test_blend_files import FRAMES, HOST, HOST_MAC, cooked, day, put
from veilwatch.corpus import blend_frames
from veilwatch.corpus.blend_frames import Move, base_blocks, host_mac, moved_blocks
from veilwatch.schema.packets import PACKET_DTYPE, Status


def packed(host: str) -> bytes:
    return bytes(10) + b"\xff\xff" + ip_address(host).packed


def move(**more: object) -> Move:
    settings = {
        "flows": np.arange(1, 1000),
        "shift_ns": 5,
        "old": packed(HOST),
        "new": packed("10.9.9.9"),
        "old_mac": bytes.fromhex(HOST_MAC.replace(":", "")),
        "mac": b"\x02\x09\x09\x09\x09\x09",
    }
    return Move(**(settings | more))  # type: ignore[arg-type]


def test_a_host_has_the_mac_from_which_it_sends(tmp_path: Path) -> None:
    link, frame = FRAMES["vlan"]
    file = put(tmp_path / "a.pcapng", day()[1:], frame, link=link)
    assert host_mac(file, packed(HOST)) == bytes.fromhex(HOST_MAC.replace(":", ""))
    assert host_mac(file, packed("10.9.9.9")) is None
    assert host_mac(put(tmp_path / "b.pcapng", day(), cooked, link=113), packed(HOST)) is None


def test_ethernet_of_the_capture_itself_stays_byte_for_byte(tmp_path: Path) -> None:
    frames = [*((ts, FRAMES["vlan"][1](data)) for ts, data in day()), (day()[-1][0] + 1, b"odd")]
    file = put(tmp_path / "a.pcapng", frames, lambda data: data)
    found = [
        (r["ts_ns"], block.buffer[r["offset"] :][: r["captured"]].tobytes())
        for block in base_blocks(file, 3, packed(HOST), b"\x02" * 6)
        for r in block.records
    ]
    assert found == frames


def test_times_and_sources_are_the_blends_own(tmp_path: Path) -> None:
    link, frame = FRAMES["raw"]
    file = put(tmp_path / "a.pcapng", day(), frame, link=link)
    records = np.concatenate([b.records for b in moved_blocks(file, 4, move())])
    assert records["ts_ns"].tolist() == [ts + 5 for ts, _ in day()]
    assert set(records["source"]) == {4} and set(records["link"]) == {1}


def test_flows_that_are_not_wanted_give_nothing(tmp_path: Path) -> None:
    file = put(tmp_path / "a.pcapng", day())
    assert list(moved_blocks(file, 1, move(flows=np.zeros(0, np.int64)))) == []


def test_fragments_that_are_waited_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend_frames, "MAX_FRAGMENTED", 2)
    packets = np.zeros(6, PACKET_DTYPE)
    packets["fragment_key"] = [1, 2, 3, 1, 2, 3]
    packets["ip_headers"] = 1
    packets["fragment"] = [1, 1, 1, 2, 2, 2]
    packets["status"][3:] = Status.LATER_FRAGMENT
    wanted = np.array([True, True, True, False, False, False])
    found = blend_frames._Fragments().complete(packets, wanted)
    assert found.tolist() == [0, 1, 2, 4, 5]


def test_an_outer_fragment_is_no_fragment_of_the_inner_packet() -> None:
    packets = np.zeros(2, PACKET_DTYPE)
    packets["fragment_key"], packets["ip_headers"] = 7, [2, 1]
    packets["fragment"], packets["status"] = [1, 2], [Status.OK, Status.LATER_FRAGMENT]
    found = blend_frames._Fragments().complete(packets, np.array([True, False]))
    assert found.tolist() == [0]
