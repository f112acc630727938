"""The meter's rules one by one. The oracle knows them too; here they are said in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import MAPPED, SECOND, assert_same, batch, meter, packet, reply
from veilwatch.errors import VeilwatchError
from veilwatch.schema.flows import EndReason, TcpState
from veilwatch.schema.packets import PACKET_DTYPE, PacketBatch
from veilwatch.traffic.flow import FlowMeter, MeterConfig, state

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CONFIG = MeterConfig()


def run(packets: list[Packet], config: MeterConfig = CONFIG) -> Any:
    """Records of the kernels, which the oracle confirms."""
    assert_same(packets, config)
    flows, _, _ = meter(packets, config)
    return flows.records


def reasons(records: Any) -> list[EndReason]:
    return [EndReason(reason) for reason in records["end_reason"]]


def at(seconds: float) -> int:
    return 1_700_000_000 * SECOND + round(seconds * SECOND)


# Direction


def test_the_syn_gives_the_direction() -> None:
    (flow,) = run([packet(tcp_flags=SYN, tcp_seq=5), reply(tcp_flags=SYN | ACK, tcp_ack=6)])
    assert (flow["src_port"], flow["dst_port"]) == (40000, 443)
    assert flow["way"]["packets"].tolist() == [1, 1]
    assert flow["tcp_state"] == TcpState.SYN | TcpState.SYN_ACK


def test_the_syn_ack_gives_the_direction_when_it_is_seen_first() -> None:
    packets = [
        reply(tcp_flags=SYN | ACK, tcp_seq=900, tcp_ack=6),
        packet(tcp_flags=SYN, tcp_seq=5),
        packet(tcp_flags=ACK, tcp_seq=6, tcp_ack=901),
        packet(tcp_flags=SYN, tcp_seq=5),
    ]
    (flow,) = run(packets)
    assert (flow["src_port"], flow["way"]["packets"].tolist()) == (40000, [3, 1])
    assert flow["tcp_state"] == TcpState.SYN | TcpState.SYN_ACK | TcpState.ESTABLISHED


def test_both_sides_may_open_at_once() -> None:
    packets = [
        packet(tcp_flags=SYN, tcp_seq=5),
        reply(tcp_flags=SYN, tcp_seq=70),
        packet(tcp_flags=SYN | ACK, tcp_seq=5, tcp_ack=71),
        reply(tcp_flags=SYN | ACK, tcp_seq=70, tcp_ack=6),
    ]
    assert len(run(packets)) == 1


def test_midstream_flows_are_marked() -> None:
    (flow,) = run([reply(b"x"), packet(b"y")])
    assert flow["tcp_state"] == TcpState.MIDSTREAM
    assert flow["src_port"] == 443


# Reuse of ports


@pytest.mark.parametrize(
    ("before", "again"),
    [
        ([packet(tcp_flags=SYN, tcp_seq=5)], 6),
        ([packet(tcp_flags=SYN, tcp_seq=5), reply(tcp_flags=RST | ACK)], 6),
        ([packet(b"x", tcp_flags=ACK)], 0),
        ([reply(tcp_flags=SYN | ACK, tcp_ack=6), packet(tcp_flags=ACK)], 7),
    ],
)
def test_a_new_syn_opens_a_new_flow(before: list[Packet], again: int) -> None:
    records = run([*before, packet(tcp_flags=SYN, tcp_seq=again)])
    assert reasons(records) == [EndReason.REUSED, EndReason.END]
    assert records["src_port"].tolist()[1] == 40000
    assert len(set(records["parent_id"].tolist())) == 2


def test_a_repeated_syn_does_not() -> None:
    syn = packet(tcp_flags=SYN, tcp_seq=5)
    (flow,) = run([syn, syn, syn])
    assert flow["way"]["packets"].tolist() == [3, 0]


def test_a_refused_attempt_made_again_is_one_flow() -> None:
    """Systems try a refused connection again with the same number; the last try may succeed."""
    syn, refusal = packet(tcp_flags=SYN, tcp_seq=5), reply(tcp_flags=RST | ACK, tcp_ack=6)
    (flow,) = run([syn, refusal, syn, refusal])
    assert flow["tcp_state"] == TcpState.SYN | TcpState.RST
    packets = [
        *(packet(tcp_flags=SYN, tcp_seq=5, ts_ns=at(0)), packet(tcp_flags=RST, ts_ns=at(0))),
        *(packet(tcp_flags=SYN, tcp_seq=5, ts_ns=at(3)), packet(ts_ns=at(90))),
    ]
    (flow,) = run(packets)
    assert flow["tcp_state"] == TcpState.SYN


def test_a_syn_from_the_other_side_opens_a_new_flow_with_its_own_direction() -> None:
    packets = [
        packet(tcp_flags=SYN, tcp_seq=5),
        reply(tcp_flags=SYN | ACK, tcp_seq=1, tcp_ack=6),
        reply(tcp_flags=SYN, tcp_seq=70),
    ]
    assert run(packets)["src_port"].tolist() == [40000, 443]


# Time


def test_idle_timeout() -> None:
    config = MeterConfig(idle_timeout_s=10)
    records = run([packet(ts_ns=at(0)), packet(ts_ns=at(10)), packet(ts_ns=at(20.1))], config)
    assert reasons(records) == [EndReason.IDLE, EndReason.END]
    assert records["way"]["packets"][:, 0].tolist() == [2, 1]


def closing(start: float) -> list[Packet]:
    return [
        packet(tcp_flags=SYN, tcp_seq=5, ts_ns=at(start)),
        packet(tcp_flags=FIN | ACK, tcp_seq=6, ts_ns=at(start + 1)),
        reply(tcp_flags=FIN | ACK, tcp_seq=7, ts_ns=at(start + 2)),
    ]


def test_a_closed_connection_lingers_for_its_last_packets() -> None:
    records = run([*closing(0), packet(ts_ns=at(7)), packet(ts_ns=at(12.1))])
    assert reasons(records) == [EndReason.CLOSED, EndReason.END]
    assert records["way"]["packets"].sum(axis=1).tolist() == [4, 1]
    assert records["tcp_state"][1] == TcpState.MIDSTREAM


def test_a_closed_connection_ends_by_the_time_of_other_flows() -> None:
    flow_meter = FlowMeter()
    flow_meter.add(batch([*closing(0), packet(src_port=1, ts_ns=at(7))]))
    assert flow_meter.pending == 0
    flow_meter.add(batch([packet(src_port=1, ts_ns=at(7.1))]))
    assert (flow_meter.pending, flow_meter.live) == (1, 1)


def test_the_active_timeout_continues_the_flow() -> None:
    """Identity, direction, tunnel, state and opening stay; the measures start anew."""
    tunnel = {"gtp_depth": 1, "outer_src_lo": 1, "outer_dst_lo": 2}
    uplink = {"gtp_teid": 77, "gtp_qfi": 9, "gtp_pdu_type": 1, "vlan": 5, **tunnel}
    downlink = {"gtp_teid": 88, "gtp_qfi": 8, "gtp_pdu_type": 0, "vlan": 6, **tunnel}
    packets = [
        reply(tcp_flags=SYN | ACK, tcp_mss=1400, tcp_wscale=7, tcp_ack=6, ts_ns=at(0), **downlink),
        packet(b"hello", tcp_flags=ACK, tcp_seq=6, ts_ns=at(1), **uplink),
        reply(b"later", tcp_seq=1, ts_ns=at(61), **downlink),
        packet(b"hello", tcp_seq=6, tcp_ack=6, ts_ns=at(62), **uplink | {"gtp_teid": 99}),
        packet(b"again", tcp_seq=11, tcp_ack=6, ts_ns=at(122.5), **uplink),
    ]
    first, second, third = run(packets, MeterConfig(active_timeout_s=60))
    assert [f["flow_id"] for f in (first, second, third)] == [1, 2, 3]
    assert [f["parent_id"] for f in (first, second, third)] == [1, 1, 1]
    assert reasons(run(packets, MeterConfig(active_timeout_s=60))) == [
        EndReason.ACTIVE,
        EndReason.ACTIVE,
        EndReason.END,
    ]
    for flow in (first, second, third):
        assert flow["src_port"] == 40000
        assert flow["outer_src_lo"] == 1
        assert flow["start"]["mss"].tolist() == [0, 1400]
        assert flow["start"]["wscale"].tolist() == [255, 7]
        assert flow["tcp_state"] == TcpState.SYN_ACK | TcpState.ESTABLISHED
        assert flow["start"]["prefix"][0, :5].tobytes() == b"hello"
        assert flow["way"]["first_payload"][0] == 5
    assert second["way"]["packets"].tolist() == [1, 1]
    assert second["way"]["retransmissions"].tolist() == [1, 0]
    assert second["start"]["teid"].tolist() == [99, 88]
    assert third["way"]["packets"].tolist() == [1, 0]
    assert third["start"]["teid"].tolist() == [77, 88]
    assert third["start"]["qfi"].tolist() == [9, 8]
    assert third["start"]["gtp_pdu_type"].tolist() == [1, 0]
    assert third["start"]["vlan"].tolist() == [5, 6]
    assert third["way"]["payload_bytes"].tolist() == [5, 0]


def test_a_late_packet_moves_no_clock_back() -> None:
    packets = [
        packet(b"a", ts_ns=at(10)),
        reply(b"b", ts_ns=at(9)),
        packet(b"c", ts_ns=at(9.5)),
        packet(b"d", ts_ns=at(11)),
    ]
    (flow,) = run(packets)
    assert (flow["first_ns"], flow["last_ns"]) == (at(10), at(11))
    assert flow["start"]["dir_first_ns"].tolist() == [at(10), at(10)]
    assert flow["way"]["gap_max_ns"].tolist() == [SECOND, 0]


def test_a_clock_that_was_set_back_ends_what_came_before() -> None:
    """Two captures in one file: the second must not wait for the first one's time."""
    other = {"src_port": 1}
    packets = [
        packet(ts_ns=at(1000)),
        packet(ts_ns=at(1000), **other),
        packet(ts_ns=at(0)),
        packet(ts_ns=at(200)),
        packet(ts_ns=at(200), **other),
    ]
    records = run(packets)
    assert reasons(records) == [EndReason.IDLE] * 3 + [EndReason.END] * 2


