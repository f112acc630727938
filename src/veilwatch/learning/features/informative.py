"""The packets of a flow's head that tell what the applications do, one by one.

Those are packets with payload, and packets that open or end a connection (SYN, FIN, RST). Bare
acknowledgements are left out: how many there are, and when, is up to the system and to
whether the capture was taken before or after segmentation offload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
"""Bits of the TCP header's flags (RFC 9293)."""

BACKWARD: Final = 16
"""Bit beside them of packets from the responder: a packet without payload has no sign."""

NETWORK_PACKETS: Final = 64
"""Packets of a flow that networks see: nine of ten flows of real captures have fewer than ten,
and what a beacon or a transfer is shows well before the end of these."""


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets of flows in their order. All arrays have the shape (flows, `NETWORK_PACKETS`).

    Attributes
    ----------
    present
        bool, whether the flow has so many packets; those that it has come first.
    forward
        bool, sent by the initiator.
    payload
        int64, bytes of payload.
    length
        int64, IP length in bytes.
    time
        float64, seconds since the flow's first packet, whichever that was.
    flags
        int64, SYN, FIN, RST and PSH as in the TCP header, nothing else.
    """

    present: npt.NDArray[np.bool_]
    forward: npt.NDArray[np.bool_]
    payload: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]
    flags: npt.NDArray[np.int64]


def all_packets(frame: pl.DataFrame) -> Packets:
    """Return the first packets of each flow, whatever they are."""
    size = _column(frame, "seq_size")
    return Packets(
        # No IP packet has length 0: a zero stands past the last packet.
        present=size != 0,
        forward=size > 0,
        payload=_column(frame, "seq_payload"),
        length=np.abs(size),
        time=np.cumsum(_column(frame, "seq_gap_us"), axis=1) / 1e6,
        flags=_column(frame, "seq_flags") & (FIN | SYN | RST | PSH),
    )


def informative_packets(frame: pl.DataFrame) -> Packets:
    """Return those of each flow's first packets that have payload, or open or end a connection."""
    seen = all_packets(frame)
    informative = seen.present & ((seen.payload > 0) | (seen.flags & (FIN | SYN | RST) != 0))
    # A stable sort by "tells nothing" moves the others to the front in their order.
    order = np.argsort(~informative, axis=1, kind="stable")
    return Packets(
        present=np.take_along_axis(informative, order, axis=1),
        forward=np.take_along_axis(seen.forward, order, axis=1),
        payload=np.take_along_axis(seen.payload, order, axis=1),
        length=np.take_along_axis(seen.length, order, axis=1),
        time=np.take_along_axis(seen.time, order, axis=1),
        flags=np.take_along_axis(seen.flags, order, axis=1),
    )


def _column(frame: pl.DataFrame, name: str) -> npt.NDArray[np.int64]:
    """Return a column of arrays, cut or filled up with zeros to `NETWORK_PACKETS` entries."""
    values = frame[name].to_numpy()[:, :NETWORK_PACKETS].astype(np.int64)
    return np.pad(values, ((0, 0), (0, NETWORK_PACKETS - values.shape[1])))
