"""Certificate facts against certificates made for the purpose."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.handshake.peers import NOT_AFTER, NOT_BEFORE, issue, issued, self_signed, shake
from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.certificate import (
    CACHED_CERTIFICATES,
    CertificateFacts,
    read_certificate,
)


def leaf(*args: Any, **options: Any) -> CertificateFacts:
    found = read_certificate(issue(*args, **options).der[0])
    assert found is not None
    return found


def test_a_chain_in_a_handshake() -> None:
    shaken = shake(issued(), server_name="img.cdn.example.org")
    found = read_heads(head(shaken.client, shaken.server)).row(0, named=True)
    assert found["cert_count"] == 2
    assert found["cert_chain_bytes"] == sum(len(der) + 3 for der in issued().der)
    assert found["cert_subject"] == "www.example.org"
    assert found["cert_issuer"] == "Test Root"
    assert found["cert_self_signed"] is False
    assert found["cert_not_before_s"] == NOT_BEFORE.timestamp()
    assert found["cert_not_after_s"] == NOT_AFTER.timestamp()
    assert found["cert_names"] == 2
    assert found["cert_subject_fields"] == 3
    assert (found["cert_key"], found["cert_key_bits"]) == ("ec", 256)
    assert found["cert_matches_sni"] is True


def test_a_self_signed_certificate_for_another_name() -> None:
    shaken = shake(self_signed(), server_name="www.example.org")
    found = read_heads(head(shaken.client, shaken.server)).row(0, named=True)
    assert found["cert_count"] == 1
    assert found["cert_self_signed"] is True
    assert found["cert_matches_sni"] is False


def test_a_leaf_is_read_though_its_chain_was_cut() -> None:
    shaken = shake(issued())
    whole = read_heads(head(shaken.client, shaken.server)).row(0, named=True)
    end = shaken.server.index(issued().der[1]) + 10
    cut = read_heads(head(shaken.client, shaken.server[:end])).row(0, named=True)
    assert cut["cert_count"] == 0
    assert cut["cert_subject"] == whole["cert_subject"]
    assert cut["cert_chain_bytes"] == whole["cert_chain_bytes"]


def test_keys() -> None:
    for key, kind, bits in (
        (rsa.generate_private_key(65537, 2048), "rsa", 2048),
        (ec.generate_private_key(ec.SECP384R1()), "ec", 384),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519", 256),
    ):
        found = leaf(["a.example"], key=key)
        assert (found.key, found.key_bits) == (kind, bits)


def test_wildcards_cover_one_label() -> None:
    found = leaf(["*.Example.org", "x.example"])
    assert found.covers("WWW.example.org.") is True
    assert found.covers("example.org") is False
    assert found.covers("a.b.example.org") is False
    assert found.covers("x.example") is True
    assert found.covers("") is None
    assert leaf(["*."]).covers("a") is False


def test_the_common_name_counts_only_without_alternative_names() -> None:
    assert leaf(["a.example"], alternatives=False).covers("a.example") is True
    subject = {NameOID.COMMON_NAME: "b.example"}
    assert leaf(["a.example"], subject=subject).covers("b.example") is False


def test_an_issuer_without_common_name_gives_its_organisation() -> None:
    found = leaf(["a.example"], subject={NameOID.ORGANIZATION_NAME: "Some Org"})
    assert (found.subject, found.issuer) == ("", "Some Org")


def test_names_are_safe_to_print() -> None:
    found = leaf(["a.example"], subject={NameOID.COMMON_NAME: "x\x1b[2J\nу"})
    assert found.subject == "x?[2J?у"


@examples(300)
@given(st.data())
def test_damaged_certificates_never_raise(data: st.DataObject) -> None:
    der = bytearray(issued().der[0])
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    found = read_certificate(bytes(der))
    if found is not None:
        found.covers("www.example.org")


def test_the_memory_of_certificates_is_bounded() -> None:
    for i in range(CACHED_CERTIFICATES + 100):
        read_certificate(i.to_bytes(4, "big"))
    assert read_certificate.cache_info().currsize == CACHED_CERTIFICATES