@pytest.mark.parametrize("stray", [0, 2**62 - 1])
def test_a_corrupt_stamp_cuts_nothing(stray: int) -> None:
    steady = [packet(ts_ns=at(k)) for k in range(10)]
    records = run([*steady[:5], packet(src_port=9, ts_ns=stray), *steady[5:]])
    assert records["way"]["packets"][:, 0].tolist() == [1, 10]
    assert records["first_ns"].tolist() == [at(4), at(0)]  # it came when the clock said 4
    assert np.isfinite(records["way"]["gap_sumsq"]).all()


def test_flows_behind_a_later_one_in_the_age_list_still_end_in_time() -> None:
    """A late packet puts an old flow behind a newer one; its next packet must see the gap."""
    config = MeterConfig(idle_timeout_s=100)
    late = {"src_port": 7}
    packets = [
        packet(ts_ns=at(90)),
        packet(ts_ns=at(0), **late),
        packet(ts_ns=at(101), **late),
    ]
    records = run(packets, config)
    assert reasons(records) == [EndReason.IDLE, EndReason.END, EndReason.END]


# Bursts


def test_a_pause_before_a_bare_acknowledgement_ends_a_burst() -> None:
    packets = [
        packet(b"abc", ts_ns=at(0), tcp_seq=0),
        packet(b"de", ts_ns=at(0.5), tcp_seq=3),
        packet(ts_ns=at(5), tcp_seq=5),
        packet(b"f", ts_ns=at(5.1), tcp_seq=5),
    ]
    (flow,) = run(packets)
    assert flow["way"]["bursts"].tolist() == [2, 0]
    assert flow["way"]["burst_max_bytes"].tolist() == [5, 0]
    assert flow["turns"] == 0


