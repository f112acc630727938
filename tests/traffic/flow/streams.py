"""Packet streams for the meter's tests, and the comparison of its output with the oracle's."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numba import njit

from tests.traffic.flow.oracle import Oracle, Packet, TunnelEnd
from veilwatch.schema.flows import (
    FLOW_RECORD_DTYPE,
    SEQUENCE_DTYPE,
    FlowBatch,
    HeadBatch,
    InterimBatch,
)
from veilwatch.schema.packets import NONE8, PACKET_DTYPE, PacketBatch
from veilwatch.schema.sessions import SESSION_DTYPE
from veilwatch.traffic.flow import FlowMeter, InterimPoints, MeterConfig
from veilwatch.traffic.flow.dedup import content
from veilwatch.traffic.flow.index import flow_hash
from veilwatch.traffic.flow.state import SEEN

SECOND = 10**9
SEED = np.uint64(0x5EED)
MAPPED = 0xFFFF_0000_0000
FIELDS = PACKET_DTYPE.names or ()


def packet(payload: bytes = b"", /, **fields: int) -> Packet:
    """A TCP packet over IPv4 between two hosts; `fields` overrides what it holds."""
    length = fields.get("payload_length", len(payload))
    row = dict.fromkeys(FIELDS, 0)
    row.update(src_lo=MAPPED + 0x0A000001, dst_lo=MAPPED + 0xC6336401)
    row.update(src_port=40000, dst_port=443, protocol=6, ip_version=4, ttl=64)
    row.update(tcp_wscale=NONE8, gtp_qfi=NONE8, gtp_pdu_type=NONE8, tcp_flags=0x10)
    row.update(payload_length=length, payload_captured=len(payload), ip_length=length + 40)
    row.update(checksum=zlib.crc32(payload) & 0xFFFF)
    row.update(fields)
    return Packet(row, payload)


def reply(payload: bytes = b"", /, **fields: int) -> Packet:
    """A packet from the other side."""
    there = packet(payload, **fields)
    swapped = dict(there.row)
    for name in ("src_hi", "src_lo", "src_port", "outer_src_hi", "outer_src_lo"):
        other = name.replace("src", "dst")
        swapped[name], swapped[other] = there.row[other], there.row[name]
    return Packet(swapped, payload)


def batch(packets: Sequence[Packet]) -> PacketBatch:
    """One block of packets; bytes of 0xEE between the payloads would show a wrong offset."""
    rows = np.zeros(len(packets), PACKET_DTYPE)
    content = bytearray(b"\xee" * 3)
    for row, item in zip(rows, packets, strict=True):
        for name, value in item.row.items():
            row[name] = value
        row["payload_offset"] = len(content)
        row["fragment_start"] = len(content) - (item.payload_offset - item.fragment_start)
        content += item.payload + b"\xee"
    return PacketBatch(np.frombuffer(content, np.uint8), rows)


def joined(parts: Sequence[tuple[FlowBatch, HeadBatch]]) -> tuple[FlowBatch, list[Any]]:
    """What several calls of `take` gave, as one: flows, and heads with their bytes."""
    flows = FlowBatch(
        np.concatenate([flows.records for flows, _ in parts]),
        np.concatenate([flows.sequences for flows, _ in parts]),
    )
    heads = [
        (
            *(int(row[name]) for name in ("flow_id", "first_ns")),
            (int(row["src_port"]), int(row["dst_port"])),
            int(row["protocol"]),
            (heads.stream(i, 0), heads.stream(i, 1)),
        )
        for _, heads in parts
        for i, row in enumerate(heads.rows)
    ]
    return flows, heads


def meter(
    packets: Sequence[Packet],
    config: MeterConfig,
    cuts: Sequence[int] = (),
    sessions: Mapping[TunnelEnd, int] | None = None,
    early: InterimPoints | None = None,
) -> tuple[FlowBatch, list[Any], FlowMeter]:
    """Run the kernels over `packets`, in blocks that end at `cuts`."""
    flow_meter = FlowMeter(config, early=early)
    flow_meter.bind(bindings(sessions or {}))
    edges = [0, *sorted(cuts), len(packets)]
    parts = []
    for start, stop in pairwise(edges):
        flow_meter.add(batch(packets[start:stop]))
        if cuts:
            parts.append(flow_meter.take())
    flow_meter.finish()
    parts.append(flow_meter.take())
    return *joined(parts), flow_meter


def bindings(sessions: Mapping[TunnelEnd, int]) -> Any:
    """Sessions by tunnel, as the meter takes them."""
    rows = np.zeros(len(sessions), SESSION_DTYPE)
    for row, (((high, low), teid), session) in zip(rows, sessions.items(), strict=True):
        row["address_hi"], row["address_lo"], row["teid"], row["session"] = high, low, teid, session
    return rows


def place(packet: Packet) -> int:
    """Where the meter remembers a packet: the same row holds another one a little later."""
    block = batch([packet])
    return int(_place(block.buffer, block.packets, SEED))


@njit  # type: ignore[untyped-decorator]
def _place(buffer: Any, packets: Any, seed: Any) -> Any:
    packet = packets[0]
    return content(buffer, packet, flow_hash(packet, seed)) & np.uint64(SEEN - 1)


def assert_same(
    packets: Sequence[Packet],
    config: MeterConfig,
    cuts: Sequence[int] = (),
    sessions: Mapping[TunnelEnd, int] | None = None,
    early: InterimPoints | None = None,
) -> Oracle:
    """Assert that kernels and oracle give the same, field by field and in the same order."""
    oracle = Oracle(config, place, sessions, early)
    oracle.add(packets)
    oracle.finish()
    with patch("secrets.randbits", return_value=int(SEED)):
        flows, heads, flow_meter = meter(packets, config, cuts, sessions, early)
    assert_same_flows(flows, oracle.records, oracle.sequences)
    reports = flow_meter.take_early()
    assert_same_flows(
        reports.flows,
        [report.record for report in oracle.reports],
        [report.sequence for report in oracle.reports],
    )
    assert partial_heads(reports) == [report.streams for report in oracle.reports]
    assert flow_meter.pending_early == 0
    assert heads == [
        (head.flow_id, head.first_ns, head.ports, head.protocol, head.streams)
        for head in oracle.heads
    ]
    assert (flow_meter.heads_cut, flow_meter.evicted) == (oracle.heads_cut, oracle.evicted)
    assert flow_meter.duplicates == oracle.seen_twice
    assert flow_meter.ambiguous == oracle.ambiguous
    assert flow_meter.fragments == oracle.followed
    assert (flow_meter.live, flow_meter.pending, flow_meter.pending_heads) == (0, 0, 0)
    return oracle


UNTOLD: Final = {
    *("tunnel", "pair", "alternate"),  # hashes, whose effect is in everything else
    *("ip_id", "id_changes", "id_repeats"),  # their effect is in what is taken for a copy
    *("extra", "unused"),
}
"""Fields of a record that the oracle does not compute."""


def fields(records: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every array of structured ones, of structures inside them too."""
    for name in records.dtype.names:
        if records[name].dtype.names:
            yield from fields(records[name], f"{path}{name}.")
        else:
            yield path + name, records[name]


