"""A classic BPF machine in plain Python, from McCanne and Jacobson (1993): oracle for ours."""

from __future__ import annotations

import struct

WORD = 0xFFFFFFFF
SIZES = {0x00: ("!I", 4), 0x08: ("!H", 2), 0x10: ("!B", 1)}


def run_bpf(program: bytes, packet: bytes, *, protocol: int = 0, packet_type: int = 0) -> int:
    """Return what a program answers; 0 where it reads outside the packet, as the kernel does."""
    code = list(struct.iter_unpack("=HBBI", program))
    a = x = 0
    memory = [0] * 16
    at = 0
    while True:
        op, true, false, k = code[at]
        at += 1
        kind = op & 7
        if kind in (0, 1):  # LD, LDX
            mode = op & 0xE0
            if mode == 0x00:
                value = k
            elif mode == 0x60:
                value = memory[k]
            elif mode in (0x20, 0x40):
                if k >= 0xFFFFF000:
                    value = {0xFFFFF000: protocol, 0xFFFFF004: packet_type}[k]
                else:
                    form, size = SIZES[op & 0x18]
                    start = k + (x if mode == 0x40 else 0)
                    if start + size > len(packet):
                        return 0
                    (value,) = struct.unpack_from(form, packet, start)
            else:
                raise AssertionError(f"unknown mode {mode:#x}")
            if kind == 0:
                a = value
            else:
                x = value
        elif kind == 2:
            memory[k] = a
        elif kind == 3:
            memory[k] = x
        elif kind == 4:
            operand = x if op & 8 else k
            a = {
                0x00: lambda a=a, b=operand: a + b,
                0x10: lambda a=a, b=operand: a - b,
                0x20: lambda a=a, b=operand: a * b,
                0x50: lambda a=a, b=operand: a & b,
                0x60: lambda a=a, b=operand: a << b,
                0x70: lambda a=a, b=operand: a >> b,
                0xA0: lambda a=a, b=operand: a ^ b,
            }[op & 0xF0]() & WORD
        elif kind == 5:
            test = op & 0xF0
            if test == 0x00:
                at += k
            else:
                passed = a == k if test == 0x10 else a & k != 0
                assert test in (0x10, 0x40)
                at += true if passed else false
        elif kind == 6:
            return a if op & 0x18 == 0x10 else k
        elif op & 0xF8 == 0x80:
            a = x
        else:
            x = a
