"""Features of a host window's handshakes: TLS context, and the names asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, feature
from veilwatch.learning.features.tls_columns import CERT_VALIDITY_DAYS, HAS_LEAF, tls_number
from veilwatch.learning.features.tls_numbers import EPHEMERAL, WEAK
from veilwatch.learning.features.windows import WINDOW

NXDOMAIN: Final = 3
TUNNEL_TYPES: Final = (10, 16)
"""NULL and TXT: answers that hold anything."""

HAS_HELLO: Final = pl.col("tls_client_hello_bytes") > 0
IS_ANSWERED: Final = pl.col("tls_server_hello_bytes") > 0
ASKS: Final = pl.col("dns_query") != ""

TLS: Final[tuple[Feature, ...]] = (
    feature("tls_hellos", HAS_HELLO.sum(), "", "Flows with a ClientHello"),
    feature(
        "tls_unnamed_share",
        (pl.col("tls_sni") == "").filter(HAS_HELLO).mean(),
        "",
        "Share of ClientHellos without a server name",
    ),
    feature(
        "tls_clients",
        pl.col("ja4").filter(HAS_HELLO).n_unique(),
        "",
        "Distinct ClientHellos by JA4",
    ),
    feature(
        "tls_clients_ja3",
        pl.col("ja3").filter(HAS_HELLO).n_unique(),
        "",
        "Distinct ClientHellos by JA3",
    ),
    feature(
        "tls_servers", pl.col("ja3s").filter(IS_ANSWERED).n_unique(), "", "Distinct ServerHellos"
    ),
    feature(
        "tls_unanswered_share",
        (~IS_ANSWERED).filter(HAS_HELLO).mean(),
        "",
        "Share of ClientHellos that no ServerHello answered",
    ),
    feature(
        "tls_old_share",
        (tls_number("tls_version") < 0x0303).filter(IS_ANSWERED).mean(),
        "",
        "Share of handshakes that chose a version below TLS 1.2",
    ),
    feature(
        "tls_no_forward_secrecy_share",
        (~pl.col("tls_cipher").is_in(EPHEMERAL)).filter(IS_ANSWERED).mean(),
        "",
        "Share of handshakes whose cipher is neither DHE, ECDHE nor of TLS 1.3",
    ),
    feature(
        "tls_weak_offer_share",
        pl.col("tls_ciphers")
        .list.eval(pl.element().is_in(WEAK))
        .list.any()
        .filter(HAS_HELLO)
        .mean(),
        "",
        "Share of ClientHellos that offer RC4, DES or export ciphers",
    ),
    feature(
        "tls_alpn_share",
        (pl.col("tls_alpn").list.len() > 0).filter(HAS_HELLO).mean(),
        "",
        "Share of ClientHellos with ALPN",
    ),
    feature(
        "tls_hello_bytes_mean",
        pl.col("tls_client_hello_bytes").filter(HAS_HELLO).mean(),
        "bytes",
        "Mean length of ClientHellos",
    ),
    feature(
        "tls_self_signed_share",
        pl.col("cert_self_signed").filter(HAS_LEAF).mean(),
        "",
        "Share of certificates that name themselves as issuer",
    ),
    feature(
        "tls_mismatch_share",
        (~pl.col("cert_matches_sni")).filter(HAS_LEAF).mean(),
        "",
        "Share of certificates that do not cover the name asked for",
    ),
    feature(
        "tls_validity_days_mean",
        CERT_VALIDITY_DAYS.filter(HAS_LEAF).mean(),
        "d",
        "Mean validity of certificates",
    ),
)
"""Aggregations over the flows of a window."""

DNS: Final[tuple[Feature, ...]] = (
    feature("dns_queries", ASKS.sum(), "", "Flows with a DNS question"),
    feature(
        "dns_nxdomain_share",
        (pl.col("dns_response_code") == NXDOMAIN).filter(ASKS).mean(),
        "",
        "Share of DNS questions for names that do not exist",
    ),
    feature(
        "dns_unanswered_share",
        (pl.col("dns_response_code") < 0).filter(ASKS).mean(),
        "",
        "Share of DNS questions without an answer",
    ),
    feature(
        "dns_free_text_share",
        pl.col("dns_query_type").is_in(TUNNEL_TYPES).filter(ASKS).mean(),
        "",
        "Share of DNS questions for TXT or NULL records",
    ),
    feature(
        "dns_answers_mean",
        pl.col("dns_answers").filter(ASKS & (pl.col("dns_response_code") == 0)).mean(),
        "",
        "Mean records in DNS answers without an error",
    ),
    feature(
        "dns_min_ttl_mean",
        pl.col("dns_min_ttl").filter(pl.col("dns_answers") > 0).mean(),
        "s",
        "Mean smallest TTL of DNS answers",
    ),
)
"""Aggregations over the flows of a window."""


def _name_features(name: str, words: str) -> tuple[Feature, ...]:
    return (
        feature(f"{name}_names", pl.len(), "", f"Distinct {words}"),
        feature(
            f"{name}_domains",
            pl.col("domain").n_unique(),
            "",
            f"Distinct last two labels of {words}",
        ),
        feature(
            f"{name}_names_in_domain",
            pl.col("domain").unique_counts().max(),
            "",
            f"Most {words} that share their last two labels",
        ),
        feature(
            f"{name}_length_mean", pl.col("length").mean(), "", f"Mean length of distinct {words}"
        ),
        feature(
            f"{name}_length_max", pl.col("length").max(), "", f"Longest length of distinct {words}"
        ),
        feature(
            f"{name}_entropy_mean",
            pl.col("entropy").mean(),
            "bit",
            f"Mean entropy of the characters of the longest label of {words}",
        ),
        feature(
            f"{name}_entropy_max",
            pl.col("entropy").max(),
            "bit",
            f"Largest entropy of the characters of the longest label of {words}",
        ),
        feature(
            f"{name}_digit_share",
            pl.col("digits").mean(),
            "",
            f"Mean share of digits in the longest label of {words}",
        ),
        feature(
            f"{name}_vowel_share",
            pl.col("vowels").mean(),
            "",
            f"Mean share of vowels in the longest label of {words}",
        ),
        feature(
            f"{name}_random_share",
            pl.col("is_random").mean(),
            "",
            f"Share of {words} that look generated: a longest label of 8 characters or more with "
            "five consonants in a row, under a fifth vowels, or more than a quarter digits",
        ),
    )


NAMES: Final[dict[str, tuple[Feature, ...]]] = {
    "dns_query": _name_features("dns", "names asked for"),
    "tls_sni": _name_features("tls", "server names"),
}
"""Aggregations over the distinct names of a window, by the column that holds them."""


def window_names(flows: pl.DataFrame, column: str) -> pl.LazyFrame:
    """Return each distinct name of each window with what its characters look like.

    Returns
    -------
    polars.LazyFrame
        `WINDOW`, `domain` (last two labels), `length`, and of the longest label (the first of
        several) `entropy`, `digits`, `vowels` (shares) and `is_random`. Case does not matter.
    """
    text = pl.col(column).str.to_lowercase().str.strip_chars_end(".")
    label = pl.col("label")
    size = label.str.len_chars()
    names = (
        flows.lazy()
        .select(*WINDOW, name=text)
        .filter(pl.col("name") != "")
        .unique(maintain_order=True)
    )
    parts = pl.col("name").str.split(".")
    lengths = parts.list.eval(pl.element().str.len_chars())
    told = (
        names.select("name")
        .unique()
        .with_columns(
            domain=parts.list.tail(2).list.join("."),
            length=pl.col("name").str.len_chars(),
            label=parts.list.get(lengths.list.arg_max()),
        )
        .with_columns(
            entropy=label.str.split("")
            .list.eval(pl.element().unique_counts().entropy(base=2, normalize=True))
            .list.first(),
            digits=label.str.count_matches("[0-9]") / size,
            vowels=label.str.count_matches("[aeiou]") / size,
            run=label.str.contains("[bcdfghjklmnpqrstvwxz]{5}"),
        )
        .with_columns(
            is_random=(size >= 8)
            & (pl.col("run") | (pl.col("vowels") < 0.2) | (pl.col("digits") > 0.25))
        )
    )
    return names.join(told, on="name", how="left", maintain_order="left")


def name_features(flows: pl.DataFrame) -> Iterable[pl.LazyFrame]:
    """Return the features of names, one frame for each column of `NAMES`."""
    for column, features in NAMES.items():
        yield (
            window_names(flows, column).group_by(WINDOW).agg(item.expression for item in features)
        )
