"""Where the emulated traffic lives: hosts, servers, paths, names. The same for all classes.

Everything that identifies a machine rather than its behaviour (addresses, operating system,
TTL, MSS, distance, speed, name, tunnel) is drawn here from one pool, whoever asks. Addresses
and names are of ranges that belong to nobody: RFC 2544 (198.18.0.0/15) for the Internet, private
ones for the rest, names under `.example` (RFC 2606).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from veilwatch.corpus.lab.clients import Program
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.names import make_name
from veilwatch.corpus.lab.tls import TlsServer
from veilwatch.corpus.tunnel import Subscriber

_SUBSCRIBER_POOL: Final = int(IPv4Address("10.45.0.0")), 2**16
_INSIDE_POOL: Final = int(IPv4Address("10.200.0.0")), 2**16
_INTERNET_POOL: Final = int(IPv4Address("198.18.0.0")), 2**17

RESOLVER: Final = IPv4Address("10.255.0.53")
_GNBS: Final = [IPv4Address(f"172.20.1.{10 + i}") for i in range(6)]
_UPFS: Final = [IPv4Address(f"172.20.9.{2 + i}") for i in range(2)]
_QFIS: Final = [1, 5, 6, 8, 9, 9, 9]


class Stack(NamedTuple):
    """What an operating system writes into TCP and IP headers."""

    ttl: int
    window: int  # of the SYN
    scale: int
    timestamps: bool
    keep_alive: float  # s between TCP keep-alive probes where an application asks for them


_STACKS: Final = [
    Stack(ttl=128, window=64_240, scale=8, timestamps=False, keep_alive=30),
    Stack(ttl=64, window=64_240, scale=7, timestamps=True, keep_alive=45),
    Stack(ttl=64, window=65_535, scale=6, timestamps=True, keep_alive=60),
]


@dataclass(slots=True)
class Host:
    """One end of conversations."""

    address: IPv4Address
    stack: Stack
    mss: int
    hops: int  # routers between it and the capture point
    identification: int  # last IPv4 identification used
    next_port: int

    def identify(self) -> int:
        """Return the identification of the next packet."""
        self.identification = (self.identification + 1) & 0xFFFF
        return self.identification

    def port(self, draw: Draw) -> int:
        """Return the next ephemeral port."""
        self.next_port += draw.randrange(1, 4)
        if self.next_port > 65_000:
            self.next_port = 32_768
        return self.next_port


def make_host(address: IPv4Address, draw: Draw, *, near: bool) -> Host:
    """Return a host; `near` ones have no router before the capture point."""
    return Host(
        address=address,
        stack=draw.one(_STACKS),
        mss=draw.one([1460, 1460, 1420, 1400, 1380, 1360, 1340]),
        hops=0 if near else draw.randrange(3, 20),
        identification=draw.randrange(65_536),
        next_port=draw.randrange(32_768, 64_000),
    )


class Access(NamedTuple):
    """The radio side of a path, between subscriber and capture point."""

    delay: float  # s one way
    jitter: float  # s
    uplink: float  # bytes/s
    downlink: float  # bytes/s
    loss: float


PLATFORMS: Final[list[tuple[Program, Program]]] = [
    *(("chrome-pq", "schannel10"), ("chrome-pq", "schannel11"), ("chrome", "schannel10")),
    *(("firefox", "schannel11"), ("chrome", "schannel7"), ("chrome-pq", "schannel10")),
    *(("safari", "safari"), ("chrome-pq", "okhttp"), ("firefox", "openssl3")),
]
"""Browser and system library of machines, as often as they are met; alike for every class."""


@dataclass(slots=True)
class User:
    """A subscriber with the machine behind the SIM card."""

    host: Host
    tunnel: Subscriber
    access: Access
    browser: Program
    system: Program  # the TLS library of its operating system
    resolved: set[str] = field(default_factory=set)  # names that its cache holds


def make_user(draw: Draw) -> User:
    """Return a subscriber with its tunnels."""
    address = _from_pool(_SUBSCRIBER_POOL, draw)
    browser, system = draw.one(PLATFORMS)
    return User(
        host=make_host(address, draw, near=True),
        tunnel=Subscriber(
            address=address,
            uplink_teid=draw.randrange(1, 2**32),
            downlink_teid=draw.randrange(1, 2**32),
            qfi=draw.one(_QFIS),
            gnb=draw.one(_GNBS),
            upf=draw.one(_UPFS),
        ),
        access=Access(
            delay=draw.between((0.004, 0.03)),
            jitter=draw.between((0.0003, 0.004)),
            uplink=draw.between((4e5, 6e6)),
            downlink=draw.between((2e6, 3e7)),
            loss=draw.one([0.0, 0.0, 0.001, 0.004, 0.012]),
        ),
        browser=browser,
        system=system,
    )


@dataclass(slots=True)
class Server:
    """A machine that answers."""

    host: Host
    name: str
    delay: float  # s one way between capture point and server
    loss: float
    tls: TlsServer | None = None


def make_server(draw: Draw, *, inside: bool, random_name: bool = False) -> Server:
    """Return a server, still without TLS."""
    return Server(
        host=make_host(
            _from_pool(_INSIDE_POOL if inside else _INTERNET_POOL, draw), draw, near=False
        ),
        name=make_name(draw, random_letters=random_name),
        delay=draw.between((0.0004, 0.004) if inside else (0.004, 0.09)),
        loss=draw.one([0.0, 0.0, 0.001, 0.006]),
    )


def random_address(draw: Draw, *, inside: bool) -> IPv4Address:
    """Return an address that a scan might try."""
    return _from_pool(_INSIDE_POOL if inside else _INTERNET_POOL, draw)


def _from_pool(pool: tuple[int, int], draw: Draw) -> IPv4Address:
    base, size = pool
    return IPv4Address(base + draw.randrange(1, size - 1))
