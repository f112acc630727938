"""The flow table's contract and the meter's records."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.known import known
from veilwatch.errors import VeilwatchError
from veilwatch.schema.features import FeatureSchema, FeatureSpec
from veilwatch.schema.flows import (
    EXTRA_DTYPE,
    FLOW_COLUMNS,
    FLOW_RECORD_DTYPE,
    GAP_EDGES_NS,
    HEAD_DTYPE,
    LIVE_DTYPE,
    MAX_DATAGRAMS,
    SIZE_EDGES,
    WAY_DTYPE,
    FlowTable,
    HeadBatch,
)

EMPTY = pl.DataFrame(
    {
        column.name: pl.Series(
            [], dtype=pl.Array(pl.Int64, 3) if column.dtype == pl.Array else column.dtype
        )
        for column in FLOW_COLUMNS
    }
)


def test_column_names_are_unique_and_documented() -> None:
    names = [column.name for column in FLOW_COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.doc and not column.doc.endswith(".") for column in FLOW_COLUMNS)


def test_a_whole_table_passes_and_may_carry_more() -> None:
    assert FlowTable(EMPTY).check().frame is EMPTY
    FlowTable(EMPTY.with_columns(score=pl.lit(0.5))).check()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (EMPTY.drop("ja4"), "column ja4 is missing"),
        (EMPTY.cast({"src_port": pl.Int64}), "column src_port is Int64, expected UInt16"),
        (EMPTY.cast({"tls_ciphers": pl.List(pl.Int8)}), "column tls_ciphers is List"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(VeilwatchError, match=message):
        FlowTable(frame).check()


def test_records_are_whole_words() -> None:
    """The meter copies records as 64-bit words."""
    assert FLOW_RECORD_DTYPE.itemsize == LIVE_DTYPE.itemsize + EXTRA_DTYPE.itemsize
    assert EXTRA_DTYPE.itemsize % 8 == 0
    for name in LIVE_DTYPE.names or ():
        assert known(FLOW_RECORD_DTYPE.fields)[name] == known(LIVE_DTYPE.fields)[name]
    for name in ("missing", "file_messages"):
        offset = known(EXTRA_DTYPE.fields)[name][1]
        assert known(FLOW_RECORD_DTYPE.fields)[name][1] == LIVE_DTYPE.itemsize + offset


def test_what_packets_change_lies_in_whole_cache_lines() -> None:
    """A flow is 14 lines of 64 bytes, with four for the packets of each direction."""
    assert LIVE_DTYPE.itemsize == 14 * 64
    assert WAY_DTYPE.itemsize == 4 * 64
    assert known(LIVE_DTYPE.fields)["way"][1] == 2 * 64


@pytest.mark.parametrize("edges", [SIZE_EDGES, GAP_EDGES_NS])
def test_histograms_have_a_bin_for_every_edge(edges: tuple[int, ...]) -> None:
    assert list(edges) == sorted(set(edges))
    assert edges[0] == 0
    assert WAY_DTYPE["size_counts"].shape == (len(edges),)
    assert WAY_DTYPE["gap_counts"].shape == (len(edges),)


def test_streams_of_a_head() -> None:
    rows = np.zeros(2, HEAD_DTYPE)
    rows["start"] = [[0, 2], [5, 5]]
    rows["length"] = [[2, 3], [0, 4]]
    heads = HeadBatch(np.frombuffer(b"abcdefghi", np.uint8), rows)
    streams = [[heads.stream(row, direction) for direction in (0, 1)] for row in (0, 1)]
    assert streams == [[b"ab", b"cde"], [b"", b"fghi"]]


@pytest.mark.parametrize(
    ("stream", "datagrams"),
    [
        (b"", []),
        (b"\0\1a\0\2bc", [b"a", b"bc"]),
        (b"\0\0\0\1a", [b"", b"a"]),
        (b"\0\1a\0\5bc", [b"a", b"bc"]),  # a head is never cut, but a reader must survive it
        (b"\0\1a\0", [b"a"]),
        (b"\0\1a" * (MAX_DATAGRAMS + 5), [b"a"] * MAX_DATAGRAMS),
    ],
)
def test_datagrams_of_a_head(stream: bytes, datagrams: list[bytes]) -> None:
    rows = np.zeros(1, HEAD_DTYPE)
    rows["length"] = [[len(stream), 0]]
    heads = HeadBatch(np.frombuffer(stream, np.uint8), rows)
    assert (heads.datagrams(0, 0), heads.datagrams(0, 1)) == (datagrams, [])


def test_a_feature_schema_is_known_by_its_columns() -> None:
    first, second = FeatureSpec("a", "s", "A."), FeatureSpec("b", "", "B.")
    schema = FeatureSchema("statistics", 1, (first, second))
    assert schema.names == ["a", "b"]
    assert schema.hash == FeatureSchema("statistics", 1, (first, second)).hash
    others = [
        FeatureSchema("sequence", 1, (first, second)),
        FeatureSchema("statistics", 2, (first, second)),
        FeatureSchema("statistics", 1, (second, first)),
        FeatureSchema("statistics", 1, (first,)),
    ]
    assert len({schema.hash, *(other.hash for other in others)}) == 5
