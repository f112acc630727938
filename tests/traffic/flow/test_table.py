"""The flow table's columns against NumPy, the standard library and naive code on raw lists."""

from __future__ import annotations

import math
from collections import Counter
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import MAPPED, SECOND, meter, packet, reply
from veilwatch.schema.flows import (
    GAP_EDGES_NS,
    IDENTITY_COLUMNS,
    MEASURE_COLUMNS,
    PREFIX_BYTES,
    SEQUENCE_COLUMNS,
    SEQUENCE_LENGTH,
    SIZE_EDGES,
)
from veilwatch.traffic.flow import FlowMeter, MeterConfig, measure_table
from veilwatch.traffic.flow.addresses import format_addresses
from veilwatch.traffic.flow.prefix import prefix_measures

DEFAULTS = MeterConfig()


def table(packets: list[Packet], config: MeterConfig = DEFAULTS) -> pl.DataFrame:
    flows, _, _ = meter(packets, config)
    return measure_table(flows)


def conversation() -> list[tuple[Packet, int]]:
    """One TCP connection of 200 packets with gaps from 1 us to 20 s, both ways."""
    random = np.random.default_rng(7)
    packets, now = [], 1_700_000_000 * SECOND
    for i in range(200):
        now += int(10 ** random.uniform(3, 10.3))
        direction = int(random.integers(0, 2)) if i else 0
        content = random.integers(0, 256, random.integers(0, 90), np.uint8).tobytes()
        content *= int(random.integers(0, 2))
        make = (packet, reply)[direction]
        length = len(content) + int(random.integers(0, 2000)) * bool(content)
        fields = {"ts_ns": now, "tcp_window": int(random.integers(1, 65536))}
        packets.append((make(content, payload_length=length, tcp_seq=i, **fields), direction))
    return packets


def test_moments_equal_numpy_on_the_raw_values() -> None:
    packets = conversation()
    row = table([p for p, _ in packets], MeterConfig(active_timeout_s=10_000)).row(0, named=True)
    first = packets[0][0].ts_ns
    for direction, side in enumerate(("fwd", "bwd")):
        own = [p for p, d in packets if d == direction]
        sizes = np.array([p.ip_length for p in own])
        payloads = np.array([p.payload_length for p in own if p.payload_length])
        times = np.array([p.ts_ns for p in own])
        gaps = np.diff(times)
        expected = {
            "size_std": sizes.std(),
            "payload_std": payloads.std(),
            "start": (times[0] - first) / 1e9,
            "duration": (times[-1] - times[0]) / 1e9,
            "gap_min": gaps.min() / 1e9,
            "gap_max": gaps.max() / 1e9,
            "gap_mean": gaps.mean() / 1e9,
            "gap_std": gaps.std() / 1e9,
            "window_mean": np.mean([p.tcp_window for p in own]),
        }
        for name, value in expected.items():
            assert row[f"{side}_{name}"] == pytest.approx(value, rel=1e-5), name
        for k, edge in enumerate(SIZE_EDGES):
            upper = (*SIZE_EDGES, math.inf)[k + 1]
            inside = sum(edge <= p.payload_length < upper for p in own)
            assert row[f"{side}_size_from_{edge}"] == inside
        for k, edge in enumerate(GAP_EDGES_NS):
            upper = (*GAP_EDGES_NS, math.inf)[k + 1]
            inside = int(sum(edge <= gap < upper for gap in gaps))
            assert row[f"{side}_gap_from_{edge // 1000}us"] == inside
    pauses = np.diff([p.ts_ns for p, _ in packets])
    pauses = pauses[pauses > SECOND] / 1e9
    assert row["pauses"] == len(pauses)
    assert row["pause_mean"] == pytest.approx(pauses.mean(), rel=1e-5)
    assert row["pause_std"] == pytest.approx(pauses.std(), rel=1e-5)


def test_what_does_not_apply_is_nan_or_zero() -> None:
    row = table([packet(ts_ns=SECOND), packet(b"xyz", ts_ns=3 * SECOND)]).row(0, named=True)
    assert row["fwd_gap_mean"] == row["fwd_gap_min"] == row["fwd_gap_max"] == 2.0
    assert row["fwd_gap_std"] == 0.0
    assert row["pause_mean"] == 2.0
    assert math.isnan(row["pause_std"])
    for name in ("start", "gap_min", "gap_max", "gap_mean", "gap_std", "prefix_entropy"):
        assert math.isnan(row[f"bwd_{name}"]), name
    for name in ("packets", "size_min", "size_std", "payload_std", "duration", "window_mean"):
        assert row[f"bwd_{name}"] == 0, name
    assert row["fwd_wscale"] == row["bwd_qfi"] == 255


