"""Reports of flows that are still alive: what the meter knows of them at a point of their life.

A report is a copy, made in the kernel right after the packet that decides, or once no packet has
come for a while, so that it is what the meter would have given had the capture ended there. The
flow itself goes on unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.errors import VeilwatchError
from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.flows import (
    FLOW_RECORD_DTYPE,
    HEAD_BYTES,
    HEAD_DTYPE,
    SEQUENCE_DTYPE,
    EndReason,
)
from veilwatch.traffic.flow.copying import copy_run
from veilwatch.traffic.flow.index import copy_flow
from veilwatch.traffic.flow.state import NIL, OPEN, State, as_words

_EARLY = int(EndReason.EARLY)

MAX_POINTS: Final = 8
"""Most packet counts at which flows are reported: each costs a young flow's packet one comparison,
and each report as much as an ended flow does further on."""

MAX_POINT: Final = 1 << 20
"""Largest packet count: a flow of a million packets is no young one."""

MAX_AGE_S: Final = 86_400.0
"""Largest age or silence: the timeouts cut flows long before."""

OUT_EARLY: Final = 512
"""Reports held before Python has to take them: with all heads full, 9 MiB."""

# Indices into Interim.used, and into Interim.limits.
REPORTS: Final = 0
BYTES: Final = 1
MOST: Final = 0
AGE: Final = 1

NEVER_NS: Final = 1 << 62
"""An age that no flow reaches."""


@dataclass(frozen=True, slots=True)
class InterimPoints:
    """When flows that are alive are reported, each at most once for each point.

    Attributes
    ----------
    packets
        Counts of packets of both directions: the packet that makes the count decides.
    age_s
        Age of a flow, s: its first packet that is so much later than its first decides. None for
        no age.
    silence_s
        A flow that has been silent for so long is reported as it is, s: of a datagram that nobody
        answers there is nothing more to wait for. None for never; without effect beyond the time
        after which silent flows end.

    Raises
    ------
    VeilwatchError
        If there is no point, or one is out of range.
    """

    packets: tuple[int, ...] = (8, 32)
    age_s: float | None = 30.0
    silence_s: float | None = 10.0

    def __post_init__(self) -> None:
        if not self.packets and self.age_s is None and self.silence_s is None:
            raise VeilwatchError(
                "no point to report flows at", hint="give a packet count, an age or a silence"
            )
        if len(self.packets) > MAX_POINTS:
            raise VeilwatchError(
                f"{len(self.packets)} packet counts", hint=f"give {MAX_POINTS} at most"
            )
        if any(not 1 <= count <= MAX_POINT for count in self.packets):
            raise VeilwatchError(
                "a packet count is out of range", hint=f"give values from 1 to {MAX_POINT}"
            )
        for name, value in (("age", self.age_s), ("silence", self.silence_s)):
            if value is not None and not 0.0 < value <= MAX_AGE_S:
                raise VeilwatchError(
                    f"the {name} is out of range", hint=f"give a value above 0, up to {MAX_AGE_S:g}"
                )


class Interim(NamedTuple):
    """Points as the kernel takes them, and the reports that wait to be taken.

    Apart from `State`, which is passed about for every packet: each array more would cost them all.

    Attributes
    ----------
    counts
        int64, shape (points,).
    limits
        int64, shape (2,): the largest count, by which an older flow is done with at once, 0 without
        any; the age in ns, `NEVER_NS` for none.
    used
        int64, shape (2,): reports, and bytes of their heads.
    flows, words, sequences
        Copies of live flows, like `State.out_flows`, `out_words` and `out_sequences`.
    heads, data
        For each of them its heads as far as they have come. A row without a flow says that the
        flow's heads were handed on before.
    """

    counts: npt.NDArray[np.int64]
    limits: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    flows: npt.NDArray[np.void]
    words: npt.NDArray[np.uint64]
    sequences: npt.NDArray[np.void]
    heads: npt.NDArray[np.void]
    data: npt.NDArray[np.uint8]


def new_early(points: InterimPoints | None, sequence_length: int) -> Interim:
    """Allocate room for reports; without points for one, which never comes."""
    counts = sorted(set(points.packets)) if points else []
    age = points.age_s if points else None
    rows = OUT_EARLY if points else 1
    flows = np.zeros(rows, FLOW_RECORD_DTYPE)
    return Interim(
        counts=np.array(counts, np.int64),
        limits=np.array(
            [max(counts, default=0), NEVER_NS if age is None else round(age * 1e9)], np.int64
        ),
        used=np.zeros(2, np.int64),
        flows=flows,
        words=as_words(flows),
        sequences=np.zeros((rows, sequence_length), SEQUENCE_DTYPE),
        heads=np.zeros(rows, HEAD_DTYPE),
        data=np.zeros(rows * 2 * HEAD_BYTES, np.uint8),
    )


@inner_kernel
def report_is_due(flow: Any, before: Any, counts: Any, most: Any, age: Any) -> Any:
    """Whether the packet that a flow was just updated with reached a point.

    Parameters
    ----------
    before
        The flow's `last_ns` before that packet: it never moves back, so an age is crossed once.
    counts, most, age
        See `Interim`.
    """
    first = flow.first_ns
    if flow.last_ns - first >= age and before - first < age:
        return True
    total = np.int64(flow.way[0].packets) + np.int64(flow.way[1].packets)
    if total > most:
        return False
    for count in counts:  # noqa: SIM110 (a generator costs a kernel more)
        if total == count:
            return True
    return False


@inner_kernel
def report(state: State, early: Interim, slot: Any) -> Any:
    """Copy a flow and what has come of its heads; the caller made sure that there is room."""
    used = early.used
    out = used[REPORTS]
    flow = state.flows[slot]
    row = state.slots[slot]
    copy_flow(state, slot, early.words, early.sequences, out)
    early.flows[out].end_reason = _EARLY
    shown = early.heads[out]
    shown.flow_id = NIL if row.head_done else flow.flow_id
    shown.first_ns = flow.first_ns
    shown.src_port = flow.src_port
    shown.dst_port = flow.dst_port
    shown.protocol = flow.protocol
    for direction in range(2):
        which = row.head[direction]
        start = used[BYTES]
        length = np.int64(0)
        if which != NIL and state.pool[which].sure:
            head = state.pool[which]
            length = np.int64(head.length)
            copy_run(early.data, start, head.bytes, 0, length)
        shown.start[direction] = start
        shown.length[direction] = length
        used[BYTES] += length
    used[REPORTS] += 1


@kernel
def report_silent(state: State, early: Interim, slot: Any, since: Any, until: Any) -> Any:
    """Report flows whose last packet came after `since` and not after `until`.

    Their list is in the order of last packets, the newest last, and is walked from there: as many
    steps as flows had packets after `since`. Closing connections are left out, they end within
    seconds; so are flows that their last packet reported.

    Parameters
    ----------
    slot
        Where to go on, NIL to begin.

    Returns
    -------
    int
        The flow at which there was no more room, NIL where all is done.
    """
    if slot == NIL:
        slot = state.ends[OPEN, 1]
    while slot != NIL:
        flow = state.flows[slot]
        if flow.last_ns <= since:
            return np.int32(NIL)
        if flow.last_ns <= until:
            total = np.int64(flow.way[0].packets) + np.int64(flow.way[1].packets)
            reported = False
            for count in early.counts:
                reported = reported or total == count
            if not reported:
                if early.used[REPORTS] == len(early.flows):
                    return slot
                report(state, early, slot)
        slot = state.slots[slot].older
    return np.int32(NIL)
