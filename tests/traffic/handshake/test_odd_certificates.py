"""Certificates that are wrong somewhere: nothing but that is lost."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.handshake.peers import issue, issued
from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.certificate import CertificateFacts, read_certificate
from veilwatch.traffic.handshake.text import CUT, MAX_TEXT

UTF8, PRINTABLE, TELETEX, IA5, BMP, UNIVERSAL = 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x1C
CN, ORGANISATION = "550403", "55040a"


def tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes(4, "big").lstrip(b"\0")
    return bytes([tag, 0x80 | len(size)]) + size + body


def name(*attributes: tuple[str, int, bytes]) -> bytes:
    return tlv(
        0x30,
        *[
            tlv(0x31, tlv(0x30, tlv(6, bytes.fromhex(kind)), tlv(tag, value)))
            for kind, tag, value in attributes
        ],
    )


SUBJECT = name((ORGANISATION, UTF8, b"Example AG"), (CN, UTF8, b"www.example.org"))
ISSUER = name((CN, PRINTABLE, b"Test Root"))
DATES = (tlv(0x17, b"240101000000Z"), tlv(0x18, b"20510101000000Z"))
KEY = tlv(
    0x30,
    tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d010101")), tlv(5)),
    tlv(3, b"\0", tlv(0x30, tlv(2, b"\0\xff" + bytes(255)), tlv(2, b"\1\0\1"))),
)
NAMES = tlv(0x30, tlv(0x82, b"www.example.org"), tlv(0x82, b"*.example.net"), tlv(0x87, bytes(4)))
ALGORITHM = tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d01010b")), tlv(5))


def san(content: bytes) -> bytes:
    return tlv(0x30, tlv(6, bytes.fromhex("551d11")), tlv(4, content))


def certificate(
    *,
    serial: bytes = b"\1",
    issuer: bytes = ISSUER,
    dates: tuple[bytes, ...] = DATES,
    subject: bytes = SUBJECT,
    key: bytes = KEY,
    extensions: tuple[bytes, ...] = (san(NAMES),),
) -> bytes:
    signed = tlv(
        0x30,
        tlv(0xA0, tlv(2, b"\2")),
        tlv(2, serial),
        ALGORITHM,
        issuer,
        tlv(0x30, *dates),
        subject,
        key,
        tlv(0xA3, tlv(0x30, *extensions)),
    )
    return tlv(0x30, signed, ALGORITHM, tlv(3, b"\0" + bytes(64)))


def seconds(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0
) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


USUAL = CertificateFacts(
    subject="www.example.org",
    issuer="Test Root",
    self_signed=False,
    not_before_s=seconds(2024, 1, 1),
    not_after_s=seconds(2051, 1, 1),
    alternative_names=3,
    host_names=("www.example.org", "*.example.net"),
    subject_fields=2,
    key="rsa",
    key_bits=2048,
)


def read(**changes: Any) -> CertificateFacts:
    found = read_certificate(certificate(**changes))
    assert found is not None
    return found


def test_the_usual_one() -> None:
    assert read() == USUAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = x509.load_der_x509_certificate(certificate())
        assert theirs.subject.rfc4514_string() == "CN=www.example.org,O=Example AG"
        assert theirs.not_valid_after_utc == datetime(2051, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tag", "raw", "shown"),
    [
        (UTF8, "Zürich".encode(), "Zürich"),
        (UTF8, "Zürich".encode("latin-1"), "Zürich"),  # what the library refuses, names and all
        (TELETEX, "Zürich".encode("latin-1"), "Zürich"),
        (TELETEX, "Zürich".encode(), "Zürich"),
        (PRINTABLE, b"a*b@c\xe9", "a*b@cé"),
        (IA5, "日本".encode(), "日本"),
        (BMP, "Zürich".encode("utf-16-be"), "Zürich"),
        (BMP, "Zürich".encode("utf-16-be") + b"\0", "Zürich\N{REPLACEMENT CHARACTER}"),
        (BMP, b"\xd8\x00\x00a", "\N{REPLACEMENT CHARACTER}a"),  # half a surrogate pair
        (UNIVERSAL, "日本".encode("utf-32-be"), "日本"),
        (UNIVERSAL, b"\xff\xff\xff\xff", "\N{REPLACEMENT CHARACTER}"),
        (0x04, b"bytes", "bytes"),
        (UTF8, b"", ""),
        (UTF8, b"a\0b\n", "a?b?"),
    ],
)
def test_strings_of_every_kind(tag: int, raw: bytes, shown: str) -> None:
    odd = name((ORGANISATION, UTF8, b"Example AG"), (CN, tag, raw))
    assert asdict(replace(read(subject=odd), subject="")) == asdict(replace(USUAL, subject=""))
    assert read(subject=odd).subject == shown
    issued_by = read(issuer=odd)
    assert issued_by.issuer == (shown or "Example AG")
    assert replace(issued_by, issuer="Test Root") == USUAL
    both = read(subject=odd, issuer=odd)
    assert both.self_signed is True
    assert (both.subject, both.issuer) == (shown, shown or "Example AG")


def test_self_signed_is_told_by_bytes() -> None:
    assert read(issuer=SUBJECT).self_signed is True
    other = name((ORGANISATION, UTF8, b"Example AG"), (CN, PRINTABLE, b"www.example.org"))
    assert read(issuer=other).self_signed is False
    assert read(issuer=name(), subject=name()).self_signed is True
    malformed = tlv(0x30, b"\x31\xff")
    assert read(issuer=malformed, subject=malformed).self_signed is True
    assert read(issuer=malformed).subject == USUAL.subject


def test_attributes_that_repeat_or_are_empty() -> None:
    twice = name((CN, UTF8, b""), (CN, UTF8, b"first"), (CN, UTF8, b"second"))
    assert (read(subject=twice).subject, read(subject=twice).subject_fields) == ("first", 3)
    assert read(subject=name(), extensions=()).host_names == ()
    assert read(issuer=name((ORGANISATION, UTF8, b"Org"))).issuer == "Org"
    many = name(*[(CN, UTF8, b"x")] * 400)
    assert read(subject=many).subject_fields == 255


def test_a_long_name_ends_with_the_mark() -> None:
    long = read(subject=name((CN, UTF8, b"a" * 5000)), extensions=())
    assert long.subject == "a" * MAX_TEXT + CUT
    assert long.covers("a" * 255) is False
    assert read(subject=name((CN, UTF8, b"a" * MAX_TEXT))).subject == "a" * MAX_TEXT


@pytest.mark.parametrize("serial", [b"", b"\xff", b"\x80" * 40, b"\0\0\0"])
def test_serial_numbers_do_not_matter(serial: bytes) -> None:
    assert read(serial=serial) == USUAL


@pytest.mark.parametrize(
    ("time", "found"),
    [
        (tlv(0x17, b"500101000000Z"), seconds(1950, 1, 1)),
        (tlv(0x17, b"491231235959Z"), seconds(2049, 12, 31, 23, 59, 59)),
        (tlv(0x17, b"2401010000Z"), seconds(2024, 1, 1)),
        (tlv(0x17, b"240101020000+0200"), seconds(2024, 1, 1)),
        (tlv(0x17, b"231231230000-0100"), seconds(2024, 1, 1)),
        (tlv(0x18, b"99991231235959Z"), seconds(9999, 12, 31, 23, 59, 59)),
        (tlv(0x18, b"20240101000000.5Z"), seconds(2024, 1, 1)),
        (tlv(0x18, b"20240101000000"), seconds(2024, 1, 1)),
        (tlv(0x18, b"00010101000000Z"), -62135596800),
        (tlv(0x18, b"00000101000000Z"), None),
        (tlv(0x17, b"241301000000Z"), None),
        (tlv(0x17, b"240230000000Z"), None),
        (tlv(0x17, b"240101250000Z"), None),
        (tlv(0x17, b"now"), None),
        (tlv(0x17), None),
        (tlv(0x02, b"\1"), None),
    ],
)
def test_dates(time: bytes, found: int | None) -> None:
    assert read(dates=(time, DATES[1])) == replace(USUAL, not_before_s=found)
    assert read(dates=(DATES[0], time)) == replace(USUAL, not_after_s=found)
    assert read(dates=(time,)) == replace(USUAL, not_before_s=found, not_after_s=None)


@pytest.mark.parametrize(
    ("extensions", "count", "hosts"),
    [
        ((san(NAMES), san(tlv(0x30))), 3, USUAL.host_names),  # twice: the library refuses
        ((tlv(0x30, tlv(6, b"\x2a")), san(NAMES)), 3, USUAL.host_names),
        ((tlv(4, b"x"), san(NAMES)), 3, USUAL.host_names),
        ((san(tlv(0x30, tlv(0x82, b"caf\xe9.example"), b"\x82\x50cut")),), 1, ("café.example",)),
        ((san(b"\x05\x00"),), 0, None),
        ((san(tlv(0x30)),), 0, ()),
        ((), 0, ("www.example.org",)),
    ],
)
def test_alternative_names(
    extensions: tuple[bytes, ...], count: int, hosts: tuple[str, ...] | None
) -> None:
    found = read(extensions=extensions)
    assert found == replace(USUAL, alternative_names=count, host_names=hosts)


def test_keys_against_the_library() -> None:
    keys = [
        *(ec.generate_private_key(curve) for curve in (ec.SECP521R1(), ec.SECP256K1())),
        ec.generate_private_key(ec.BrainpoolP384R1()),
        rsa.generate_private_key(65537, 1024),
        dsa.generate_private_key(2048),
        ed448.Ed448PrivateKey.generate(),
    ]
    kinds = [("ec", 521), ("ec", 256), ("ec", 384), ("rsa", 1024), ("dsa", 2048), ("ed448", 456)]
    spki = [public_key(key) for key in keys]
    assert [(read(key=s).key, read(key=s).key_bits) for s in spki] == kinds


def public_key(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    "key", [tlv(0x30), tlv(0x30, ALGORITHM), tlv(0x30, ALGORITHM, tlv(3)), b""]
)
def test_a_key_that_is_none(key: bytes) -> None:
    found = read(key=key)
    if key:
        assert found == replace(USUAL, key="", key_bits=0)
    assert found.subject == USUAL.subject


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"\x30\x80", tlv(0x30), tlv(0x30, tlv(0x30)), b"\1" * 99]
)
def test_what_is_no_certificate(der: bytes) -> None:
    assert read_certificate(der) is None


@examples(400)
@given(st.data())
def test_a_changed_value_loses_nothing_else(data: st.DataObject) -> None:
    """Any bytes within the values of names, of dates and of the key."""
    raw = data.draw(st.binary(max_size=60))
    tag = data.draw(st.integers(0, 30))
    place = data.draw(st.sampled_from(["subject", "not_before", "key", "names"]))
    if place == "subject":
        found = read(subject=name((ORGANISATION, UTF8, b"Example AG"), (CN, tag, raw)))
        assert replace(found, subject=USUAL.subject) == USUAL
    elif place == "not_before":
        found = read(dates=(tlv(tag, raw), DATES[1]))
        assert replace(found, not_before_s=USUAL.not_before_s) == USUAL
    elif place == "key":
        found = read(key=tlv(0x30, raw))
        assert replace(found, key="rsa", key_bits=2048) == USUAL
    else:
        found = read(extensions=(san(raw),))
        assert replace(found, alternative_names=3, host_names=USUAL.host_names) == USUAL


def test_an_odd_certificate_in_a_handshake() -> None:
    """Its columns, and features that ask for a leaf, know it although its dates are none."""
    odd = name((CN, UTF8, "Zürich".encode("latin-1")))
    der = certificate(issuer=odd, subject=odd, dates=(tlv(0x17, b"x"), tlv(0x17, b"y")))
    listed = len(der).to_bytes(3, "big") + der
    body = len(listed).to_bytes(3, "big") + listed
    message = b"\x0b" + len(body).to_bytes(3, "big") + body
    server = b"\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\0\xc0\x2f\0" + message
    stream = b"\x16\x03\x03" + len(server).to_bytes(2, "big") + server
    found = read_heads(head(b"", stream)).row(0, named=True)
    assert (found["cert_subject"], found["cert_issuer"]) == ("Zürich", "Zürich")
    assert found["cert_self_signed"] is True
    assert found["cert_not_before_s"] is None
    assert (found["cert_key"], found["cert_key_bits"], found["cert_names"]) == ("rsa", 2048, 3)


def test_real_ones_agree_with_the_library() -> None:
    for der in (*issued().der, issue(["a.example", "b.example"]).der[0]):
        theirs, ours = x509.load_der_x509_certificate(der), read_certificate(der)
        assert ours is not None
        assert ours.not_before_s == theirs.not_valid_before_utc.timestamp()
        assert ours.not_after_s == theirs.not_valid_after_utc.timestamp()
        assert ours.self_signed is (theirs.issuer == theirs.subject)
        assert ours.subject_fields == len(list(theirs.subject))
