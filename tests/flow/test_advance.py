"""Flows that end by the clock, where no packet tells the time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from veilwatch.flow import FlowMeter, MeterConfig
from veilwatch.flow.state import OUT_FLOWS
from veilwatch.schema.flows import EndReason
from veilwatch.schema.packets import PACKET_DTYPE, PacketBatch

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


@settings(max_examples=60, deadline=None)
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
