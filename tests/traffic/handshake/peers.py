"""Real handshakes for tests: OpenSSL on both sides, joined by memory instead of a network."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

NOT_BEFORE = datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(2044, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Identity:
    key: Key
    chain: tuple[x509.Certificate, ...]

    @property
    def der(self) -> tuple[bytes, ...]:
        return tuple(c.public_bytes(serialization.Encoding.DER) for c in self.chain)


@dataclass(frozen=True)
class Handshake:
    """What went over the wire each way, and what OpenSSL says was agreed."""

    client: bytes
    server: bytes
    version: str
    cipher: str
    alpn: str


def issue(
    names: list[str],
    *,
    key: Key | None = None,
    issuer: Identity | None = None,
    subject: dict[x509.ObjectIdentifier, str] | None = None,
    alternatives: bool = True,
) -> Identity:
    """A certificate for `names`, self-signed without an `issuer`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = subject or {NameOID.COMMON_NAME: names[0]}
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in subject.items()])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.chain[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
    )
    if alternatives:
        entries = [x509.DNSName(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    signer = issuer.key if issuer else key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(key, (builder.sign(signer, digest), *(issuer.chain if issuer else ())))


@cache
def self_signed() -> Identity:
    return issue(["plain.example"])


@cache
def issued() -> Identity:
    authority = issue(["Test Root"], key=rsa.generate_private_key(65537, 2048))
    subject = {
        NameOID.COUNTRY_NAME: "CH",
        NameOID.ORGANIZATION_NAME: "Example AG",
        NameOID.COMMON_NAME: "www.example.org",
    }
    return issue(["www.example.org", "*.cdn.example.org"], issuer=authority, subject=subject)


def shake(
    identity: Identity,
    *,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    server_name: str | None = "www.example.org",
    client_alpn: tuple[str, ...] = (),
    server_alpn: tuple[str, ...] = (),
    server_curve: str = "",
) -> Handshake:
    """Shake hands for real. `server_curve` makes a TLS 1.3 server ask for another key share."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client_context.maximum_version = version
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.maximum_version = version
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "identity.pem"
        pem.write_bytes(
            identity.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in identity.chain)
        )
        server_context.load_cert_chain(pem)
    if client_alpn:
        client_context.set_alpn_protocols(list(client_alpn))
    if server_alpn:
        server_context.set_alpn_protocols(list(server_alpn))
    if server_curve:
        server_context.set_ecdh_curve(server_curve)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=server_name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    sent = [b"", b""]
    done = [False, False]
    while not all(done):
        for i, (side, out, into) in enumerate(
            ((client, to_server, to_server), (server, to_client, to_client))
        ):
            if not done[i]:
                try:
                    side.do_handshake()
                    done[i] = True
                except ssl.SSLWantReadError:
                    pass
            flight = out.read()
            sent[i] += flight
            into.write(flight)
    cipher = client.cipher()
    assert cipher is not None
    return Handshake(
        sent[0],
        sent[1],
        client.version() or "",
        cipher[0],
        client.selected_alpn_protocol() or "",
    )