# New bytes and old ones


def test_new_bytes_are_counted_apart_from_repeated_ones() -> None:
    packets = [
        packet(b"abcd", tcp_seq=10, ts_ns=at(0)),
        packet(b"abcd", tcp_seq=10, ts_ns=at(1)),  # all of it again
        packet(b"cdef", tcp_seq=12, ts_ns=at(2)),  # half of it again
        packet(b"ij", tcp_seq=18, ts_ns=at(3)),  # gh is missing
        packet(b"gh", tcp_seq=16, ts_ns=at(4)),  # and comes
        packet(b"gh", tcp_seq=16, ts_ns=at(5)),  # and comes again
    ]
    (flow,) = run(packets)
    assert flow["way"]["payload_bytes"][0] == 18
    assert flow["way"]["payload_bytes"][0] - flow["way"]["old_bytes"][0] == 10
    assert flow["way"]["retransmissions"][0] == 2
    assert flow["way"]["out_of_order"][0] == 2


def test_holes_and_numbers_wrap_around() -> None:
    packets = [
        packet(b"ab", tcp_seq=2**32 - 4, ts_ns=at(0)),
        packet(b"ef", tcp_seq=1, ts_ns=at(1)),
        packet(b"xcd", tcp_seq=2**32 - 2, ts_ns=at(2)),
    ]
    (flow,) = run(packets)
    assert (flow["way"]["old_bytes"][0], flow["way"]["retransmissions"][0]) == (0, 0)


def test_keep_alives_are_neither_data_nor_retransmissions() -> None:
    packets = [
        packet(b"abcd", tcp_seq=10, ts_ns=at(0)),
        packet(b"d", tcp_seq=13, ts_ns=at(45)),
        packet(tcp_seq=13, ts_ns=at(90)),
        packet(tcp_seq=13, tcp_flags=RST, ts_ns=at(91)),
    ]
    (flow,) = run(packets)
    assert flow["way"]["keep_alives"][0] == 2
    assert (flow["way"]["retransmissions"][0], flow["way"]["old_bytes"][0]) == (0, 0)
    assert (flow["way"]["payload_packets"][0], flow["way"]["payload_bytes"][0]) == (1, 4)


