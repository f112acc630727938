"""Which of the flows with a packet's 5-tuple the packet belongs to, told by its GTP-U tunnel.

A flow is found by its inner 5-tuple alone; subscribers with the same private address may hold equal
ones. What tells them apart is the tunnel, and what keeps one flow together is knowing which tunnels
are the same subscriber's:

- A tunnel is one direction's: the address that packets go to and the TEID there (an F-TEID, 3GPP
  TS 29.274 cl. 8.22). A flow knows one for each direction.
- Control traffic may have said which session an F-TEID belongs to: that decides.
- The first packet of the other direction comes back between the same two end points. Where several
  flows fit, TEIDs that were seen together before decide, then TCP's sequence numbers.
- After a handover uplink packets reach the same F-TEID from another base station; the downlink
  follows it there. Where the downlink moves first, TCP's sequence numbers tell.
- Where one packet was seen in two places (N3 and N6, N3 and N9), what comes from the second place
  belongs to the same flow.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel, kernel
from veilwatch.traffic.flow.state import PARTNERS
from veilwatch.traffic.flow.stream import ACK, SYN, seq_distance
from veilwatch.traffic.flow.update import TCP
from veilwatch.traffic.hashing import mix

NONE: Final = 0
BARE: Final = 2
"""Tunnel and pair of a packet outside GTP-U; those of a tunnel are odd."""

NO: Final = 0
WEAK: Final = 1  # its TEID was last seen with another one
LIKELY: Final = 2  # between the same end points
CONTINUES: Final = 3  # where TCP's numbers left off
BOUND: Final = 4  # its TEID was last seen with this flow's other one, or is its session's

MAX_TWINS: Final = 32
"""Most live flows of one 5-tuple. Equal 5-tuples need equal ports on both sides (as NTP has them)
in that many overlapping networks; beyond it the oldest is ended, so that nobody can make the search
long by sending one packet through a million tunnels."""

NEAR: Final = 1 << 20
"""How far sequence and acknowledgement numbers may be from the expected ones where both can be
judged: a window of most connections. Two chance hits have a probability of 2^-22."""

NEARER: Final = 1 << 16
"""The same where only one of them can be judged."""


@inner_kernel
def end_point(high: Any, low: Any, port: Any, seed: Any) -> Any:
    """Hash one address and port."""
    return mix(mix(high ^ seed) + mix(low + seed) + (port << np.uint64(17)))


@inner_kernel
def tunnel_key(high: Any, low: Any, teid: Any, seed: Any) -> Any:
    """Hash an F-TEID: the end point that packets go to, and its TEID; uint64, odd."""
    return mix(end_point(high, low, np.uint64(0), seed) + np.uint64(teid)) | np.uint64(1)


@inner_kernel
def tunnel_of(packet: Any, seed: Any) -> Any:
    """Return the packet's tunnel and the end points it comes from and goes to, each a uint64."""
    bare = np.uint64(BARE)
    if packet.gtp_depth == 0:
        return bare, bare, bare
    zero = np.uint64(0)
    here = end_point(packet.outer_src_hi, packet.outer_src_lo, zero, seed)
    there = end_point(packet.outer_dst_hi, packet.outer_dst_lo, zero, seed)
    return mix(there + np.uint64(packet.gtp_teid)) | np.uint64(1), here, there


@inner_kernel
def pair_of(tunnel: Any, here: Any, there: Any) -> Any:
    """Hash two end points, either way round; BARE outside tunnels."""
    if tunnel == BARE:
        return np.uint32(BARE)
    return np.uint32(here + there) | np.uint32(1)


@inner_kernel
def continues(flow: Any, direction: Any, packet: Any) -> Any:
    """Whether a TCP packet's numbers go on where the flow's left off.

    Numbers of 0 say nothing: they stand where somebody filled in none.
    """
    if packet.protocol != TCP or packet.tcp_flags & SYN:
        return False
    if packet.tcp_seq == 0 or packet.tcp_ack == 0:
        return False
    other = 1 - direction
    ahead = abs(seq_distance(packet.tcp_seq, flow.way[direction].next_seq))
    answered = abs(seq_distance(packet.tcp_ack, flow.way[other].next_seq))
    judged = flow.way[direction].seq_known != 0
    acknowledges = packet.tcp_flags & ACK != 0 and flow.way[other].seq_known != 0
    if judged and acknowledges:
        return ahead < NEAR and answered < NEAR
    return (judged and ahead < NEARER) or (acknowledges and answered < NEARER)


