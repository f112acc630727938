"""Header fields: the kernel beside plain Python, beside Scapy, and under tunnels."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.examples import examples
from tests.traffic.decode.frames import Frame, as_block, blocks, reference_rows
from tests.traffic.decode.header_oracle import fields_of
from tests.traffic.decode.reference import decode
from tests.traffic.decode.test_fuzz import seeds
from tests.traffic.decode.test_property import frames
from veilwatch.schema.headers import ABSENT, WIRE_FIELDS
from veilwatch.schema.packets import BLOCK_RECORDS, RawBlock
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.headers import header_rows

NAMES = [field.name for field in WIRE_FIELDS]

Row = dict[str, int]


def rows_of(block: RawBlock, most: int = BLOCK_RECORDS) -> tuple[list[Row], list[int]]:
    """Return what the kernel says of a block, and of which packets."""
    rows = np.full((most, len(NAMES)), -99, np.int64)
    places = np.full(most, -99, np.int64)
    packets = Decoder().decode(block).packets
    used = header_rows(block.buffer, block.records, packets, rows, places)
    return [dict(zip(NAMES, row, strict=True)) for row in rows[:used].tolist()], places[
        :used
    ].tolist()


def assert_as_oracle(block: RawBlock) -> int:
    """Assert that kernel and oracle agree; return how many packets had a row."""
    rows, places = rows_of(block)
    wanted: list[tuple[int, Row]] = []
    for k, (record, decoded) in enumerate(zip(block.records, reference_rows(block), strict=True)):
        start = int(record["offset"])
        data = block.buffer[start : start + int(record["captured"])].tobytes()
        decoded.fields["ip_offset"] -= start
        found = fields_of(data, int(record["link"]), decoded)
        if found is not None:
            wanted.append((k, found))
    assert places == [k for k, _ in wanted]
    for row, (_, expected) in zip(rows, wanted, strict=True):
        assert row == expected
    return len(rows)


def one(packet: Packet | bytes, link: int = 1) -> Row:
    (row,), _ = rows_of(as_block([Frame(bytes(packet), link)]))
    return row


def present(row: Row) -> set[str]:
    return {name for name, value in row.items() if value != ABSENT}


@examples(60, suppress_health_check=list(HealthCheck))
@given(st.lists(frames(), min_size=1, max_size=4))
def test_nested_cut_and_corrupt_packets_agree_with_the_oracle(sample: list[Frame]) -> None:
    assert_as_oracle(as_block(sample))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_what_capwap_cuts_is_no_fragment_of_ip(version: int, first: bool) -> None:
    """One frame, the second part of it; alone, or in an IP packet that is cut as well."""
    part = struct.pack(">BBHHH", 0, 2 << 3, 0x80, 0, 8) + bytes(40)
    udp = struct.pack(">HHHH", 5247, 0, 8 + len(part), 0) + part
    if version == 4:
        head = struct.pack(">BBHHHBBH8x", 0x45, 0, 20 + len(udp), 7, 0x2000 * first, 64, 17, 0)
    elif first:
        head = struct.pack(">IHBB32xBBHI", 6 << 28, 8 + len(udp), 44, 64, 17, 0, 1, 0)
    else:
        head = struct.pack(">IHBB32x", 6 << 28, len(udp), 17, 64)
    ethertype = 0x0800 if version == 4 else 0x86DD
    block = as_block([Frame(bytes(12) + ethertype.to_bytes(2) + head + udp, 1)])
    assert assert_as_oracle(block) == 1
    assert decode(head + udp, 12).notes["capwap_fragment"] == (not first)


def test_mutated_packets_agree_with_the_oracle() -> None:
    rng = np.random.default_rng(11)
    made = []
    for link, packet in seeds():
        for _ in range(60):
            data = bytearray(packet)
            for _ in range(int(rng.integers(0, 4))):
                place = int(rng.integers(0, len(data)))
                data[place] = int(rng.choice([0, 1, 0x45, 0x60, 255, int(rng.integers(256))]))
            made.append(Frame(bytes(data), link, len(packet)))
    assert sum(assert_as_oracle(block) for block in blocks(made)) > len(made) / 4


def test_every_truncation_of_every_seed() -> None:
    made = [
        Frame(packet[:size], link, len(packet))
        for link, packet in seeds()
        for size in range(len(packet) + 1)
    ]
    for block in blocks(made):
        assert_as_oracle(block)


def test_tcp_as_scapy_builds_it() -> None:
    packet = (
        Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
        / Dot1Q(vlan=7)
        / IP(src="10.1.2.3", dst="192.0.2.9", tos=0x28, id=4711, ttl=57, flags="DF")
        / TCP(sport=40000, dport=443, seq=2**32 - 5, ack=77, flags="PAU", window=501, urgptr=9)
        / Raw(b"x" * 30)
    )
    read = Ether(bytes(packet))
    row = one(packet)
    ip, tcp = read[IP], read[TCP]
    assert row == {
        **dict.fromkeys(NAMES, ABSENT),
        "eth_src": 0x02000000000A,
        "eth_dst": 0x02000000000B,
        "eth_type": 0x0800,
        "vlan_tags": 1,
        "ip_version": 4,
        "ip_ihl": ip.ihl,
        "ip_tos": 0x28,
        "ip_length": ip.len,
        "ip_id": 4711,
        "ip_flags": 2,
        "ip_fragment_offset": 0,
        "ip_ttl": 57,
        "ip_protocol": 6,
        "ip_checksum": ip.chksum,
        "ip_src": 0x0A010203,
        "ip_dst": 0xC0000209,
        "tcp_src_port": 40000,
        "tcp_dst_port": 443,
        "tcp_seq": 2**32 - 5,
        "tcp_ack": 77,
        "tcp_offset": tcp.dataofs,
        "tcp_flags": 0x38,
        "tcp_window": 501,
        "tcp_checksum": tcp.chksum,
        "tcp_urgent": 9,
    }


@pytest.mark.parametrize(
    ("transport", "prefix"),
    [(UDP(sport=5, dport=53), "udp"), (ICMP(type=3, code=13), "icmp"), (TCP(), "tcp")],
)
def test_only_the_transport_that_is_there_has_values(transport: Packet, prefix: str) -> None:
    row = one(Ether() / IP() / transport / Raw(b"y" * 11))
    for other in {"udp", "icmp", "tcp"}:
        has = {name for name in present(row) if name.startswith(f"{other}_")}
        assert bool(has) == (other == prefix)
    assert row["udp_length"] == (19 if prefix == "udp" else ABSENT)


def test_ipv6_has_no_header_length_and_folded_addresses() -> None:
    row = one(Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9, tc=3) / UDP())
    assert row["ip_ihl"] == row["ip_checksum"] == row["ip_id"] == ABSENT
    assert (row["ip_version"], row["ip_ttl"], row["ip_tos"]) == (6, 9, 3)
    assert row["ip_src"] != row["ip_dst"]
    assert 0 <= row["ip_src"] < 2**48


def wrapped() -> Sequence[bytes]:
    inner = IP(src="10.45.0.2", dst="203.0.113.5", ttl=63) / TCP(sport=9, dport=443) / Raw(b"z")
    outer = IP(src="172.16.0.1", dst="172.16.0.2") / UDP(sport=2152, dport=2152)
    return bytes(inner), bytes(Ether() / outer / GTP_U_Header(teid=1, gtp_type=255) / inner)


def test_a_tunnel_changes_nothing_and_lends_no_addresses() -> None:
    bare, tunnelled = wrapped()
    inside, outside = one(bare, link=101), one(tunnelled)
    assert inside == outside
    assert outside["eth_src"] == outside["vlan_tags"] == ABSENT


def test_signalling_of_the_tunnel_is_no_packet_of_a_subscriber() -> None:
    echo = Ether() / IP() / UDP(sport=2152, dport=2152) / GTP_U_Header(gtp_type=1, S=1, teid=0)
    assert rows_of(as_block([Frame(bytes(echo))])) == ([], [])


def test_rows_end_where_there_is_room_for_no_more() -> None:
    packet = bytes(Ether() / IP() / UDP())
    rows, places = rows_of(as_block([Frame(packet)] * 9), most=4)
    assert len(rows) == 4
    assert places == [0, 1, 2, 3]
    assert rows_of(as_block([Frame(packet)]), most=0) == ([], [])