# Identity


def test_subscribers_with_one_inner_address_stay_apart() -> None:
    def through(node: int, **fields: int) -> dict[str, int]:
        return {"gtp_depth": 1, "outer_src_lo": node, "outer_dst_lo": 9, **fields}

    packets = [
        packet(**through(1, gtp_teid=5)),
        packet(**through(2, gtp_teid=6)),
        reply(**through(1, gtp_teid=7)),
        packet(tcp_seq=1),
    ]
    records = run(packets)
    assert records["way"]["packets"].tolist() == [[1, 0], [1, 1], [1, 0]]
    assert records["start"]["teid"].tolist() == [[6, 0], [5, 7], [0, 0]]


def test_ip_versions_are_never_mixed() -> None:
    assert len(run([packet(ip_version=4), packet(ip_version=6)])) == 2


def test_a_packet_from_a_host_to_itself() -> None:
    """The land attack: source and destination are the same in every field."""
    fields = {"dst_lo": MAPPED + 0x0A000001, "dst_port": 40000}
    flows, _, _ = meter(
        [packet(tcp_flags=flags, **fields) for flags in (SYN, SYN | ACK, ACK)], CONFIG
    )
    assert flows.records["way"]["packets"].sum() == 3


def test_refused_packets_reach_no_flow() -> None:
    assert run([packet(), packet(status=4)])["way"]["packets"].sum() == 1


# Memory


def one_packet_flows(count: int) -> Any:
    packets = np.zeros(count, PACKET_DTYPE)
    number = np.arange(count)
    packets["src_lo"] = MAPPED + number // 50_000
    packets["src_port"] = number % 50_000
    packets["dst_lo"] = MAPPED + 0xC6336401
    packets["protocol"], packets["ip_version"], packets["ip_length"] = 17, 4, 28
    packets["ts_ns"] = at(0) + number * 1000
    packets["number"] = number
    return packets


def allocated(flow_meter: FlowMeter) -> int:
    return sum(
        array.nbytes
        for name, array in flow_meter._state._asdict().items()
        if not name.endswith("_words")  # views of other arrays
    )


@pytest.mark.parametrize("block", [1024, 5000])
def test_a_flood_of_one_packet_flows_stays_in_bounded_memory(block: int) -> None:
    count, most = 300_000, 10_000
    packets = one_packet_flows(count)
    flow_meter = FlowMeter(MeterConfig(max_flows=most, max_heads=16))
    fixed = allocated(FlowMeter(MeterConfig(max_flows=1, max_heads=16)))
    buffer = np.zeros(0, np.uint8)
    seen: list[Any] = []
    for start in range(0, count, block):
        flow_meter.add(PacketBatch(buffer, packets[start : start + block]))
        assert flow_meter.live <= most
        assert allocated(flow_meter) <= fixed + most * 1650
        if flow_meter.pending > 20_000:
            seen.append(flow_meter.take()[0].records)
    assert flow_meter.evicted == count - most
    flow_meter.finish()
    seen.append(flow_meter.take()[0].records)
    records = np.concatenate(seen)
    # Every flow comes back, the longest silent one first.
    assert records["first_number"].tolist() == list(range(count))
    assert (records["way"]["packets"] == [1, 0]).all()
    assert flow_meter.live == 0


def test_flows_survive_the_growth_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.traffic.flow.meter.FIRST_CAPACITY", 1)
    packets = [packet(src_port=1 + k % 97, ts_ns=at(k / 1000)) for k in range(600)]
    oracle_agrees = assert_same(packets, MeterConfig(max_flows=80), cuts=list(range(0, 600, 3)))
    assert oracle_agrees.evicted > 0
    records = run(packets, MeterConfig(max_flows=200))
    assert len(records) == 97


def test_many_flows_that_end_at_once_overflow_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "OUT_FLOWS", 7)
    packets = [packet(src_port=1 + k, ts_ns=at(0)) for k in range(100)]
    packets += [packet(src_port=50, ts_ns=at(500)), packet(src_port=51, ts_ns=at(500))]
    records = run(packets)
    assert reasons(records) == [EndReason.IDLE] * 100 + [EndReason.END] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_flows": 0},
        {"max_flows": 2**31},
        {"max_heads": 0},
        {"sequence_length": 0},
        {"idle_timeout_s": -1.0},
        {"active_timeout_s": float("nan")},
        {"linger_s": float("inf")},
    ],
)
def test_a_configuration_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(VeilwatchError, match=next(iter(wrong))):
        MeterConfig(**wrong)
