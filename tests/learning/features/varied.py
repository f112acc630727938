"""Flow tables of few hosts and places in which nearly everything happens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tests.learning.features.factory import random_flows
from veilwatch.schema.flows import FILE_MESSAGES, FlowTable

NS = 10**9
START = 1_700_000_000 * NS
NAMES = [
    *("", "", "www.example.com", "WWW.Example.COM.", "mail.example.com", "xkcdqwrtzp.net"),
    *("a1b2c3d4e5f6.example.org", "qz.wpad", "com", "aeiouaeiou.info", "t.co", "a..b"),
]
PLACES = ["192.0.2.1", "192.0.2.7", "198.51.100.9", "203.0.113.5", "2001:db8:1::5", "fe80::1"]


def varied_flows(rows: int, *, seed: int) -> FlowTable:
    """Draw flows of few hosts and places over three hours, some of them at a steady pace."""
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 3 * 3600 * NS, rows)
    steady = rng.random(rows) < 0.4
    period = rng.choice([30 * NS, 301 * NS])
    times[steady] = (np.arange(rows)[steady] // 3) * period % (3 * 3600 * NS)
    times += rng.integers(0, rng.choice([2, NS // 2, 2 * NS]), rows)

    def pick(values: Sequence[object], dtype: type[pl.DataType], of: int = rows) -> pl.Series:
        return pl.Series([values[k] for k in rng.integers(0, len(values), of)], dtype=dtype)

    def rare(dtype: type[pl.DataType]) -> pl.Series:
        return pl.Series(rng.integers(0, 9, rows) * (rng.random(rows) < 0.2), dtype=dtype)

    frame = random_flows(rows, seed=seed).frame
    return FlowTable(
        frame.with_columns(
            first_ns=START + pl.Series(times),
            parent_id=pl.when(pl.Series(rng.random(rows) < 0.9)).then("flow_id").otherwise(0),
            place=pick([0, 0, 1], pl.UInt32),
            src_ip=pick(["10.0.0.1", "10.0.0.2"], pl.String),
            subscriber=pick(["", "", "a"], pl.String),
            dst_ip=pick(PLACES, pl.String).set(pl.Series(steady), "192.0.2.1"),
            dst_port=pick([53, 443, 8080], pl.UInt16).set(pl.Series(steady), 443),
            protocol=pick([6, 6, 17, 1], pl.UInt8).set(pl.Series(steady), 6),
            ip_version=pick([4, 4, 6], pl.UInt8),
            fwd_packets=pick([0, 1, 2, 50], pl.UInt32),
            bwd_packets=pick([0, 0, 1, 7], pl.UInt32),
            fwd_payload_bytes=pick([0, 0, 100, 200], pl.UInt64),
            bwd_payload_bytes=pick([0, 0, 5000], pl.UInt64),
            bwd_payload_packets=pick([0, 1], pl.UInt32),
            bwd_rst=pick([0, 0, 1], pl.UInt32),
            fwd_rst=pick([0, 0, 2], pl.UInt32),
            fwd_syn=pick([0, 1, 3], pl.UInt32),
            fwd_prefix_entropy=pick([float("nan"), 3.5, 7.25], pl.Float32),
            service=pick(["", "tls", "dns", "smb", "rdp", "http"], pl.String),
            dns_query=pick(NAMES, pl.String),
            tls_sni=pick(NAMES, pl.String),
            dns_response_code=pick([-1, 0, 3], pl.Int8),
            dns_query_type=pick([1, 16, 28], pl.UInt16),
            dns_answers=pick([0, 2], pl.UInt16),
            tls_version=pick([0x0301, 0x0303, 0x0304], pl.UInt16),
            tls_cipher=pick([0x1301, 0x002F], pl.UInt16),
            cert_not_before_s=pick([None, 1_600_000_000], pl.Int64),
            cert_not_after_s=pick([None, 1_700_000_000], pl.Int64),
            cert_matches_sni=pick([None, True, False], pl.Boolean),
            **{f"file_{kind}": rare(pl.UInt32) for kind in FILE_MESSAGES},
        ).with_columns(last_ns=pl.col("first_ns") + pl.Series(rng.integers(0, 400 * NS, rows)))
    ).check()
