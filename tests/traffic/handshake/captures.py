"""Captures of one UDP flow, for tests of the whole way from packets to columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from struct import pack

CLIENT, SERVER = bytes((10, 0, 0, 2)), bytes((192, 0, 2, 9))


UDP, DCCP, UDP_LITE = 17, 33, 136


def udp_capture(
    path: Path, turns: Iterable[tuple[str, bytes]], port: int = 443, protocol: int = UDP
) -> Path:
    """Write datagrams of the client ('c') and of the server ('s'), 10 ms apart, as raw IP.

    UDP-Lite has a coverage where UDP has its length, DCCP a header of 16 bytes (RFC 4340, 5.1).
    """
    out = bytearray(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
    for k, (side, payload) in enumerate(turns):
        ends = [(CLIENT, 40000), (SERVER, port)]
        (src, sport), (dst, dport) = ends if side == "c" else ends[::-1]
        udp = pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
        if protocol == DCCP:
            data = pack(">BBHI", 2 << 1 | 1, 0, 0, k)  # DCCP-Data, 48 bits of sequence number
            udp = pack(">HHBBH", sport, dport, 4, 0, 0) + data + payload
        total = 20 + len(udp)
        packet = pack(">BBHHHBBH4s4s", 0x45, 0, total, k + 1, 0, 64, protocol, 0, src, dst) + udp
        out += pack("<IIII", 1_700_000_000 + k // 100, k % 100 * 10_000, total, total) + packet
    path.write_bytes(bytes(out))
    return path
