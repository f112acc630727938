"""Which worker a packet goes to: the program itself, and the kernel that runs it."""

from __future__ import annotations

import secrets
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from tests.netns import Wire
from tests.traffic.capture.bpf_machine import run_bpf
from tests.traffic.capture.subscribers import MAC, WRAPPINGS, frames
from veilwatch.traffic.capture import PcapWriter
from veilwatch.traffic.capture.live import LiveCapture, bpf, open_taps
from veilwatch.traffic.capture.live.fanout import MAX_EXTENSIONS, balance_program

SEED = 0x1234_5678
PROGRAM = balance_program(seed=SEED)
VLANS = (0x8100, 0x88A8, 0x9100)


def answer(frame: bytes, program: bytes = PROGRAM) -> int:
    """What the program says of a frame, given to it as the kernel does: first tag stripped."""
    at = 12
    if int.from_bytes(frame[at : at + 2], "big") in VLANS:
        at += 4
    protocol = int.from_bytes(frame[at : at + 2], "big")
    return run_bpf(program, frame[at + 2 :], protocol=protocol)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_both_directions_of_a_subscriber_go_one_way(wrapping: str) -> None:
    for subscriber in range(40):
        up, down = frames(wrapping, subscriber)
        assert answer(up) == answer(down) != 0


@lru_cache
def answers(wrapping: str) -> list[int]:
    """What the program says of 400 subscribers."""
    return [answer(frames(wrapping, k)[0]) for k in range(400)]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_subscribers_spread_evenly(wrapping: str, workers: int) -> None:
    counts = Counter(number % workers for number in answers(wrapping))
    fair = 400 / workers
    assert len(counts) == workers
    assert all(fair / 1.7 < count < fair * 1.7 for count in counts.values())


def test_every_wrapping_of_one_pair_gives_one_answer() -> None:
    answers = {answer(frames(name, 5)[0]) for name in WRAPPINGS if not name.startswith("IPv6")}
    assert len(answers) == 1


def test_the_seed_changes_who_goes_where() -> None:
    other = balance_program(seed=SEED + 1)
    first = [frames("gtp", k)[0] for k in range(64)]
    assert [answer(f) % 2 for f in first] != [answer(f, other) % 2 for f in first]


def test_further_ports_of_gtp() -> None:
    up, down = frames("gtp", 5, port=2153)
    more = balance_program([2153], seed=SEED)
    assert answer(up, more) == answer(down, more) == answer(frames("plain", 5)[0])
    assert answer(up) != answer(up, more)


def outer_only() -> int:
    """What the two tunnel end points alone give."""
    return answer(bytes(Ether(**MAC) / IP(src="192.0.2.1", dst="192.0.2.2") / TCP()))


def tunnel(payload: bytes, **fields: object) -> bytes:
    outer = IP(src="192.0.2.1", dst="192.0.2.2", **fields)
    return bytes(Ether(**MAC) / outer / UDP(sport=2152, dport=2152) / Raw(payload))


INNER = bytes(IP(src="10.45.0.5", dst="198.51.100.7") / UDP(sport=1, dport=2))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x30\x01\0\0\0\0\0\0" + INNER,  # an echo request
        b"\x20\xff\0\0\0\0\0\0" + INNER,  # GTP'
        b"\x50\xff\0\0\0\0\0\0" + INNER,  # version 2
        b"\x34\xff\0\0\0\0\0\0\0\0\0\x85\0\0\0\0" + INNER,  # an extension of no length
        b"\x34\xff\0\0\0\0\0\0\0\0\0\x85" + b"\x01\0\0\x85" * (MAX_EXTENSIONS + 1) + INNER,
        b"\x30\xff\0\0\0\0\0\0" + b"\xff" * 40,  # no IP inside
    ],
)
def test_what_is_no_packet_in_a_tunnel_goes_by_its_end_points(payload: bytes) -> None:
    assert answer(tunnel(payload)) == outer_only()


def test_as_many_extensions_as_are_followed() -> None:
    chain = b"\x01\0\0\x85" * (MAX_EXTENSIONS - 1) + b"\x01\0\0\0"
    payload = b"\x34\xff\0\0\0\0\0\0\0\0\0\x85" + chain + INNER
    assert answer(tunnel(payload)) == answer(frames("plain", 5)[0])


def test_options_and_fragments_of_the_outer_header() -> None:
    payload = b"\x30\xff\0\0\0\0\0\0" + INNER
    assert answer(tunnel(payload, options=[b"\x94\x04\0\0"])) == answer(frames("plain", 5)[0])
    assert answer(tunnel(payload, flags="MF")) == answer(frames("plain", 5)[0])
    assert answer(tunnel(payload, frag=3)) == outer_only()


def test_every_cut_is_answered() -> None:
    for wrapping in WRAPPINGS:
        frame = frames(wrapping, 5)[0]
        for length in range(22, len(frame)):
            assert answer(frame[:length]) in (0, answer(frame))
    assert answer(bytes(Ether(**MAC) / ARP())) == 0


def test_the_assembler_refuses_what_the_kernel_would() -> None:
    backwards = bpf.Program()
    backwards.label("here")
    backwards.goto("here")
    with pytest.raises(ValueError, match="forwards"):
        backwards.assemble()
    nowhere = bpf.Program()
    nowhere.when(bpf.JEQ_K, 1, "there")
    with pytest.raises(ValueError, match="forwards"):
        nowhere.assemble()
    twice = bpf.Program()
    twice.label("a")
    with pytest.raises(ValueError, match="twice"):
        twice.label("a")
    long = bpf.Program()
    for _ in range(bpf.MAX_INSTRUCTIONS + 1):
        long.op(bpf.TAX)
    with pytest.raises(ValueError, match="too long"):
        long.assemble()


def test_the_kernel_puts_each_packet_where_the_oracle_does(
    wire: Wire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda bits: SEED)
    sent = [frame for name in WRAPPINGS for k in range(30) for frame in frames(name, k)]
    sent.append(bytes(Ether(**MAC) / ARP()))
    capture = tmp_path / "sent.pcap"
    with PcapWriter(capture) as writer:
        for k, frame in enumerate(sent):
            writer.write(1_700_000_000_000_000_000 + k * 1000, frame)
    workers = 3
    with wire.entered():
        taps = open_taps(wire.far, count=workers)
    captures = [LiveCapture(tap, source=k) for k, tap in enumerate(taps)]
    blocks = [iter(capture) for capture in captures]
    for listening in blocks:
        assert len(next(listening)) == 0
    wire.replay(capture, "--topspeed")
    got: Counter[tuple[int, bytes]] = Counter()
    for number, (live, rest) in enumerate(zip(captures, blocks, strict=True)):
        live.stop()
        for block in rest:
            for record in block.records:
                assert record["source"] == number
                start = int(record["offset"])
                got[number, block.buffer[start : start + record["captured"]].tobytes()] += 1
        live.close()
    assert got == Counter((answer(frame) % workers, frame) for frame in sent)
