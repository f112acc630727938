"""GTPv2-C messages (TS 29.274) on S11, S5/S8, S4, S2a and S2b."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from veilwatch.traffic.subscriber.elements import Element, walk_gtpv2
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.messages import (
    ACCESS,
    CORE,
    End,
    Leg,
    Message,
    Procedure,
    Protocol,
    Tunnel,
)
from veilwatch.traffic.subscriber.values import ValueReader

MAX_PIGGYBACKED: Final = 2
"""Messages in one datagram: a second one may follow the first (TS 29.274 cl. 5.5.1)."""

NAMES: Final = {
    1: "Echo Request",
    2: "Echo Response",
    3: "Version Not Supported Indication",
    32: "Create Session Request",
    33: "Create Session Response",
    34: "Modify Bearer Request",
    35: "Modify Bearer Response",
    36: "Delete Session Request",
    37: "Delete Session Response",
    38: "Change Notification Request",
    39: "Change Notification Response",
    64: "Modify Bearer Command",
    65: "Modify Bearer Failure Indication",
    66: "Delete Bearer Command",
    67: "Delete Bearer Failure Indication",
    68: "Bearer Resource Command",
    69: "Bearer Resource Failure Indication",
    95: "Create Bearer Request",
    96: "Create Bearer Response",
    97: "Update Bearer Request",
    98: "Update Bearer Response",
    99: "Delete Bearer Request",
    100: "Delete Bearer Response",
    130: "Context Request",
    131: "Context Response",
    132: "Context Acknowledge",
    133: "Forward Relocation Request",
    134: "Forward Relocation Response",
    166: "Create Indirect Data Forwarding Tunnel Request",
    167: "Create Indirect Data Forwarding Tunnel Response",
    168: "Delete Indirect Data Forwarding Tunnel Request",
    169: "Delete Indirect Data Forwarding Tunnel Response",
    170: "Release Access Bearers Request",
    171: "Release Access Bearers Response",
    176: "Downlink Data Notification",
    177: "Downlink Data Notification Acknowledge",
    211: "Modify Access Bearers Request",
    212: "Modify Access Bearers Response",
}
"""Message types (TS 29.274 table 6.1-1)."""

_PROCEDURES: Final = {
    32: Procedure.CREATE,
    34: Procedure.MODIFY,
    36: Procedure.DELETE,
    38: Procedure.MODIFY,  # of the location only
    95: Procedure.MODIFY,
    99: Procedure.DELETE_BEARERS,
    170: Procedure.RELEASE_ACCESS,
    211: Procedure.MODIFY,
}
"""By the type of the request; the response has the next number."""

_ROLES: Final = {
    **dict.fromkeys(
        (0, 2, 4, 15, 31, 34, 38), ACCESS
    ),  # eNB, RNC, SGW S5/S8, SGSN, ePDG, TWAN, MME
    **dict.fromkeys((1, 3, 5, 16, 33, 37, 39), CORE),  # SGW S1/S12, PGW, SGW S4, PGW S2b/S2a, SGW
}
"""Interface types of user plane F-TEIDs (TS 29.274 table 8.22-1). Forwarding tunnels of a running
handover (19 to 23, 28) carry what other tunnels of the session carry too, and live for seconds."""

_CONTROL: Final = frozenset((6, 7, 10, 11, 17, 30, 32, 35, 36))
"""Interface types of control plane F-TEIDs of sessions (S5/S8, S11, S4, S2b, S2a)."""

_RATS: Final = {
    1: "UTRAN",
    2: "GERAN",
    3: "WLAN",
    4: "GAN",
    5: "HSPA Evolution",
    6: "E-UTRAN",
    7: "Virtual",
    8: "NB-IoT",
    9: "LTE-M",
    10: "NR",
}
"""RAT types (TS 29.274 cl. 8.17)."""


def split(datagram: bytes) -> Iterator[bytes]:
    """Yield the messages of one datagram: a piggy-backed one follows if the first says so."""
    for _ in range(MAX_PIGGYBACKED):
        if len(datagram) < 8:
            return
        end = 4 + int.from_bytes(datagram[2:4], "big")
        yield datagram[:end]
        if not datagram[0] & 0x10:
            return
        datagram = datagram[end:]


def parse(data: bytes, identify: Identifier, values: ValueReader) -> Message | None:
    """Read one message; None if it is none.

    Parameters
    ----------
    data
        From the first octet of the header, possibly cut at its end.
    identify
        Turns identities into tokens.
    values
        Reads the elements.
    """
    if len(data) < 8 or data[0] >> 5 != 2:
        return None
    kind = data[1]
    start, context = 8, 0
    if data[0] & 0x08:
        if len(data) < 12:
            return None
        start, context = 12, int.from_bytes(data[4:8], "big")
    sequence = int.from_bytes(data[start - 4 : start - 1], "big")
    # Requests and responses of a procedure have neighbouring numbers.
    request = kind in _PROCEDURES or kind == 1
    procedure = _PROCEDURES.get(kind if request else kind - 1, Procedure.OTHER)
    message = Message(Protocol.GTPV2, kind, request, procedure, sequence, context)
    third: list[End] = []
    for element in walk_gtpv2(data[start:]):
        _take(message, element, identify, values, third)
    if not request and not message.control:
        # A PGW names its own end as others name it (TS 29.274 table 7.2.2-1, instance 1).
        message.control = third
    if procedure is Procedure.CREATE and request and not message.linked:
        # Only a request with several bearers names the default one (TS 29.274 table 7.2.1-1).
        message.linked = min((b for b in message.bearers if b > 0), default=0)
    if procedure is Procedure.DELETE_BEARERS and message.linked:
        message.procedure = Procedure.DELETE  # the default bearer goes, and with it the session
    return message


def _take(
    message: Message,
    element: Element,
    identify: Identifier,
    values: ValueReader,
    third: list[End],
) -> None:
    """Take one element; ends of third nodes (the PGW, towards an SGW) go to `third`."""
    kind, instance, value = element
    if kind in (1, 75, 76):  # IMSI, MEI, MSISDN
        name = {1: "imsi", 75: "imei", 76: "msisdn"}[kind]
        identify(message, name, values.digits(value))
    elif kind == 2 and value:
        message.cause = value[0]
    elif kind == 3 and value:
        message.recovery = value[0]
    elif kind == 71:
        message.apn = values.name(value) or message.apn
    elif kind == 73 and value:  # EPS bearer identity: of the default bearer, or one of several
        bearer = value[0] & 0x0F
        if instance == 0:
            message.linked = bearer
        else:
            message.bearers.add(bearer)
    elif kind == 79:
        message.addresses.extend(values.pdn_addresses(value) or ())
    elif kind == 82 and value:
        message.rat = _RATS.get(value[0], "")
    elif kind == 86:
        message.location = values.location(value) or message.location
    elif kind == 87:
        end = values.gtpv2_end(value)
        if end is not None and end.interface in _CONTROL:
            ends = message.control if instance == 0 else third
            ends.extend(End(address, end.teid) for address in end.addresses)
    elif kind == 93:
        _take_bearer(message, value, values)


def _take_bearer(message: Message, group: bytes, values: ValueReader) -> None:
    """Read a bearer context (TS 29.274 table 7.2.1-2 and others like it).

    A bearer that has no number yet gets one below 0, for `joined`.
    """
    bearer = 0
    tunnels = []
    refused = False
    for kind, _, value in walk_gtpv2(group):
        if kind == 73 and value:
            bearer = value[0] & 0x0F
        elif kind == 2 and value:
            refused = not 16 <= value[0] < 64
        elif kind == 87:
            end = values.gtpv2_end(value)
            if end is not None and end.interface in _ROLES:
                tunnels.append(end)
    if bearer == 0:
        bearer = min(message.bearers, default=0) - 1
    if refused:
        message.failed.add(bearer)
        return
    message.bearers.add(bearer)
    for end in tunnels:
        ends = tuple(End(address, end.teid) for address in end.addresses if end.teid)
        if ends:
            leg = Leg(bearer, end.interface)
            message.tunnels.append(Tunnel(leg, _ROLES[end.interface], ends))


def joined(request: Message, response: Message) -> list[Tunnel]:
    """Return the tunnels of an answered request, those of refused bearers left out.

    A Create Bearer Request does not know its bearers' numbers yet (TS 29.274 cl. 7.2.3); they
    are those of the bearers in the response that repeat one of its F-TEIDs (cl. 7.2.4).
    """
    known = {end: tunnel.leg.bearer for tunnel in response.tunnels for end in tunnel.ends}
    numbers = {
        tunnel.leg.bearer: known[end]
        for tunnel in request.tunnels
        for end in tunnel.ends
        if tunnel.leg.bearer < 0 and end in known
    }
    tunnels = []
    for leg, role, ends in request.tunnels:
        bearer = numbers.get(leg.bearer, leg.bearer)
        if bearer > 0 and bearer not in response.failed:
            tunnels.append(Tunnel(Leg(bearer, leg.kind), role, ends))
    return [*tunnels, *(tunnel for tunnel in response.tunnels if tunnel.leg.bearer > 0)]
