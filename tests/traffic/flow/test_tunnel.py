"""Which flow a tunnelled packet belongs to: subscribers, handovers, sessions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.traffic.flow.oracle import Packet, TunnelEnd
from tests.traffic.flow.streams import MAPPED, SECOND, assert_same, batch, meter, packet, reply
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.flow.tunnel import MAX_TWINS

SYN, ACK, UDP = 2, 16, 17
GNB, OTHER_GNB, UPF, OTHER_UPF = (MAPPED + n for n in (1, 2, 3, 4))


def uplink(teid: int, gnb: int = GNB, upf: int = UPF, **fields: int) -> dict[str, int]:
    """From the subscriber, who opened the flow."""
    return {
        "gtp_depth": 1,
        "gtp_teid": teid,
        "outer_src_lo": gnb,
        "outer_dst_lo": upf,
        "ts_ns": SECOND,
        "ip_id": 0,
        **fields,
    }


def downlink(teid: int, gnb: int = GNB, upf: int = UPF, **fields: int) -> dict[str, int]:
    """To the subscriber: `reply` turns the end points round."""
    return uplink(teid, gnb, upf, **fields)


def run(packets: list[Packet], sessions: dict[TunnelEnd, int] | None = None) -> Any:
    """Records of the kernels in the order in which their flows began."""
    assert_same(packets, MeterConfig(), sessions=sessions)
    flows, _, _ = meter(packets, MeterConfig(), sessions=sessions)
    return np.sort(flows.records, order="flow_id")


def ambiguous(packets: list[Packet]) -> int:
    flow_meter = FlowMeter()
    flow_meter.add(batch(packets))
    return flow_meter.ambiguous


def udp(fields: dict[str, int]) -> dict[str, int]:
    return {"protocol": UDP, "tcp_flags": 0, **fields}


def test_uplink_and_downlink_have_their_own_teids() -> None:
    (flow,) = run([packet(**udp(uplink(5))), reply(**udp(downlink(7))), packet(**udp(uplink(5)))])
    assert flow["way"]["packets"].tolist() == [2, 1]
    assert flow["start"]["teid"].tolist() == [5, 7]


def test_two_subscribers_behind_one_base_station_stay_apart() -> None:
    """The same private address and ports, told apart by TEIDs alone."""
    one, other = udp(uplink(5)), udp(uplink(6))
    records = run([packet(b"a", **one), packet(b"b", **other), packet(b"c", **one)])
    assert records["way"]["packets"].tolist() == [[2, 0], [1, 0]]


def test_the_same_bytes_of_two_subscribers_are_no_copies() -> None:
    records = run(
        [
            packet(b"same", **udp(uplink(5, ip_id=9))),
            packet(b"same", **udp(uplink(6, ip_id=9))),
            packet(b"same", **udp(uplink(5, gnb=OTHER_GNB, ip_id=9, ts_ns=SECOND + 1))),
        ]
    )
    # The third comes through the first one's tunnel from another base station: a handover.
    assert records["way"]["packets"][:, 0].tolist() == [2, 1]


def test_teids_seen_together_before_tell_whose_an_answer_is() -> None:
    dns = {"dst_port": 53}
    packets = [
        *(packet(**udp(uplink(5)), **dns), reply(**udp(downlink(15)), **dns)),
        *(packet(**udp(uplink(6)), src_port=41000), reply(**udp(downlink(16)), src_port=41000)),
        *(packet(**udp(uplink(5))), packet(**udp(uplink(6)))),
        *(reply(**udp(downlink(15))), reply(**udp(downlink(16)))),
    ]
    records = run(packets)
    assert records["start"]["teid"].tolist() == [[5, 15], [6, 16], [5, 15], [6, 16]]
    assert ambiguous(packets) == 0


def test_sequence_numbers_tell_whose_an_answer_is() -> None:
    packets = [
        packet(b"abc", tcp_seq=1000, tcp_ack=5000, **uplink(5)),
        packet(b"abc", tcp_seq=2**31, tcp_ack=7, **uplink(6)),
        reply(b"x", tcp_seq=5000, tcp_ack=1003, **downlink(15)),
    ]
    assert run(packets)["start"]["teid"].tolist() == [[5, 15], [6, 0]]
    assert ambiguous(packets) == 0


def test_what_nothing_tells_apart_is_counted() -> None:
    packets = [packet(**udp(uplink(5))), packet(**udp(uplink(6))), reply(**udp(downlink(7)))]
    assert ambiguous(packets) == 1
    assert run(packets)["way"]["packets"].sum() == 3


def test_a_handover_does_not_split_a_flow() -> None:
    """The base station changes, and with it where downlink goes; the UPF's tunnel stays."""
    packets = [
        *(packet(**udp(uplink(5))), reply(**udp(downlink(15)))),
        packet(**udp(uplink(5, gnb=OTHER_GNB))),
        reply(**udp(downlink(15))),  # still under way to the old base station
        reply(**udp(downlink(25, gnb=OTHER_GNB))),
        packet(**udp(uplink(5, gnb=OTHER_GNB))),
    ]
    (flow,) = run(packets)
    assert flow["way"]["packets"].tolist() == [3, 3]
    assert flow["handovers"] == 1


