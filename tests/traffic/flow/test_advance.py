"""Flows that end by the clock, where no packet tells the time."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from veilwatch.schema.flows import EndReason
from veilwatch.schema.packets import PACKET_DTYPE, PacketBatch
from veilwatch.traffic.flow import FlowMeter, InterimPoints, MeterConfig
from veilwatch.traffic.flow.interim import OUT_EARLY
from veilwatch.traffic.flow.state import OUT_FLOWS

NS = 10**9
START = 1_700_000_000 * NS
CONFIG = MeterConfig(idle_timeout_s=10, linger_s=2)


def datagrams(at: list[tuple[int, int]]) -> PacketBatch:
    """UDP packets, each given by its time in ns and the port that names its flow."""
    packets = np.zeros(len(at), PACKET_DTYPE)
    packets["ts_ns"] = [time for time, _ in at]
    packets["src_port"] = [port for _, port in at]
    packets["protocol"], packets["ip_version"] = 17, 4
    packets["src_lo"], packets["dst_lo"] = 1, 2
    return PacketBatch(np.zeros(1, np.uint8), packets)


def test_a_flow_ends_once_it_has_been_silent_for_longer_than_the_timeout() -> None:
    meter = FlowMeter(CONFIG)
    meter.add(datagrams([(START, 1), (START + 3 * NS, 2)]))
    meter.advance(START + 10 * NS)
    assert (meter.live, meter.pending) == (2, 0)
    meter.advance(START + 10 * NS + 1)
    assert (meter.live, meter.pending) == (1, 1)
    meter.advance(START + 14 * NS)
    flows, _ = meter.take()
    assert flows.records["end_reason"].tolist() == [EndReason.IDLE] * 2
    assert flows.records["last_ns"].tolist() == [START, START + 3 * NS]


def test_a_closed_connection_ends_after_its_linger() -> None:
    meter = FlowMeter(CONFIG)
    batch = datagrams([(START, 1)])
    batch.packets["protocol"], batch.packets["tcp_flags"] = 6, 0x04  # RST
    meter.add(batch)
    meter.advance(START + 2 * NS)
    assert meter.live == 1
    meter.advance(START + 2 * NS + 1)
    assert meter.take()[0].records["end_reason"].tolist() == [EndReason.CLOSED]


def test_more_flows_than_the_output_holds() -> None:
    meter = FlowMeter(CONFIG)
    count = 3 * OUT_FLOWS
    for begin in range(0, count, 1024):
        meter.add(datagrams([(START, port + 1) for port in range(begin, begin + 1024)]))
    meter.advance(START + 11 * NS)
    assert (meter.live, meter.pending) == (0, count)
    assert sorted(meter.take()[0].records["src_port"].tolist()) == list(range(1, count + 1))


def test_ids_count_on_from_the_first() -> None:
    meter = FlowMeter(CONFIG, first_id=2**46 + 1)
    meter.add(datagrams([(START, 1), (START, 2)]))
    meter.finish()
    assert meter.take()[0].records["flow_id"].tolist() == [2**46 + 1, 2**46 + 2]


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 40 * NS), st.integers(1, 4)), min_size=1, max_size=30),
    st.lists(st.integers(0, 40 * NS), max_size=10),
)
def test_the_clock_changes_no_flow_that_packets_would_have_ended(
    sent: list[tuple[int, int]], ticks: list[int]
) -> None:
    """With and without a clock that keeps behind the packets still to come: the same flows."""
    sent = sorted((START + time, port) for time, port in sent)

    def run(times: list[int]) -> list[tuple[int, ...]]:
        meter = FlowMeter(CONFIG)
        events = [(time, 1, port) for time, port in sent] + [(time, 0, 0) for time in times]
        for time, is_packet, port in sorted(events):
            if is_packet:
                meter.add(datagrams([(time, port)]))
            else:
                meter.advance(time)
        meter.finish()
        records = meter.take()[0].records
        names = ("flow_id", "src_port", "first_ns", "last_ns")
        return sorted(tuple(int(record[name]) for name in names) for record in records)

    assert run([START + tick for tick in ticks]) == run([])


def looked_at(meter: FlowMeter, now_ns: int) -> list[tuple[int, int]]:
    """Port and packets of what is reported as silent at a time."""
    found = []
    while not meter.report_silent(now_ns):
        found.append(meter.take_early())
    found.append(meter.take_early())
    return [
        (int(row["src_port"]), int(row["way"]["packets"].sum()))
        for early in found
        for row in early.flows.records
    ]


def test_a_silent_flow_is_reported_once_for_each_silence() -> None:
    meter = FlowMeter(CONFIG, early=InterimPoints(packets=(2,), age_s=None, silence_s=3.0))
    meter.add(datagrams([(START, 1), (START, 2), (START + NS, 2)]))
    meter.take_early()
    assert looked_at(meter, START + 3 * NS - 1) == []
    # The second flow was reported by its second packet: nothing came since.
    assert looked_at(meter, START + 4 * NS) == [(1, 1)]
    assert looked_at(meter, START + 6 * NS) == []
    meter.add(datagrams([(START + 6 * NS, 2), (START + 6 * NS, 3)]))
    assert sorted(looked_at(meter, START + 9 * NS)) == [(2, 3), (3, 1)]
    assert looked_at(meter, START + 2 * NS) == []  # time went back
    meter.advance(START + 30 * NS)
    assert looked_at(meter, START + 30 * NS) == []


def test_more_silent_flows_than_there_is_room_for() -> None:
    meter = FlowMeter(MeterConfig(), early=InterimPoints(packets=(), age_s=None, silence_s=3.0))
    count = 3 * OUT_EARLY + 1
    for begin in range(0, count, 1024):
        ports = range(begin, min(count, begin + 1024))
        meter.add(datagrams([(START, port + 1) for port in ports]))
    assert sorted(looked_at(meter, START + 5 * NS)) == [(port + 1, 1) for port in range(count)]
    assert meter.live == count


STEPS = st.tuples(st.integers(0, 4 * NS), st.integers(1, 4))


@examples(200)
@given(st.lists(STEPS, max_size=40), st.integers(1, 6), st.sampled_from([(), (1,), (2, 5)]))
def test_silence_as_a_plain_account_has_it(
    steps: list[tuple[int, int]], silence: int, points: tuple[int, ...]
) -> None:
    early = InterimPoints(packets=points, age_s=None, silence_s=float(silence))
    meter = FlowMeter(MeterConfig(), early=early)
    last: dict[int, int] = {}
    count: Counter[int] = Counter()
    now = looked = START
    since = 0
    for step, port in steps:
        now += step
        meter.add(datagrams([(now, port)]))
        meter.take_early()
        last[port], count[port] = now, count[port] + 1
        expected = []
        if now - looked >= NS or not since:
            until = now - silence * NS
            expected = [
                (p, count[p]) for p in last if since < last[p] <= until and count[p] not in points
            ]
            looked, since = now, until
        assert sorted(looked_at(meter, now)) == sorted(expected)
