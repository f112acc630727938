"""Captures of one UDP flow, for tests of the whole way from packets to columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from struct import pack

CLIENT, SERVER = bytes((10, 0, 0, 2)), bytes((192, 0, 2, 9))


def udp_capture(path: Path, turns: Iterable[tuple[str, bytes]], port: int = 443) -> Path:
    """Write datagrams of the client ('c') and of the server ('s'), 10 ms apart, as raw IP."""
    out = bytearray(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
    for k, (side, payload) in enumerate(turns):
        ends = [(CLIENT, 40000), (SERVER, port)]
        (src, sport), (dst, dport) = ends if side == "c" else ends[::-1]
        udp = pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
        total = 20 + len(udp)
        packet = pack(">BBHHHBBH4s4s", 0x45, 0, total, k + 1, 0, 64, 17, 0, src, dst) + udp
        out += pack("<IIII", 1_700_000_000 + k // 100, k % 100 * 10_000, total, total) + packet
    path.write_bytes(bytes(out))
    return path
