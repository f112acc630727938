"""SMB 3 messages as a probe sees them: negotiation in clear, then encrypted messages.

Sizes follow MS-SMB2 (clauses 2.2.1 to 2.2.41); after the session is set up every message is a
TRANSFORM_HEADER with ciphertext, so that only lengths and rhythm of file work remain visible.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from veilwatch.corpus.lab.draw import Draw

Operation = Literal["create", "read", "write", "rename", "close", "query"]

_HEADER: Final = 64
_MORE_PROCESSING: Final = 0xC0000016
_ENCRYPTION: Final = 0x40
_NTLM_FLAGS: Final = 0xE2088297


class Exchange(NamedTuple):
    """A request and the response to it."""

    request: bytes
    response: bytes


def _message(command: int, number: int, session: int, body: bytes, *, status: int | None) -> bytes:
    header = struct.pack(
        "<4sHHIHHIIQIIQ16s",
        b"\xfeSMB",
        _HEADER,
        1 if number else 0,
        status or 0,
        command,
        31,
        0 if status is None else 1,  # SMB2_FLAGS_SERVER_TO_REDIR
        0,
        number,
        0xFEFF,
        0,
        session,
        bytes(16),
    )
    return _framed(header + body)


def _framed(message: bytes) -> bytes:
    """Put the 4-byte length of direct TCP transport before a message."""
    return len(message).to_bytes(4, "big") + message


def _setup_request(number: int, session: int, blob: bytes) -> bytes:
    body = struct.pack("<HBBIIHHQ", 25, 0, 1, 1, 0, _HEADER + 24, len(blob), 0) + blob
    return _message(1, number, session, body, status=None)


def _setup_response(number: int, session: int, blob: bytes, *, flags: int, status: int) -> bytes:
    body = struct.pack("<HHHH", 9, flags, _HEADER + 8, len(blob)) + (blob or b"\0")
    return _message(1, number, session, body, status=status)


def set_up(draw: Draw) -> tuple[int, list[Exchange]]:
    """Return a session id and the messages that set the session up."""
    session = draw.getrandbits(48) | 1
    dialects = struct.pack("<4H", 0x0202, 0x0210, 0x0300, 0x0302)
    ask = struct.pack("<HHHHI16sQ", 36, 4, 1, 0, 0x7F, draw.octets(16), 0) + dialects
    largest = 8_388_608
    answer = struct.pack(
        "<HHHH16sIIIIQQHHI",
        65, 1, 0x0302, 0, draw.octets(16), 0x2F | _ENCRYPTION, largest, largest, largest,
        0, 0, _HEADER + 64, 0, 0,
    ) + b"\0"  # fmt: skip
    name = "EMULATED".encode("utf-16-le")
    hello = struct.pack("<8sII", b"NTLMSSP\0", 1, _NTLM_FLAGS) + bytes(16)
    challenge = (
        struct.pack("<8sIHHII", b"NTLMSSP\0", 2, len(name), len(name), 48, _NTLM_FLAGS)
        + draw.octets(8)
        + bytes(8)
        + struct.pack("<HHI", 0, 0, 48 + len(name))
        + name
    )
    fields, payload = b"", b""
    for value in (draw.octets(24), draw.octets(24), name, name, name, b""):
        fields += struct.pack("<HHI", len(value), len(value), 64 + len(payload))
        payload += value
    proof = struct.pack("<8sI", b"NTLMSSP\0", 3) + fields + struct.pack("<I", _NTLM_FLAGS) + payload
    return session, [
        Exchange(_message(0, 0, 0, ask, status=None), _message(0, 0, 0, answer, status=0)),
        Exchange(
            _setup_request(1, 0, hello),
            _setup_response(1, session, challenge, flags=0, status=_MORE_PROCESSING),
        ),
        Exchange(
            _setup_request(2, session, proof),
            _setup_response(2, session, b"", flags=4, status=0),  # encryption from here on
        ),
    ]


def _encrypted(session: int, size: int, draw: Draw) -> bytes:
    """Return a message of `size` bytes in a TRANSFORM_HEADER (MS-SMB2 2.2.41)."""
    head = struct.pack(
        "<4s16s16sIHHQ",
        b"\xfdSMB",
        draw.octets(16),
        draw.octets(11) + bytes(5),
        size,
        0,
        1,
        session,
    )
    return _framed(head + draw.octets(size))


def operate(session: int, operation: Operation, size: int, name: int, draw: Draw) -> Exchange:
    """Return one encrypted operation.

    Parameters
    ----------
    session
        From `set_up`.
    operation
        What is done.
    size
        Bytes read or written, or of a directory listing.
    name
        Letters of the file's name.
    draw
        Where ciphertext comes from.
    """
    request, response = {
        "create": (56 + 2 * name, 88),
        "read": (49, 16 + size),
        "write": (48 + size, 16),
        "rename": (32 + 20 + 2 * name, 2),
        "close": (24, 60),
        "query": (33 + 2, 8 + size),
    }[operation]
    return Exchange(
        _encrypted(session, _HEADER + request, draw), _encrypted(session, _HEADER + response, draw)
    )
