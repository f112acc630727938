"""What a server's own certificate says (X.509, RFC 5280). Nothing is validated here.

Malware writes certificates by hand, and so do appliances: names in the wrong character set,
negative serial numbers, dates that are none. So each field is read for itself, and what is wrong
in one loses nothing of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from veilwatch.traffic.handshake.der import (
    BIT_STRING,
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    Element,
    elements,
    inside,
    magnitude,
)
from veilwatch.traffic.handshake.text import MAX_NAME, bounded_text

CACHED_CERTIFICATES: Final = 512
"""Leaves remembered: servers repeat theirs. With at most `HEAD_BYTES` each, 4 MB at worst."""

MAX_NAMES: Final = 256
"""Alternative names that are compared with the SNI; more cannot fit into a head anyway."""

_COMMON_NAME: Final = bytes.fromhex("550403")
_ORGANISATION: Final = bytes.fromhex("55040a")
_SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("551d11")
_DNS_NAME: Final = CONTEXT | 2

_VERSION: Final = CONTEXT | CONSTRUCTED
_EXTENSIONS: Final = CONTEXT | CONSTRUCTED | 3

_UTC_TIME: Final = 0x17
_TIME: Final = re.compile(rb"(\d{8})(\d\d)(\d\d)?(\d\d)?(?:[.,]\d+)?(?:Z|([+-])(\d\d)(\d\d))?")
"""GeneralizedTime (X.680, 46); of UTCTime when its year is written out."""

_ENCODINGS: Final = {0x1C: "utf-32-be", 0x1E: "utf-16-be"}  # UniversalString, BMPString

_RSA: Final = frozenset(map(bytes.fromhex, ("2a864886f70d010101", "2a864886f70d01010a")))  # and PSS
_DSA: Final = bytes.fromhex("2a8648ce380401")
_EC: Final = bytes.fromhex("2a8648ce3d0201")
_FIXED: Final = {bytes.fromhex("2b6570"): ("ed25519", 256), bytes.fromhex("2b6571"): ("ed448", 456)}
_ODD_CURVES: Final = {
    bytes.fromhex(f"2b810400{number:02x}"): bits
    for number, bits in (
        *((1, 163), (15, 163), (16, 283), (17, 283), (26, 233), (27, 233), (35, 521)),
        *((36, 409), (37, 409), (38, 571), (39, 571)),
    )
}
"""Curves (1.3.132.0.…, SEC 2) whose size is no number of whole bytes."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Facts of one certificate; what a malformed certificate does not tell stays empty.

    Attributes
    ----------
    subject, issuer
        Common name, for the issuer else its organisation.
    self_signed
        Whether issuer and subject are the same bytes.
    not_before_s, not_after_s
        Validity in s since 1970.
    alternative_names
        How many there are, of any kind.
    host_names
        The DNS names it covers, lower case: the alternative ones, or else the common name; None if
        they cannot be read.
    subject_fields
        Attributes in the subject.
    key, key_bits
        Kind and size of the public key.
    """

    subject: str = ""
    issuer: str = ""
    self_signed: bool | None = None
    not_before_s: int | None = None
    not_after_s: int | None = None
    alternative_names: int = 0
    host_names: tuple[str, ...] | None = None
    subject_fields: int = 0
    key: str = ""
    key_bits: int = 0

    def covers(self, server_name: str) -> bool | None:
        """Tell whether a name covers `server_name`, wildcards as in RFC 9525, section 6.3."""
        if self.host_names is None or not server_name:
            return None
        wanted = server_name.lower().rstrip(".")
        parent = wanted.partition(".")[2]
        return any(
            name == wanted or (name[:2] == "*." and parent != "" and name[2:] == parent)
            for name in self.host_names
        )


@lru_cache(maxsize=CACHED_CERTIFICATES)
def read_certificate(der: bytes) -> CertificateFacts | None:
    """Read a DER certificate; None if it is none. Never raises for malformed input."""
    signed = inside(der, SEQUENCE, SEQUENCE)
    if signed is None:
        return None
    fields = list(elements(signed))
    if fields and fields[0].tag == _VERSION:
        del fields[0]
    # Serial number, signature algorithm, issuer, validity, subject, key (RFC 5280, section 4.1).
    if [field.tag for field in fields[:3]] != [INTEGER, SEQUENCE, SEQUENCE]:
        return None
    issuer = fields[2]
    validity, subject, key = (_sequence(fields, place) for place in (3, 4, 5))
    subject_attributes = _attributes(subject.content) if subject else []
    common_name = _attribute(subject_attributes, _COMMON_NAME)
    issued_by = _attributes(issuer.content)
    before, after = _validity(validity.content if validity else b"")
    count, hosts = _alternative_names(fields, common_name)
    kind, bits = _key(key.content if key else b"")
    return CertificateFacts(
        subject=bounded_text(common_name),
        issuer=bounded_text(
            _attribute(issued_by, _COMMON_NAME) or _attribute(issued_by, _ORGANISATION)
        ),
        self_signed=issuer.raw == subject.raw if subject else None,
        not_before_s=before,
        not_after_s=after,
        alternative_names=count,
        host_names=hosts,
        subject_fields=min(len(subject_attributes), 255),
        key=kind,
        key_bits=min(bits, 0xFFFF),
    )


def _sequence(fields: list[Element], place: int) -> Element | None:
    found = fields[place] if place < len(fields) else None
    return found if found is not None and found.tag == SEQUENCE else None


def _attributes(name: bytes) -> list[tuple[bytes, Element | None]]:
    """Return type and value of a name's attributes in order (RFC 5280, section 4.1.2.4)."""
    found: list[tuple[bytes, Element | None]] = []
    for group in elements(name):
        for attribute in elements(group.content) if group.tag == SET else ():
            parts = [*elements(attribute.content)]
            if attribute.tag == SEQUENCE and parts and parts[0].tag == OBJECT_IDENTIFIER:
                found.append((parts[0].content, parts[1] if len(parts) > 1 else None))
    return found


