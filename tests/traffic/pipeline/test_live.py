"""Flow tables of a stream that tells the time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.cli.helpers import exchange
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.flows import EndReason
from veilwatch.schema.packets import RECORD_DTYPE, RawBlock
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.pipeline.extract import HAND_OUT_NS

NS = 10**9
START = 1_700_000_000 * NS


class Script:
    """A live capture that follows a script of (seconds, frames)."""

    def __init__(self, events: list[tuple[float, list[bytes]]]) -> None:
        self.report = CaptureReport([FileReport("script", "live")])
        self.events = events
        self.closed = False

    def __iter__(self) -> Iterator[RawBlock]:
        for seconds, frames in self.events:
            now = START + int(seconds * NS)
            records = np.zeros(len(frames), RECORD_DTYPE)
            lengths = np.array([len(frame) for frame in frames], np.int64)
            records["captured"] = records["length"] = lengths
            records["offset"] = np.cumsum(lengths) - lengths
            records["ts_ns"], records["link"] = now, 1
            yield RawBlock(
                np.frombuffer(bytearray(b"".join(frames)), np.uint8), records, now_ns=now
            )

    def close(self) -> None:
        self.closed = True


def test_flows_end_and_are_handed_out_by_the_clock() -> None:
    first, second = exchange("10.0.0.1", 40_000), exchange("10.0.0.2", 40_001)
    ticks: list[tuple[float, list[bytes]]] = [(100 + k, []) for k in range(100)]
    script = Script([(0, first), (1, []), (50, second), *ticks])
    with FlowReader(script, config=MeterConfig(idle_timeout_s=60)) as reader:
        tables = iter(reader)
        table = next(tables)
        assert table.frame["src_ip"].to_list() == ["10.0.0.1"]
        assert table.frame["end_reason"].to_list() == [EndReason.IDLE]
        table = next(tables)
        assert table.frame["src_ip"].to_list() == ["10.0.0.2"]
        assert sum(len(rest) for rest in tables) == 0
        assert reader.captures.files[0].name == "script"
    assert script.closed


def test_tables_do_not_come_more_often_than_is_of_use() -> None:
    events = [(k * 0.5, exchange(f"10.0.0.{k}", 40_000 + k)) for k in range(60)]
    with FlowReader(Script(events), config=MeterConfig(idle_timeout_s=1)) as reader:
        heights = [len(table) for table in reader]
    assert sum(heights) == 60
    assert len(heights) <= 30 * NS / HAND_OUT_NS + 2


@pytest.mark.parametrize("first", [1, 2**46 + 1])
def test_flow_ids_begin_where_they_are_told_to(first: int) -> None:
    script = Script([(0, exchange("10.0.0.1", 40_000))])
    with FlowReader(script, first_flow_id=first) as reader:
        assert reader.read_all().frame["flow_id"].to_list() == [first]