def test_sequence_columns_hold_the_head_of_the_flow() -> None:
    packets = [
        packet(b"a", ts_ns=SECOND, tcp_flags=0x18),
        reply(b"bc", ts_ns=SECOND + 1_500, tcp_flags=0x10),
        packet(ts_ns=SECOND + 2_000_000, tcp_flags=0x11),
        packet(ts_ns=SECOND + 3_000_000),
    ]
    row = table(packets, MeterConfig(sequence_length=3)).row(0, named=True)
    assert row["seq_size"] == [41, -42, 40]
    assert row["seq_payload"] == [1, 2, 0]
    assert row["seq_gap_us"] == [0, 1, 1998]
    assert row["seq_flags"] == [0x18, 0x10, 0x11]
    assert table(packets).row(0, named=True)["seq_size"][3:] == [40, *([0] * (SEQUENCE_LENGTH - 4))]


def test_columns_are_the_contract() -> None:
    for frame in (table([packet()]), table([])):
        assert frame.columns == [
            column.name for column in (*IDENTITY_COLUMNS, *MEASURE_COLUMNS, *SEQUENCE_COLUMNS)
        ]
        for column in (*IDENTITY_COLUMNS, *MEASURE_COLUMNS):
            assert frame.schema[column.name] == column.dtype, column.name
        for column in SEQUENCE_COLUMNS:
            assert frame.schema[column.name].base_type() == pl.Array, column.name


@settings(deadline=None)
@given(st.lists(st.binary(max_size=PREFIX_BYTES), max_size=5))
def test_prefix_measures_equal_naive_ones(contents: list[bytes]) -> None:
    prefix = np.full((len(contents), PREFIX_BYTES), 0xEE, np.uint8)
    for row, content in zip(prefix, contents, strict=True):
        row[: len(content)] = list(content)
    used = np.array([len(content) for content in contents], np.uint8)
    found = prefix_measures(prefix, used)
    for i, content in enumerate(contents):
        if not content:
            assert all(math.isnan(values[i]) for values in found.values())
            continue
        shares = [count / len(content) for count in Counter(content).values()]
        entropy = -sum(share * math.log2(share) for share in shares)
        printable = sum(chr(byte).isprintable() and byte < 128 for byte in content)
        assert found["prefix_entropy"][i] == pytest.approx(entropy, abs=1e-12)
        assert found["prefix_printable"][i] == printable / len(content)
        assert found["prefix_zero"][i] == content.count(0) / len(content)


# Beyond the IPv4-compatible block, for which C libraries print a dotted quad and Python does not.
IPV6 = st.integers(2**48, 2**128 - 1).map(IPv6Address).filter(lambda a: a.ipv4_mapped is None)


@settings(deadline=None)
@given(st.lists(st.one_of(IPV6, st.ip_addresses(v=4)), max_size=20))
def test_addresses_are_written_as_the_standard_library_does(
    addresses: list[IPv4Address | IPv6Address],
) -> None:
    numbers = [int(a) + (MAPPED if a.version == 4 else 0) for a in addresses]
    high = np.array([number >> 64 for number in numbers], np.uint64)
    low = np.array([number & (2**64 - 1) for number in numbers], np.uint64)
    assert format_addresses(high, low).to_list() == [str(a) for a in addresses]


def test_unspecified_addresses_and_absent_tunnels() -> None:
    solicitation = {"protocol": 58, "ip_version": 6, "src_port": 0, "dst_port": 0}
    rows = table(
        [
            packet(src_hi=0, src_lo=0, dst_hi=0xFF02 << 48, dst_lo=1, **solicitation),
            packet(src_lo=MAPPED, dst_lo=MAPPED + 0xFFFFFFFF, protocol=17),
            packet(gtp_depth=1, outer_src_lo=MAPPED + 1, outer_dst_lo=MAPPED + 2),
        ]
    )
    assert rows["src_ip"].to_list() == ["::", "0.0.0.0", "10.0.0.1"]
    assert rows["dst_ip"].to_list() == ["ff02::1", "255.255.255.255", "198.51.100.1"]
    assert rows["outer_src_ip"].to_list() == ["", "", "0.0.0.1"]
    assert rows["outer_dst_ip"].to_list() == ["", "", "0.0.0.2"]


@pytest.mark.parametrize(
    ("forth", "back", "direction"),
    [
        (1, 0, "uplink"),
        (0, 1, "downlink"),
        (1, None, "uplink"),
        (0, None, "downlink"),
        (255, 0, "uplink"),
        (255, 1, "downlink"),
        (255, 255, ""),
        (1, 1, ""),  # a contradiction says nothing
        (0, 0, ""),
    ],
)
def test_gtp_direction(forth: int, back: int | None, direction: str) -> None:
    tunnel = {"gtp_depth": 1, "outer_src_lo": 1, "outer_dst_lo": 2}
    packets = [packet(gtp_pdu_type=forth, **tunnel)]
    if back is not None:
        packets.append(reply(gtp_pdu_type=back, **tunnel))
    assert table(packets)["gtp_direction"].to_list() == [direction]


def test_no_flows_make_an_empty_table() -> None:
    flows, heads = FlowMeter().take()
    assert measure_table(flows).height == len(heads.rows) == 0
