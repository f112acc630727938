"""Reports of flows that are still alive: what the meter knows of them at a point of their life.

A report is a copy, made in the kernel right after the packet that decides, so that it is what the
meter would have given had the capture ended there. The flow itself goes on unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.errors import VeilwatchError
from veilwatch.flow.state import EARLY, EARLY_DATA, NIL, State
from veilwatch.jit import inline_kernel
from veilwatch.schema.flows import EndReason

_EARLY = int(EndReason.EARLY)

MAX_POINTS: Final = 8
"""Most packet counts at which flows are reported: each costs a young flow's packet one comparison,
and each report as much as an ended flow does further on."""

MAX_POINT: Final = 1 << 20
"""Largest packet count: a flow of a million packets is no young one."""

MAX_AGE_S: Final = 86_400.0
"""Largest age: the active timeout cuts flows long before."""

NEVER_NS: Final = 1 << 62
"""An age that no flow reaches."""


@dataclass(frozen=True, slots=True)
class EarlyPoints:
    """When flows that are alive are reported, each at most once for each point.

    Attributes
    ----------
    packets
        Counts of packets of both directions: the packet that makes the count decides.
    age_s
        Age of a flow, s: its first packet that is so much later than its first decides, so that
        a flow that has fallen silent is reported by its end and not by its age. None for no age.

    Raises
    ------
    VeilwatchError
        If there is no point, or one is out of range.
    """

    packets: tuple[int, ...] = (8, 32)
    age_s: float | None = 30.0

    def __post_init__(self) -> None:
        if not self.packets and self.age_s is None:
            raise VeilwatchError(
                "no point to report flows at", hint="give a packet count or an age"
            )
        if len(self.packets) > MAX_POINTS:
            raise VeilwatchError(
                f"{len(self.packets)} packet counts", hint=f"give {MAX_POINTS} at most"
            )
        if any(not 1 <= count <= MAX_POINT for count in self.packets):
            raise VeilwatchError(
                "a packet count is out of range", hint=f"give values from 1 to {MAX_POINT}"
            )
        if self.age_s is not None and not 0.0 < self.age_s <= MAX_AGE_S:
            raise VeilwatchError(
                "the age is out of range", hint=f"give a value above 0, up to {MAX_AGE_S:g}"
            )


class Points(NamedTuple):
    """Points as the kernel takes them.

    Attributes
    ----------
    counts
        int64, shape (points,).
    most
        The largest of them, 0 without any: an older flow is done with counts by one comparison.
    age
        ns, `NEVER_NS` for none.
    """

    counts: npt.NDArray[np.int64]
    most: int
    age: int


def as_points(early: EarlyPoints | None) -> Points:
    """Return what the kernel compares with; None reports nothing."""
    counts = sorted(set(early.packets)) if early else []
    age = early.age_s if early else None
    return Points(
        np.array(counts, np.int64),
        max(counts, default=0),
        NEVER_NS if age is None else round(age * 1e9),
    )


@inline_kernel
def is_point(flow: Any, before: Any, points: Any) -> Any:
    """Whether the packet that a flow was just updated with reached a point.

    Parameters
    ----------
    before
        The flow's `last_ns` before that packet: it never moves back, so an age is crossed once.
    """
    if flow.last_ns - flow.first_ns >= points.age and before - flow.first_ns < points.age:
        return True
    total = np.int64(flow.packets[0]) + np.int64(flow.packets[1])
    if total > points.most:
        return False
    for count in points.counts:  # noqa: SIM110 (a generator costs a kernel more)
        if total == count:
            return True
    return False


@inline_kernel
def report(state: State, slot: Any) -> Any:
    """Copy a flow to the early output; the caller made sure that there is room.

    Of heads that are being collected what has come so far is copied as well. A row of `early_heads`
    without a flow says that the flow's heads were handed on before.
    """
    out = state.counters[EARLY]
    flow = state.flows[slot]
    row = state.slots[slot]
    words, early_words = state.flow_words, state.early_words
    for k in range(words.shape[1]):
        early_words[out, k] = words[slot, k]
    state.early_flows[out].end_reason = _EARLY
    sequences, early_sequences = state.sequences, state.early_sequences
    for k in range(flow.sequence_used):
        kept = sequences[slot, k]
        copy = early_sequences[out, k]
        copy.gap_us = kept.gap_us
        copy.size = kept.size
        copy.payload = kept.payload
        copy.flags = kept.flags
    shown = state.early_heads[out]
    shown.flow_id = NIL if row.head_done else flow.flow_id
    shown.first_ns = flow.first_ns
    shown.src_port = flow.src_port
    shown.dst_port = flow.dst_port
    shown.protocol = flow.protocol
    for direction in range(2):
        which = row.head[direction]
        start = state.counters[EARLY_DATA]
        length = np.int64(0)
        if which != NIL:
            head = state.pool[which]
            length = np.int64(head.length)
            state.early_data[start : start + length] = head.bytes[:length]
        shown.start[direction] = start
        shown.length[direction] = length
        state.counters[EARLY_DATA] += length
    state.counters[EARLY] += 1
