"""What features of flows and of host windows both take from the columns of a handshake."""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.tls_numbers import DTLS_VERSIONS
from veilwatch.schema.units import DAY_S

HAS_LEAF: Final = pl.any_horizontal(
    pl.col("cert_not_before_s", "cert_not_after_s", "cert_self_signed").is_not_null()
)
"""Whether a certificate was read; its dates or its names alone may be none."""

CERT_VALIDITY_DAYS: Final = (pl.col("cert_not_after_s") - pl.col("cert_not_before_s")) / DAY_S
"""Length of the validity of the certificate."""

CERT_AGE_DAYS: Final = (pl.col("first_ns") / 1e9 - pl.col("cert_not_before_s")) / DAY_S
"""Age of the certificate when the flow began."""


def tls_number(column: str) -> pl.Expr:
    """Return a version as TLS counts it, for DTLS that of the TLS that it is made of."""
    return pl.col(column).replace(DTLS_VERSIONS)
