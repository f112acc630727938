"""Frames for the decoder's tests: into blocks, through the kernels, beside the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.traffic.decode.reference import Decoded
from tests.traffic.decode.reference import decode as reference_decode
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.counters import INFORMATIVE

ETHERNET = 1


@dataclass(frozen=True)
class Frame:
    """One record to be decoded; `length` on the wire is by default what was captured."""

    data: bytes
    link: int = ETHERNET
    length: int | None = None


def as_block(frames: Sequence[Frame]) -> RawBlock:
    """Return the frames as a block. Gaps of 0xFF between them would show a read beyond an end."""
    gap = b"\xff" * 3
    # Writable, as the buffers of readers are: kernels of another type would be compiled anew.
    buffer = np.frombuffer(bytearray(gap + gap.join(frame.data for frame in frames)), np.uint8)
    records = np.zeros(len(frames), RECORD_DTYPE)
    offset = len(gap)
    for number, (record, frame) in enumerate(zip(records, frames, strict=True), 1):
        record["ts_ns"] = 1_000_000_007 * number
        record["offset"] = offset
        record["number"] = number
        record["captured"] = len(frame.data)
        record["length"] = len(frame.data) if frame.length is None else frame.length
        record["source"] = 3
        record["link"] = frame.link
        offset += len(frame.data) + len(gap)
    return RawBlock(buffer, records)


def blocks(frames: Sequence[Frame]) -> Iterable[RawBlock]:
    """Return the frames as blocks of the largest size."""
    for start in range(0, len(frames), BLOCK_RECORDS):
        yield as_block(frames[start : start + BLOCK_RECORDS])


def decode_one(data: bytes, link: int = ETHERNET, length: int | None = None) -> dict[str, int]:
    """Return the fields of one packet, with the payload's offset within the frame."""
    block = as_block([Frame(data, link, length)])
    row = Decoder().decode(block).packets[0]
    fields = {name: int(row[name]) for name in row.dtype.names}
    for name in ("payload_offset", "ip_offset", "fragment_start"):
        if fields[name]:
            fields[name] -= int(block.records["offset"][0])
    return fields


def reference_rows(block: RawBlock) -> list[Decoded]:
    """Return what the reference makes of a block."""
    rows = []
    for record in block.records:
        start = int(record["offset"])
        data = block.buffer[start : start + int(record["captured"])].tobytes()
        rows.append(
            reference_decode(
                data,
                int(record["link"]),
                int(record["length"]),
                offset=start,
                ts_ns=int(record["ts_ns"]),
                number=int(record["number"]),
                source=int(record["source"]),
                interface=int(record["interface"]),
            )
        )
    return rows


def assert_as_reference(block: RawBlock, decoder: Decoder | None = None) -> None:
    """Assert that kernels and reference agree on every field, status and count of a block."""
    decoder = decoder or Decoder()
    before = decoder.balance
    packets = decoder.decode(block).packets
    expected = reference_rows(block)
    for name in packets.dtype.names or ():
        got = packets[name].tolist()
        want = [row.fields[name] for row in expected]
        if got != want:
            i = next(i for i, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1])
            start = int(block.records["offset"][i])
            data = block.buffer[start : start + int(block.records["captured"][i])].tobytes()
            raise AssertionError(
                f"{name}: kernel {got[i]}, reference {want[i]}; "
                f"link {block.records['link'][i]}, length {block.records['length'][i]}, "
                f"status {packets['status'][i]} / {expected[i].fields['status']}, {data.hex()}"
            )
    notes: Counter[str] = Counter()
    for row in expected:
        notes += row.notes
    after = decoder.balance
    counted = {name: after[name] - before[name] for name in INFORMATIVE}
    assert counted == {name: notes[name] for name in INFORMATIVE}
    assert after["packets_read"] - before["packets_read"] == len(block)
