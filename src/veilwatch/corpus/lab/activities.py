"""Carrying out the activities of a profile: from declarations to packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatch
from typing import Final, NamedTuple

from veilwatch.corpus.lab import datagrams, smb
from veilwatch.corpus.lab.clients import Program
from veilwatch.corpus.lab.draw import Draw, Range
from veilwatch.corpus.lab.messages import datagram, tcp_message
from veilwatch.corpus.lab.names import make_label, make_name
from veilwatch.corpus.lab.packets import TCP, UDP, Ends, Packet, udp
from veilwatch.corpus.lab.profile import (
    STEADY,
    Activity,
    Names,
    Share,
    Stack,
    Stream,
    Sweep,
    Talk,
    Tls,
)
from veilwatch.corpus.lab.tcp import TcpConnection
from veilwatch.corpus.lab.tls import Connection, Session, TlsServer, certify_server
from veilwatch.corpus.lab.world import (
    RESOLVER,
    Server,
    User,
    make_host,
    make_server,
    random_address,
)

SMB_PORT = 445

Serving = Tls | Share | Stream | Talk
"""Activities that have servers."""


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

    def server(self, activity: Serving, number: int) -> Server:
        """Return server `number` of an activity; the same one in every capture."""
        draw = Draw(self.key, activity.name, number)
        if isinstance(activity, Share):
            return make_server(draw, inside=True)
        if not isinstance(activity, Tls):
            return make_server(draw, inside=activity.inside)
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


_SEVERAL: Final = 0.4
"""Share of names with more than one address."""

_ALIASED: Final = 0.4
"""Share of names that stand for another one, as those of content networks do."""

_LONGEST_LABEL: Final = 63  # RFC 1035

_MOST_ATTEMPTS: Final = 3
"""Failed connections before one that succeeds: programs give up for a while after some."""


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
        sleeps = [self.draw.between(activity.interval) for _ in self.users]
        for turn in range(count):
            which = turn % len(self.users)
            yield self.users[which], clocks[which]
            if activity.jitter is None:
                clocks[which] += self.draw.between(activity.interval)
            else:
                varied = self.draw.uniform(1 - activity.jitter, 1 + activity.jitter)
                clocks[which] += sleeps[which] * varied

    def attempts(
        self, activity: Activity, user: User, server: Server, port: int, start: float
    ) -> tuple[list[EmulatedFlow], float]:
        """Return connections that fail before one succeeds, and when that one begins."""
        failed: list[EmulatedFlow] = []
        while len(failed) < _MOST_ATTEMPTS and self.draw.chance(activity.failing):
            tcp = TcpConnection(user, server, port, start, self.draw)
            if self.draw.chance(0.5):
                tcp.refuse()
            else:
                tcp.knock(self.draw.randrange(1, 3))
            failed.append(_finish(self, user, tcp, activity))
            start = tcp.now + self.draw.between((0.5, 10))
        return failed, start

    def sizes(self, activity: Tls | Talk) -> tuple[Range, Range]:
        """Return the sizes of requests and responses: those of a machine's calls hardly vary."""
        if activity.jitter is None:
            return activity.up, activity.down
        up, down = self.draw.between(activity.up), self.draw.between(activity.down)
        return (up * (1 - STEADY), up * (1 + STEADY)), (down * (1 - STEADY), down * (1 + STEADY))

    def servers(self, activity: Serving) -> list[Server]:
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
        self,
        user: User,
        name: str,
        time: float,
        *,
        found: Server | None,
        activity: str,
        text: int = 0,
    ) -> tuple[EmulatedFlow, float]:
        """Ask the resolver for `name`; return the flow and when the answer is there.

        With `text` a TXT record of so many bytes is asked for instead of an address.
        """
        ends = Ends(
            user.host.address.packed,
            self.resolver.host.address.packed,
            user.host.port(self.draw),
            53,
        )
        identity = self.draw.getrandbits(16)
        question = datagrams.dns_query(identity, name, datagrams.TEXT if text else 1)
        query, arrival = self.datagram(user, self.resolver, ends, time, question, uplink=True)
        pause = self.draw.between((0.0003, 0.08))  # from the cache, or asked further up
        if text:
            reply = datagrams.dns_text(identity, name, self.draw.octets(text), 1)
        else:
            addresses = [found.host.address] if found else []
            if found and self.draw.chance(_SEVERAL):
                others = range(self.draw.randrange(1, 5))
                addresses += [random_address(self.draw, inside=False) for _ in others]
            alias = make_name(self.draw) if found and self.draw.chance(_ALIASED) else ""
            ttl = self.draw.one([20, 60, 300, 3600])
            reply = datagrams.dns_answer(identity, name, addresses, ttl, alias)
        answer, end = self.datagram(user, self.resolver, ends, arrival + pause, reply, uplink=False)
        return EmulatedFlow(user, ends, UDP, activity, [query, answer]), end

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
    return EmulatedFlow(
        user, connection.ends, TCP, activity.name, connection.packets(stage.epoch_ns)
    )


