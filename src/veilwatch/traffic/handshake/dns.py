"""The question and the answer of one DNS exchange over UDP (RFC 1035, 6762, 4795).

A datagram may lie: names are bounded by the protocol's own 255 octets and every record takes
bytes of the datagram. Compression pointers are never followed: the first question stands before
everything that it could point to, and the names of records are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from veilwatch.traffic.handshake.text import escape

DNS_PORTS: Final = (53, 5353, 5355)
"""Unicast DNS, multicast DNS, LLMNR."""

MAX_NAME: Final = 255
"""Longest name in octets, length octets included (RFC 1035, section 2.3.4)."""

_HEADER: Final = Struct(">6H")
_QUESTION: Final = Struct(">HH")
_RECORD: Final = Struct(">HHIH")


@dataclass(frozen=True, slots=True)
class DnsMessage:
    """One message, as far as it is whole.

    Attributes
    ----------
    name, kind
        First question's name (lower case, escaped, without the last dot) and type; '' and 0 if
        there is none.
    answers
        Answer records that are whole.
    min_ttl
        Smallest TTL among them in seconds, 0 without answers.
    """

    identifier: int
    response: bool
    code: int
    name: str = ""
    kind: int = 0
    answers: int = 0
    min_ttl: int = 0


def read_dns(data: bytes) -> DnsMessage | None:
    """Read one DNS datagram; None if it has no whole header or a question cannot be read."""
    if len(data) < _HEADER.size:
        return None
    identifier, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    response, code = bool(flags & 0x8000), flags & 0x0F
    offset = _HEADER.size
    first: tuple[str, int] = ("", 0)
    for i in range(questions):
        after = _skip_name(data, offset)
        if after < 0 or after + _QUESTION.size > len(data):
            return None
        if i == 0:
            name = _name(data[offset:after])
            if name is None:
                return None
            first = (name, _QUESTION.unpack_from(data, after)[0])
        offset = after + _QUESTION.size
    count, smallest = 0, 0
    for _ in range(answers):
        after = _skip_name(data, offset)
        if after < 0 or after + _RECORD.size > len(data):
            break
        _, _, ttl, size = _RECORD.unpack_from(data, after)
        offset = after + _RECORD.size + size
        if offset > len(data):
            break
        smallest = ttl if count == 0 else min(smallest, ttl)
        count += 1
    return DnsMessage(identifier, response, code, *first, count, smallest)


def _skip_name(data: bytes, offset: int) -> int:
    """Return the offset behind the name at `offset`, -1 if it is malformed or cut."""
    while offset < len(data):
        size = data[offset]
        if size >= 0xC0:
            return offset + 2
        if size > 63:
            return -1
        offset += 1 + size
        if size == 0:
            return offset
    return -1


def _name(encoded: bytes) -> str | None:
    """Return a whole name in lower case, escaped; None if it is too long or has a pointer."""
    if len(encoded) > MAX_NAME or encoded[-1] != 0:
        return None
    labels: list[str] = []
    offset = 0
    while size := encoded[offset]:
        if size > 63:
            return None
        label = encoded[offset + 1 : offset + 1 + size].lower()
        labels.append(escape(label).replace(".", "\\."))
        offset += 1 + size
    return ".".join(labels)