def with_known_prefixes(records: Any) -> Any:
    """Return records whose `prefix_known` has the bytes below `prefix_used` too."""
    told = records.copy()
    for index in np.ndindex(told["way"].shape):
        used = int(told["way"]["prefix_used"][index])
        told["missing"]["prefix_known"][index] |= np.uint64((1 << used) - 1)
    return told


def assert_same_flows(flows: FlowBatch, records: Sequence[Any], sequences: Sequence[Any]) -> None:
    """Assert that flows are these."""
    expected = with_known_prefixes(np.array(records, FLOW_RECORD_DTYPE))
    assert len(flows) == len(expected)
    told = dict(fields(with_known_prefixes(flows.records)))
    for name, wanted in fields(expected):
        found = told[name]
        # Looking into a difference takes NumPy twenty times as long as seeing that there is none.
        if name.rsplit(".", 1)[-1] in UNTOLD or np.array_equal(found, wanted):
            continue
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
    np.testing.assert_array_equal(
        flows.sequences, np.array(sequences, SEQUENCE_DTYPE).reshape(flows.sequences.shape)
    )


def partial_heads(reports: InterimBatch) -> list[tuple[bytes, bytes] | None]:
    """What had come of the heads of each early report, None where they had left before."""
    rows = reports.heads.rows
    return [
        None if row["flow_id"] < 0 else (reports.heads.stream(i, 0), reports.heads.stream(i, 1))
        for i, row in enumerate(rows)
    ]