def _program(stack: Stack, user: User) -> Program:
    return user.browser if stack == "browser" else user.system if stack == "system" else stack


@perform.register
def _(activity: Tls, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    alpn = tuple(activity.alpn)
    servers = stage.servers(activity)
    up, down = stage.sizes(activity)
    # one build of the client per subscriber: an application does not change its TLS library
    programs = {id(user): _program(draw.one(activity.stacks), user) for user in stage.users}
    sessions: dict[tuple[int, str], Session | None] = {}
    for user, start in stage.turns(activity):
        server = draw.one(servers)
        assert server.tls is not None
        key = (id(user), server.name)
        if activity.names != "none":
            lookups, start = stage.resolve(user, server, start, activity.name)
            yield from lookups
        port = draw.one(activity.port)
        failed, start = stage.attempts(activity, user, server, port, start)
        yield from failed
        tls = Connection(
            server.tls,
            programs[id(user)],
            draw,
            alpn=alpn,
            sni=activity.names != "none",
            session=sessions.get(key) if draw.chance(activity.resume) else None,
        )
        tcp = TcpConnection(
            user, server, port, start, draw,
            keep_alive=user.host.stack.keep_alive if activity.keep_alive else 0.0,
        )  # fmt: skip
        tcp.open()
        for flight in tls.handshake():
            tcp.send(flight.uplink, flight.data, draw.between((0.0002, 0.003)))
        sessions[key] = tls.session
        record = draw.one(activity.record)
        for _ in range(max(1, draw.count(activity.rounds))):
            request = tls.send(draw.count(up), record)
            tcp.send(True, request, draw.between(activity.think))
            response = tls.send(draw.count(down), record)
            tcp.send(False, response, draw.between(activity.serve))
        tcp.wait(draw.between(activity.linger))
        how = draw.one(activity.close)
        if how == "fin":
            tcp.send(True, tls.close(), draw.between((0.001, 0.05)))
        tcp.close(how)
        yield _finish(stage, user, tcp, activity)


@perform.register
def _(activity: Talk, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    servers = stage.servers(activity)
    up, down = stage.sizes(activity)
    for user, start in stage.turns(activity):
        server = draw.one(servers)
        if activity.named:
            lookups, start = stage.resolve(user, server, start, activity.name)
            yield from lookups
        port = draw.one(activity.port)
        failed, start = stage.attempts(activity, user, server, port, start)
        yield from failed
        tcp = TcpConnection(user, server, port, start, draw)
        tcp.open()
        for number in range(max(1, draw.count(activity.rounds))):
            for uplink, sizes, pause in (
                (True, up, activity.think),
                (False, down, activity.serve),
            ):
                size = draw.count(sizes)
                text = tcp_message(activity.form, number, size, draw, request=uplink)
                tcp.send(uplink, text, draw.between(pause))
        tcp.wait(draw.between(activity.linger))
        tcp.close(draw.one(activity.close))
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
            asked = datagram("opaque", 0, draw.count(activity.payload), draw, request=True)
            probe, arrival = stage.datagram(user, server, ends, start, asked, uplink=True)
            found = [probe]
            if draw.chance(activity.answered):
                told = datagram("opaque", 0, draw.count(activity.payload), draw, request=False)
                reply, _ = stage.datagram(user, server, ends, arrival + 0.001, told, uplink=False)
                found.append(reply)
            yield EmulatedFlow(user, ends, UDP, activity.name, found)
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
        server = draw.one(servers)
        failed, start = stage.attempts(activity, user, server, SMB_PORT, start)
        yield from failed
        tcp = TcpConnection(user, server, SMB_PORT, start, draw)
        tcp.open()
        session = smb.Session(
            encrypted=Draw(server.name, "encrypted").chance(activity.encrypted),
            ticket=draw.count((1100, 1900)) if draw.chance(activity.kerberos) else 0,
            draw=draw,
        )
        for exchange in session.set_up():
            tcp.send(True, exchange.request, draw.between((0.0003, 0.004)))
            tcp.send(False, exchange.response, draw.between((0.0003, 0.006)))
        for _ in range(max(1, draw.count(activity.files))):
            tcp.wait(draw.between(activity.rest))
            size, name = draw.count(activity.size), draw.count((8, 60))
            if draw.chance(activity.denied):
                exchange = session.operate("create", 0, name, failing=True)
                tcp.send(True, exchange.request, draw.between(activity.think))
                tcp.send(False, exchange.response, draw.between((0.0002, 0.004)))
                continue
            for operation in activity.operations:
                moves = operation in ("read", "write")
                left = size if moves else 0
                while True:
                    part = min(left, activity.chunk)
                    if operation in ("query", "enumerate"):
                        part = draw.count((120, 3000))
                    exchange = session.operate(operation, part, name)
                    tcp.send(True, exchange.request, draw.between(activity.think))
                    tcp.send(False, exchange.response, draw.between((0.0002, 0.004)))
                    left -= part
                    if not moves or left <= 0:
                        break
        tcp.wait(draw.between(activity.linger))
        tcp.close(draw.one(activity.close))
        yield _finish(stage, user, tcp, activity)


@perform.register
def _(activity: Names, stage: Stage) -> Iterator[EmulatedFlow]:
    draw = stage.draw
    domain = make_name(Draw(stage.pool.key, activity.name, activity.below), prefixes=("",))
    for user, start in stage.turns(activity):
        length = draw.count(activity.label)
        missing = draw.chance(activity.missing)
        label = make_label(draw, length, random_letters=activity.random)
        if activity.below:
            name = f"{label[:_LONGEST_LABEL]}.{domain}"
        elif missing or activity.random:
            name = f"{label}.example"
        else:
            name = make_name(draw)
        found = None if missing else make_server(draw, inside=False)
        text = draw.count(activity.text)
        flow, _ = stage.look_up(user, name, start, found=found, activity=activity.name, text=text)
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
        sides = (True, False) if draw.chance(activity.answered) else (True,)
        for number in range(max(1, draw.count(activity.packets))):
            arrival = time
            for uplink in sides:
                size = draw.count(activity.up if uplink else activity.down)
                if activity.form == "ntp":
                    payload = datagrams.ntp(
                        stage.epoch_ns / 1e9 + arrival, request=uplink, draw=draw
                    )
                elif activity.form == "rtp":
                    payload = datagrams.rtp(number, sources[uplink], size, draw)
                else:
                    payload = datagram(activity.form, number, size, draw, request=uplink)
                packet, arrival = stage.datagram(
                    user, server, ends, arrival, payload, uplink=uplink
                )
                found.append(packet)
                arrival += draw.between((0.0002, 0.02))
            time += draw.between(activity.gap)
        yield EmulatedFlow(user, ends, UDP, activity.name, found)
