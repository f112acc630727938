"""Rows of what few flows have."""

from __future__ import annotations

from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import SECOND, batch, packet
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.flow.extra import FRESH

SYN, ACK, RST = 0x02, 0x10, 0x04


def at(seconds: float) -> int:
    return 1_700_000_000 * SECOND + round(seconds * SECOND)


def with_hole(port: int, second: float) -> list[Packet]:
    """A connection of which ten bytes are missing, that is reset."""
    return [
        packet(src_port=port, tcp_flags=SYN, tcp_seq=99, ts_ns=at(second)),
        packet(b"begin", src_port=port, tcp_flags=ACK, tcp_seq=100, ts_ns=at(second + 0.1)),
        packet(b"later", src_port=port, tcp_flags=ACK, tcp_seq=115, ts_ns=at(second + 0.2)),
        packet(src_port=port, tcp_flags=RST, tcp_seq=120, ts_ns=at(second + 0.3)),
    ]


def test_whoever_misses_nothing_has_no_row() -> None:
    meter = FlowMeter()
    meter.add(batch([packet(b"all", src_port=port, ts_ns=at(0)) for port in range(1, 50)]))
    assert meter._state.extra_books[FRESH] == 1
    meter.finish()
    assert not meter.take()[0].records["missing"]["hole_end"].any()


def test_rows_are_given_back_empty() -> None:
    meter = FlowMeter(MeterConfig(linger_s=1.0))
    for k in range(200):
        meter.add(batch(with_hole(1000 + k, 10.0 * k)))
    assert meter._state.extra_books[FRESH] <= 3  # one flow lingers while the next one runs
    assert len(meter._state.extras) <= 16
    meter.add(batch([packet(b"x", src_port=9, ts_ns=at(2010.0))]))
    assert not meter._state.extras["missing"]["hole_end"].any()
    meter.finish()
    records = meter.take()[0].records
    holes = records["missing"][records["src_port"] != 9, 0]
    assert holes["hole_start"][:, 0].tolist() == [105] * 200
    assert holes["hole_end"][:, 0].tolist() == [115] * 200
    assert not records["missing"]["hole_end"][records["src_port"] == 9].any()


def test_rows_grow_with_the_flows_that_need_them() -> None:
    meter = FlowMeter()
    packets = sorted(
        (p for k in range(3000) for p in with_hole(1 + k, k / 1e4)[:3]), key=lambda p: p.ts_ns
    )
    meter.add(batch(packets))
    assert meter._state.extra_books[FRESH] == 3001
    meter.finish()
    missing = meter.take()[0].records["missing"][:, 0]
    assert missing["hole_end"][:, 0].tolist() == [115] * 3000
