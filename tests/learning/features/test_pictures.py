"""What networks see of a flow's packets, against plain Python, and what it must not show."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.known import known
from tests.learning.features import naive
from tests.learning.features.factory import random_flows
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.flowpic import SIDE, cell_words, length_row, size_row, time_column
from veilwatch.learning.features.informative import NETWORK_PACKETS
from veilwatch.schema.flows import SEQUENCE_LENGTH, FlowTable

Naive = Callable[[naive.Row, int], dict[str, float]]

ORACLES = {"packets": naive.packets, "flowpic": naive.flowpic}


def assert_as_naive(table: FlowTable, name: str) -> None:
    found = compute_features(table, [name], shortcuts=True)
    for row, values in zip(table.frame.to_dicts(), found.values, strict=True):
        wanted = ORACLES[name](row, NETWORK_PACKETS)
        assert set(wanted) == set(found.schema.names)
        np.testing.assert_allclose(
            values, [wanted[feature] for feature in found.schema.names], rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("name", ORACLES)
def test_played_flows(name: str, flows: FlowTable) -> None:
    assert_as_naive(flows, name)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("length", [1, NETWORK_PACKETS - 1, SEQUENCE_LENGTH, NETWORK_PACKETS + 7])
def test_random_packets(name: str, length: int) -> None:
    """Flows of any number of packets, with gaps of all magnitudes."""
    rng = np.random.default_rng(length)
    shape = (60, length)
    payload = rng.integers(1, 1600, shape) * (rng.random(shape) < 0.6)
    past = np.arange(length) >= rng.integers(0, length + 1, (60, 1))
    size = np.where(past, 0, rng.choice([-1, 1], shape) * (payload + 40))
    columns = {
        "seq_size": (size, pl.Int16),
        "seq_payload": (np.where(past, 0, payload), pl.UInt16),
        "seq_gap_us": (10 ** rng.uniform(0, 8, shape) * (np.arange(length) > 0), pl.UInt32),
        "seq_flags": (rng.integers(0, 256, shape), pl.UInt8),
    }
    frame = random_flows(60).frame.with_columns(
        pl.Series(column, values.astype(np.int64)).cast(pl.Array(kind, length))
        for column, (values, kind) in columns.items()
    )
    assert_as_naive(FlowTable(frame), name)


@pytest.mark.parametrize("name", ORACLES)
def test_lengths_of_bare_packets_are_shortcuts(name: str, flows: FlowTable) -> None:
    """SYNs with other options, and other acknowledgements, change nothing by default."""
    frame = flows.frame
    size, payload, flags = (
        frame[column].to_numpy().copy() for column in ("seq_size", "seq_payload", "seq_flags")
    )
    bare = (payload == 0) & (size != 0)
    assert bare.any() and (bare & (flags & 2 > 0)).any()
    size[bare] += (np.sign(size[bare]) * 20).astype(np.int16)
    other = FlowTable(frame.with_columns(pl.Series("seq_size", size, frame.schema["seq_size"])))
    default, changed = (compute_features(table, [name]).values for table in (flows, other))
    np.testing.assert_array_equal(default, changed)
    default, changed = (
        compute_features(table, [name], shortcuts=True).values for table in (flows, other)
    )
    assert not np.array_equal(default, changed, equal_nan=True)


def test_rows_of_sizes() -> None:
    sizes = np.arange(0, 70_000)
    rows = size_row(sizes)
    assert rows[0] == 0 and rows[1] == 1 and rows[1499] == rows[-1] == 31
    assert (np.diff(rows) >= 0).all() and len(np.unique(rows)) == 32
    lengths = length_row(sizes)
    assert lengths[0] == 0 and lengths[46] == 0 and lengths[47] == 1
    assert lengths[1499] == lengths[-1] == 31


def test_columns_of_times() -> None:
    times = np.array([0, 0.0009, 0.001, 0.002, 1, 60, 1799, 1800, 5000])
    assert time_column(times).tolist() == [0, 0, 1, 2, 15, 24, 31, 31, 31]


@given(st.integers(0, 1499), st.floats(0, 1799))
def test_the_words_of_a_cell_hold_what_is_in_it(payload: int, seconds: float) -> None:
    row = int(size_row(np.array([payload]))[0])
    column = int(time_column(np.array([seconds]))[0])
    words = cell_words(float(row * SIDE + column))
    if payload:
        low, high = map(int, known(re.search(r"(\d+) to (\d+) bytes", words)).groups())
        assert low <= payload <= high
    else:
        assert "no payload" in words
    units = {"ms": 1e-3, "s": 1.0, "min": 60.0}
    times = [float(number) * units[unit] for number, unit in
             re.findall(r"([\d.]+) (ms|s|min)\b", words)]  # fmt: skip
    # The words are rounded to three digits.
    assert (times[-2] if column else 0) * 0.995 <= seconds <= times[-1] * 1.005
