"""Carrying out the activities of a profile: from declarations to packets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatch
from typing import NamedTuple

from veilwatch.corpus.lab import datagrams, smb
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.packets import Ends, Packet, udp
from veilwatch.corpus.lab.profile import Activity, Names, Share, Stream, Sweep, Tls
from veilwatch.corpus.lab.tcp import TcpConnection
from veilwatch.corpus.lab.tls import Connection, TlsServer, certify_server
from veilwatch.corpus.lab.world import (
    RESOLVER,
    Server,
    User,
    make_host,
    make_label,
    make_name,
    make_server,
    random_address,
)

SMB_PORT = 445


class EmulatedFlow(NamedTuple):
    """One flow with what it was for."""

    user: User
    ends: Ends  # as the subscriber sends
    protocol: int
    activity: str
    packets: list[Packet]


@dataclass(frozen=True, slots=True)
class Pool:
    """The servers that all captures of one variant share.

    Attributes
    ----------
    key
        What they are drawn from.
    day
        On which their certificates are valid.
    certified
        TLS sides made so far, by activity and number: a certificate costs milliseconds.
    """

    key: str
    day: datetime
    certified: dict[tuple[str, int], TlsServer] = field(default_factory=dict)

    def server(self, activity: Tls | Share | Stream, number: int) -> Server:
        """Return server `number` of an activity; the same one in every capture."""
        draw = Draw(self.key, activity.name, number)
        if not isinstance(activity, Tls):
            return make_server(draw, inside=isinstance(activity, Share))
        server = make_server(draw, inside=activity.inside, random_name=activity.names == "random")
        place = activity.name, number
        if place not in self.certified:
            self.certified[place] = certify_server(
                server.name,
                certificate=draw.one(activity.certificate),
                version=draw.one(activity.versions),
                alpn=tuple(activity.alpn),
                day=self.day,
                draw=draw,
            )
        server.tls = self.certified[place]
        return server


@dataclass(slots=True)
class Stage:
    """Where an activity takes place: one capture.

    Attributes
    ----------
    epoch_ns
        Start of the capture, ns since 1970-01-01 UTC.
    users
        Subscribers that take turns.
    draw
        Where chance comes from.
    scale
        Factor on the number of flows.
    pool
        Servers to talk to.
    """

    epoch_ns: int
    users: list[User]
    draw: Draw
    scale: float
    pool: Pool
    resolver: Server = field(init=False)

    def __post_init__(self) -> None:
        draw = Draw(self.pool.key, "resolver")
        self.resolver = Server(make_host(RESOLVER, draw, near=False), "", 0.002, 0.0)

    def turns(self, activity: Activity) -> Iterator[tuple[User, float]]:
        """Yield who does something and when, in seconds after the capture's start."""
        count = max(1, round(activity.flows * self.scale))
        clocks = [self.draw.between(activity.start) for _ in self.users]
        for turn in range(count):
            which = turn % len(self.users)
            yield self.users[which], clocks[which]
            clocks[which] += self.draw.between(activity.interval)

    def servers(self, activity: Tls | Share | Stream) -> list[Server]:
        """Choose some of the twice as many servers that the variant uses over all captures."""
        numbers = self.draw.sample(range(2 * activity.servers), activity.servers)
        return [self.pool.server(activity, number) for number in numbers]

    def datagram(
        self, user: User, server: Server, ends: Ends, time: float, payload: bytes, *, uplink: bool
    ) -> tuple[Packet, float]:
        """Return a UDP packet sent at `time` and when it reaches the other end."""
        jitter = user.access.jitter * self.draw.random()
        near = user.access.delay + jitter
        passing = time + (near if uplink else server.delay)
        sender = user.host if uplink else server.host
        data = udp(
            ends if uplink else ends.reversed(),
            ttl=sender.stack.ttl - sender.hops,
            identification=sender.identify(),
            payload=payload,
        )
        arrival = passing + (server.delay if uplink else near)
        return Packet(self.epoch_ns + int(passing * 1e9), uplink, data), arrival

    def look_up(
        self, user: User, name: str, time: float, *, found: Server | None, activity: str
    ) -> tuple[EmulatedFlow, float]:
        """Ask the resolver for `name`; return the flow and when the answer is there."""
        ends = Ends(
            user.host.address.packed,
            self.resolver.host.address.packed,
            user.host.port(self.draw),
            53,
        )
        identity = self.draw.getrandbits(16)
        query, arrival = self.datagram(
            user, self.resolver, ends, time, datagrams.dns_query(identity, name), uplink=True
        )
        pause = self.draw.between((0.0003, 0.08))  # from the cache, or asked further up
        text = datagrams.dns_answer(
            identity, name, found.host.address if found else None, self.draw.one([60, 300, 3600])
        )
        answer, end = self.datagram(user, self.resolver, ends, arrival + pause, text, uplink=False)
        return EmulatedFlow(user, ends, 17, activity, [query, answer]), end

    def resolve(
        self, user: User, server: Server, time: float, activity: str
    ) -> tuple[list[EmulatedFlow], float]:
        """Look up a server's name unless the subscriber's cache holds it."""
        if server.name in user.resolved:
            return [], time
        user.resolved.add(server.name)
        flow, end = self.look_up(user, server.name, time, found=server, activity=activity)
        return [flow], end


