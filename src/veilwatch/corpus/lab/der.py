"""Messages in DER: Kerberos (RFC 4120), LDAP (RFC 4511), SNMP (RFC 3416), a ticket in SPNEGO."""

from __future__ import annotations

from typing import Final

from veilwatch.corpus.lab.draw import Draw

SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_STRING: Final = 0x1B
_OID: Final = 0x06
_KERBEROS_OID: Final = bytes.fromhex("2a864886f712010202")
_SPNEGO_OID: Final = bytes.fromhex("2b0601050502")
_REALM: Final = b"EMULATED.EXAMPLE"
_AES: Final = 18


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return a value with its tag and length."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def integer(value: int) -> bytes:
    """Return a number that is not negative."""
    return tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _field(number: int, *parts: bytes) -> bytes:
    return tlv(0xA0 | number, *parts)


def _filler(size: int, draw: Draw) -> bytes:
    return tlv(_OCTETS, draw.octets(max(size, 8)))


def _sealed(size: int, draw: Draw) -> bytes:
    return tlv(
        SEQUENCE,
        _field(0, integer(_AES)),
        _field(2, tlv(_OCTETS, draw.octets(max(size, 40)))),
    )


def _principal(*names: bytes) -> bytes:
    strings = tlv(SEQUENCE, *(tlv(_STRING, name) for name in names))
    return tlv(SEQUENCE, _field(0, integer(2)), _field(1, strings))


def _ticket(size: int, draw: Draw) -> bytes:
    return tlv(
        0x61,
        tlv(
            SEQUENCE,
            _field(0, integer(5)),
            _field(1, tlv(_STRING, _REALM)),
            _field(2, _principal(b"cifs", b"emulated")),
            _field(3, _sealed(size, draw)),
        ),
    )