def test_a_handover_that_downlink_shows_first() -> None:
    stream = [
        packet(b"abc", tcp_seq=1000, tcp_ack=5000, **uplink(5)),
        reply(b"x", tcp_seq=5000, tcp_ack=1003, **downlink(15)),
        reply(b"y", tcp_seq=5001, tcp_ack=1003, **downlink(25, gnb=OTHER_GNB)),
        packet(b"d", tcp_seq=1003, tcp_ack=5002, **uplink(5, gnb=OTHER_GNB)),
        packet(b"e", tcp_seq=1004, tcp_ack=5002, **uplink(9, gnb=OTHER_GNB, upf=OTHER_UPF)),
    ]
    (flow,) = run(stream)
    assert flow["way"]["packets"].tolist() == [3, 2]
    assert flow["handovers"] == 2


def test_another_subscriber_behind_the_new_base_station_is_not_taken_for_the_first() -> None:
    packets = [
        *(packet(**udp(uplink(5))), reply(**udp(downlink(15)))),
        packet(**udp(uplink(8, gnb=OTHER_GNB))),
    ]
    assert len(run(packets)) == 2


def test_a_core_with_one_address_for_each_direction() -> None:
    stream = [
        packet(b"abc", tcp_seq=1000, tcp_ack=5000, **uplink(5)),
        reply(b"x", tcp_seq=5000, tcp_ack=1003, **downlink(15, upf=OTHER_UPF)),
        reply(b"y", tcp_seq=5001, tcp_ack=1003, **downlink(15, upf=OTHER_UPF)),
    ]
    (flow,) = run(stream)
    assert (flow["way"]["packets"].tolist(), flow["handovers"]) == ([1, 2], 0)


def test_sessions_decide_where_control_traffic_is_seen() -> None:
    """A session that reuses the TEID is another one; one with new tunnels is the same."""
    known: dict[TunnelEnd, int] = {
        ((0, UPF), 5): 1,
        ((0, OTHER_GNB), 25): 1,
        ((0, UPF), 6): 1,
        ((0, UPF), 7): 2,
    }
    packets = [
        packet(**udp(uplink(5))),
        reply(**udp(downlink(25, gnb=OTHER_GNB))),
        packet(**udp(uplink(6))),
        packet(**udp(uplink(7))),
    ]
    records = run(packets, known)
    assert records["way"]["packets"].tolist() == [[2, 1], [1, 0]]
    assert records["session"].tolist() == [1, 2]


def test_a_session_that_takes_over_a_teid_begins_a_new_flow() -> None:
    tunnel = np.zeros(1, np.dtype([*_fields()]))
    tunnel["address_lo"], tunnel["teid"] = UPF, 5
    flow_meter = FlowMeter()
    for session in (1, 2):
        tunnel["session"] = session
        flow_meter.bind(tunnel)
        flow_meter.add(batch([packet(**udp(uplink(5, ts_ns=session * SECOND)))]))
    flow_meter.finish()
    assert flow_meter.take()[0].records["session"].tolist() == [1, 2]


def _fields() -> list[tuple[str, Any]]:
    return [
        *(("address_hi", np.uint64), ("address_lo", np.uint64)),
        *(("teid", np.uint32), ("session", np.int64)),
    ]


def test_one_packet_through_many_tunnels_makes_no_endless_search() -> None:
    count = 20 * MAX_TWINS
    packets = [packet(**udp(uplink(5 + k, ts_ns=SECOND + k))) for k in range(count)]
    flow_meter = FlowMeter()
    flow_meter.add(batch(packets))
    assert flow_meter.live == MAX_TWINS
    assert flow_meter.evicted == count - MAX_TWINS
    assert_same(packets, MeterConfig())