@singledispatch
def perform(activity: Activity, stage: Stage) -> Iterator[EmulatedFlow]:  # noqa: ARG001 - of all
    """Yield the flows of one activity."""
    raise TypeError(f"no such activity: {type(activity).__name__}")


def _finish(
    stage: Stage, user: User, connection: TcpConnection, activity: Activity
) -> EmulatedFlow:
    return EmulatedFlow(user, connection.ends, 6, activity.name, connection.packets(stage.epoch_ns))


@perform.register
def _(activity: Tls, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    alpn = tuple(activity.alpn)
    servers = stage.servers(activity)
    # one build of the client per subscriber: an application does not change its TLS library
    stacks = {id(user): draw.one(activity.stacks) for user in stage.users}
    sessions: dict[tuple[int, str], ssl.SSLSession | None] = {}
    for user, start in stage.turns(activity):
        server = draw.one(servers)
        assert server.tls is not None
        key = (id(user), server.name)
        if activity.names != "none":
            lookups, start = stage.resolve(user, server, start, activity.name)
            yield from lookups
        old = sessions.get(key) if draw.chance(activity.resume) else None
        tls = Connection(
            server.tls, stacks[id(user)], alpn=alpn, sni=activity.names != "none", session=old
        )
        tcp = TcpConnection(
            user, server, draw.one(activity.port), start, draw,
            keep_alive=user.host.stack.keep_alive if activity.keep_alive else 0.0,
        )  # fmt: skip
        tcp.open()
        for flight in tls.handshake():
            tcp.send(flight.uplink, flight.data, draw.between((0.0002, 0.003)))
        sessions[key] = tls.session
        record = draw.one(activity.record)
        for _ in range(max(1, draw.count(activity.rounds))):
            request = tls.send(True, draw.count(activity.up), record)
            tcp.send(True, request, draw.between(activity.think))
            response = tls.send(False, draw.count(activity.down), record)
            tcp.send(False, response, draw.between(activity.serve))
        how = draw.one(activity.close)
        if how == "fin":
            tcp.send(True, tls.close(True), draw.between((0.001, 0.05)))
        tcp.close(how)
        yield _finish(stage, user, tcp, activity)


@perform.register
def _(activity: Sweep, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    port = draw.one(activity.port)
    first = random_address(draw, inside=activity.inside)
    for turn, (user, start) in enumerate(stage.turns(activity)):
        address = first + turn if activity.ordered else random_address(draw, inside=activity.inside)
        server = make_server(draw, inside=activity.inside)
        server.host.address = address
        if activity.protocol == "udp":
            ends = Ends(user.host.address.packed, address.packed, user.host.port(draw), port)
            probe, arrival = stage.datagram(
                user, server, ends, start, draw.octets(draw.count(activity.payload)), uplink=True
            )
            found = [probe]
            if draw.chance(activity.answered):
                size = draw.count(activity.payload)
                reply, _ = stage.datagram(
                    user, server, ends, arrival + 0.001, draw.octets(size), uplink=False
                )
                found.append(reply)
            yield EmulatedFlow(user, ends, 17, activity.name, found)
            continue
        tcp = TcpConnection(user, server, port, start, draw)
        fate = draw.random()
        if fate < activity.answered:
            tcp.open()
            tcp.close(draw.one(["fin", "rst"]))
        elif fate < activity.answered + activity.refused:
            tcp.refuse()
        else:
            tcp.knock(activity.retries)
        yield _finish(stage, user, tcp, activity)


@perform.register
def _(activity: Share, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    servers = stage.servers(activity)
    for user, start in stage.turns(activity):
        tcp = TcpConnection(user, draw.one(servers), SMB_PORT, start, draw)
        tcp.open()
        session, messages = smb.set_up(draw)
        for exchange in messages:
            tcp.send(True, exchange.request, draw.between((0.0003, 0.004)))
            tcp.send(False, exchange.response, draw.between((0.0003, 0.006)))
        for _ in range(max(1, draw.count(activity.files))):
            tcp.wait(draw.between(activity.rest))
            size, name = draw.count(activity.size), draw.count((8, 60))
            for operation in activity.operations:
                moves = operation in ("read", "write")
                left = size if moves else 0
                while True:
                    part = min(left, activity.chunk)
                    if operation == "query":
                        part = draw.count((120, 3000))
                    exchange = smb.operate(session, operation, part, name, draw)
                    tcp.send(True, exchange.request, draw.between(activity.think))
                    tcp.send(False, exchange.response, draw.between((0.0002, 0.004)))
                    left -= part
                    if not moves or left <= 0:
                        break
        tcp.close(draw.one(activity.close))
        yield _finish(stage, user, tcp, activity)


@perform.register
def _(activity: Names, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    for user, start in stage.turns(activity):
        length = draw.count(activity.label)
        if draw.chance(activity.failing) or activity.random:
            label = make_label(draw, length, random_letters=activity.random)
            name = f"{label}.example"
        else:
            name = make_name(draw)
        found = None if draw.chance(activity.failing) else make_server(draw, inside=False)
        flow, _ = stage.look_up(user, name, start, found=found, activity=activity.name)
        yield flow


@perform.register
def _(activity: Stream, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    servers = stage.servers(activity)
    for user, start in stage.turns(activity):
        server = draw.one(servers)
        ends = Ends(
            user.host.address.packed,
            server.host.address.packed,
            user.host.port(draw),
            draw.one(activity.port),
        )
        sources = draw.getrandbits(32), draw.getrandbits(32)
        found = []
        time = start
        for number in range(max(1, draw.count(activity.packets))):
            arrival = time
            for uplink in (True, False):
                size = draw.count(activity.up if uplink else activity.down)
                if activity.form == "ntp":
                    payload = datagrams.ntp(
                        stage.epoch_ns / 1e9 + arrival, request=uplink, draw=draw
                    )
                elif activity.form == "rtp":
                    payload = datagrams.rtp(number, sources[uplink], size, draw)
                else:
                    payload = draw.octets(size)
                packet, arrival = stage.datagram(
                    user, server, ends, arrival, payload, uplink=uplink
                )
                found.append(packet)
                arrival += draw.between((0.0002, 0.02))
            time += draw.between(activity.gap)
        yield EmulatedFlow(user, ends, 17, activity.name, found)
