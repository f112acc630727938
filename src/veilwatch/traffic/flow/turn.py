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
from veilwatch.schema.flows import LIVE_DTYPE, MISSING_DTYPE, TcpState
from veilwatch.traffic.flow.extra import NOTHING
from veilwatch.traffic.flow.state import State
from veilwatch.traffic.flow.stream import ACK, SYN, opens_stream
from veilwatch.traffic.flow.update import TCP

_MIDSTREAM_BIT = TcpState.MIDSTREAM
_FIN_FWD_BIT = TcpState.FIN_FWD
_FIN_BWD_BIT = TcpState.FIN_BWD


def _mirrored() -> list[tuple[int, int, int]]:
    """Return where a record holds what the two directions have alike: two words and a length."""
    fields: Mapping[str, Any] = LIVE_DTYPE.fields or {}
    found = []
    for name, (dtype, offset, *_) in fields.items():
        word, length = offset // 8, dtype.itemsize // 8
        if dtype.shape[:1] == (2,):
            found.append((word, word + length // 2, length // 2))
        elif "src_" in name and length:
            found.append((word, fields[name.replace("src_", "dst_")][1] // 8, length))
    return found


MIRRORED: Final = np.array(_mirrored(), np.int64)
"""The words of a record that change places, shape (runs, 3). Ports are smaller than a word."""

MISSING_WORDS: Final = MISSING_DTYPE.itemsize // 8


@inner_kernel
def swap_runs(words: Any, one: Any, other: Any, length: Any) -> Any:
    """Let `length` words from `one` and from `other` on change places."""
    for i in range(length):
        word = words[one + i]
        words[one + i] = words[other + i]
        words[other + i] = word


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


@kernel
def turn(state: State, slot: Any) -> None:
    """Let a flow's directions change places."""
    flow = state.flows[slot]
    words = state.flow_words[slot]
    for k in range(len(MIRRORED)):
        swap_runs(words, MIRRORED[k, 0], MIRRORED[k, 1], MIRRORED[k, 2])
    if flow.extra != NOTHING:
        swap_runs(state.extra_words[flow.extra], 0, MISSING_WORDS, MISSING_WORDS)
    port = flow.src_port
    flow.src_port = flow.dst_port
    flow.dst_port = port
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
    head = state.slots[slot].head
    which = head[0]
    head[0] = head[1]
    head[1] = which
