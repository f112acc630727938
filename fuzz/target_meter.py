"""Frames in any order and at any time through decoder and meter: no packet is lost or made up."""

from __future__ import annotations

import tests.traffic.decode.reference
from tests.traffic.decode.frames import Frame, as_block, reference_rows

from fuzz.coverage import guide_by
from fuzz.seeds import FRAMES
from veilwatch.schema.packets import Status
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.flow import FlowMeter, MeterConfig, measure_table

guide_by(tests.traffic.decode.reference)
STEPS_NS = (0, 1000, 10**6, 2 * 10**7, 10**9, 6 * 10**9, 31 * 10**9, 121 * 10**9)
SEEDS = [
    bytes([k, 3, len(frame) & 0xFF, len(frame) >> 8]) + frame for k, frame in enumerate(FRAMES)
]
CONFIG = MeterConfig(max_flows=8, max_heads=2, sequence_length=4)
DECODER = Decoder()


def one(data: bytes) -> None:
    """Packets of a step in time, a cut, a length of two bytes, and as many bytes."""
    frames: list[tuple[int, bytes]] = []
    now = 1_700_000_000 * 10**9
    while len(data) > 4 and len(frames) < 64:
        now += STEPS_NS[data[0] % len(STEPS_NS)] * (1 if data[1] & 1 else -1)
        size = data[2] | data[3] << 8
        frames.append((now, data[4 : 4 + size]))
        data = data[4 + size :]
    if not frames:
        return
    block = as_block([Frame(frame) for _, frame in frames])
    block.records["ts_ns"] = [max(0, time) for time, _ in frames]
    reference_rows(block)  # guides the fuzzer to frames of every kind
    batch = DECODER.decode(block)
    meter = FlowMeter(CONFIG)
    meter.add(batch)
    meter.finish()
    flows, heads = meter.take()
    records = flows.records
    counted = int(records["way"]["packets"].sum()) + meter.duplicates
    whole = int((batch.packets["status"] == Status.OK).sum())
    assert whole <= counted <= whole + meter.fragments  # inner fragments are packets too
    assert len(heads.rows) <= len(records)
    measure_table(flows)
