"""Several sockets on one interface, each with its share of the subscribers.

The kernel asks a classic BPF program which socket a packet goes to (PACKET_FANOUT_CBPF). Its own
hash (PACKET_FANOUT_HASH) sees the tunnel end points only, and so puts all of a gNB and its UPF on
one socket; ours looks through GTP-U at the addresses inside. Both directions give one value.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from veilwatch.traffic.capture.live.bpf import (
    AD_PROTOCOL,
    ADD_K,
    ADD_X,
    AND_K,
    JEQ_K,
    JSET_K,
    LD_B_IND,
    LD_H_ABS,
    LD_H_IND,
    LD_IMM,
    LD_MEM,
    LD_W_ABS,
    LD_W_IND,
    LDX_IMM,
    LDX_MEM,
    LSH_K,
    MUL_K,
    RET_A,
    RET_K,
    RSH_K,
    ST,
    STX,
    SUB_K,
    TAX,
    TXA,
    XOR_X,
    Program,
    attach,
)
from veilwatch.traffic.capture.live.options import SOL_PACKET

GTP_U_PORT: Final = 2152

MAX_TAGS: Final = 3
"""VLAN tags looked behind, beside the one that the kernel strips: one more than stacks in use."""

MAX_EXTENSIONS: Final = 4
"""GTP-U extension headers looked behind. A longer chain goes by its tunnel end points: each
step costs instructions, and N3 and N9 carry one or two."""

_FANOUT: Final = 18
_FANOUT_DATA: Final = 22
_CBPF: Final = 6
_UNIQUE_ID: Final = 0x2000

_ETHERTYPE_IPV4: Final = 0x0800
_ETHERTYPE_IPV6: Final = 0x86DD
_VLANS: Final = (0x8100, 0x88A8, 0x9100)
_UDP: Final = 17
_G_PDU: Final = 255

# Where an IP header keeps its source and destination address, in words of 4 bytes.
_PAIR_V4: Final = ((12,), (16,))
_PAIR_V6: Final = ((8, 12, 16, 20), (24, 28, 32, 36))

# Cells of scratch memory.
_RESULT, _BASE, _HASH, _FIRST = range(4)

_MULTIPLIER: Final = 0x9E37_79B1
"""2^32 divided by the golden ratio, made prime (Knuth, TAOCP 3, 6.4)."""

# Behind X, the start of the UDP header: 8 bytes of UDP and 12 of GTP-U with its options.
_OPTIONAL_END: Final = 20


@dataclass(frozen=True, slots=True)
class Group:
    """A group that processes join one by one, each when it is there.

    Attributes
    ----------
    number
        16 bits. A stranger's group of the same number on the same interface would share its
        packets with ours: draw it.
    seed
        See `balance_program`.
    """

    number: int
    seed: int

    @classmethod
    def drawn(cls) -> Group:
        """Return one that nobody else has, all but certainly."""
        return cls(secrets.randbits(16), secrets.randbits(32))


def balance_program(gtp_ports: Sequence[int] = (), *, seed: int) -> bytes:
    """Return the program that answers with a number for the pair of addresses.

    Offsets count from the network header, where the kernel has its data pointer when it asks
    for received packets; the Ethernet header and its first VLAN tag are gone by then.

    Parameters
    ----------
    gtp_ports
        UDP ports of GTP-U beside 2152.
    seed
        32 bits, so that nobody can choose addresses that all go to one socket.

    Returns
    -------
    bytes
        Classic BPF. It answers with a hash of the addresses inside GTP-U, else of the outer
        ones; 0 for what is not IP or cut short.
    """
    p = Program()
    p.op(LD_W_ABS, AD_PROTOCOL)
    p.op(LDX_IMM, 0)
    for tag in range(MAX_TAGS):
        for ethertype in _VLANS:
            p.when(JEQ_K, ethertype, f"tag {tag}")
        p.goto("network")
        p.label(f"tag {tag}")
        p.op(LD_H_ABS, 4 * tag + 2)
        p.op(LDX_IMM, 4 * tag + 4)
    p.label("network")
    p.when(JEQ_K, _ETHERTYPE_IPV4, "outer 4")
    p.when(JEQ_K, _ETHERTYPE_IPV6, "outer 6")
    p.op(RET_K, 0)

    p.label("outer 4")
    _hash(p, _PAIR_V4, 0, seed)
    p.op(LD_H_IND, 6)
    p.when(JSET_K, 0x1FFF, "done")  # a later fragment has no UDP header
    p.op(LD_B_IND, 9)
    p.unless(JEQ_K, _UDP, "done")
    p.op(LD_B_IND, 0)
    p.op(AND_K, 0x0F)
    p.op(LSH_K, 2)
    p.op(ADD_X)
    p.op(TAX)
    p.goto("udp")

    p.label("outer 6")
    _hash(p, _PAIR_V6, 0, seed)
    p.op(LD_B_IND, 6)
    p.unless(JEQ_K, _UDP, "done")
    p.op(TXA)
    p.op(ADD_K, 40)
    p.op(TAX)

    p.label("udp")
    for at in (0, 2):
        p.op(LD_H_IND, at)
        for port in (GTP_U_PORT, *gtp_ports):
            p.when(JEQ_K, port, "gtp")
    p.goto("done")

    p.label("gtp")  # TS 29.281 cl. 5.1
    p.op(LD_B_IND, 8)
    p.op(AND_K, 0xF0)
    p.unless(JEQ_K, 0x30, "done")  # version 1, GTP and not GTP'
    p.op(LD_B_IND, 9)
    p.unless(JEQ_K, _G_PDU, "done")
    p.op(LD_B_IND, 8)
    p.when(JSET_K, 0x04, "extensions")
    p.when(JSET_K, 0x03, "inner")
    p.op(TXA)  # no optional fields: four bytes less
    p.op(SUB_K, 4)
    p.op(TAX)
    p.goto("inner")
    p.label("extensions")
    for _ in range(MAX_EXTENSIONS):
        p.op(LD_B_IND, _OPTIONAL_END - 1)
        p.when(JEQ_K, 0, "inner")
        p.op(LD_B_IND, _OPTIONAL_END)
        p.when(JEQ_K, 0, "done")
        p.op(LSH_K, 2)
        p.op(ADD_X)
        p.op(TAX)
    p.op(LD_B_IND, _OPTIONAL_END - 1)
    p.unless(JEQ_K, 0, "done")

    p.label("inner")
    p.op(LD_B_IND, _OPTIONAL_END)
    p.op(RSH_K, 4)
    p.when(JEQ_K, 4, "inner 4")
    p.unless(JEQ_K, 6, "done")
    _hash(p, _PAIR_V6, _OPTIONAL_END, seed)
    p.goto("done")
    p.label("inner 4")
    _hash(p, _PAIR_V4, _OPTIONAL_END, seed)
    p.label("done")
    p.op(LD_MEM, _RESULT)
    # The kernel divides by the number of sockets: its remainder needs the high bits, which all
    # bits of both addresses reach.
    p.op(MUL_K, _MULTIPLIER)
    p.op(RSH_K, 16)
    p.op(RET_A)
    return p.assemble()


def _hash(
    p: Program, pair: tuple[tuple[int, ...], tuple[int, ...]], header: int, seed: int
) -> None:
    """Leave in `_RESULT` the sum of the hashes of both addresses; X stays."""
    p.op(STX, _BASE)
    for place, address in enumerate(pair):
        p.op(LD_IMM, seed)
        p.op(ST, _HASH)
        for word in address:
            p.op(LDX_MEM, _BASE)
            p.op(LD_W_IND, header + word)
            p.op(LDX_MEM, _HASH)
            p.op(XOR_X)
            p.op(MUL_K, _MULTIPLIER)
            p.op(ST, _HASH)
            p.op(RSH_K, 15)
            p.op(LDX_MEM, _HASH)
            p.op(XOR_X)
            p.op(ST, _HASH)
        if place == 0:
            p.op(ST, _FIRST)
    p.op(LDX_MEM, _FIRST)
    p.op(ADD_X)
    p.op(ST, _RESULT)
    p.op(LDX_MEM, _BASE)


def join_group(
    sockets: Sequence[socket.socket], gtp_ports: Sequence[int], group: Group | None = None
) -> None:
    """Make one fanout group of bound sockets, or have them join one.

    Parameters
    ----------
    sockets
        Whose interface is up.
    gtp_ports
        UDP ports of GTP-U beside 2152.
    group
        What other processes join as well; None for one of these sockets alone, whose number the
        kernel picks.

    Raises
    ------
    OSError
        If the kernel has no such groups (they came with Linux 4.12).
    """
    number, flags, seed = 0, _UNIQUE_ID, secrets.randbits(32)
    if group is not None:
        number, flags, seed = group.number, 0, group.seed
    for member in sockets:
        member.setsockopt(SOL_PACKET, _FANOUT, struct.pack("=I", number | (_CBPF | flags) << 16))
        if flags:
            number, flags = member.getsockopt(SOL_PACKET, _FANOUT) & 0xFFFF, 0
    # Who joins later sets the same program again.
    program = balance_program(gtp_ports, seed=seed)
    attach(sockets[0], (SOL_PACKET, _FANOUT_DATA), program)
