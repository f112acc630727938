"""Features of what a flow says before it goes dark: service, TLS, certificate, DNS."""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, feature, ratio
from veilwatch.learning.features.tls_columns import (
    CERT_AGE_DAYS,
    CERT_VALIDITY_DAYS,
    HAS_LEAF,
    tls_number,
)
from veilwatch.learning.features.tls_numbers import CIPHERS, EPHEMERAL, EXTENSIONS, GREASE
from veilwatch.traffic.handshake import SERVICES


def _length(column: str) -> pl.Expr:
    return pl.col(column).list.len()


def _is_client(value: pl.Expr) -> pl.Expr:
    """Null where no ClientHello was seen."""
    return pl.when(pl.col("tls_client_hello_bytes") > 0).then(value)


def _is_server(value: pl.Expr) -> pl.Expr:
    """Null where no ServerHello was seen."""
    return pl.when(pl.col("tls_server_hello_bytes") > 0).then(value)


def _has_leaf(value: pl.Expr) -> pl.Expr:
    """Null where no certificate could be read: of a chain that was cut the leaf still counts."""
    return pl.when(HAS_LEAF).then(value)


def name_features(name: str, column: str, words: str) -> list[Feature]:
    """Describe a name without holding it: how long, how it is built, how random it looks."""
    # Lower case: resolvers that mix cases at random (DNS 0x20) say nothing of the name.
    text = pl.col(column).str.to_lowercase()
    length = text.str.len_chars()
    named = length > 0

    def described(value: pl.Expr) -> pl.Expr:
        return pl.when(named).then(value)

    label = text.str.split(".").list.eval(pl.element().str.len_chars()).list.max()
    return [
        feature(f"{name}_length", described(length), "", f"Characters of {words}"),
        feature(
            f"{name}_labels",
            described(text.str.count_matches(".", literal=True) + 1),
            "",
            f"Labels of {words}",
        ),
        feature(f"{name}_longest_label", described(label), "", f"Longest label of {words}"),
        feature(
            f"{name}_digit_share",
            described(ratio(text.str.count_matches(r"[0-9]"), length)),
            "",
            f"Share of digits in {words}",
        ),
        feature(
            f"{name}_vowel_share",
            described(ratio(text.str.count_matches(r"[aeiou]"), length)),
            "",
            f"Share of vowels in {words}",
        ),
        feature(
            f"{name}_consonant_run",
            described(
                text.str.extract_all(r"[bcdfghjklmnpqrstvwxz]{4,}")
                .list.eval(pl.element().str.len_chars())
                .list.max()
                .fill_null(0)
            ),
            "",
            f"Longest run of four or more consonants in {words}",
        ),
    ]


