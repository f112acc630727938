"""Flows kept for host windows, beside windows of the whole capture."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tests.examples import examples
from tests.learning.features.factory import random_flows
from veilwatch.detection.scoring.buffer import GRACE_NS, KEPT_NS, WindowBuffer
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.host_window import host_windows
from veilwatch.learning.features.windows import HOST, WINDOW_NS
from veilwatch.schema.flows import FlowTable

NS = 10**9
START = 1_700_000_000 * NS


def flows(seconds: list[int], hosts: list[int], *, seed: int = 0) -> pl.DataFrame:
    frame = random_flows(len(seconds), seed=seed).frame
    return frame.with_columns(
        pl.Series("src_ip", [f"10.0.0.{host}" for host in hosts]),
        pl.lit("").alias("subscriber"),
        pl.Series("first_ns", [START + second * NS for second in seconds], pl.Int64),
    ).with_columns(last_ns=pl.col("first_ns") + NS, flow_id=pl.col("flow_id") + 10_000 * seed)


def reported(frame: pl.DataFrame) -> pl.DataFrame:
    """The same flows with less in them, and every other one reported twice."""
    half = frame.with_columns(
        fwd_bytes=pl.col("fwd_bytes") // 2, bwd_bytes=pl.col("bwd_bytes") // 3
    )
    return pl.concat([half.gather_every(2), half])


@examples(40)
@given(
    st.lists(st.tuples(st.integers(0, 2400), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_closed_windows_are_those_of_the_whole_capture(
    drawn: list[tuple[int, int]], parts: int
) -> None:
    drawn = sorted(drawn)
    frame = flows([second for second, _ in drawn], [host for _, host in drawn])
    buffer = WindowBuffer()
    found = []
    for part in np.array_split(np.arange(frame.height), parts):
        rows = frame[part.tolist()]
        if rows.is_empty():
            continue
        now = int(rows["last_ns"].max())
        # What was said of a flow while it was alive is gone once it has ended.
        buffer.add(reported(rows), now, early=True)
        if part[0] % 2:
            buffer.current(now)
        buffer.add(rows, now)
        due = buffer.closed(now)
        if due is not None:
            found.append(due)
    now = START + 2400 * NS + 2 * WINDOW_NS + GRACE_NS
    due = buffer.closed(now)
    if due is not None:
        found.append(due)
    assert buffer.closed(now) is None
    assert buffer.dropped_flows == 0
    wanted = host_windows(frame)
    keys = [*HOST, "window"]
    # Flows come in order here, so that no window is judged twice, and none looks ahead.
    given_out = pl.concat([due.windows for due in found])
    assert given_out.height == given_out.unique().height
    assert_frame_equal(given_out.sort(keys), wanted.select(keys).sort(keys), check_dtypes=False)
    for due in found:
        features = due.select(compute_features(FlowTable(due.flows), ["host_window"]))
        whole = compute_features(FlowTable(frame), ["host_window"])
        rows = whole.keys.with_row_index("row").join(features.keys, on=keys, maintain_order="right")
        np.testing.assert_allclose(
            features.values,
            whole.values[rows["row"].to_numpy()],
            rtol=1e-5,
            atol=1e-6,
            equal_nan=True,
        )


def test_what_ends_late_has_its_window_judged_again() -> None:
    buffer = WindowBuffer()
    buffer.add(flows([0, 10, 20], [1, 1, 1]), START)
    over = START + WINDOW_NS + GRACE_NS
    assert buffer.closed(over - 1) is None
    due = buffer.closed(over)
    assert due is not None and due.windows["window"].to_list() == [0]
    buffer.add(flows([200], [1], seed=4), over)
    due = buffer.closed(over + NS)
    assert due is not None and due.windows["window"].to_list() == [0]
    assert due.flows.height == 4


def test_windows_stay_where_they_are_when_the_first_flow_is_forgotten() -> None:
    buffer = WindowBuffer()
    begins = [0, *range(400, 6400, 200)]
    for second in begins:
        now = START + second * NS
        buffer.add(flows([second], [1]), now)
        buffer.closed(now)
    assert len(buffer) <= (KEPT_NS + WINDOW_NS) // (200 * NS) + 1
    due = buffer.current(START + 6200 * NS)
    assert due is not None
    assert due.windows["window"].to_list() == [6200 // 300]


def test_a_host_that_was_silent_for_long_begins_anew() -> None:
    buffer = WindowBuffer()
    buffer.add(flows([0], [1]), START)
    buffer.closed(START + 500 * NS)
    second = KEPT_NS // NS + 1000
    now = START + second * NS
    buffer.add(flows([second], [1]), now)
    due = buffer.closed(now + WINDOW_NS + GRACE_NS)
    assert due is not None and due.windows["window"].to_list() == [0]


def test_who_has_most_gives_up_first() -> None:
    buffer = WindowBuffer(max_flows=100)
    quiet = flows([1, 2, 3], [1, 1, 2])
    buffer.add(quiet, START)
    for k in range(10):
        buffer.add(flows(list(range(30)), [9] * 30, seed=k + 1), START)
    assert len(buffer) <= 100
    due = buffer.current(START)
    assert due is not None
    counts = dict(due.flows.group_by("src_ip").len().rows())
    assert (counts["10.0.0.1"], counts["10.0.0.2"]) == (2, 1)
    assert buffer.dropped_flows == 303 - len(buffer)


def test_a_live_flow_counts_as_far_as_it_has_got() -> None:
    frame = flows([0, 10, 20], [1, 1, 2])
    buffer = WindowBuffer()
    buffer.add(reported(frame), START, early=True)
    due = buffer.current(START + 30 * NS)
    assert due is not None and due.windows.height == 2
    assert_frame_equal(
        due.flows.sort("flow_id").select("flow_id", "fwd_bytes"),
        reported(frame)[2:].select("flow_id", "fwd_bytes"),
    )
    # A window that only live flows make is not over, however late it is.
    late = START + WINDOW_NS + GRACE_NS + 30 * NS
    assert buffer.closed(late) is None
    buffer.add(frame, late)
    assert len(buffer) >= 3
    due = buffer.closed(late)
    assert due is not None
    assert_frame_equal(
        due.flows["fwd_bytes"].sort().to_frame(), frame.select("fwd_bytes").sort("fwd_bytes")
    )
    assert len(buffer) == 3
