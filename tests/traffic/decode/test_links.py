"""Every link type leads to the same packet, whole or cut; what carries no IP is refused as that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scapy.layers.inet6 import IPv6

from tests.traffic.decode.frames import Frame, as_block, assert_as_reference, decode_one
from tests.traffic.decode.links import FRAME, LINKS, REFUSED, cooked, cooked_v2, juniper, ppi
from tests.traffic.decode.test_layers import (
    DST,
    DST6,
    PAYLOAD,
    SRC,
    SRC6,
    TCP_FIELDS,
    assert_fields,
    ends,
    tcp,
)
from veilwatch.schema.packets import Status
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.steps import LINK_STEPS

SIX = bytes(IPv6(src=SRC6, dst=DST6) / tcp())


@pytest.mark.parametrize(("link", "data"), LINKS.values(), ids=LINKS)
def test_the_same_packet_comes_out(link: int, data: bytes) -> None:
    got = decode_one(data, link)
    assert_as_reference(as_block([Frame(data, link)]))
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), ip_version=4, ip_length=50)
    assert_fields(got, payload_offset=data.rindex(PAYLOAD))


@pytest.mark.parametrize(("link", "data"), [*LINKS.values(), *REFUSED.values()])
def test_cut_at_every_length(link: int, data: bytes) -> None:
    cut = [Frame(data[:size], link, len(data)) for size in range(len(data))]
    short = [Frame(data[:size], link) for size in range(len(data))]
    assert_as_reference(as_block(cut))
    assert_as_reference(as_block(short))
    for item in cut[:-1]:
        got = decode_one(item.data, link, item.length)
        if got["status"] == Status.OK:
            assert_fields(got, **ends(SRC, DST))


@pytest.mark.parametrize(("link", "data"), REFUSED.values(), ids=REFUSED)
def test_what_carries_no_ip_is_refused_as_that(link: int, data: bytes) -> None:
    assert_as_reference(as_block([Frame(data, link)]))
    assert Status(decode_one(data, link)["status"]) == Status.NOT_IP


@pytest.mark.parametrize(
    ("link", "data"),
    [(109, bytes([family]) + bytes(11) + SIX) for family in (10, 24, 28, 30)]
    + [
        (109, bytes(3) + b"\x18" + bytes(8) + SIX),
        (117, b"\x3d\x1e" + bytes(62) + SIX),
        (226, b"\1\x1a" + bytes(22) + SIX),
        (113, cooked(0, 519, SIX)),
        (276, cooked_v2(0x86DD, 65534, SIX)),
        (107, b"\x18\x41\x03\x8e" + SIX),
        (100, b"\xfe\xfe\x03\x8e" + SIX),
        (104, b"\x0f\0\x86\xdd" + SIX),
        (204, b"\0\xff\x03\0\x57" + SIX),
        (129, b"\1\2\0\0\xc4\0\0\1" + SIX),
        (242, bytes(40) + b"\x86\xdd\0\0" + SIX),
        (192, ppi(229, SIX)),
        (178, juniper(2, b"\6\0\0\0" + SIX)),
    ],
)
def test_ipv6_inside(link: int, data: bytes) -> None:
    assert_as_reference(as_block([Frame(data, link)]))
    assert_fields(decode_one(data, link), **TCP_FIELDS, **ends(SRC6, DST6), ip_version=6)


def test_netlink_is_counted_by_name() -> None:
    decoder = Decoder()
    refused = [REFUSED[f"{version}, netlink"] for version in ("SLL", "SLL2")]
    decoder.decode(as_block([Frame(data, link) for link, data in refused]))
    assert decoder.balance["netlink"] == 2


def test_a_link_type_inside_a_record_that_nobody_knows() -> None:
    for link in (190, 300, 2**31):
        data = ppi(link, FRAME)
        assert_as_reference(as_block([Frame(data, 192)]))
        assert Status(decode_one(data, 192)["status"]) == Status.UNSUPPORTED_LINK


def test_every_link_type_has_a_frame_here_or_in_the_other_tests() -> None:
    common = {0, 1, 12, 14, 51, 101, 102, 108, 228, 229}
    assert {link for link, _ in LINKS.values()} | common == set(LINK_STEPS)


def test_every_link_type_is_named_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "packets.md").read_text()
    named = {int(number) for number in re.findall(r"\b\d+\b", page.split("## Link types")[1])}
    assert named >= set(LINK_STEPS)
