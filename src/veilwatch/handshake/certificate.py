"""What a server's own certificate says (X.509, RFC 5280). Nothing is validated here."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import (
    dsa,
    ec,
    ed448,
    ed25519,
    rsa,
)
from cryptography.x509.oid import ExtensionOID, NameOID

from veilwatch.handshake.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHED_CERTIFICATES: Final = 512
"""Leaves remembered: servers repeat theirs. With at most `HEAD_BYTES` each, 4 MB at worst."""

MAX_NAMES: Final = 256
"""Alternative names that are compared with the SNI; more cannot fit into a head anyway."""

_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for malformed input, as found by damaging certificates."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Facts of one certificate; what a malformed certificate does not tell stays empty.

    Attributes
    ----------
    subject, issuer
        Common name, for the issuer else its organisation.
    self_signed
        Whether issuer and subject are the same name; None if they cannot be read.
    not_before_s, not_after_s
        Validity in s since 1970.
    alternative_names
        How many there are, of any kind.
    host_names
        The DNS names it covers, lower case: the alternative ones, or else the common name.
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
    with _quiet():
        try:
            certificate = x509.load_der_x509_certificate(der)
        except _MALFORMED:
            return None
        subject, issuer, self_signed, fields, common_name = _names(certificate)
        count, hosts = _alternative_names(certificate, common_name)
        before, after = _validity(certificate)
        key, bits = _key(certificate)
    return CertificateFacts(
        subject, issuer, self_signed, before, after, count, hosts, fields, key, bits
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings about strange encodings from the user's screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _names(certificate: x509.Certificate) -> tuple[str, str, bool | None, int, str]:
    try:
        subject, issuer = certificate.subject, certificate.issuer
    except _MALFORMED:
        return "", "", None, 0, ""
    common_name = _attribute(subject, NameOID.COMMON_NAME)
    issued_by = _attribute(issuer, NameOID.COMMON_NAME) or _attribute(
        issuer, NameOID.ORGANIZATION_NAME
    )
    fields = min(len(list(subject)), 255)
    return clean(common_name), clean(issued_by), subject == issuer, fields, common_name


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    for attribute in name.get_attributes_for_oid(oid):
        value = attribute.value
        return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return ""


def _alternative_names(
    certificate: x509.Certificate, common_name: str
) -> tuple[int, tuple[str, ...] | None]:
    try:
        extension = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        )
    except x509.ExtensionNotFound:
        return 0, (common_name.lower(),) if common_name else ()
    except _MALFORMED:
        return 0, None
    names = extension.value
    assert isinstance(names, x509.SubjectAlternativeName)
    hosts = names.get_values_for_type(x509.DNSName)[:MAX_NAMES]
    return min(len(list(names)), 0xFFFF), tuple([host.lower() for host in hosts])


def _validity(certificate: x509.Certificate) -> tuple[int | None, int | None]:
    try:
        return (
            int(certificate.not_valid_before_utc.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
        )
    except (*_MALFORMED, OverflowError):
        return None, None


def _key(certificate: x509.Certificate) -> tuple[str, int]:
    try:
        key = certificate.public_key()
    except _MALFORMED:
        return "", 0
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", min(key.key_size, 0xFFFF)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec", key.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", 256
    if isinstance(key, ed448.Ed448PublicKey):
        return "ed448", 456
    if isinstance(key, dsa.DSAPublicKey):
        return "dsa", min(key.key_size, 0xFFFF)
    return "", 0