def _attribute(attributes: list[tuple[bytes, Element | None]], kind: bytes) -> str:
    """Return the first value of a kind that is not empty."""
    values = (_text(value) for found, value in attributes if found == kind and value is not None)
    return next((value for value in values if value), "")


def _text(value: Element) -> str:
    """Return a string of any type; where it is not in the character set it claims, as Latin-1.

    So T61String and what was copied into a UTF8String as it was are read as they were meant.
    """
    encoding = _ENCODINGS.get(value.tag)
    if encoding is not None:
        return value.content.decode(encoding, "replace")
    try:
        return value.content.decode()
    except UnicodeDecodeError:
        return value.content.decode("latin-1")


def _alternative_names(
    fields: list[Element], common_name: str
) -> tuple[int, tuple[str, ...] | None]:
    values = [value for kind, value in _extensions(fields) if kind == _SUBJECT_ALTERNATIVE_NAME]
    if not values:
        known = 0 < len(common_name) <= MAX_NAME
        return 0, (common_name.lower(),) if known else ()
    content = inside(values[0], SEQUENCE)
    if content is None:
        return 0, None
    names = list(elements(content))
    hosts = [name.content for name in names if name.tag == _DNS_NAME][:MAX_NAMES]
    return min(len(names), 0xFFFF), tuple([host.decode("latin-1").lower() for host in hosts])


def _extensions(fields: list[Element]) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and value of the extensions (RFC 5280, section 4.1.2.9)."""
    for field in fields[6:]:
        content = inside(field.content, SEQUENCE) if field.tag == _EXTENSIONS else None
        for extension in elements(content or b""):
            parts = list(elements(extension.content))
            if len(parts) > 1 and parts[-1].tag == OCTET_STRING:
                yield parts[0].content, parts[-1].content


def _validity(content: bytes) -> tuple[int | None, int | None]:
    times = [_seconds(time) for time in elements(content)]
    times += [None, None]
    return times[0], times[1]


def _seconds(time: Element) -> int | None:
    """Return a UTCTime or GeneralizedTime in s since 1970, None if it is no date."""
    text = time.content
    if time.tag == _UTC_TIME:
        text = (b"20" if text[:2] < b"50" else b"19") + text
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    day, hour, minute, second, sign, hours, minutes = found.groups()
    try:
        moment = datetime.strptime(day.decode(), "%Y%m%d").replace(tzinfo=UTC)
        moment = moment.replace(hour=int(hour), minute=int(minute or 0))
    except ValueError:
        return None
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)).total_seconds()
    seconds = moment.timestamp() + int(second or 0) + (offset if sign == b"-" else -offset)
    return int(seconds)


def _key(content: bytes) -> tuple[str, int]:
    """Return kind and size of a SubjectPublicKeyInfo; '' and 0 for kinds not known here."""
    algorithm = inside(content, SEQUENCE) or b""
    kind, *parameters = [*elements(algorithm), Element(0, b"", b"")]
    place = next((part for part in elements(content) if part.tag == BIT_STRING), None)
    bits = place.content[1:] if place else b""
    if kind.content in _FIXED:
        return _FIXED[kind.content]
    if kind.content in _RSA:
        modulus = inside(bits, SEQUENCE, INTEGER)
        return "rsa", magnitude(modulus or b"")
    if kind.content == _DSA:
        prime = inside(parameters[0].content, INTEGER)
        return "dsa", magnitude(prime or b"")
    if kind.content == _EC:
        return "ec", _ODD_CURVES.get(parameters[0].content) or _point_bits(bits)
    return "", 0


def _point_bits(point: bytes) -> int:
    """Return the size of a point's coordinates, one or two (SEC 1, section 2.3.3)."""
    both = point[:1] == b"\x04"
    return 8 * (max(len(point) - 1, 0) >> both)