def _application_request(size: int, draw: Draw) -> bytes:
    """Return an AP-REQ, most of which is its ticket."""
    return tlv(
        0x6E,
        tlv(
            SEQUENCE,
            _field(0, integer(5)),
            _field(1, integer(14)),
            _field(2, tlv(0x03, b"\0\x20\0\0\0")),
            _field(3, _ticket(size * 3 // 4, draw)),
            _field(4, _sealed(size // 4, draw)),
        ),
    )


def kerberos(number: int, size: int, draw: Draw, *, request: bool) -> bytes:
    """Return AS messages first, then TGS messages, behind their length as over TCP."""
    first = number == 0
    if request:
        proof = _sealed(size - 190, draw) if first else _application_request(size - 420, draw)
        given = tlv(_OCTETS, proof)
        body = tlv(
            SEQUENCE,
            _field(0, tlv(0x03, b"\0\x40\x81\0\x10")),
            _field(2, tlv(_STRING, _REALM)),
            _field(3, _principal(b"krbtgt", _REALM)),
            _field(5, tlv(0x18, b"20370913024805Z")),
            _field(7, integer(draw.getrandbits(31))),
            _field(8, tlv(SEQUENCE, integer(_AES), integer(17))),
        )
        entry = tlv(SEQUENCE, _field(1, integer(2 if first else 1)), _field(2, given))
        message = tlv(
            0x6A if first else 0x6C,
            tlv(
                SEQUENCE,
                _field(1, integer(5)),
                _field(2, integer(10 if first else 12)),
                _field(3, tlv(SEQUENCE, entry)),
                _field(4, body),
            ),
        )
    else:
        message = tlv(
            0x6B if first else 0x6D,
            tlv(
                SEQUENCE,
                _field(0, integer(5)),
                _field(1, integer(11 if first else 13)),
                _field(3, tlv(_STRING, _REALM)),
                _field(4, _principal(b"emulated")),
                _field(5, _ticket(max(size - 260, 80) * 2 // 3, draw)),
                _field(6, _sealed(max(size - 260, 80) // 3, draw)),
            ),
        )
    return len(message).to_bytes(4, "big") + message


def ldap(number: int, size: int, draw: Draw, *, request: bool, bound: bool = True) -> bytes:
    """Return a bind first, unless `bound` is not needed, then searches and what they find."""
    if number == 0 and bound:
        if request:
            ticket = tlv(_OCTETS, spnego_ticket(size - 200, draw))
            signed = tlv(0xA3, tlv(_OCTETS, b"GSS-SPNEGO"), ticket)
            body = tlv(0x60, integer(3), tlv(_OCTETS), signed)
        else:
            done = tlv(0x0A, b"\0") + tlv(_OCTETS) * 2
            body = tlv(0x61, done, tlv(0x87, spnego_done()))
    elif request:
        scope = tlv(0x0A, b"\2") + tlv(0x0A, b"\0") + integer(0) * 2 + tlv(0x01, b"\0")
        wanted = tlv(SEQUENCE, tlv(_OCTETS, b"a" * max(size - 60, 4)))
        body = tlv(0x63, tlv(_OCTETS, b"DC=emulated"), scope, tlv(0x87, b"objectClass"), wanted)
    else:
        values = tlv(SEQUENCE, tlv(_OCTETS, b"value"), tlv(0x31, _filler(size - 70, draw)))
        body = tlv(0x64, tlv(_OCTETS, b"CN=host,DC=emulated"), tlv(SEQUENCE, values))
    return tlv(SEQUENCE, integer(number + 1), body)


def snmp(size: int, draw: Draw, *, request: bool) -> bytes:
    """Return a question for one value, or its answer."""
    value = b"\5\0" if request else tlv(_OCTETS, draw.octets(max(size - 55, 4)))
    place = tlv(_OID, bytes.fromhex("2b060102010b0201"))
    asked = [tlv(SEQUENCE, place, b"\5\0")] * max((size - 30) // 14, 1) if request else []
    body = tlv(
        0xA0 if request else 0xA2,
        integer(draw.getrandbits(24)), integer(0), integer(0),
        tlv(SEQUENCE, *(asked or [tlv(SEQUENCE, place, value)])),
    )  # fmt: skip
    return tlv(SEQUENCE, integer(1), tlv(_OCTETS, b"public"), body)


def spnego_ticket(size: int, draw: Draw) -> bytes:
    """Return what signs on to a service with a ticket of Kerberos (RFC 4178, RFC 4121)."""
    token = tlv(0x60, tlv(_OID, _KERBEROS_OID), b"\1\0", _application_request(size, draw))
    mechanisms = _field(0, tlv(SEQUENCE, tlv(_OID, _KERBEROS_OID)))
    asked = tlv(SEQUENCE, mechanisms, _field(2, tlv(_OCTETS, token)))
    return tlv(0x60, tlv(_OID, _SPNEGO_OID), _field(0, asked))


def spnego_done() -> bytes:
    """Return the server's consent."""
    return _field(
        1, tlv(SEQUENCE, _field(0, tlv(0x0A, b"\0")), _field(1, tlv(_OID, _KERBEROS_OID)))
    )


def certificate_status(size: int, draw: Draw) -> bytes:
    """Return an OCSP answer (RFC 6960) whose kind is one of nobody's (RFC 5612)."""
    kind = tlv(_OID, bytes.fromhex("2b0601040181fd5901"))
    told = _field(0, tlv(SEQUENCE, kind, _filler(size - 30, draw)))
    return tlv(SEQUENCE, tlv(0x0A, b"\0"), told)


def spnego_hint() -> bytes:
    """Return a server's offer of Kerberos and NTLM (MS-SPNG 2.2.1)."""
    kinds = [
        _KERBEROS_OID,
        bytes.fromhex("2a864882f712010202"),
        bytes.fromhex("2b06010401823702020a"),
    ]
    offered = _field(0, tlv(SEQUENCE, *(tlv(_OID, kind) for kind in kinds)))
    hint = _field(
        3, tlv(SEQUENCE, _field(0, tlv(_STRING, b"not_defined_in_RFC4178@please_ignore")))
    )
    return tlv(0x60, tlv(_OID, _SPNEGO_OID), _field(0, tlv(SEQUENCE, offered, hint)))
