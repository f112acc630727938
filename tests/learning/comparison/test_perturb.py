"""What is done to packets, seen by scapy and by the meter."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tests.learning.features.factory import ethernet, played_packets, read, write
from veilwatch.corpus.encapsulate import encapsulate
from veilwatch.learning.comparison.perturb import (
    HEAD_PACKETS,
    JITTER_NS,
    MTU,
    PAD_TO,
    PERTURBATIONS,
    SNAP,
    UNCHANGED,
    Packet,
    perturb,
    read_packets,
    write_packets,
)
from veilwatch.traffic.capture import PcapngWriter

NS = 10**9
START = 1_700_000_000 * NS
ADDED = b"\x17\x03\x03"


def connection(*, sizes: tuple[int, ...] = (300, 700, 2, 900), tls: bool = False) -> list[bytes]:
    """A TCP connection: requests of some sizes, each answered by 1,400 bytes and acknowledged."""
    up, down = IP(src="10.0.0.1", dst="192.0.2.9"), IP(src="192.0.2.9", dst="10.0.0.1")
    here, there = 2**32 - 500, 77  # the first number wraps around
    ports, back = {"sport": 50_000, "dport": 443}, {"sport": 443, "dport": 50_000}
    out = [
        up / TCP(**ports, flags="S", seq=here),
        down / TCP(**back, flags="SA", seq=there, ack=here + 1),
    ]
    here, there = (here + 1) % 2**32, there + 1
    for turn, size in enumerate(sizes):
        lead = (b"\x16\x03\x01" if turn < 2 else ADDED) if tls else b"GET"
        body = (lead + bytes(size))[:size]
        out.append(up / TCP(**ports, flags="PA", seq=here, ack=there) / Raw(body))
        here = (here + size) % 2**32
        answer = Raw((lead + bytes(1400))[:1400])
        out.append(down / TCP(**back, flags="PA", seq=there, ack=here) / answer)
        there += 1400
    out.append(up / TCP(**ports, flags="FA", seq=here, ack=there))
    return [bytes(packet) for packet in out]


def packets_of(folder: Path, frames: list[bytes], cut: int = 10_000) -> list[Packet]:
    path = folder / "in.pcapng"
    with PcapngWriter(path, link=101) as writer:
        for k, frame in enumerate(frames):
            writer.write(START + k * NS // 10, frame[:cut], len(frame))
    return read_packets(path)


def seen(packets: list[Packet]) -> list[IP]:
    return [
        (IP if packet.data[0] >> 4 == 4 else IPv6)(packet.data)
        for packet in sorted(packets, key=lambda p: p.ts_ns)
    ]


def check_numbers(packets: list[IP]) -> None:
    """Every byte of either direction is sent once, in order, and acknowledged where it ends."""
    sent: dict[str, int] = {}
    for packet in packets:
        tcp = packet[TCP]
        size = packet.len - packet.ihl * 4 - tcp.dataofs * 4
        if packet.src in sent:
            assert tcp.seq == sent[packet.src]
        if tcp.flags.A and packet.dst in sent:
            assert tcp.ack == sent[packet.dst]
        sent[packet.src] = (tcp.seq + size + bool(tcp.flags.S) + bool(tcp.flags.F)) % 2**32


def sizes(packets: list[IP]) -> list[int]:
    return [p.len - p.ihl * 4 - p[TCP].dataofs * 4 for p in packets]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_meter_reads_what_was_written(name: str, tmp_path: Path) -> None:
    capture = write(tmp_path / "in.pcapng", played_packets(scale=0.04), ethernet)
    before = read(capture).frame
    packets = read_packets(capture, most=10**6)
    changed = perturb(packets, name, 5)
    assert [p.data for p in changed] == [p.data for p in perturb(packets, name, 5)]
    write_packets(tmp_path / "out.pcapng", changed)
    after = read(tmp_path / "out.pcapng").frame
    count = {k: int((f["fwd_packets"] + f["bwd_packets"]).sum()) for k, f in
             (("before", before), ("after", after))}  # fmt: skip
    assert count["before"] == len(packets)
    if name not in ("loss", "head"):
        assert len(after) == len(before) and count["after"] >= count["before"]
    assert (name in ("dummies", "mtu")) == (count["after"] > count["before"])
    numbers = ["fwd_retransmissions", "bwd_retransmissions", "fwd_out_of_order",
               "bwd_out_of_order"]  # fmt: skip
    if name == "mtu":  # what is sent again in two pieces is sent again twice
        again = [frame.filter(pl.sum_horizontal(numbers) > 0).height for frame in (before, after)]
        assert again[0] == again[1] > 0
    elif name not in ("loss", "head"):
        assert after[numbers].sum().row(0) == before[numbers].sum().row(0)
    if name not in ("cut", "loss", "head", "mtu"):
        # What a flow says of itself is left alone.
        for column in ("tls_sni", "ja4", "dns_query"):
            assert sorted(after[column]) == sorted(before[column])


def test_unchanged_changes_no_feature_even_out_of_a_tunnel(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.pcapng", played_packets(scale=0.04), ethernet)
    encapsulate([plain], tmp_path / "gtp.pcapng")
    direct = read_packets(plain, most=10**6)
    assert [p.data for p in read_packets(tmp_path / "gtp.pcapng", most=10**6)] == [
        p.data for p in direct
    ]
    write_packets(tmp_path / "again.pcapng", perturb(direct, UNCHANGED, 1))
    left_out = ("source", "first_number")
    one, two = (read(tmp_path / f"{k}.pcapng").frame.drop(left_out) for k in ("plain", "again"))
    assert one.equals(two)


def test_padding_fills_what_comes_after_the_handshake(tmp_path: Path) -> None:
    before = packets_of(tmp_path, connection(tls=True))
    after = seen(perturb(before, "padding", 1))
    check_numbers(after)
    # The first two turns are handshake.
    assert sizes(after) == [0, 0, 300, 1400, 700, 1400, 256, 1400 + 60, 900 + 124, 1400 + 60, 0]


def test_padding_leaves_the_first_payload_of_a_direction(tmp_path: Path) -> None:
    after = seen(perturb(packets_of(tmp_path, connection()), "padding", 1))
    check_numbers(after)
    assert sizes(after) == [0, 0, 300, 1400, 768, 1460, 256, 1460, 1024, 1460, 0]
    assert PAD_TO == 256


def test_a_repeated_segment_is_padded_alike(tmp_path: Path) -> None:
    frames = connection()
    again = seen(perturb(packets_of(tmp_path, [*frames[:5], *frames[4:]]), "padding", 1))
    assert (again[4][TCP].seq, again[4].len) == (again[5][TCP].seq, again[5].len)
    check_numbers([*again[:5], *again[6:]])


def test_padding_of_cut_packets_lengthens_what_was_on_the_wire(tmp_path: Path) -> None:
    frames = connection(sizes=(300, 700, 900))
    before = packets_of(tmp_path, frames, cut=120)
    after = perturb(before, "padding", 1)
    assert [p.length for p in after] == [
        p.length for p in perturb(packets_of(tmp_path, frames), "padding", 1)
    ]
    assert [len(p.data) for p in after] == [len(p.data) for p in before]


def test_dummies_are_segments_of_their_own(tmp_path: Path) -> None:
    before = packets_of(tmp_path, connection(sizes=(500,) * 60))
    after = seen(perturb(before, "dummies", 3))
    extra = len(after) - len(before)
    assert 20 < extra < 60
    numbers = sorted((p[TCP].seq - after[0][TCP].seq) % 2**32 for p in after if p.src == "10.0.0.1")
    assert len(set(numbers)) == len(numbers)


def test_udp_datagrams_grow_but_names_and_quic_do_not(tmp_path: Path) -> None:
    frames = [
        bytes(IP(src="10.0.0.1", dst="192.0.2.9") / UDP(sport=40_000, dport=port) / Raw(body))
        for port, body in ((6892, b"x" * 30), (53, b"y" * 30), (443, b"\xc0" + b"z" * 30))
    ]
    frames.append(
        bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=9) / Raw(b"v" * 30))
    )
    after = seen(perturb(packets_of(tmp_path, frames), "padding", 1))
    assert [p[UDP].len - 8 for p in after] == [256, 30, 31, 256]
    assert [p.len for p in after[:3]] == [284, 58, 59] and after[3].plen == 264


def test_time(tmp_path: Path) -> None:
    before = packets_of(tmp_path, connection())
    late, slow = perturb(before, "jitter", 1), perturb(before, "delay", 1)
    waits = [b.ts_ns - a.ts_ns for a, b in zip(before, late, strict=True)]
    assert 0 <= min(waits) < max(waits) < JITTER_NS
    assert [p.ts_ns for p in late] == sorted(p.ts_ns for p in late)
    assert [p.ts_ns - START for p in slow] == [2 * (p.ts_ns - START) for p in before]
    assert [p.data for p in late] == [p.data for p in slow] == [p.data for p in before]


def test_what_is_missing(tmp_path: Path) -> None:
    before = packets_of(tmp_path, connection(sizes=(500,) * 500))
    assert 0.94 < len(perturb(before, "loss", 1)) / len(before) < 0.99
    assert len(perturb(before, "head", 1)) == HEAD_PACKETS
    cut = perturb(before, "cut", 1)
    assert max(len(p.data) for p in cut) == SNAP
    assert [p.length for p in cut] == [p.length for p in before]


def test_a_narrow_link(tmp_path: Path) -> None:
    datagram = IP(src="10.0.0.1", dst="192.0.2.9", id=7) / UDP(sport=5, dport=6) / Raw(bytes(1400))
    frames = [*connection(), bytes(datagram)]
    after = perturb(packets_of(tmp_path, frames), "mtu", 1)
    assert max(p.length for p in after) <= MTU
    views = seen(after)
    check_numbers([p for p in views if TCP in p])
    assert sum(sizes([p for p in views if TCP in p])) == 300 + 700 + 2 + 900 + 4 * 1400
    flags = [str(p[TCP].flags) for p in views if TCP in p and p.src == "192.0.2.9"]
    assert flags == ["SA", *(["A", "PA"] * 4)]
    first, last = views[-2:]
    assert (str(first.flags), first.frag, str(last.flags)) == ("MF", 0, "")
    assert last.frag * 8 == first.len - 20 and first.len + last.len == len(datagram) + 20
    write_packets(tmp_path / "out.pcapng", after)
    assert len(read(tmp_path / "out.pcapng")) == 2


def test_hostile_packets_pass_through(tmp_path: Path) -> None:
    """Headers that contradict themselves, and packets cut inside their headers."""
    frames = [frame[:cut] for frame in connection() for cut in (19, 20, 33, 40, 41, 60)]
    frames += [bytes([0x4F]) + frame[1:] for frame in connection()]
    packets = packets_of(tmp_path, frames)
    for name in PERTURBATIONS:
        write_packets(tmp_path / "out.pcapng", perturb(packets, name, 1))
        read(tmp_path / "out.pcapng")
