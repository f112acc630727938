"""Certificates of the lab's servers: real X.509, made on the spot, trusted by nobody.

Sizes repeat by seed, keys do not: RSA keys and signatures have a fixed length, and an ECDSA
signature is made again until it has its most frequent one (RFC 3279 encodes it in DER, where
it takes 70 to 72 bytes for P-256).
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import CertificateKind

ECDSA_BYTES: Final = 71
"""Most frequent length of a DER-encoded ECDSA signature on P-256."""

_RSA_KEYS: Final = 4  # a key costs a tenth of a second, so servers share a few

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@cache
def _rsa_key(_number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


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
    key = _rsa_key(number % _RSA_KEYS)
    place = f"Emulated Trust {number}"
    root = _subject((NameOID.ORGANIZATION_NAME, place), (NameOID.COMMON_NAME, f"{place} Root"))
    name = _subject((NameOID.ORGANIZATION_NAME, place), (NameOID.COMMON_NAME, f"{place} TLS CA"))
    start = datetime(2015, 1, 1, tzinfo=UTC)
    builder = _builder(name, root, key, number, start, 9000).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _sign(builder, key), key


def _certify(
    kind: CertificateKind, name: str, day: datetime, draw: Draw
) -> tuple[list[x509.Certificate], _Key]:
    """Return the chain that a server shows (leaf first) and the leaf's key."""
    elliptic = kind == "public-ec" or (kind != "public-rsa" and draw.chance(0.5))
    key: _Key = (
        ec.generate_private_key(ec.SECP256R1()) if elliptic else _rsa_key(draw.randrange(_RSA_KEYS))
    )
    serial = draw.getrandbits(112)
    if kind == "self-signed":
        parts = [(NameOID.COMMON_NAME, name)]
        if draw.chance(0.6):
            parts.insert(0, (NameOID.ORGANIZATION_NAME, name.partition(".")[0].title()))
        if draw.chance(0.4):
            parts.insert(0, (NameOID.COUNTRY_NAME, draw.one(["US", "DE", "TW", "JP", "GB"])))
        subject = _subject(*parts)
        start = day - timedelta(days=draw.count((1, 700)))
        builder = _builder(subject, subject, key, serial, start, draw.one([365, 1095, 3650]))
        if draw.chance(0.5):
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
            )
        return [_sign(builder, key)], key
    # the first three authorities are public ones, the next three belong to organisations
    issuer, issuer_key = _authority(draw.randrange(3) + (3 if kind == "private-ca" else 0))
    days = draw.one([365, 825, 1825]) if kind == "private-ca" else draw.one([90, 90, 365])
    start = day - timedelta(days=draw.count((1, days - 20)))
    others = draw.count((1, 12)) if kind != "private-ca" else 1
    names = [x509.DNSName(name)] + [
        x509.DNSName(f"{draw.randrange(10**4)}.{name}") for _ in range(others - 1)
    ]
    builder = (
        _builder(_subject((NameOID.COMMON_NAME, name)), issuer.subject, key, serial, start, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return [_sign(builder, issuer_key), issuer], key


def load_certificate(
    context: ssl.SSLContext, kind: CertificateKind, name: str, day: datetime, draw: Draw
) -> bool:
    """Give `context` a new certificate for `name`, valid on `day`.

    Returns
    -------
    bool
        Whether its key signs with ECDSA, where the length of signatures varies.
    """
    chain, key = _certify(kind, name, day, draw)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # the ssl module takes certificates from files only
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pem)
        for certificate in chain:
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return isinstance(key, ec.EllipticCurvePrivateKey)
