"""Interim reports as tables: a live flow is given as a cut capture would give it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.cli.helpers import exchange
from tests.traffic.pipeline.test_live import Script
from veilwatch.corpus.lab import field_capture
from veilwatch.errors import VeilwatchError
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.flows import EndReason
from veilwatch.schema.packets import RawBlock
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.flow import InterimPoints
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.subscriber import KeyRing

LEFT_OUT = ["end_reason", "subscriber", "subscriber_by", "apn", "location"]
"""What an early row does not share with the row of a capture that is cut after its last packet: the
reason, and what control traffic or other flows tell meanwhile."""

POINTS = InterimPoints(packets=(2, 4, 8, 32), age_s=10.0)


class Recorded:
    """Blocks of a capture, kept, that can be given again up to some record."""

    def __init__(self, blocks: list[tuple[bytes, np.ndarray]], stop: int) -> None:
        self.report = CaptureReport([])
        self.blocks, self.stop = blocks, stop

    def __iter__(self) -> Iterator[RawBlock]:
        left = self.stop
        for content, records in self.blocks:
            if left <= 0:
                return
            yield RawBlock(
                np.frombuffer(bytearray(content), np.uint8), records[:left].copy(), now_ns=0
            )
            left -= len(records)

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, np.ndarray]]:
    capture = tmp_path_factory.mktemp("field") / "field.pcap"
    field_capture(capture)
    with open_captures([capture]) as stream:
        kept = [(block.buffer.tobytes(), block.records.copy()) for block in stream]
    return kept[:16]  # some 16,000 packets


def test_an_early_row_is_that_of_the_capture_cut_there(
    blocks: list[tuple[bytes, np.ndarray]],
) -> None:
    packets = sum(len(records) for _, records in blocks)
    keys = KeyRing()
    with FlowReader(Recorded(blocks, packets), early=POINTS, subscriber_keys=keys) as reader:
        parts = list(reader.live_tables())
    early = pl.concat([part.table.frame for part in parts if part.early])
    ended = pl.concat([part.table.frame for part in parts if not part.early])
    assert (early["end_reason"] == EndReason.EARLY).all()
    assert not (ended["end_reason"] == EndReason.EARLY).any()
    with FlowReader(Recorded(blocks, packets), subscriber_keys=keys) as reader:
        assert_frame_equal(ended, reader.read_all().frame)
    count = pl.col("fwd_packets") + pl.col("bwd_packets")
    at = early.select("flow_id", count=count)
    assert at.unique().height == at.height
    told = early.filter(pl.col("tls_sni") != "")
    assert early.height > 50 and told.height > 10
    assert (early["dns_query"] != "").any()
    # A cut run is as long as the whole one: a few rows of each kind stand for all.
    chosen = pl.concat([told.gather_every(told.height // 6), early.gather_every(early.height // 6)])
    times = np.concatenate([records["ts_ns"] for _, records in blocks])
    for row in range(chosen.height):
        one = chosen[row]
        # Several packets may have the time of the last one: the cut with its count is meant.
        last = int(np.flatnonzero(times == one["last_ns"][0])[-1]) + 1
        for stop in range(last, max(0, last - 64), -1):
            with FlowReader(Recorded(blocks, stop)) as reader:
                whole = reader.read_all().frame
            cut = whole.filter(pl.col("flow_id") == one["flow_id"][0])
            if cut.height and cut.select(count).item() <= one.select(count).item():
                break
        assert_frame_equal(one.drop(LEFT_OUT), cut.drop(LEFT_OUT))


def test_reports_come_while_the_flow_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    frames = exchange("10.0.0.1", 40_000, rounds=4)
    script = Script([(k / 10, [frame]) for k, frame in enumerate(frames)])
    early = InterimPoints(packets=(3, 8), age_s=0.5)
    with FlowReader(script, early=early) as reader:
        parts = list(reader.live_tables(interval_s=1.0))
    kinds = [part.early for part in parts]
    assert kinds == sorted(kinds, reverse=True)
    counts = [part.table.frame["fwd_packets"] + part.table.frame["bwd_packets"] for part in parts]
    assert pl.concat(counts).to_list() == [3, 6, 8, 11]
    assert {one for part in parts for one in part.table.frame["flow_id"]} == {1}


def test_reports_that_nobody_asked_for_are_let_go(blocks: list[tuple[bytes, np.ndarray]]) -> None:
    with FlowReader(Recorded(blocks, 5000), early=POINTS) as reader:
        flows = reader.read_all()
        assert not (flows.frame["end_reason"] == EndReason.EARLY).any()


@pytest.mark.parametrize(
    ("packets", "age", "silence"),
    [
        ((), None, None),
        ((0,), None, None),
        ((8,), 0.0, None),
        ((8,), None, 0.0),
        (tuple(range(1, 10)), 1.0, 1.0),
    ],
)
def test_points_are_checked(
    packets: tuple[int, ...], age: float | None, silence: float | None
) -> None:
    with pytest.raises(VeilwatchError):
        InterimPoints(packets=packets, age_s=age, silence_s=silence)


def test_a_flow_that_falls_silent_is_reported_before_it_ends() -> None:
    frames = exchange("10.0.0.1", 40_000, rounds=1)[:5]
    others = exchange("10.0.0.2", 40_000, rounds=40)
    script = Script(
        [(k / 10, [frame]) for k, frame in enumerate(frames)]
        + [(1 + k / 2, [frame]) for k, frame in enumerate(others)]
    )
    early = InterimPoints(packets=(8,), age_s=None, silence_s=3.0)
    with FlowReader(script, early=early) as reader:
        parts = [part for part in reader.live_tables() if part.early]
    rows = pl.concat([part.table.frame for part in parts]).sort("last_ns")
    count = rows["fwd_packets"] + rows["bwd_packets"]
    assert list(zip(rows["src_ip"], count, strict=True)) == [("10.0.0.1", 5), ("10.0.0.2", 8)]
    assert rows["tcp_state"][0]  # a whole row, as any other


def test_the_interval_is_checked() -> None:
    with FlowReader(Script([])) as reader, pytest.raises(VeilwatchError, match="interval"):
        next(reader.live_tables(interval_s=1.5))
