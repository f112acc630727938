"""A flow whose direction was guessed is turned when its SYN or SYN-ACK comes late."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.traffic.flow.oracle import LATER_FRAGMENT, Packet
from tests.traffic.flow.streams import SECOND, assert_same, meter, packet, reply
from veilwatch.schema.flows import LIVE_DTYPE, TcpState
from veilwatch.traffic.flow import InterimPoints, MeterConfig
from veilwatch.traffic.flow.state import SLOT_DTYPE, joined, new_state, with_extras
from veilwatch.traffic.flow.turn import turn

SYN, ACK, FIN = 2, 16, 1
CONFIG = MeterConfig()
TUNNEL = {"gtp_depth": 1, "outer_src_lo": 1, "outer_dst_lo": 2, "gtp_teid": 5, "gtp_qfi": 9}

SERVER = [
    reply(b"world", tcp_seq=5000, tcp_ack=1005, ts_ns=0),
    reply(b"!", tcp_seq=5005, tcp_ack=1005, ts_ns=1000),
]
SYN_ACK = reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=1000, ts_ns=2000)
CLIENT = [
    packet(tcp_flags=SYN, tcp_seq=999, tcp_mss=1400, ts_ns=3000),
    packet(b"hello", tcp_seq=1000, tcp_ack=5000, ts_ns=4000),
]


def run(packets: list[Packet], **options: Any) -> Any:
    assert_same(packets, CONFIG, **options)
    flows, _, _ = meter(packets, CONFIG)
    return flows


@pytest.mark.parametrize(
    "packets",
    [
        [*SERVER, *CLIENT, SYN_ACK],
        [*SERVER, SYN_ACK, *CLIENT],
        [SERVER[0], CLIENT[1], SYN_ACK, SERVER[1], CLIENT[0]],
        [SERVER[0], CLIENT[1], CLIENT[0], SERVER[1], SYN_ACK],
    ],
)
def test_whoever_sent_the_syn_is_the_initiator(packets: list[Packet]) -> None:
    flows = run(packets)
    (flow,) = flows.records
    assert (flow["src_port"], flow["dst_port"]) == (40000, 443)
    assert flow["way"]["packets"].tolist() == [2, 3]
    assert (flow["way"]["payload_bytes"] - flow["way"]["old_bytes"]).tolist() == [5, 6]
    assert flow["start"]["mss"].tolist() == [1400, 0]
    assert flow["start"]["prefix"][0, :5].tobytes() == b"hello"
    assert flow["start"]["prefix"][1, :6].tobytes() == b"world!"
    assert not flow["tcp_state"] & TcpState.MIDSTREAM
    sizes = flows.sequences["size"][0]
    assert [size > 0 for size in sizes[:5]] == [p.src_port == 40000 for p in packets]


def test_the_tunnels_of_a_turned_flow_are_told_by_direction_as_before() -> None:
    up = {**TUNNEL, "gtp_pdu_type": 1}
    down = {**TUNNEL, "gtp_teid": 6, "gtp_pdu_type": 0}
    packets = [Packet(p.row | down, p.payload) for p in SERVER]
    packets[0].row["outer_src_lo"], packets[0].row["outer_dst_lo"] = 2, 1
    packets[1].row["outer_src_lo"], packets[1].row["outer_dst_lo"] = 2, 1
    packets += [Packet(p.row | up, p.payload) for p in CLIENT]
    (flow,) = run(packets).records
    assert (flow["src_port"], flow["start"]["teid"].tolist()) == (40000, [5, 6])
    assert (flow["outer_src_lo"], flow["outer_dst_lo"]) == (1, 2)


def test_reports_are_what_was_known_when_they_were_made() -> None:
    early = InterimPoints(packets=(1, 3, 5), age_s=None, silence_s=None)
    oracle = assert_same([*SERVER, *CLIENT, SYN_ACK], CONFIG, early=early)
    assert [int(report.record["src_port"]) for report in oracle.reports] == [443, 40000, 40000]
    assert {int(report.record["flow_id"]) for report in oracle.reports} == {1}


def test_heads_and_fragments_follow_the_turn() -> None:
    answer = bytes.fromhex("160303005002000000") + bytes(range(76))
    hello = bytes.fromhex("160301005001000000") + bytes(range(76))
    key = {"fragment_key": 256 * 7 + 1, "payload_offset": 20}
    packets = [
        reply(answer[:36], tcp_seq=5000, tcp_ack=1085, fragment=1, **key),
        packet(tcp_flags=SYN, tcp_seq=999),
        Packet(
            reply(
                answer[36:],
                **(key | {"payload_offset": 0, "src_port": 0, "dst_port": 0, "tcp_flags": 0}),
                status=LATER_FRAGMENT,
                fragment=2,
                fragment_offset=56,
            ).row,
            answer[36:],
        ),
        packet(hello, tcp_seq=1000, tcp_ack=5000),
    ]
    flows = run(packets)
    assert flows.records["way"]["fragments"].tolist() == [[0, 1]]
    _, heads, _ = meter(packets, CONFIG)
    assert [streams for *_, streams in heads] == [(hello, answer)]


def test_a_fin_is_its_senders_after_the_turn_too() -> None:
    fin = reply(tcp_flags=FIN | ACK, tcp_seq=5006, tcp_ack=1005, ts_ns=2000)
    (flow,) = run([*SERVER, fin, *CLIENT]).records
    assert flow["tcp_state"] == TcpState.SYN | TcpState.FIN_BWD


def test_records_that_were_handed_on_are_not_turned() -> None:
    config = MeterConfig(active_timeout_s=1)
    early = [Packet(p.row | {"tcp_ack": 1000}, p.payload) for p in SERVER]
    late = [Packet(p.row | {"ts_ns": p.ts_ns + 5 * SECOND}, p.payload) for p in CLIENT]
    assert_same([*early, *late], config)
    flows, _, _ = meter([*early, *late], config)
    assert flows.records["src_port"].tolist() == [443, 443]


def test_every_field_of_two_directions_changes_places() -> None:
    state = with_extras(new_state(2, 2, 4), 2)
    rng = np.random.default_rng(3)
    state.flow_words[0] = rng.integers(0, 2**63, state.flow_words.shape[1], np.uint64)
    state.flows["burst_direction"][0], state.flows["tcp_state"][0] = 2, 0
    state.flows["extra"][0] = 1
    state.extra_words[1] = rng.integers(0, 2**63, state.extra_words.shape[1], np.uint64)
    missing = state.extras["missing"][1].copy()
    state.flows["turned"][0] = state.flows["sequence_used"][0] = 0
    pairs = [name for name in SLOT_DTYPE.names or () if SLOT_DTYPE[name].shape == (2,)]
    for name in pairs:
        state.slots[name][0] = 7, 9
    before = joined([state.flows[:1]])
    turn(state, 0)
    assert {name: state.slots[name][0].tolist() for name in pairs} == {
        name: [9, 7] for name in pairs
    }
    for name in LIVE_DTYPE.names or ():
        found, was = state.flows[name][0], before[name][0]
        if name == "turned":
            assert found == 1
        elif LIVE_DTYPE[name].shape[:1] == (2,):
            for part in found.dtype.names:
                assert found[part].tobytes() == was[::-1][part].tobytes(), part
        elif "src_" in name or "dst_" in name:
            other = name.replace("src_", "?").replace("dst_", "src_").replace("?", "dst_")
            assert found == before[other][0], name
        elif found.dtype.kind != "f":
            np.testing.assert_array_equal(found, was, err_msg=name)
    assert state.extras["missing"][1].tobytes() == missing[::-1].tobytes()
