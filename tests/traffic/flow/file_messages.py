"""SMB and NFS messages for the meter's tests, and a plain-Python reading of them."""

from __future__ import annotations

import struct

SMB2 = {5: "open", 6: "close", 8: "read", 9: "write", 14: "list", 17: "change"}
SMB1 = {
    **dict.fromkeys((0x02, 0x03, 0x0E, 0x0F, 0x2D, 0xA2), "open"),
    0x04: "close",
    **dict.fromkeys((0x0A, 0x13, 0x1A, 0x2E), "read"),
    **dict.fromkeys((0x0B, 0x14, 0x1D, 0x2C, 0x2F), "write"),
    **dict.fromkeys((0x00, 0x01, 0x06, 0x07, 0x09, 0x22, 0xA5), "change"),
    **dict.fromkeys((0x81, 0x82, 0x83), "list"),
}
NFS3 = {
    2: "change",
    6: "read",
    7: "write",
    8: "open",
    16: "list",
    17: "list",
    **dict.fromkeys(range(9, 16), "change"),
}
DENIED, MORE, PENDING = 0xC0000022, 0xC0000016, 0x00000103


def kind(payload: bytes) -> str | None:
    """What the meter counts a TCP payload as."""
    if len(payload) < 28:
        return None
    magic = payload[4:8]
    if payload[0] == 0 and magic == b"\xfeSMB":
        status, command, _, flags = struct.unpack_from("<IHHI", payload, 12)
        if flags & 1:
            return "error" if status >= 0xC0000000 and status != MORE else None
        return SMB2.get(command, "other") if command <= 0x12 else None
    if payload[0] == 0 and magic == b"\xffSMB":
        command, status, flags, flags2 = struct.unpack_from("<BIBH", payload, 8)
        if flags & 0x80:
            wrong = status >= 0xC0000000 and status != MORE
            return "error" if flags2 & 0x4000 and wrong else None
        return SMB1.get(command, "other")
    if payload[0] == 0 and magic == b"\xfdSMB":
        return "encrypted"
    if payload[0] == 0x80:
        _, call, rpc, program, version, procedure = struct.unpack_from(">6I", payload, 4)
        if (call, rpc, program) == (0, 2, 100_003):
            known = version == 3 and procedure < 22
            return NFS3.get(procedure, "other") if known else "other"
    return None


def session(message: bytes) -> bytes:
    """A message behind its session header (RFC 1001 cl. 4.3.1)."""
    return struct.pack(">I", len(message)) + message


def smb2(command: int, *, status: int = 0, response: bool = False) -> bytes:
    head = struct.pack("<4sHHIHHII", b"\xfeSMB", 64, 1, status, command, 1, int(response), 0)
    return session(head.ljust(64, b"\0") + b"body")


def smb1(command: int, *, status: int = 0, response: bool = False, nt: bool = True) -> bytes:
    head = struct.pack("<4sBIBH", b"\xffSMB", command, status, 0x80 * response, 0x4000 * nt)
    return session(head.ljust(32, b"\0") + b"\0\0\0")


def encrypted() -> bytes:
    return session(b"\xfdSMB" + bytes(range(48)) + b"secret")


def nfs(procedure: int, *, version: int = 3, call: int = 0, program: int = 100_003) -> bytes:
    body = struct.pack(">6I", 7, call, 2, program, version, procedure) + bytes(16)
    return struct.pack(">I", 0x80000000 | len(body)) + body


EXAMPLES = [
    *(smb2(command) for command in (0, 5, 6, 8, 9, 14, 17, 18, 19, 0xFFFF)),
    *(smb2(1, status=status, response=True) for status in (0, MORE, DENIED, PENDING)),
    *(smb1(command) for command in (0x04, 0x07, 0x2E, 0x2F, 0x32, 0x73, 0x81, 0xA2, 0xFF)),
    *(smb1(0x73, status=status, response=True) for status in (0, MORE, DENIED)),
    smb1(0x73, status=DENIED, response=True, nt=False),
    encrypted(),
    *(nfs(procedure) for procedure in (0, 2, 6, 7, 8, 12, 14, 16, 21, 22, 2**32 - 1)),
    *(nfs(1, version=4), nfs(6, call=1), nfs(6, program=100_005)),
    smb2(5)[4:],  # without its session header
    b"\0\0\0\x40" + b"\xfcSMB" + bytes(60),
]
