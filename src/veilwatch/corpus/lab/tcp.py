"""A model of TCP as a probe between the two ends sees it (RFC 9293, 5681, 1122).

Modelled: three-way handshake with MSS, window scale and timestamps, slow start and congestion
avoidance clocked by acknowledgements, delayed ACKs (every second segment, else 40 ms), RTT with
jitter, a rate for each direction, loss on either side of the probe with fast retransmit or
timeout, keep-alive, close by FIN or RST. Not modelled: SACK blocks, data in both directions at
the same moment, reordering.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from veilwatch.corpus.lab import packets
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.packets import ACK, FIN, PSH, RST, SYN, Ends, Packet
from veilwatch.corpus.lab.world import Host, Server, User

DELAYED_ACK: Final = 0.04
"""s that a receiver waits for a second segment; RFC 1122 allows up to 0.5."""

FIRST_TIMEOUT: Final = 1.0
"""s before the first retransmission of a SYN, RFC 6298."""

_INITIAL_WINDOW: Final = 10  # segments, RFC 6928
_SLOW_START_LIMIT: Final = 64.0  # segments
_MIN_TIMEOUT: Final = 0.2  # s, what common systems use instead of 1 s


_PUSHED: Final = [1, 2, 3, 6, 12]
"""Segments of one write of a program, the last of which has PSH (RFC 9293, 3.9.1)."""


class _Event(NamedTuple):
    time: float  # s, at the capture point
    uplink: bool
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes
    payload: bytes


class _Side:
    """State of one end."""

    def __init__(self, host: Host, delay: float, rate: float, draw: Draw) -> None:
        self.host = host
        self.delay = delay  # s to the capture point
        self.rate = rate  # bytes/s that it sends at
        self.clock = 0.0  # when it has everything that was sent to it
        self.seq = draw.getrandbits(32)
        self.received = 0  # next sequence number it expects
        self.window = float(_INITIAL_WINDOW)
        self.unacked = 0  # segments received and not yet acknowledged
        self.ack_due = 0.0
        self.last_seen = 0.0  # when its last packet passed the capture point
        self.stamp = draw.getrandbits(31)
        self.bytes_in = 0


class TcpConnection:
    """One connection between a subscriber and a server.

    Parameters
    ----------
    user, server
        The two ends.
    port
        Port of the server.
    start
        Seconds after the start of the capture.
    draw
        Where chance comes from.
    keep_alive
        Whether idle times are bridged by TCP keep-alive.
    """

    def __init__(
        self,
        user: User,
        server: Server,
        port: int,
        start: float,
        draw: Draw,
        *,
        keep_alive: float = 0.0,
    ) -> None:
        self.ends = Ends(
            user.host.address.packed, server.host.address.packed, user.host.port(draw), port
        )
        self._draw = draw
        self._client = _Side(user.host, user.access.delay, user.access.uplink, draw)
        self._server = _Side(server.host, server.delay, user.access.downlink, draw)
        self._client.clock = start
        self._jitter = user.access.jitter
        self._loss = user.access.loss + server.loss
        self._near_share = user.access.loss / self._loss if self._loss else 0.0
        self._stamps = user.host.stack.timestamps and server.host.stack.timestamps
        self._mss = min(user.host.mss, server.host.mss) - (12 if self._stamps else 0)
        self._keep_alive = keep_alive
        self._last_data = start
        self._events: list[_Event] = []

    @property
    def now(self) -> float:
        """The later of both ends' clocks: when the conversation is quiet."""
        return max(self._client.clock, self._server.clock)

    def _sides(self, uplink: bool) -> tuple[_Side, _Side]:
        return (self._client, self._server) if uplink else (self._server, self._client)

    def _emit(
        self,
        uplink: bool,
        time: float,
        flags: int,
        payload: bytes = b"",
        *,
        seq: int | None = None,
        seen: bool = True,
        syn_options: bytes = b"",
    ) -> float:
        """Send one packet; return when it reaches the other end."""
        side, other = self._sides(uplink)
        delay = self._jitter * self._draw.random()
        passing = max(time + side.delay + (delay if uplink else 0.0), side.last_seen + 1e-6)
        side.last_seen = passing
        if seen:
            scale = side.host.stack.scale
            size = min(side.host.stack.window + 2 * side.bytes_in, 0xFFFF << scale)
            options = syn_options
            if self._stamps and not syn_options and not flags & RST:
                options = b"\x01\x01" + struct.pack(
                    "!BBII",
                    8,
                    10,
                    (side.stamp + int(time * 1000)) & 0xFFFFFFFF,
                    (other.stamp + int((time - other.delay - side.delay) * 1000)) & 0xFFFFFFFF,
                )
            self._events.append(
                _Event(
                    passing,
                    uplink,
                    side.seq if seq is None else seq,
                    side.received if flags & ACK else 0,
                    flags,
                    side.host.stack.window if syn_options else size >> scale,
                    options,
                    payload,
                )
            )
        return passing + other.delay + (0.0 if uplink else delay)

    def _syn_options(self, uplink: bool) -> bytes:
        side, other = self._sides(uplink)
        parts = struct.pack("!BBHBB", 2, 4, side.host.mss, 4, 2)
        if self._stamps:
            echo = 0 if uplink else other.stamp + int(self._client.clock * 1000)
            parts += struct.pack("!BBII", 8, 10, side.stamp & 0xFFFFFFFF, echo & 0xFFFFFFFF)
        else:
            parts += b"\x01\x01"
        return parts + struct.pack("!BBBB", 1, 3, 3, side.host.stack.scale)

    def open(self) -> None:
        """Exchange SYN, SYN-ACK and ACK."""
        client, server = self._client, self._server
        arrival = self._emit(True, client.clock, SYN, syn_options=self._syn_options(True))
        client.seq += 1
        server.received = client.seq
        server.clock = arrival
        options = self._syn_options(False)
        arrival = self._emit(False, arrival + 2e-5, SYN | ACK, syn_options=options)
        server.seq += 1
        client.received = server.seq
        client.clock = arrival
        server.clock = self._emit(True, arrival + 2e-5, ACK)
        client.clock += 3e-5

    def refuse(self) -> None:
        """Send a SYN that is answered by RST."""
        client, server = self._client, self._server
        arrival = self._emit(True, client.clock, SYN, syn_options=self._syn_options(True))
        client.seq += 1
        server.seq, server.received = 0, client.seq
        client.clock = server.clock = self._emit(False, arrival + 2e-5, RST | ACK)

    def knock(self, retries: int) -> None:
        """Send a SYN that nobody answers, and again after 1, 2, 4 … s."""
        time = self._client.clock
        for attempt in range(retries + 1):
            self._emit(True, time, SYN, syn_options=self._syn_options(True))
            time += FIRST_TIMEOUT * 2**attempt
        self._client.clock = time

    def _acknowledge(self, uplink: bool, time: float) -> float:
        """Send a pure ACK; return when it arrives."""
        side, _ = self._sides(uplink)
        side.unacked = 0
        return self._emit(uplink, time, ACK)

    def _bridge(self, until: float) -> None:
        """Send the client's keep-alive probes of an idle time."""
        client = self._client
        time = max(self.now, self._last_data) + self._keep_alive
        while time < until - 1:
            arrival = self._emit(True, time, ACK, seq=client.seq - 1)
            self._emit(False, arrival + 1e-5, ACK)
            time += self._keep_alive

    def send(self, uplink: bool, data: bytes, pause: float = 0.0) -> None:
        """Send `data` after `pause`; both clocks then stand at its arrival and its end."""
        if not data:
            return
        side, peer = self._sides(uplink)
        start = side.clock + pause
        if side.unacked and side.ack_due < start:
            self._acknowledge(uplink, side.ack_due)
        if peer.unacked and peer.ack_due < start:
            self._acknowledge(not uplink, peer.ack_due)
        if self._keep_alive:
            self._bridge(start)
        side.unacked = 0  # the data carry the acknowledgement
        self._transfer(uplink, data, start)
        self._last_data = self.now

    def _transfer(self, uplink: bool, data: bytes, start: float) -> None:
        side, peer = self._sides(uplink)
        base = side.seq
        mss = self._mss
        count = -(-len(data) // mss)
        round_trip = 2 * (side.delay + peer.delay)
        acks: list[float] = []  # arrival of the acknowledgement of each segment in order
        acked = 0
        time = start
        hole = -1  # segment that is missing at the receiver
        duplicates = 0
        repair = 0.0
        arrived = base  # end of what arrived behind the hole
        push = self._draw.one(_PUSHED)

        def receive(end: int, arrival: float) -> None:
            peer.received = end & 0xFFFFFFFF
            peer.unacked += 1
            if peer.unacked == 1:
                peer.ack_due = arrival + DELAYED_ACK
            else:
                back = self._acknowledge(not uplink, arrival + 1e-5)
                acks.extend([back] * (index + 1 - len(acks)))

        def mend(when: float) -> None:
            nonlocal hole, time
            end = min((hole + 1) * mss, len(data))
            flags = ACK | (PSH if end == len(data) else 0)
            time = max(time, when)
            landed = self._emit(uplink, time, flags, data[hole * mss : end], seq=base + hole * mss)
            peer.received = max(arrived, base + end) & 0xFFFFFFFF
            back = self._acknowledge(not uplink, landed + 1e-5)
            done = -(-(max(arrived, base + end) - base) // mss)
            acks.extend([back] * (done - len(acks)))
            peer.clock = max(peer.clock, landed)
            side.window = max(2.0, side.window / 2)
            hole = -1

        for index in range(count):
            while index - acked >= side.window:
                if acked < len(acks):
                    time = max(time, acks[acked])
                    acked += 1
                    side.window += 1 if side.window < _SLOW_START_LIMIT else 1 / side.window
                elif hole >= 0:
                    mend(repair or time + max(_MIN_TIMEOUT, 2 * round_trip))
                else:
                    back = self._acknowledge(not uplink, peer.ack_due)
                    acks.extend([back] * (index - len(acks)))
            if hole >= 0 and repair and repair <= time:
                mend(repair)
            begin, end = index * mss, min((index + 1) * mss, len(data))
            flags = ACK | (PSH if end == len(data) or index % push == push - 1 else 0)
            time += (end - begin + 54) / side.rate
            lost = hole < 0 and self._draw.chance(self._loss)
            # a packet lost before the probe is never seen there
            before = lost and (self._draw.chance(self._near_share) == uplink)
            landed = self._emit(
                uplink, time, flags, data[begin:end], seq=base + begin, seen=not before
            )
            if lost:
                hole, duplicates, repair, arrived = index, 0, 0.0, base
                continue
            if hole < 0:
                receive(base + end, landed)
            else:
                arrived = base + end
                duplicates += 1
                back = self._acknowledge(not uplink, landed + 1e-5)
                if duplicates == 3:
                    repair = back
            peer.clock = max(peer.clock, landed)
        if hole >= 0:
            mend(repair or time + max(_MIN_TIMEOUT, 2 * round_trip))
        side.seq = base + len(data)
        peer.bytes_in += len(data)
        side.clock = max(side.clock, time)

    def wait(self, seconds: float) -> None:
        """Let time pass at both ends."""
        self._client.clock += seconds
        self._server.clock += seconds

    def close(self, how: str, uplink: bool = True) -> None:
        """End the connection: `fin` by both, `rst` by one side, `silent` not at all."""
        side, peer = self._sides(uplink)
        start = self.now + 1e-4
        for direction, end in ((uplink, side), (not uplink, peer)):
            if end.unacked and (how == "silent" or end.ack_due < start):
                self._acknowledge(direction, end.ack_due)
        if how == "rst":
            self._emit(uplink, start, RST | ACK)
        elif how == "fin":
            arrival = self._emit(uplink, start, FIN | ACK)
            side.seq += 1
            peer.received = side.seq & 0xFFFFFFFF
            arrival = self._emit(not uplink, arrival + 2e-4, FIN | ACK)
            peer.seq += 1
            side.received = peer.seq & 0xFFFFFFFF
            self._emit(uplink, arrival + 2e-5, ACK)

    def packets(self, epoch_ns: int) -> list[Packet]:
        """Return what the probe saw, in order of time; `epoch_ns` is the capture's start."""
        self._events.sort(key=lambda event: event.time)
        client, server = self._client.host, self._server.host
        back = self.ends.reversed()
        return [
            Packet(
                epoch_ns + int(event.time * 1e9),
                event.uplink,
                packets.tcp(
                    self.ends if event.uplink else back,
                    ttl=(client if event.uplink else server).stack.ttl
                    - (client if event.uplink else server).hops,
                    identification=(client if event.uplink else server).identify(),
                    seq=event.seq,
                    ack=event.ack,
                    flags=event.flags,
                    window=event.window,
                    options=event.options,
                    payload=event.payload,
                ),
            )
            for event in self._events
        ]
