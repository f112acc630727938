"""Messages of protocols that are neither TLS, SMB nor DNS, as their specifications frame them.

What a message carries is drawn; how long messages are says the profile.
"""

from __future__ import annotations

import struct
from typing import Final, Literal
from uuid import UUID

from veilwatch.corpus.lab.der import kerberos, ldap, snmp
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.names import make_label

TcpForm = Literal["http", "kerberos", "ldap", "dcerpc", "rdp", "ssh", "mqtt", "printer", "opaque"]
UdpForm = Literal["rtp", "ntp", "opaque", "snmp", "wireguard", "peers", "ldap", "stun"]

_AGENTS: Final = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0)",
    "Microsoft-CryptoAPI/10.0",
    "Debian APT-HTTP/1.3",
    "curl/8.5.0",
]
_SUFFIXES: Final = ["", ".html", ".png", ".js", ".bin", ".dat", ".cab", ".php"]
_LARGEST_GET: Final = 600
"""Bytes of a request up to which it asks; longer ones bring something."""

_SCHEDULER: Final = UUID("86d35949-83c9-4044-b424-db363231fd0c")
_TRANSFER: Final = UUID("8a885d04-1ceb-11c9-9fe8-08002b104860")  # NDR, C706 appendix N


def tcp_message(form: TcpForm, number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return message `number` of one direction, about `size` bytes long.

    Parameters
    ----------
    form
        The protocol.
    number
        How many came before it in this direction.
    size
        Bytes; a head that is longer stays whole.
    draw
        Where chance comes from.
    request
        Whether the initiator sends it.
    """
    match form:
        case "http":
            return _http(size, draw, request=request)
        case "kerberos":
            return kerberos(number, size, draw, request=request)
        case "ldap":
            return ldap(number, size, draw, request=request)
        case "dcerpc":
            return _dcerpc(number, size, draw, request=request)
        case "ssh":
            return _ssh(number, size, draw)
        case "mqtt":
            return _mqtt(number, size, draw, request=request)
        case "rdp" if number == 0:
            kind, negotiation = (0xE0, 1) if request else (0xD0, 2)
            head = struct.pack("!BBHBBHHB", 3, 0, 19, 14, kind, 0, 0, 0)
            return head + struct.pack("<BBHI", negotiation, 0, 8, 3)
        case "printer" if number == 0 and request:
            return b"\x1b%-12345X@PJL JOB\r\n" + draw.octets(size)
    return draw.octets(size)


def _http(size: int, draw: Draw, *, request: bool) -> bytes:
    if not request:
        head = (
            "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {size}\r\nConnection: keep-alive\r\n\r\n"
        )
        return head.encode() + draw.octets(size)
    path = f"/{make_label(draw, draw.count((4, 30)), random_letters=draw.chance(0.3))}"
    verb = "POST" if size > _LARGEST_GET else "GET"
    head = (
        f"{verb} {path}{draw.one(_SUFFIXES)} HTTP/1.1\r\nHost: emulated.example\r\n"
        f"User-Agent: {draw.one(_AGENTS)}\r\nAccept: */*\r\n"
    )
    if verb == "GET":
        return (head + "Cookie: id=" + "a" * max(size - len(head) - 14, 0) + "\r\n\r\n").encode()
    body = max(size - len(head), 1)
    return f"{head}Content-Length: {body}\r\n\r\n".encode() + draw.octets(body)


def _dcerpc(number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return a bind and its consent first, then calls (C706, chapter 12)."""
    if number:
        body = struct.pack("<IHH", max(size - 24, 8), 0, 3) + draw.octets(max(size - 24, 8))
        kind = 0 if request else 2
    elif request:
        interface = _SCHEDULER.bytes_le + struct.pack("<I", 1)
        body = struct.pack("<HHIIHBB", 5840, 5840, 0, 1, 0, 1, 0) + interface
        body += _TRANSFER.bytes_le + struct.pack("<I", 2)
        kind = 11
    else:
        body = struct.pack("<HHIH6sIHH", 5840, 5840, 1, 4, b"135\0\0\0", 1, 0, 0)
        body += _TRANSFER.bytes_le + struct.pack("<I", 2)
        kind = 12
    return struct.pack("<BBBB4sHHI", 5, 0, kind, 3, b"\x10\0\0\0", 16 + len(body), 0, number) + body


def _ssh(number: int, size: int, draw: Draw) -> bytes:
    """Return version, algorithms, the change of keys, then what is encrypted (RFC 4253)."""
    if number == 0:
        return b"SSH-2.0-OpenSSH_9." + str(draw.randrange(2, 9)).encode() + b"\r\n"
    if number == 1:
        return struct.pack("!IBB", 69, 6, 20) + draw.octets(16) + bytes(45) + draw.octets(6)
    if number == 2:
        return struct.pack("!IBB", 12, 10, 21) + bytes(10)
    return draw.octets(size)


def _mqtt(number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return a connect and its consent first, then messages (MQTT 3.1.1)."""
    if not request:
        return b"\x20\2\0\0" if number == 0 else b"\xd0\0"
    name = draw.octets(6).hex().encode()
    if number == 0:
        body = b"\0\4MQTT\4\2\0\x3c" + struct.pack("!H", len(name)) + name
        return b"\x10" + bytes([len(body)]) + body
    body = b"\0\4data" + draw.octets(max(min(size, 120) - 8, 4))
    return b"\x30" + bytes([len(body)]) + body


def datagram(form: UdpForm, number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return datagram `number` of one direction; arguments as of `tcp_message`."""
    match form:
        case "snmp":
            return snmp(size, draw, request=request)
        case "ldap":
            return ldap(number, size, draw, request=request, bound=False)
        case "wireguard":
            return _wireguard(number, size, draw, request=request)
        case "stun":
            software = draw.octets(max(size - 24, 4) // 4 * 4)
            head = struct.pack("!HHI", 1 if request else 0x101, 4 + len(software), 0x2112A442)
            return head + draw.octets(12) + struct.pack("!HH", 0x8022, len(software)) + software
        case "peers" if request:
            target = draw.octets(20) + b"6:target20:" + draw.octets(20)
            return b"d1:ad2:id20:" + target + b"e1:q9:find_node1:t2:aa1:y1:qe"
        case "peers":
            return (
                b"d1:rd2:id20:"
                + draw.octets(20)
                + b"5:nodes208:"
                + draw.octets(208)
                + (b"e1:t2:aa1:y1:re")
            )
    if form == "opaque":  # the first two bytes are no known protocol's
        return bytes([0x21, draw.getrandbits(8) | 1]) + draw.octets(max(size - 2, 0))
    return draw.octets(size)


def _wireguard(number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return the two messages of the handshake, then data."""
    if number == 0:
        return (b"\1\0\0\0" + draw.octets(144)) if request else (b"\2\0\0\0" + draw.octets(88))
    inner = -(-max(size, 16) // 16) * 16
    return b"\4\0\0\0" + draw.octets(4) + struct.pack("<Q", number) + draw.octets(inner + 16)
