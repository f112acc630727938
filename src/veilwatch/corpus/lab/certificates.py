"""Certificates of the lab's servers: real X.509, made on the spot, trusted by nobody.

Sizes repeat by seed, keys do not: RSA keys and signatures have a fixed length, and an ECDSA
signature is made again until it has its most frequent one (RFC 3279 encodes it in DER, where
it takes 70 to 72 bytes for P-256). Everything else of the lab repeats byte by byte.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.names import make_name
from veilwatch.corpus.lab.profile import CertificateKind

ECDSA_BYTES: Final = 71
"""Most frequent length of a DER-encoded ECDSA signature on P-256."""

_KEYS: Final = 4  # an RSA key costs a tenth of a second, so servers share a few

_DEVICES: Final = ["NAS", "printer", "router", "camera", "idrac", "switch", "ups"]

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@cache
def _rsa_key(_number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@cache
def _ec_key(_number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _sign(builder: x509.CertificateBuilder, key: _Key) -> x509.Certificate:
    while True:
        certificate = builder.sign(key, hashes.SHA256())
        if isinstance(key, rsa.RSAPrivateKey) or len(certificate.signature) == ECDSA_BYTES:
            return certificate


def _subject(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, serial: int, start: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial | 1 << 118)  # always 15 octets
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


@cache
def _authority(number: int) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Return the intermediate of a certificate authority and its key."""
    key = _rsa_key(number % _KEYS)
    place = f"Emulated Trust {number}"
    root = _subject((NameOID.ORGANIZATION_NAME, place), (NameOID.COMMON_NAME, f"{place} Root"))
    name = _subject((NameOID.ORGANIZATION_NAME, place), (NameOID.COMMON_NAME, f"{place} TLS CA"))
    start = datetime(2015, 1, 1, tzinfo=UTC)
    builder = _builder(name, root, key, number, start, 9000).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _sign(builder, key), key


def _public_names(name: str, kind: CertificateKind, draw: Draw) -> list[x509.DNSName]:
    """Return what a certificate of a public authority covers."""
    count = {"letsencrypt": 2, "cdn": 60, "private-ca": 1}.get(kind, 12)
    others = draw.count((1, count))
    return [x509.DNSName(name)] + [
        x509.DNSName(f"{draw.randrange(10**4)}.{name}" if kind != "cdn" else make_name(draw))
        for _ in range(others - 1)
    ]


def certify(
    kind: CertificateKind, name: str, day: datetime, draw: Draw
) -> tuple[tuple[bytes, ...], bool]:
    """Return the chain that a server shows, leaf first, in DER, and whether its key is elliptic."""
    elliptic = kind in ("public-ec", "cdn") or (kind != "public-rsa" and draw.chance(0.5))
    key: _Key = _ec_key(draw.randrange(_KEYS)) if elliptic else _rsa_key(draw.randrange(_KEYS))
    serial = draw.getrandbits(112)
    if kind in ("self-signed", "appliance"):
        chain = [_self_signed(kind, name, day, key, serial, draw)]
    else:
        # the first three authorities are public ones, the next three belong to organisations,
        # the last two are automatic ones
        place = {"private-ca": (3, 6), "letsencrypt": (6, 8)}.get(kind, (0, 3))
        issuer, issuer_key = _authority(draw.randrange(*place))
        days = {"private-ca": [365, 825, 1825], "letsencrypt": [90]}.get(kind, [90, 90, 365])
        valid = draw.one(days)
        start = day - timedelta(days=draw.count((1, valid - 20)))
        if kind == "expired":
            start -= timedelta(days=valid + draw.count((1, 400)))
        builder = _builder(
            _subject((NameOID.COMMON_NAME, name)), issuer.subject, key, serial, start, valid
        )
        for extension, critical in (
            (x509.SubjectAlternativeName(_public_names(name, kind, draw)), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        chain = [_sign(builder, issuer_key), issuer]
    return tuple(item.public_bytes(serialization.Encoding.DER) for item in chain), elliptic


def _self_signed(
    kind: CertificateKind, name: str, day: datetime, key: _Key, serial: int, draw: Draw
) -> x509.Certificate:
    """Return a certificate that names itself as issuer; an appliance's names the device."""
    device = kind == "appliance"
    common = f"{draw.one(_DEVICES)}-{draw.randrange(10**6):06}" if device else name
    parts = [(NameOID.COMMON_NAME, common)]
    if draw.chance(0.6):
        parts.insert(0, (NameOID.ORGANIZATION_NAME, name.partition(".")[0].title()))
    if draw.chance(0.4):
        parts.insert(0, (NameOID.COUNTRY_NAME, draw.one(["US", "DE", "TW", "JP", "GB"])))
    subject = _subject(*parts)
    start = day - timedelta(days=draw.count((200, 2500) if device else (1, 700)))
    valid = draw.one([3650, 7300, 9125] if device else [365, 1095, 3650])
    builder = _builder(subject, subject, key, serial, start, valid)
    if draw.chance(0.3 if device else 0.5):
        names = x509.SubjectAlternativeName([x509.DNSName(common)])
        builder = builder.add_extension(names, critical=False)
    return _sign(builder, key)
