"""From flows to host windows: who, when, and what each flow adds.

A host is an initiator's address and subscriber within one place: inputs that are read together are
one place, however many files or interfaces they come from. Its windows begin with its first flow
and not with the clock: a capture that is shifted in time gives the same windows, a capture of four
minutes gives one and not two. A flow belongs to the window in which it starts, with all that it
brings until its end; flows are cut into records of at most the active timeout, 30 minutes. There
are at most as many windows as flows.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.schema.flow_facts import HOST_COLUMNS
from veilwatch.schema.flows import FILE_MESSAGES
from veilwatch.schema.units import MINUTE_NS, SECOND_NS

HOST: Final = HOST_COLUMNS
"""A host is the initiator's address; two subscribers with one address are two."""

PLACE: Final = "place"
"""Column of those who put captures of different places into one table, as a labelled corpus does: a
host of one place is no host of another. Without it all flows are of one place, whatever file or
interface their packets came from."""

WINDOW: Final = ("host", "window")
"""A window is the number of its host and how many windows after the host's first flow it began."""

PAIR: Final = ("host", "pair")
"""A host, and address, port and protocol of a service that it talks to."""

WINDOW_NS: Final = 5 * MINUTE_NS
"""Length of a window: a beacon that calls once a minute shows five times in it."""

BEGAN: Final = "host_began_ns"
"""Column of those who do not keep a host's first flow: when its windows begin, ns."""

LATERAL: Final = ("smb", "rdp", "dcerpc", "ldap", "kerberos")
"""Services by which an intruder moves from host to host. WinRM looks like any other HTTP."""

READ_COLUMNS: Final = (
    *(*HOST, "flow_id", "parent_id", "first_ns", "last_ns", "dst_ip", "dst_port", "protocol"),
    *("ip_version", "tcp_state", "fwd_syn", "fwd_rst", "bwd_rst", "service"),
    *("fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes", "bwd_payload_packets"),
    *("fwd_payload_bytes", "bwd_payload_bytes", "fwd_prefix_entropy"),
    *(f"file_{kind}" for kind in FILE_MESSAGES),
    *("tls_client_hello_bytes", "tls_server_hello_bytes", "tls_version", "tls_sni", "tls_alpn"),
    *("tls_ciphers", "tls_cipher", "ja3", "ja3s", "ja4", "cert_self_signed", "cert_matches_sni"),
    *("cert_not_before_s", "cert_not_after_s"),
    *("dns_query", "dns_query_type", "dns_response_code", "dns_answers", "dns_min_ttl"),
    *("quic_version", "dns_addresses", "src_port", "fwd_start", "bwd_start"),
)
"""What windows need of a flow table: whoever gathers tables before the windows are made keeps no
more, about 300 bytes a flow."""


def window_flows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return flows with their window, in order of host and time.

    Parameters
    ----------
    frame
        `READ_COLUMNS` of the flow table. With the further column `BEGAN` windows begin there and
        not with the host's first flow; with `PLACE` hosts of different places are apart.

    Returns
    -------
    polars.DataFrame
        `READ_COLUMNS` of the flow table, `PLACE`, and

        - `host`, `window`: see `WINDOW`
        - `destination`: number of `dst_ip`; `pair`: of it, port and protocol
        - `start`: seconds since the host's first flow
        - `gap`: seconds since the host's flow before in the same window, null for the first
        - `pair_gap_ns`, `gap_inside`: time since the flow before of the same `PAIR` in any window,
          and whether that one began in this window; null for the first. Where the active timeout
          cut a flow, its later records open nothing and have no gap
        - `is_new`: whether the host had never had a flow with the destination in an earlier window
        - `up`, `down`: IP bytes from and to the host
    """
    if PLACE not in frame.columns:
        frame = frame.with_columns(pl.lit(0, pl.UInt32).alias(PLACE))
    keys = [PLACE, *HOST]
    hosts = frame.lazy().select(keys).unique().sort(keys).with_row_index("host")
    told = BEGAN in frame.columns
    began = pl.col(BEGAN) if told else pl.col("first_ns").min().over("host")
    pair = (pl.col("destination").cast(pl.UInt64) * 65_536 + pl.col("dst_port")) * 256
    opens = pl.col("flow_id") == pl.col("parent_id")
    return (
        frame.lazy()
        .select(*READ_COLUMNS, PLACE, *([BEGAN] if told else []))
        .join(hosts, on=keys, how="left")
        .sort("host", "first_ns", "flow_id")
        .with_columns(
            destination=pl.col("dst_ip").rank("dense"),
            window=(pl.col("first_ns") - began) // WINDOW_NS,
            start=(pl.col("first_ns") - began) / SECOND_NS,
            up=pl.col("fwd_bytes").cast(pl.Float64),
            down=pl.col("bwd_bytes").cast(pl.Float64),
        )
        .with_columns(pair=pair + pl.col("protocol"))
        .with_columns(
            gap=pl.col("first_ns").diff().over(WINDOW) / SECOND_NS,
            pair_gap_ns=pl.when(opens).then(pl.col("first_ns").diff().over(*PAIR, opens)),
            gap_inside=pl.col("window").diff().over(*PAIR, opens) == 0,
            is_new=pl.col("window") == pl.col("window").min().over("host", "destination"),
        )
        .collect()
    )


def network() -> pl.Expr:
    """Return the network of a flow's destination as text: /24, of IPv6 the first three groups."""
    address = pl.col("dst_ip")
    return (
        pl.when(address.str.contains(":", literal=True))
        .then(address.str.extract(r"^([^:]*:[^:]*:[^:]*)"))
        .otherwise(address.str.extract(r"^(\d+\.\d+\.\d+)"))
    )
