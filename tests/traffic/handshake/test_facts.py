"""The table that the package hands on."""

from __future__ import annotations

import numpy as np
import polars as pl

from tests.traffic.handshake.streams import head
from veilwatch.schema.flows import HANDSHAKE_COLUMNS, HEAD_DTYPE, HeadBatch
from veilwatch.traffic.handshake import FACT_COLUMNS, fill_facts, read_heads


def test_columns_are_those_of_the_contract() -> None:
    for heads in (HeadBatch(np.zeros(0, np.uint8), np.zeros(0, HEAD_DTYPE)), head(b"", b"")):
        frame = read_heads(heads)
        assert frame.height == len(heads.rows)
        assert dict(frame.schema) == {
            "flow_id": pl.Int64,
            **{c.name: c.dtype for c in HANDSHAKE_COLUMNS if c.name != "service"},
        }


def test_flows_without_a_head_get_the_documented_values() -> None:
    facts = read_heads(head(b"nothing that is known"))
    flows = pl.DataFrame({"flow_id": pl.Series([5, 0], dtype=pl.Int64), "other": ["x", None]})
    filled = fill_facts(flows.join(facts, on="flow_id", how="left", maintain_order="left"))
    names = [column.name for column in FACT_COLUMNS]
    assert filled.select(names)[0].equals(filled.select(names)[1])
    assert filled["other"].to_list() == ["x", None]
    row = filled.row(0, named=True)
    assert row["tls_sni"] == row["dns_query"] == row["ja3"] == row["cert_key"] == ""
    assert row["tls_ciphers"] == row["tls_alpn"] == row["dns_addresses"] == []
    assert row["dns_response_code"] == -1
    assert row["tls_version"] == row["cert_count"] == row["quic_version"] == 0
    assert row["cert_not_before_s"] is row["cert_matches_sni"] is row["cert_self_signed"] is None


def test_other_protocols_say_nothing() -> None:
    hello = bytes.fromhex("160301002f0100002b0301") + bytes(60)
    assert read_heads(head(hello, protocol=132))["tls_record_version"].to_list() == [0]
    assert read_heads(head(hello, protocol=17))["tls_record_version"].to_list() == [0]
