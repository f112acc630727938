"""Turning a flow whose direction was guessed from its first packet and proves to be the other one.

A capture point may see a server's packet before the SYN that it answers. When that SYN, or the
SYN-ACK, comes after all, whoever sent the SYN is the initiator: what was measured of one direction
becomes the other one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.flows import FLOW_RECORD_DTYPE, TcpState
from veilwatch.traffic.flow.state import State
from veilwatch.traffic.flow.stream import ACK, SYN, opens_stream
from veilwatch.traffic.flow.update import TCP

_MIDSTREAM_BIT = TcpState.MIDSTREAM
_FIN_FWD_BIT = TcpState.FIN_FWD
_FIN_BWD_BIT = TcpState.FIN_BWD


def _mirrored() -> list[tuple[int, int, int]]:
    """Return where a record holds what the two directions have alike: two offsets and a length."""
    fields: Mapping[str, Any] = FLOW_RECORD_DTYPE.fields or {}
    found = []
    for name, (dtype, offset, *_) in fields.items():
        if dtype.shape[:1] == (2,):
            size = dtype.itemsize // 2
            found.append((offset, offset + size, size))
        elif "src_" in name:
            found.append((offset, fields[name.replace("src_", "dst_")][1], dtype.itemsize))
    return found


MIRRORED: Final = np.array(_mirrored(), np.int64)
"""The bytes of a record that change places, shape (fields, 3)."""


@inner_kernel
def is_turned(flow: Any, direction: Any, packet: Any) -> Any:
    """Whether a packet shows that its flow runs the other way.

    Only of a connection's first record: those that were handed on cannot be turned any more.
    """
    if packet.tcp_flags & SYN == 0 or packet.protocol != TCP:
        return False
    if not flow.tcp_state & _MIDSTREAM_BIT or flow.flow_id != flow.parent_id:
        return False
    answers = packet.tcp_flags & ACK != 0
    return direction == (0 if answers else 1) and opens_stream(flow, direction, packet)


@inner_kernel
def swap(pair: Any) -> Any:
    """Let the two values of an array change places."""
    first = pair[0]
    pair[0] = pair[1]
    pair[1] = first


@kernel
def turn(state: State, slot: Any) -> None:
    """Let a flow's directions change places."""
    record = state.flow_words[slot].view(np.uint8)
    for k in range(len(MIRRORED)):
        one, other = MIRRORED[k, 0], MIRRORED[k, 1]
        for i in range(MIRRORED[k, 2]):
            byte = record[one + i]
            record[one + i] = record[other + i]
            record[other + i] = byte
    flow = state.flows[slot]
    if flow.burst_direction < 2:
        flow.burst_direction = 1 - flow.burst_direction
    both = np.int64(flow.tcp_state)
    ends = both & ~(_FIN_FWD_BIT | _FIN_BWD_BIT)
    if both & _FIN_FWD_BIT:
        ends |= _FIN_BWD_BIT
    if both & _FIN_BWD_BIT:
        ends |= _FIN_FWD_BIT
    flow.tcp_state = ends
    flow.turned = 1 - flow.turned
    for k in range(flow.sequence_used):
        state.sequences[slot, k].size = -state.sequences[slot, k].size
    row = state.slots[slot]
    swap(row.head)
    swap(row.ip_id)
    swap(row.id_changes)
    swap(row.id_repeats)
