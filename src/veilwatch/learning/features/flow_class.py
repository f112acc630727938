"""Classes of flows: what can be compared with what.

A score of 0.9 is rare among TLS flows and common among those of a file share: hosts are judged by
the strongest evidence of each class, and never by one scale for all.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import polars as pl

from veilwatch.learning.features.windows import LATERAL
from veilwatch.schema.flows import TLS_SERVICES

FlowClass = Literal["encrypted", "names", "file_sharing", "other", "unanswered"]

FLOW_CLASSES: Final[tuple[FlowClass, ...]] = get_args(FlowClass)
"""Classes in the order of their numbers: with a handshake of TLS, DTLS or QUIC; DNS and its
neighbours; SMB, NFS, remote desktop and the directory; all else; all else without an answer."""

NAME_SERVICES: Final = ("dns", "mdns", "llmnr", "netbios")
FILE_SERVICES: Final = (*LATERAL, "nfs")


def is_encrypted() -> pl.Expr:
    """Whether a flow shows a handshake of TLS, DTLS or QUIC."""
    return (
        (pl.col("tls_client_hello_bytes") > 0)
        | (pl.col("tls_server_hello_bytes") > 0)
        | (pl.col("quic_version") > 0)
        | pl.col("service").is_in(sorted(TLS_SERVICES))
    )


def flow_class() -> pl.Expr:
    """Return the number of each flow's class within `FLOW_CLASSES`, UInt8.

    For frames with the columns `service`, `dns_query`, `bwd_packets`, `quic_version` and the
    lengths of the hellos of a flow table.
    """
    service = pl.col("service")
    number = (
        pl.when(is_encrypted())
        .then(0)
        .when(service.is_in(NAME_SERVICES) | (pl.col("dns_query") != ""))
        .then(1)
        .when(service.is_in(FILE_SERVICES))
        .then(2)
        .when(pl.col("bwd_packets") > 0)
        .then(3)
        .otherwise(4)
    )
    return number.cast(pl.UInt8)
