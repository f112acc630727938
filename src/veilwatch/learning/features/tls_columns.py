"""What features of flows and of host windows both take from the columns of a handshake."""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.tls_numbers import DTLS_VERSIONS

HAS_LEAF: Final = pl.any_horizontal(
    pl.col("cert_not_before_s", "cert_not_after_s", "cert_self_signed").is_not_null()
)
"""Whether a certificate was read; its dates or its names alone may be none."""


def tls_number(column: str) -> pl.Expr:
    """Return a version as TLS counts it, for DTLS that of the TLS that it is made of."""
    return pl.col(column).replace(DTLS_VERSIONS)
