"""SMB 3 messages as a probe sees them (MS-SMB2): signed in clear, or encrypted after the set-up.

Sizes follow MS-SMB2 (clauses 2.2.1 to 2.2.41). Domains sign and rarely encrypt, so that a probe
reads which operation a message is; where a share demands encryption only lengths and rhythm
remain visible.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from veilwatch.corpus.lab.der import spnego_done, spnego_hint, spnego_ticket
from veilwatch.corpus.lab.draw import Draw

Operation = Literal["create", "read", "write", "rename", "close", "query", "enumerate"]

_HEADER: Final = 64
_MORE_PROCESSING: Final = 0xC0000016
_ENCRYPTION: Final = 0x40
_SIGNED: Final = 8
_NTLM_FLAGS: Final = 0xE2088297

_STARTS_OLD: Final = 0.6
"""Share of sessions that Windows starts with a message of SMB 1 (MS-SMB2, 3.2.4.2.2.1)."""

_DIALECTS: Final = b"\2NT LM 0.12\0\2SMB 2.002\0\2SMB 2.???\0"
_OLD_HEADER: Final = struct.pack(
    "<4sBIBHH8sHHHHH", b"\xffSMB", 0x72, 0, 0x18, 0xC853, 0, bytes(8), 0, 0xFFFF, 0xFEFF, 0, 0
)

_ACCESS_DENIED: Final = 0xC0000022
_REFUSAL: Final = struct.pack("<HBBIB", 9, 0, 0, 0, 0)
_PIPE_TRANSCEIVE: Final = 0x0011C017

_COMMANDS: Final[dict[Operation, int]] = {
    "create": 5, "close": 6, "read": 8, "write": 9, "enumerate": 11, "query": 14, "rename": 17,
}  # fmt: skip


class Exchange(NamedTuple):
    """A request and the response to it."""

    request: bytes
    response: bytes


def _message(
    command: int,
    number: int,
    session: int,
    body: bytes,
    *,
    status: int | None,
    signed: bool = False,
) -> bytes:
    header = struct.pack(
        "<4sHHIHHIIQIIQ16s",
        b"\xfeSMB",
        _HEADER,
        1 if number else 0,
        status or 0,
        command,
        31,
        (0 if status is None else 1) | (_SIGNED if signed else 0),  # from the server to the client
        0,
        number,
        0xFEFF,
        1 if signed else 0,
        session,
        bytes(16),
    )
    return _framed(header + body)


def _framed(message: bytes) -> bytes:
    """Put the 4-byte length of direct TCP transport before a message."""
    return len(message).to_bytes(4, "big") + message


_OLD_NEGOTIATION: Final = _framed(
    _OLD_HEADER + b"\0" + struct.pack("<H", len(_DIALECTS)) + _DIALECTS
)


def _setup_request(number: int, session: int, blob: bytes) -> bytes:
    body = struct.pack("<HBBIIHHQ", 25, 0, 1, 1, 0, _HEADER + 24, len(blob), 0) + blob
    return _message(1, number, session, body, status=None)


def _setup_response(number: int, session: int, blob: bytes, *, flags: int, status: int) -> bytes:
    body = struct.pack("<HHHH", 9, flags, _HEADER + 8, len(blob)) + (blob or b"\0")
    return _message(1, number, session, body, status=status)


class Session:
    """A session with a file server.

    Parameters
    ----------
    encrypted
        Whether the server demands encryption.
    ticket
        Bytes of the Kerberos ticket that signs on; 0 for a password's NTLM messages.
    draw
        Where chance comes from.
    """

    def __init__(self, *, encrypted: bool, ticket: int, draw: Draw) -> None:
        self._encrypted = encrypted
        self._ticket = ticket
        self._draw = draw
        self._id = draw.getrandbits(48) | 1
        self._number = 3

    def set_up(self) -> list[Exchange]:
        """Return the messages that set the session up."""
        draw = self._draw
        dialects = struct.pack("<4H", 0x0202, 0x0210, 0x0300, 0x0302)
        ask = struct.pack("<HHHHI16sQ", 36, 4, 1, 0, 0x7F, draw.octets(16), 0) + dialects
        largest = 8_388_608
        hint = spnego_hint()
        answer = struct.pack(
            "<HHHH16sIIIIQQHHI",
            65, 1, 0x0302, 0, draw.octets(16), 0x2F | _ENCRYPTION, largest, largest, largest,
            0, 0, _HEADER + 64, len(hint), 0,
        ) + hint  # fmt: skip
        consent = _message(0, 0, 0, answer, status=0)
        found = [Exchange(_OLD_NEGOTIATION, consent)] if draw.chance(_STARTS_OLD) else []
        found.append(Exchange(_message(0, 0, 0, ask, status=None), consent))
        flags = 4 if self._encrypted else 0
        if self._ticket:
            blob = spnego_ticket(self._ticket, draw)
            consent = _setup_response(1, self._id, spnego_done(), flags=flags, status=0)
            found.append(Exchange(_setup_request(1, 0, blob), consent))
        else:
            found += self._challenged(flags)
        path = "\\\\emulated\\share".encode("utf-16-le")
        tree = struct.pack("<HHHH", 9, 0, _HEADER + 8, len(path)) + path
        found.append(self._exchange(3, tree, struct.pack("<HBBIII", 16, 1, 0, 0, 0, 0x1F01FF)))
        return found

    def _challenged(self, flags: int) -> list[Exchange]:
        """Return the two steps of NTLM."""
        name = "EMULATED".encode("utf-16-le")
        hello = struct.pack("<8sII", b"NTLMSSP\0", 1, _NTLM_FLAGS) + bytes(16)
        challenge = (
            struct.pack("<8sIHHII", b"NTLMSSP\0", 2, len(name), len(name), 48, _NTLM_FLAGS)
            + self._draw.octets(8)
            + bytes(8)
            + struct.pack("<HHI", 0, 0, 48 + len(name))
            + name
        )
        fields, payload = b"", b""
        for value in (self._draw.octets(24), self._draw.octets(24), name, name, name, b""):
            fields += struct.pack("<HHI", len(value), len(value), 64 + len(payload))
            payload += value
        proof = (
            struct.pack("<8sI", b"NTLMSSP\0", 3) + fields + struct.pack("<I", _NTLM_FLAGS) + payload
        )
        return [
            Exchange(
                _setup_request(1, 0, hello),
                _setup_response(1, self._id, challenge, flags=0, status=_MORE_PROCESSING),
            ),
            Exchange(
                _setup_request(2, self._id, proof),
                _setup_response(2, self._id, b"", flags=flags, status=0),
            ),
        ]

    def _exchange(self, command: int, request: bytes, response: bytes, status: int = 0) -> Exchange:
        """Return a request and an answer with these bodies."""
        self._number += 1
        if self._encrypted:
            return Exchange(
                self._sealed(_HEADER + len(request)), self._sealed(_HEADER + len(response))
            )
        return Exchange(
            _message(command, self._number, self._id, request, status=None, signed=True),
            _message(command, self._number, self._id, response, status=status, signed=True),
        )

    def _sealed(self, size: int) -> bytes:
        """Return a message of `size` bytes in a TRANSFORM_HEADER (MS-SMB2 2.2.41)."""
        head = struct.pack(
            "<4s16s16sIHHQ",
            b"\xfdSMB",
            self._draw.octets(16),
            self._draw.octets(11) + bytes(5),
            size,
            0,
            1,
            self._id,
        )
        return _framed(head + self._draw.octets(size))

    def operate(
        self, operation: Operation, size: int, name: int, *, failing: bool = False
    ) -> Exchange:
        """Return one operation.

        Parameters
        ----------
        operation
            What is done.
        size
            Bytes read or written, or of a listing.
        name
            Letters of the file's name.
        failing
            Whether the server refuses it.
        """
        request, response = self._bodies(operation, size, name)
        if failing:
            return self._exchange(_COMMANDS[operation], request, _REFUSAL, status=_ACCESS_DENIED)
        return self._exchange(_COMMANDS[operation], request, response)

    def _bodies(self, operation: Operation, size: int, length: int) -> tuple[bytes, bytes]:
        """Return what request and response of an operation hold behind their headers."""
        draw = self._draw
        name = ("d" * length).encode("utf-16-le")
        file = b"\x07" * 16
        match operation:
            case "create":
                wanted = (0x12019F, 0x80, 7, 1, 0x40)
                head = struct.pack("<HBBIQQ", 57, 0, 9, 2, 0, 0) + struct.pack("<5I", *wanted)
                head += struct.pack("<HHII", _HEADER + 56, len(name), 0, 0)
                answer = struct.pack("<HBBI6QII16sII", 89, 9, 0, 1, 0, 0, 0, 0, size, size, 0x20, 0,
                                     file, 0, 0)  # fmt: skip
                return head + name, answer
            case "close":
                head = struct.pack("<HHI16s", 24, 1, 0, file)
                return head, struct.pack("<HHI6QI", 60, 1, 0, 0, 0, 0, 0, size, size, 0x20)
            case "read":
                head = struct.pack("<HBBIQ16sIIIHHB", 49, 80, 0, size, 0, file, 0, 0, 0, 0, 0, 0)
                return head, struct.pack("<HBBIII", 17, 80, 0, size, 0, 0) + draw.octets(size)
            case "write":
                head = struct.pack("<HHIQ16sIIHHI", 49, _HEADER + 48, size, 0, file, 0, 0, 0, 0, 0)
                return head + draw.octets(size), struct.pack("<HHIIHH", 17, 0, size, 0, 0, 0)
            case "rename":
                new = struct.pack("<B7sQI", 1, bytes(7), 0, len(name)) + name
                head = struct.pack("<HBBIHHI16s", 33, 1, 10, len(new), _HEADER + 32, 0, 0, file)
                return head + new, struct.pack("<H", 2)
            case "query":
                head = struct.pack("<HBBI16sHHI", 33, 37, 1, 0, file, _HEADER + 32, 2, 65_536)
                found = _listing(size)
                return head + b"*\0", struct.pack("<HHI", 9, _HEADER + 8, len(found)) + found
            case "enumerate":
                asked, told = _pipe_call(0, 80, draw), _pipe_call(2, size, draw)
                head = struct.pack("<HHI16s8I", 57, 0, _PIPE_TRANSCEIVE, file, _HEADER + 56,
                                   len(asked), 0, 0, 0, 65_536, 1, 0)  # fmt: skip
                answer = struct.pack("<HHI16s6I", 49, 0, _PIPE_TRANSCEIVE, file, _HEADER + 48, 0,
                                     _HEADER + 48, len(told), 0, 0)  # fmt: skip
                return head + asked, answer + told


def _listing(size: int) -> bytes:
    """Return entries of a folder (MS-FSCC 2.4.17), about `size` bytes of them."""
    name = "document-1.pdf".encode("utf-16-le")
    entry = bytes(48) + struct.pack("<III", 0x20, len(name), 0) + bytes(36)
    whole = 8 + len(entry) + len(name)
    padded = -(-whole // 8) * 8
    count = max(size // padded, 1)
    return b"".join(
        (struct.pack("<II", 0 if last else padded, 0) + entry + name).ljust(padded, b"\0")
        for last in [False] * (count - 1) + [True]
    )


def _pipe_call(kind: int, size: int, draw: Draw) -> bytes:
    """Return a remote call or its answer, as a named pipe carries it (C706, chapter 12)."""
    head = struct.pack("<BBBB4sHHI", 5, 0, kind, 3, b"\x10\0\0\0", 24 + size, 0, 2)
    return head + struct.pack("<IHH", size, 0, 15 if kind == 0 else 0) + draw.octets(size)
