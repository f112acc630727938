"""Random bytes and mutated packets: no exception, no disagreement, nobody unaccounted for."""

from __future__ import annotations

import numpy as np
import pytest
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.packet import Raw

from tests.traffic.decode.frames import Frame, assert_as_reference, blocks
from tests.traffic.decode.links import INNER, LINKS, REFUSED
from tests.traffic.decode.test_tunnels import WRAPPED
from veilwatch.schema.packets import Status
from veilwatch.traffic.decode import Decoder

COMMON_LINKS = (0, 1, 9, 12, 14, 50, 51, 101, 108, 113, 228, 229, 276, 65535)
OTHER_LINKS = sorted({link for link, _ in LINKS.values()} - {*COMMON_LINKS})


MUTANTS = 100
"""Changed forms of each seed; `make fuzz` makes many more."""


@pytest.mark.parametrize("link", [*COMMON_LINKS, *OTHER_LINKS])
def test_random_bytes_raise_nothing_and_balance(link: int) -> None:
    # Arrange: the first bytes lead into IP often enough to reach the inner layers
    rng = np.random.default_rng(link)
    lead = [b"", b"\x45", b"\x60", b"\x02\0\0\0\x45", b"\x08\0" + bytes(18), bytes(12) + b"\x08\0"]
    lead += [bytes(12) + b"\x81\x00\x00\x05\x86\xdd\x60", bytes(14) + b"\x08\0\x45"]
    # what stands in front of IP in the frames of this link type, where one of the tests has some
    lead += [data[: data.index(INNER) + 1] for other, data in LINKS.values() if other == link]
    frames = []
    for i in range(4096 if link in COMMON_LINKS else 512):
        head = lead[i % len(lead)]
        data = head + rng.bytes(int(rng.integers(0, 160)))
        frames.append(Frame(data, link, int(rng.integers(0, 2**32)) if i % 3 == 0 else None))

    # Act
    decoder = Decoder()
    for block in blocks(frames):
        assert_as_reference(block, decoder)

    # Assert
    balance = decoder.balance
    assert balance["packets_read"] == len(frames)
    assert sum(balance[status.name] for status in Status) == len(frames)


def seeds() -> list[tuple[int, bytes]]:
    """One packet for every path through the layers."""
    tcp = IP(src="10.0.0.1", dst="10.0.0.2", options=[]) / TCP(
        flags="S", options=[("MSS", 1400), ("NOP", None), ("WScale", 7)]
    )
    session = GTP_U_Header(teid=77, E=1, next_ex=0x85) / GTPPDUSessionContainer(type=1, QFI=9)
    tunnel = IP(src="172.16.0.1") / UDP(sport=2152, dport=2152) / session
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=5, m=1)
    inner6 = IPv6(dst="2001:db8::1") / chain / UDP(dport=53) / Raw(b"q" * 20)
    plain6 = IPv6(dst="2001:db8::2") / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=5, S=1)
    nested = tunnel / (IP() / UDP(dport=2152) / GTP_U_Header(teid=6) / tcp)
    return [
        (1, bytes(Ether() / Dot1Q(vlan=5) / Dot1Q(vlan=6) / tunnel / tcp / Raw(b"x" * 30))),
        (1, bytes(Ether() / tunnel / inner6)),
        (1, bytes(Ether() / nested / Raw(b"y" * 9))),
        (1, bytes(Ether() / plain6 / IP() / UDP() / Raw(b"z" * 9))),
        (113, bytes(CookedLinux(proto=0x800) / nested)),
        (101, bytes(inner6)),
        (0, b"\x02\0\0\0" + bytes(tcp)),
        (1, bytes(12) + b"\x00\x40\xaa\xaa\x03\0\0\0\x08\x00" + bytes(tcp)),
        *((1, data) for name, (_, data) in WRAPPED.items() if "bytes before" not in name),
        *((1, data) for name, (_, data) in WRAPPED.items() if "8 bytes before" in name),
        *LINKS.values(),
        *REFUSED.values(),
    ]


def test_mutated_packets_agree_with_the_reference() -> None:
    # Arrange
    rng = np.random.default_rng(7)
    frames = []
    for link, packet in seeds():
        for _ in range(MUTANTS):
            data = bytearray(packet)
            for _ in range(int(rng.integers(0, 4))):
                place = int(rng.integers(0, len(data)))
                data[place] = int(rng.choice([0, 1, 0x45, 0x60, 0x85, 255, int(rng.integers(256))]))
            cut = int(rng.integers(0, len(data) + 1)) if rng.random() < 0.5 else len(data)
            frames.append(Frame(bytes(data[:cut]), link, len(packet)))

    # Act and assert
    decoder = Decoder()
    for block in blocks(frames):
        assert_as_reference(block, decoder)

    # Every refusal that this work can give was met, so that all of them were compared.
    met = {name for name in (status.name for status in Status) if decoder.balance[name]}
    assert met >= {
        "OK",
        "EMPTY",
        "TRUNCATED_LINK",
        "NOT_IP",
        "TRUNCATED_NETWORK",
        "BAD_NETWORK",
        "LATER_FRAGMENT",
        "TRUNCATED_TRANSPORT",
        "BAD_TRANSPORT",
        "TRUNCATED_TUNNEL",
        "BAD_TUNNEL",
    }


def test_every_truncation_of_every_seed() -> None:
    frames = [
        Frame(packet[:size], link, len(packet))
        for link, packet in seeds()
        for size in range(len(packet) + 1)
    ]
    for block in blocks(frames):
        assert_as_reference(block)