@inner_kernel
def partner(partners: Any, tunnel: Any) -> Any:
    """Return the tunnel of the other direction that `tunnel` was last seen with, NONE unknown."""
    row = partners[np.int64(tunnel) & (PARTNERS - 1)]
    if row.tunnel == tunnel:
        return row.partner
    return np.uint32(NONE)


@inner_kernel
def introduce(partners: Any, tunnel: Any, other: Any) -> Any:
    """Note that two tunnels carry one flow, one for each direction."""
    row = partners[np.int64(tunnel) & (PARTNERS - 1)]
    row.tunnel = tunnel
    row.partner = other


@inner_kernel
def kinship(
    flow: Any, direction: Any, packet: Any, tunnel: Any, pair: Any, session: Any, partners: Any
) -> Any:
    """Judge whether a packet through a tunnel that the flow does not know is the flow's."""
    known = flow.way[direction].tunnel
    if session != 0 and flow.session != 0:
        return BOUND if flow.session == session else NO
    if continues(flow, direction, packet):
        return CONTINUES
    if pair == flow.alternate:
        return LIKELY
    if pair != flow.pair or (known != NONE and not flow.way[direction].moved):
        return NO
    theirs = partner(partners, tunnel)
    ours = flow.way[1 - direction].tunnel
    if theirs == NONE or ours == NONE:
        return LIKELY
    if theirs == ours:
        return BOUND
    return NO if partner(partners, ours) != NONE and known == NONE else WEAK


@inner_kernel
def adopt(flow: Any, direction: Any, tunnel: Any, pair: Any, partners: Any) -> Any:
    """Learn from a packet of the flow that came through a tunnel or pair unknown to it."""
    if pair == flow.alternate:
        return
    other = 1 - direction
    if flow.way[direction].tunnel == tunnel:  # same receiver, another sender
        if flow.way[direction].moved:
            return  # the other direction moved, this one still goes the old way
        flow.pair = pair
        flow.way[other].moved = 1
        flow.handovers += np.uint16(1)
    elif flow.way[direction].tunnel == NONE and pair != flow.pair:  # a core with two addresses
        flow.way[direction].tunnel = tunnel
        flow.alternate = pair
    else:
        if pair != flow.pair:
            flow.pair = pair
            flow.way[other].moved = 1
            flow.handovers += np.uint16(1)
        flow.way[direction].tunnel = tunnel
        flow.way[direction].moved = 0
        if flow.way[other].tunnel != NONE:
            introduce(partners, tunnel, flow.way[other].tunnel)
            introduce(partners, flow.way[other].tunnel, tunnel)


@inner_kernel
def session_of(keys: Any, sessions: Any, tunnel: Any) -> Any:
    """Return the session of a tunnel that control traffic announced, 0 unknown."""
    last = len(keys) - 1
    at = np.int64(tunnel >> np.uint64(1)) & last
    while keys[at] != 0:
        if keys[at] == tunnel:
            return sessions[at]
        at = (at + 1) & last
    return np.int64(0)


@kernel
def bind(keys: Any, sessions: Any, rows: Any, seed: Any) -> None:
    """Fill an empty hash table with the F-TEIDs that are valid now.

    Parameters
    ----------
    keys, sessions
        uint64 and int64 arrays of one length, a power of two, at least twice as long as `rows`;
        keys all 0.
    rows
        Array of `SESSION_DTYPE`.
    seed
        The meter's.
    """
    last = len(keys) - 1
    for i in range(len(rows)):
        row = rows[i]
        tunnel = tunnel_key(row.address_hi, row.address_lo, row.teid, seed)
        at = np.int64(tunnel >> np.uint64(1)) & last
        while keys[at] != 0 and keys[at] != tunnel:
            at = (at + 1) & last
        keys[at] = tunnel
        sessions[at] = row.session


def session_store(rows: npt.NDArray[np.void], seed: np.uint64) -> tuple[Any, Any]:
    """Return (keys, sessions) for `session_of`."""
    size = 1 << max(3, (2 * len(rows)).bit_length())
    keys, sessions = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    if len(rows):
        bind(keys, sessions, rows, seed)
    return keys, sessions