HANDSHAKE_FEATURES: Final[tuple[Feature, ...]] = (
    *[
        feature(f"service_{name}", pl.col("service") == name, "", f"First bytes look like {name}")
        for name in SERVICES
        if name
    ],
    feature("service_unknown", pl.col("service") == "", "", "First bytes look like nothing known"),
    feature("tls_version", _is_server(tls_number("tls_version")), "", "TLS version chosen"),
    feature(
        "tls_client_version",
        _is_client(tls_number("tls_client_version")),
        "",
        "Highest TLS version offered",
    ),
    feature(
        "tls_record_version",
        # QUIC carries TLS without records.
        _is_client(tls_number("tls_record_version").replace(0, None)),
        "",
        "Version in the client's first record",
    ),
    feature(
        "tls_client_hello_bytes",
        _is_client(pl.col("tls_client_hello_bytes")),
        "bytes",
        "Length of the ClientHello",
    ),
    feature(
        "tls_server_hello_bytes",
        _is_server(pl.col("tls_server_hello_bytes")),
        "bytes",
        "Length of the ServerHello",
    ),
    feature(
        "tls_session_id_bytes",
        _is_client(pl.col("tls_session_id_bytes")),
        "bytes",
        "Length of the client's session id",
    ),
    feature("tls_ciphers", _is_client(_length("tls_ciphers")), "", "Cipher suites offered"),
    feature("tls_extensions", _is_client(_length("tls_extensions")), "", "Client extensions"),
    feature("tls_groups", _is_client(_length("tls_groups")), "", "Groups offered"),
    feature(
        "tls_point_formats",
        _is_client(_length("tls_point_formats")),
        "",
        "EC point formats offered",
    ),
    feature(
        "tls_signature_algorithms",
        _is_client(_length("tls_signature_algorithms")),
        "",
        "Signature algorithms offered",
    ),
    feature("tls_alpn", _is_client(_length("tls_alpn")), "", "Protocols offered by ALPN"),
    feature(
        "tls_alpn_h2", _is_client(pl.col("tls_alpn").list.contains("h2")), "", "HTTP/2 is offered"
    ),
    feature("tls_has_sni", _is_client(pl.col("tls_sni") != ""), "", "A server name is asked for"),
    feature(
        "tls_grease",
        _is_client(pl.col("tls_ciphers").list.eval(pl.element().is_in(GREASE)).list.any()),
        "",
        "The client offers reserved values (RFC 8701)",
    ),
    *[
        feature(
            f"tls_offers_{number:04x}",
            _is_client(pl.col("tls_ciphers").list.contains(pl.lit(number, pl.UInt16))),
            "",
            f"The client offers {name}",
        )
        for number, name in CIPHERS.items()
    ],
    *[
        feature(
            f"tls_extension_{number:04x}",
            _is_client(pl.col("tls_extensions").list.contains(pl.lit(number, pl.UInt16))),
            "",
            f"The client sends the extension {name}",
        )
        for number, name in EXTENSIONS.items()
    ],
    feature(
        "tls_cipher_forward_secret",
        _is_server(pl.col("tls_cipher").is_in(EPHEMERAL)),
        "",
        "The cipher chosen is DHE, ECDHE or of TLS 1.3",
    ),
    feature(
        "tls_server_extensions",
        _is_server(_length("tls_server_extensions")),
        "",
        "Server extensions",
    ),
    feature(
        "tls_server_alpn",
        _is_server(pl.col("tls_server_alpn") != ""),
        "",
        "The server chose a protocol by ALPN",
    ),
    feature(
        "tls_unanswered",
        _is_client(pl.col("tls_server_hello_bytes") == 0),
        "",
        "No ServerHello answered the ClientHello",
    ),
    feature("cert_count", _is_server(pl.col("cert_count")), "", "Certificates shown in clear"),
    feature(
        "cert_chain_bytes",
        pl.when(pl.col("cert_chain_bytes") > 0).then(pl.col("cert_chain_bytes")),
        "bytes",
        "Length of the certificate chain",
    ),
    feature(
        "cert_self_signed",
        _has_leaf(pl.col("cert_self_signed")),
        "",
        "The certificate names itself as issuer",
    ),
    feature(
        "cert_validity_days",
        _has_leaf(CERT_VALIDITY_DAYS),
        "d",
        "Length of the certificate's validity",
    ),
    feature(
        "cert_age_days",
        _has_leaf(CERT_AGE_DAYS),
        "d",
        "Age of the certificate at the time of the flow",
    ),
    feature(
        "cert_names", _has_leaf(pl.col("cert_names")), "", "Alternative names in the certificate"
    ),
    feature(
        "cert_subject_fields",
        _has_leaf(pl.col("cert_subject_fields")),
        "",
        "Attributes in the certificate's subject",
    ),
    feature("cert_key_bits", _has_leaf(pl.col("cert_key_bits")), "bit", "Size of the key"),
    feature("cert_key_rsa", _has_leaf(pl.col("cert_key") == "rsa"), "", "The key is RSA"),
    feature(
        "cert_matches_sni",
        _has_leaf(pl.col("cert_matches_sni")),
        "",
        "The certificate covers the name asked for",
    ),
    feature(
        "cert_subject_length",
        _has_leaf(pl.col("cert_subject").str.len_chars()),
        "",
        "Characters of the certificate's common name",
    ),
    *name_features("sni", "tls_sni", "the server name"),
    *name_features("dns", "dns_query", "the name asked for"),
    feature(
        "dns_query_type",
        pl.when(pl.col("dns_query") != "").then(pl.col("dns_query_type")),
        "",
        "Type of the DNS question",
    ),
    feature(
        "dns_response_code",
        pl.when(pl.col("dns_query") != "").then(pl.col("dns_response_code")),
        "",
        "RCODE of the DNS answer, -1 unanswered",
    ),
    feature(
        "dns_answers",
        pl.when(pl.col("dns_query") != "").then(pl.col("dns_answers")),
        "",
        "Records in the DNS answer",
    ),
    feature(
        "dns_min_ttl",
        pl.when(pl.col("dns_answers") > 0).then(pl.col("dns_min_ttl")),
        "s",
        "Smallest TTL of the DNS answer",
    ),
)
