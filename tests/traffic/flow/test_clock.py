"""What the meter makes of packet times that cannot be right, and of clocks that were truly set."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import SECOND, assert_same, batch, meter, packet, reply
from veilwatch.schema.flows import EndReason
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.packet_time import CONFIRM, MANY

CONFIG = MeterConfig()
START = 1_700_000_000 * SECOND
YEAR = 365 * 86_400 * SECOND
HOUR = 3600 * SECOND
BAD = {"zero": 0, "2100": 4_102_444_800 * SECOND, "last": 2**62 - 1, "an hour ahead": START + HOUR}


def run(packets: list[Packet]) -> Any:
    """Flows as kernels and oracle agree on them, whatever the blocks."""
    assert_same(packets, CONFIG)
    flows, _, _ = meter(packets, CONFIG)
    for cut in (1, 2, 3, 5):
        assert_same(packets, CONFIG, cuts=list(range(0, len(packets), cut)))
    return flows.records


def rounds(count: int, start: int = START) -> list[Packet]:
    """`count` rounds of one packet of each of 20 flows, a second apart."""
    return [
        packet(b"x", src_port=1000 + k, protocol=17, tcp_flags=0, ts_ns=start + i * SECOND + k)
        for i in range(count)
        for k in range(20)
    ]


def stray(stamp: int, port: int = 7) -> Packet:
    return packet(b"y", src_port=port, protocol=17, tcp_flags=0, ts_ns=stamp)


@pytest.mark.parametrize("stamp", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("where", [0, 1, 2, 3, 4, 55, 79, 80])
def test_one_bad_stamp_cuts_no_flow(where: int, stamp: int) -> None:
    sent = rounds(4)
    records = run([*sent[:where], stray(stamp), *sent[where:]])
    assert len(records) == 21
    assert sorted(records["way"]["packets"][:, 0].tolist()) == [1] + [4] * 20
    spans = (records["last_ns"] - records["first_ns"]).tolist()
    assert max(spans) == 3 * SECOND
    # Not the stamp but the time when it came, so that nothing further on sees the year 2100.
    if stamp != BAD["an hour ahead"]:
        assert (abs(records["first_ns"] - START) < 10 * SECOND).all()


@pytest.mark.parametrize("stamp", [BAD["zero"], BAD["2100"]])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_bad_stamp_within_a_connection_leaves_it_whole(place: str, stamp: int) -> None:
    talk = [
        packet(tcp_flags=2, tcp_seq=5, ts_ns=START),
        reply(tcp_flags=18, tcp_seq=9, tcp_ack=6, ts_ns=START + 1000),
        *(packet(b"ab", tcp_seq=6 + 2 * k, ts_ns=START + (k + 1) * SECOND) for k in range(8)),
    ]
    at = {"first": 0, "middle": 5, "last": len(talk) - 1}[place]
    talk[at] = talk[at].stamped(stamp)
    (flow,) = run(talk)
    assert flow["way"]["packets"].tolist() == [9, 1]
    assert abs(int(flow["first_ns"]) - START) <= SECOND
    assert flow["last_ns"] - flow["first_ns"] <= 8 * SECOND
    assert flow["way"]["gap_max_ns"].max() <= 2 * SECOND


@pytest.mark.parametrize("stamps", [[0] * 30, [0, BAD["2100"]] * 6, [0, 5, 9], [7, 7, YEAR, 9]])
def test_several_bad_stamps_in_a_row_cut_no_flow(stamps: list[int]) -> None:
    sent = rounds(4)
    bad = [stray(stamp, 100 + k) for k, stamp in enumerate(stamps)]
    records = run([*sent[:45], *bad, *sent[45:]])
    assert len(records) == 20 + len(stamps)
    assert (records["first_ns"] >= START).all()


@pytest.mark.parametrize("stamp", [0, BAD["2100"]])
def test_bad_stamps_in_alternation_cut_no_flow(stamp: int) -> None:
    sent = rounds(4)
    bad = [stray(stamp + 1000 * k, 100 + k) for k in range(len(sent))]
    records = run([one for pair in zip(sent, bad, strict=True) for one in pair])
    assert len(records) == 20 + len(bad)
    assert (abs(records["first_ns"] - START) < 10 * SECOND).all()


@pytest.mark.parametrize("shift", [YEAR, -YEAR, 20 * YEAR, HOUR, -HOUR, 86_400 * SECOND + 1])
def test_a_clock_that_was_set_is_followed(shift: int) -> None:
    """Flows from before end, and what came with the first packets of the new time lies there."""
    after = [
        packet(b"z", src_port=5000 + k, protocol=17, tcp_flags=0, ts_ns=START + shift + i * 1000)
        for i in range(10)
        for k in [0, 1, 2, 2 + i]
    ]
    records = run([*rounds(3), *after])
    old = records["src_port"] < 5000
    assert (records["end_reason"][old] == EndReason.IDLE).all()
    assert (records["end_reason"][~old] == EndReason.END).all()
    assert (abs(records["first_ns"][~old] - (START + shift)) < SECOND).all()
    assert (records["last_ns"] - records["first_ns"] < 10 * SECOND).all()
    assert old.sum() == 20


def test_flows_end_while_the_clock_goes_on_after_a_jump() -> None:
    flow_meter = FlowMeter(CONFIG)
    flow_meter.add(batch(rounds(2)))
    flow_meter.add(batch([stray(START + YEAR + k, 50 + k) for k in range(20)]))
    assert flow_meter.pending == 20  # those from before
    flow_meter.add(batch([stray(START + YEAR + (200 + k) * SECOND, k + 1) for k in range(5)]))
    assert flow_meter.pending == 40


def test_rubbish_stamps_end_flows_some_time() -> None:
    flow_meter = FlowMeter(CONFIG)
    flow_meter.add(batch(rounds(2)))
    wild = [stray((k * 7919 % 140) * YEAR, k) for k in range(1, MANY + 1)]
    flow_meter.add(batch(wild[:-1]))
    assert flow_meter.pending == 0
    flow_meter.add(batch(wild[-1:]))
    assert flow_meter.pending >= 20


def test_the_table_still_makes_room_while_a_time_is_doubted() -> None:
    flow_meter = FlowMeter(MeterConfig(max_flows=5))
    flow_meter.add(batch([stray(START, k) for k in range(1, 5)]))
    flow_meter.add(batch([stray(0, k) for k in range(10, 20)]))
    assert (flow_meter.live, flow_meter.evicted) == (5, 9)


def test_a_clock_on_the_wall_is_believed_at_once() -> None:
    flow_meter = FlowMeter(CONFIG)
    flow_meter.add(batch(rounds(1)))
    flow_meter.add(batch([stray(BAD["2100"])]))
    flow_meter.advance(START + 100 * SECOND)
    assert (flow_meter.live, flow_meter.pending) == (21, 0)
    flow_meter.advance(START + 3 * YEAR)  # a quiet interface
    assert (flow_meter.live, flow_meter.pending) == (0, 21)
    flow_meter.add(batch([stray(START + 3 * YEAR + 1, 8)]))
    flow_meter.finish()
    assert flow_meter.take()[0].records["first_ns"][-1] == START + 3 * YEAR + 1


def test_a_set_clock_that_the_wall_confirms_keeps_its_flows() -> None:
    flow_meter = FlowMeter(CONFIG)
    flow_meter.add(batch(rounds(2)))
    flow_meter.add(batch([stray(START + YEAR, 5)]))
    flow_meter.advance(START + YEAR + SECOND)
    assert (flow_meter.live, flow_meter.pending) == (1, 20)


def test_quiet_captures_keep_their_times() -> None:
    """One packet in 20 minutes, and in 20 hours: no stamp is doubted for long."""
    for step in (20 * 60 * SECOND, 20 * HOUR):
        sent = [stray(START + k * step, 7) for k in range(6)]
        records = run(sent)
        assert records["first_ns"].tolist() == [p.ts_ns for p in sent]
        assert records["end_reason"].tolist() == [EndReason.IDLE] * 5 + [EndReason.END]


@pytest.mark.parametrize("count", [2, 3, CONFIRM])
def test_the_tail_of_another_day_is_where_it_says(count: int) -> None:
    sent = [*rounds(2), *(stray(START + YEAR + k, 50 + k) for k in range(count))]
    records = run(sent)
    late = records["first_ns"] >= START + YEAR
    assert late.sum() == count
    assert (records["end_reason"][~late] == EndReason.IDLE).all()


def test_a_bad_stamp_on_a_fragment_lengthens_no_flow() -> None:
    first = packet(b"x" * 30, protocol=17, tcp_flags=0, fragment=1, fragment_key=999, ts_ns=START)
    later = packet(
        b"y" * 8,
        status=7,
        tcp_flags=0,
        protocol=17,
        fragment=2,
        fragment_key=999,
        fragment_offset=40,
        ts_ns=BAD["2100"],
    )
    flows = run([*rounds(1), first, later, *rounds(2)])
    assert (flows["last_ns"] < START + 10 * SECOND).all()
    assert flows["way"]["fragments"].sum() == 1
