"""What the three control protocols have in common: messages that change a session's tunnels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, NamedTuple

MAPPED: Final = 0xFFFF << 32
"""IPv4 addresses are kept as ::ffff:a.b.c.d (RFC 4291 cl. 2.5.5.2), as packets carry them."""

PREFIX_MASK: Final = ((1 << 64) - 1) << 64

ACCESS: Final = "access"
CORE: Final = "core"


def ue_key(address: int) -> int:
    """Return what tells a UE by one of its addresses: an IPv4 address, or an IPv6 /64 prefix.

    A UE is given a prefix and chooses the rest itself (TS 23.401 cl. 5.3.1.2.2).
    """
    return address if address >> 32 == 0xFFFF else address & PREFIX_MASK


class Protocol(StrEnum):
    """Control protocols."""

    GTPV1 = "GTPv1-C"
    GTPV2 = "GTPv2-C"
    PFCP = "PFCP"


class Procedure(Enum):
    """What a pair of request and response does."""

    CREATE = "create"  # a new session
    MODIFY = "modify"  # tunnels of a session
    DELETE = "delete"  # a session
    DELETE_BEARERS = "delete bearers"  # some bearers; the session if none is left
    RELEASE_ACCESS = "release access"  # the access side of all bearers: the UE goes idle
    RELEASE_ASSOCIATION = "release association"  # all sessions between two nodes
    OTHER = "other"  # nothing that the directory keeps


class End(NamedTuple):
    """An F-TEID: G-PDUs are sent to this address with this TEID."""

    address: int
    teid: int


class Leg(NamedTuple):
    """Which tunnel of a session: what one of its F-TEIDs is replaced by has the same leg.

    `kind` is the interface type (GTPv2-C), the side (GTPv1-C) or local or peer end (PFCP).
    """

    bearer: int
    kind: int


class Tunnel(NamedTuple):
    """The F-TEID that a leg has from now on, with one address or with two; without any, it ends.

    `role` is `ACCESS` or `CORE`; see `veilwatch.schema.sessions.TunnelEnd`.
    """

    leg: Leg
    role: str
    ends: tuple[End, ...]


class Rank(Enum):
    """What a subscriber is known by, best last."""

    NONE = 0
    IMEI = 1
    MSISDN = 2
    IMSI = 3


@dataclass(slots=True)
class Message:
    """One control message, as far as the directory needs it.

    Attributes
    ----------
    context
        TEID (GTP-C) or SEID (PFCP) of the header: the receiver's name of the session, 0 none.
    control
        Names that the sender gives to the session: address and TEID or SEID.
    linked
        Bearer that stands for the session: default EPS bearer, NSAPI; 0 unknown or PFCP.
    bearers
        Bearers that the message is about.
    failed
        Bearers that the sender refused within an accepted response.
    roles
        Roles of legs whose F-TEID the receiver shall choose (PFCP).
    recovery
        Restart counter (GTP-C, 0…255) or recovery time stamp (PFCP, s).
    """

    protocol: Protocol
    kind: int
    request: bool
    procedure: Procedure
    sequence: int
    context: int
    cause: int | None = None
    recovery: int | None = None
    token: bytes = b""
    rank: Rank = Rank.NONE
    apn: str = ""
    rat: str = ""
    location: str = ""
    addresses: list[int] = field(default_factory=list)
    control: list[End] = field(default_factory=list)
    linked: int = 0
    bearers: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    tunnels: list[Tunnel] = field(default_factory=list)
    roles: dict[Leg, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether a response accepts: TS 29.274 table 8.4-1, 29.060 cl. 7.7.1, 29.244 8.2.1."""
        if self.cause is None:
            return False
        first, last = _ACCEPTED[self.protocol]
        return first <= self.cause <= last

    @property
    def not_found(self) -> bool:
        """Whether a response says that there is no such session."""
        return self.cause == _NOT_FOUND[self.protocol]


_ACCEPTED: Final = {
    Protocol.GTPV1: (128, 191),
    Protocol.GTPV2: (16, 63),
    Protocol.PFCP: (1, 63),
}
_NOT_FOUND: Final = {Protocol.GTPV1: 192, Protocol.GTPV2: 64, Protocol.PFCP: 65}
