"""The header fields of a capture's first packets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.headers import (
    ABSENT,
    CONTEXT_FIELDS,
    HEADER_FIELDS,
    HEADER_PACKETS,
    WIRE_FIELDS,
    HeaderTable,
)
from veilwatch.traffic.capture import Captures, open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.headers import header_rows

CONTROL_FLAGS = 0x3F
"""FIN to URG. The three above them (NS, CWR, ECE) say whether a system wants ECN."""

_COLUMN = {field.name: k for k, field in enumerate(HEADER_FIELDS)}


def read_headers(
    inputs: Captures, *, packets: int = HEADER_PACKETS, gtp_ports: Sequence[int] = ()
) -> tuple[HeaderTable, CaptureReport]:
    """Return the headers of the first packets of captures, and how far they were read.

    Reading ends with the last packet that is wanted: what lies behind it is not looked at.

    Parameters
    ----------
    inputs
        As `veilwatch.traffic.capture.open_captures` takes them.
    packets
        How many, at most `HEADER_PACKETS`.
    gtp_ports
        UDP ports at which GTP-U is looked for beside 2152.

    Raises
    ------
    CaptureError
        If an input is missing, empty or no capture.
    """
    rows = np.empty((min(packets, HEADER_PACKETS), len(WIRE_FIELDS)), np.int64)
    places = np.empty(len(rows), np.int64)
    time, payload = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    decoder = Decoder(gtp_ports)
    used = 0
    with open_captures(inputs) as stream:
        for block in stream:
            batch = decoder.decode(block)
            new = slice(used, None)
            count = header_rows(block.buffer, block.records, batch.packets, rows[new], places[new])
            found = batch.packets[places[used : used + count]]
            time[used : used + count] = found["ts_ns"]
            payload[used : used + count] = found["payload_length"]
            used += count
            if used == len(rows):
                break
        report = stream.report
    return HeaderTable(_with_context(rows[:used], time[:used], payload[:used])), report


def _with_context(
    rows: npt.NDArray[np.int64], time: npt.NDArray[np.int64], payload: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Add `CONTEXT_FIELDS`: flows are counted by their 5-tuple, in the order they begin."""
    context = np.full((len(rows), len(CONTEXT_FIELDS)), ABSENT, np.int64)
    flows: dict[tuple[int, ...], tuple[int, int]] = {}
    count = 0
    for k, row in enumerate(rows.tolist()):
        src, dst = (_end(row, side) for side in ("src", "dst"))
        protocol = row[_COLUMN["ip_protocol"]]
        forward = (protocol, *src, *dst)
        if forward not in flows:
            flows[(protocol, *dst, *src)] = count, 1
            flows[forward] = count, 0
            count += 1
        context[k, :2] = flows[forward]
    flags = rows[:, _COLUMN["tcp_flags"]]
    context[:, 2] = np.where(flags == ABSENT, ABSENT, flags & CONTROL_FLAGS)
    context[:, 3] = payload
    context[:, 4] = np.maximum(np.diff(time, prepend=time[:1]), 0)
    return np.concatenate([rows, context], axis=1)


def _end(row: list[int], side: str) -> tuple[int, int]:
    """Return address and port of one side; fragments and ICMP have no port."""
    ports = (row[_COLUMN[f"{transport}_{side}_port"]] for transport in ("tcp", "udp"))
    return row[_COLUMN[f"ip_{side}"]], max(ports)
