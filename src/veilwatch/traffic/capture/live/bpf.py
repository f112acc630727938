"""Classic BPF: a small assembler, the filters of the live capture, and how they are attached.

Source: McCanne and Jacobson, "The BSD Packet Filter", 1993; Linux' linux/filter.h for the
ancillary loads at negative offsets.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

# Instruction classes with their modes, as linux/bpf_common.h composes them.
LD_W_ABS: Final = 0x20
LD_H_ABS: Final = 0x28
LD_W_IND: Final = 0x40  # at X + k
LD_H_IND: Final = 0x48
LD_B_IND: Final = 0x50
LD_IMM: Final = 0x00
LD_MEM: Final = 0x60
LDX_IMM: Final = 0x01
LDX_MEM: Final = 0x61
ST: Final = 0x02
STX: Final = 0x03
ADD_K: Final = 0x04
ADD_X: Final = 0x0C
SUB_K: Final = 0x14
MUL_K: Final = 0x24
AND_K: Final = 0x54
LSH_K: Final = 0x64
RSH_K: Final = 0x74
XOR_X: Final = 0xAC
JA: Final = 0x05
JEQ_K: Final = 0x15
JSET_K: Final = 0x45
RET_K: Final = 0x06
RET_A: Final = 0x16
TAX: Final = 0x07
TXA: Final = 0x87

AD_PROTOCOL: Final = 0xFFFF_F000
"""Ancillary load of the EtherType behind the tag that the kernel has stripped."""

AD_PACKET_TYPE: Final = 0xFFFF_F004
"""Ancillary load of the packet type: to us, broadcast, outgoing …"""

PACKET_OUTGOING: Final = 4

MAX_INSTRUCTIONS: Final = 4096
"""BPF_MAXINSNS: the kernel refuses longer programs."""

_SO_ATTACH_FILTER: Final = 26


class Program:
    """Instructions with named targets; jumps lead forwards, as BPF demands.

    Examples
    --------
    >>> program = Program()
    >>> program.op(LD_W_ABS, AD_PROTOCOL)
    >>> program.when(JEQ_K, 0x0800, "ip")
    >>> program.op(RET_K, 0)
    >>> program.label("ip")
    >>> program.op(RET_K, 1)
    >>> len(program.assemble()) // 8
    5
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}

    def op(self, code: int, k: int = 0) -> None:
        """Append an instruction that is no jump."""
        self._code.append((code, 0, 0, k))

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        if name in self._labels:
            raise ValueError(f"label {name} is used twice")
        self._labels[name] = len(self._code)

    def goto(self, target: str) -> None:
        """Jump."""
        self._code.append((JA, 0, 0, target))

    def when(self, test: int, k: int, target: str) -> None:
        """Jump if the accumulator passes the test against `k`.

        Two instructions: a conditional jump reaches 255 instructions far, a plain one anywhere.
        """
        self._code.append((test, 0, 1, k))
        self.goto(target)

    def unless(self, test: int, k: int, target: str) -> None:
        """Jump if the accumulator fails the test against `k`."""
        self._code.append((test, 1, 0, k))
        self.goto(target)

    def assemble(self) -> bytes:
        """Return the array of struct sock_filter.

        Raises
        ------
        ValueError
            If a label is missing or leads backwards, or the program is too long.
        """
        if len(self._code) > MAX_INSTRUCTIONS:
            raise ValueError(f"a program of {len(self._code)} instructions is too long")
        out = bytearray()
        for at, (code, true, false, k) in enumerate(self._code):
            if isinstance(k, str):
                k = self._labels.get(k, -1) - at - 1
                if k < 0:
                    raise ValueError(f"the jump of instruction {at} does not lead forwards")
            out += struct.pack("=HBBI", code, true, false, k)
        return bytes(out)


def attach(descriptor: socket.socket, option: tuple[int, int], program: bytes) -> None:
    """Set a socket option that takes a struct sock_fprog."""
    code = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    descriptor.setsockopt(*option, pointer)


def accept(descriptor: socket.socket, snaplen: int) -> None:
    """Take what arrives, the first `snaplen` bytes of each packet; nothing that we send.

    The packet type is looked at here as well because a fanout group does not heed
    PACKET_IGNORE_OUTGOING of its members.
    """
    program = Program()
    program.op(LD_W_ABS, AD_PACKET_TYPE)
    program.when(JEQ_K, PACKET_OUTGOING, "ours")
    program.op(RET_K, snaplen)
    program.label("ours")
    program.op(RET_K, 0)
    attach(descriptor, (socket.SOL_SOCKET, _SO_ATTACH_FILTER), program.assemble())


def mute(descriptor: socket.socket) -> None:
    """Take nothing more."""
    program = Program()
    program.op(RET_K, 0)
    attach(descriptor, (socket.SOL_SOCKET, _SO_ATTACH_FILTER), program.assemble())
