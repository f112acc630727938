"""The question and the answer of one DNS exchange over UDP (RFC 1035, 3596, 6762, 4795).

A datagram may lie: names are bounded by the protocol's own 255 octets and every record takes
bytes of the datagram. Compression pointers are never followed: the first question stands before
everything that it could point to, and the names of records are passed over. So all addresses of an
answer are taken for those of the name asked for, as a chain of aliases (CNAME) ends at them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from veilwatch.schema.addresses import address_text
from veilwatch.traffic.handshake.text import escape

DNS_PORTS: Final = (53, 5353, 5355)
"""Unicast DNS, multicast DNS, LLMNR."""

MAX_NAME: Final = 255
"""Longest name in octets, length octets included (RFC 1035, section 2.3.4)."""

MAX_ADDRESSES: Final = 16
"""Addresses kept of an answer. Clients try the first few; the busiest names are answered with up to
16, and an answer of 512 octets has room for hardly 30."""

_ADDRESS_BYTES: Final = {1: 4, 28: 16}
"""Length of an address by type of record: A (RFC 1035, section 3.4.1), AAAA (RFC 3596)."""

_INTERNET: Final = 1
"""Class of records."""

_OPCODE: Final = 0x7800
"""Bits of the flags that are 0 in questions and answers. Where an answer's records would stand a
dynamic update has its prerequisites (RFC 2136, section 2.4)."""

_FLUSH: Final = 0x8000
"""In the class of multicast records: older ones are to be forgotten (RFC 6762, section 10.2)."""

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
    addresses
        Those among them, in order, at most `MAX_ADDRESSES`.
    """

    identifier: int
    response: bool
    code: int
    name: str = ""
    kind: int = 0
    answers: int = 0
    min_ttl: int = 0
    addresses: list[str] = field(default_factory=list)


def read_dns(data: bytes) -> DnsMessage | None:
    """Read one DNS datagram; None if it has no whole header or a question cannot be read."""
    if len(data) < _HEADER.size:
        return None
    identifier, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    response, code, answers_query = bool(flags & 0x8000), flags & 0x0F, not flags & _OPCODE
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
    addresses: list[str] = []
    for _ in range(answers):
        after = _skip_name(data, offset)
        if after < 0 or after + _RECORD.size > len(data):
            break
        kind, cls, ttl, size = _RECORD.unpack_from(data, after)
        start = after + _RECORD.size
        offset = start + size
        if offset > len(data):
            break
        is_address = cls & ~_FLUSH == _INTERNET and size == _ADDRESS_BYTES.get(kind)
        if answers_query and is_address and len(addresses) < MAX_ADDRESSES:
            addresses.append(address_text(data[start:offset]))
        smallest = ttl if count == 0 else min(smallest, ttl)
        count += 1
    return DnsMessage(identifier, response, code, *first, count, smallest, addresses)


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
