"""Rows become typed records: the fields are columns, texts and lists are bounded."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.detection.alerting.samples import make_row
from tests.report import factory
from veilwatch.schema.flow_facts import (
    FLOW_FACTS,
    MAX_ITEMS,
    MAX_TEXT,
    SCORED_COLUMNS,
    FlowFacts,
    TunnelFacts,
    facts_from_plain,
    facts_to_plain,
    flow_facts,
    flow_facts_by_id,
)
from veilwatch.schema.flows import FLOW_COLUMNS, FlowTable
from veilwatch.schema.forms import UNSET


def scored(height: int = 3, **columns: object) -> pl.DataFrame:
    frame = factory.flow_frame(height, flow_id=np.arange(height) + 7, **columns)
    return frame.with_columns(score=pl.lit(0.5, pl.Float32), alert=pl.lit(False))


def test_fields_are_columns() -> None:
    table = {column.name for column in FLOW_COLUMNS}
    assert set(FLOW_FACTS) <= table | {"score"}
    assert set(TunnelFacts._fields) <= table
    assert set(SCORED_COLUMNS) - set(FLOW_FACTS) == {"source", "alert"}


def test_what_is_not_known_is_the_columns_own_sign_for_none() -> None:
    facts = FlowFacts(1)
    assert {name: getattr(facts, name) for name in UNSET if name in FLOW_FACTS} == {
        name: none for name, none in UNSET.items() if name in FLOW_FACTS
    }
    assert facts.qfi is None
    assert replace(facts, bwd_qfi=9).qfi == 9
    assert replace(facts, fwd_qfi=0, bwd_qfi=9).qfi == 0


def test_a_row_becomes_the_record_of_the_same_values() -> None:
    frame = scored(tls_sni=["a", "", ""], tls_alpn=[["h2", "h3"], [], []], src_port=[1, 2, 3])
    first, second, _ = flow_facts(frame)
    row = frame.row(0, named=True)
    assert first.tls_alpn == ("h2", "h3")
    assert second == replace(first, flow_id=8, tls_sni="", tls_alpn=(), src_port=2)
    for name in FLOW_FACTS:
        value = getattr(first, name)
        assert (list(value) if name == "tls_alpn" else value) == row[name], name


def test_records_are_bounded_and_finite() -> None:
    frame = scored(tls_sni=["x" * 5000] * 3, tls_alpn=[["y" * 5000] * 99] * 3)
    frame = frame.with_columns(score=pl.lit(math.nan, pl.Float32))
    facts = flow_facts(frame)[0]
    assert len(facts.tls_sni) == MAX_TEXT and len(facts.tls_alpn) == MAX_ITEMS
    assert {len(name) for name in facts.tls_alpn} == {MAX_TEXT}
    plain = facts_to_plain(facts)
    assert facts_from_plain(json.loads(json.dumps(plain, allow_nan=False))) == facts


def test_a_table_without_flows_has_no_records() -> None:
    empty = FlowTable.empty().frame.with_columns(score=pl.lit(None, pl.Float32))
    assert flow_facts(empty) == [] and flow_facts_by_id(empty, [1]) == {}


def test_of_a_flow_reported_twice_the_later_row_counts() -> None:
    frame = pl.concat([scored(dst_port=[1, 2, 3]), scored(dst_port=[4, 5, 6])])
    found = flow_facts_by_id(frame, [8, 9, 99])
    assert {flow_id: facts.dst_port for flow_id, facts in found.items()} == {8: 5, 9: 6}


@pytest.mark.parametrize("gone", ["tls_alpn", "fwd_qfi", "score", "dns_query"])
def test_an_older_record_is_read_by_what_it_has(gone: str) -> None:
    plain = facts_to_plain(make_row(fwd_qfi=5, score=0.75, dns_query="a.example"))
    wanted = replace(facts_from_plain(plain), **{gone: getattr(FlowFacts(0), gone)})
    without = {name: value for name, value in plain.items() if name != gone}
    assert facts_from_plain(without | {"of_a_later_version": 1}) == wanted
    assert facts_from_plain(plain | {gone: None}) == wanted
