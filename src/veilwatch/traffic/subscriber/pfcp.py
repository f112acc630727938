"""PFCP messages (TS 29.244) on N4 and Sxa, Sxb, Sxc: sessions between SMF and UPF, SGW-C and SGW-U.

A PDR says what arrives: its F-TEID is the user plane function's own end. A FAR says what is sent:
its outer header creation is the end of the peer (gNB, eNB, other user plane function).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from veilwatch.traffic.subscriber.elements import Element, walk_pfcp
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
from veilwatch.traffic.subscriber.values import NamedEnd, ValueReader

MAX_BUNDLED: Final = 8
"""Messages in one datagram (TS 29.244 cl. 7.2.2.2, flag FO); senders bundle two or three."""

NAMES: Final = {
    1: "Heartbeat Request",
    2: "Heartbeat Response",
    3: "PFD Management Request",
    4: "PFD Management Response",
    5: "Association Setup Request",
    6: "Association Setup Response",
    7: "Association Update Request",
    8: "Association Update Response",
    9: "Association Release Request",
    10: "Association Release Response",
    11: "Version Not Supported Response",
    12: "Node Report Request",
    13: "Node Report Response",
    14: "Session Set Deletion Request",
    15: "Session Set Deletion Response",
    16: "Session Set Modification Request",
    17: "Session Set Modification Response",
    50: "Session Establishment Request",
    51: "Session Establishment Response",
    52: "Session Modification Request",
    53: "Session Modification Response",
    54: "Session Deletion Request",
    55: "Session Deletion Response",
    56: "Session Report Request",
    57: "Session Report Response",
}
"""Message types (TS 29.244 table 7.3-1)."""

_PROCEDURES: Final = {
    9: Procedure.RELEASE_ASSOCIATION,
    50: Procedure.CREATE,
    52: Procedure.MODIFY,
    54: Procedure.DELETE,
}
_RESPONSES: Final = {10: 9, 51: 50, 53: 52, 55: 54}

ASSOCIATION_SETUP: Final = frozenset((5, 6))
"""Types by which a node says that it begins anew."""

LOCAL: Final = 0
"""Kind of a leg: F-TEID of a PDR."""
PEER: Final = 1
"""Kind of a leg: outer header creation of a FAR."""
ENDPOINT: Final = 2
"""Kind of a leg: F-TEID of a traffic endpoint that several PDRs share."""

_CREATE_PDR, _PDI, _CREATE_FAR, _CREATED_PDR = 1, 2, 3, 8
_UPDATE_PDR, _UPDATE_FAR, _REMOVE_PDR, _REMOVE_FAR = 9, 10, 15, 16
_CREATE_ENDPOINT, _CREATED_ENDPOINT, _UPDATE_ENDPOINT, _REMOVE_ENDPOINT = 127, 128, 129, 130
_PDRS: Final = frozenset((_CREATE_PDR, _CREATED_PDR, _UPDATE_PDR))
_ENDPOINTS: Final = frozenset((_CREATE_ENDPOINT, _CREATED_ENDPOINT, _UPDATE_ENDPOINT))
_REMOVED: Final = {
    _REMOVE_PDR: (56, LOCAL),
    _REMOVE_FAR: (108, PEER),
    _REMOVE_ENDPOINT: (131, ENDPOINT),
}
"""Element that holds the number of what is removed, and the kind of its leg."""

FORWARD: Final = 0x02
"""Bit of Apply Action (TS 29.244 cl. 8.2.26): packets are sent on."""

_ARRIVES: Final = {0: CORE, 1: ACCESS}
"""Role of an own end by its source interface: what comes from the access side runs uplink."""
_SENT: Final = {0: ACCESS, 1: CORE}
"""Role of a peer's end by the destination interface."""


def split(datagram: bytes) -> Iterator[bytes]:
    """Yield the messages of one datagram (flag FO: another one follows)."""
    for _ in range(MAX_BUNDLED):
        if len(datagram) < 8:
            return
        end = 4 + int.from_bytes(datagram[2:4], "big")
        yield datagram[:end]
        if not datagram[0] & 0x04:
            return
        datagram = datagram[end:]


def parse(data: bytes, identify: Identifier, values: ValueReader) -> Message | None:
    """Read one message; None if it is none. See `veilwatch.traffic.subscriber.gtpv2.parse`."""
    if len(data) < 8 or data[0] >> 5 != 1:
        return None
    kind = data[1]
    start, context = 8, 0
    if data[0] & 0x01:
        if len(data) < 16:
            return None
        start, context = 16, int.from_bytes(data[4:12], "big")
    sequence = int.from_bytes(data[start - 4 : start - 1], "big")
    request = kind not in _RESPONSES
    procedure = _PROCEDURES.get(kind if request else _RESPONSES[kind], Procedure.OTHER)
    message = Message(Protocol.PFCP, kind, request, procedure, sequence, context)
    for element in walk_pfcp(data[start:]):
        _take(message, element, identify, values)
    return message


def _take(message: Message, element: Element, identify: Identifier, values: ValueReader) -> None:
    kind, _, value = element
    if kind in _PDRS:
        _take_pdr(message, value, values)
    elif kind in (_CREATE_FAR, _UPDATE_FAR):
        _take_far(message, value, values)
    elif kind in _ENDPOINTS:
        _take_endpoint(message, value, values)
    elif kind in _REMOVED:
        wanted, leg = _REMOVED[kind]
        for inner in walk_pfcp(value):
            if inner.kind == wanted:
                number = int.from_bytes(inner.value, "big")
                message.tunnels.append(Tunnel(Leg(number, leg), "", ()))
    elif kind == 19 and value:
        message.cause = value[0]
    elif kind == 57:
        end = values.session_end(value)
        if end is not None and end.name is not None:
            message.control.extend(End(address, end.name) for address in end.addresses)
    elif kind == 96 and len(value) >= 4:
        message.recovery = int.from_bytes(value[:4], "big")
    elif kind == 141:
        for name, digits in (values.user_id(value) or {}).items():
            identify(message, name, digits)
    elif kind == 159:  # stronger than a network instance
        message.apn = values.name(value) or message.apn


class _Detection:
    """What a PDR or a traffic endpoint says of the packets that it takes."""

    def __init__(self) -> None:
        self.number = 0
        self.endpoint: int | None = None
        self.role = ""
        self.network = b""
        self.ends: list[NamedEnd] = []

    def take(self, message: Message, element: Element, values: ValueReader) -> None:
        kind, _, value = element
        if kind == 20 and value:
            self.role = _ARRIVES.get(value[0] & 0x0F, "")
        elif kind == 21:
            end = values.pfcp_end(value)
            if end is not None and end.name:
                self.ends.append(end)
        elif kind == 22:
            self.network = value
        elif kind == 93:
            message.addresses.extend(values.ue_addresses(value) or ())
        elif kind == 131 and value:
            self.endpoint = int.from_bytes(value, "big")

    def put(self, message: Message, leg: Leg, values: ValueReader) -> None:
        if self.role == ACCESS and self.network and not message.apn:
            # On the access side a network instance names a transport network, not a DNN.
            message.apn = values.name(self.network) or ""
        if self.role:
            message.roles[leg] = self.role
            if self.endpoint is not None:
                message.roles[Leg(self.endpoint, ENDPOINT)] = self.role
        ends = tuple(End(address, end.name or 0) for end in self.ends for address in end.addresses)
        if ends:
            message.tunnels.append(Tunnel(leg, self.role, ends))


def _take_pdr(message: Message, group: bytes, values: ValueReader) -> None:
    """Read a Create, Created or Update PDR (TS 29.244 table 7.5.2.2-1)."""
    pdr = _Detection()
    for element in walk_pfcp(group):
        if element.kind == 56:
            pdr.number = int.from_bytes(element.value, "big")
        elif element.kind == _PDI:
            for inner in walk_pfcp(element.value):
                pdr.take(message, inner, values)
        else:
            pdr.take(message, element, values)
    pdr.put(message, Leg(pdr.number, LOCAL), values)


def _take_endpoint(message: Message, group: bytes, values: ValueReader) -> None:
    """Read a Create, Created or Update Traffic Endpoint (TS 29.244 table 7.5.2.7-1)."""
    endpoint = _Detection()
    for element in walk_pfcp(group):
        endpoint.take(message, element, values)
    if endpoint.endpoint is not None:
        endpoint.put(message, Leg(endpoint.endpoint, ENDPOINT), values)


def _take_far(message: Message, group: bytes, values: ValueReader) -> None:
    """Read a Create or Update FAR (TS 29.244 table 7.5.2.3-1)."""
    number = 0
    role = ""
    forwards: bool | None = None
    header: NamedEnd | None = None
    for kind, _, value in walk_pfcp(group):
        if kind == 108:
            number = int.from_bytes(value, "big")
        elif kind == 44 and value:
            forwards = bool(value[0] & FORWARD)
        elif kind in (4, 11):  # (Update) Forwarding Parameters
            for inner in walk_pfcp(value):
                if inner.kind == 42 and inner.value:
                    role = _SENT.get(inner.value[0] & 0x0F, "")
                elif inner.kind == 84:
                    header = values.outer_header(inner.value) or header
    leg = Leg(number, PEER)
    if role:
        message.roles[leg] = role  # later updates leave the destination out
    if header is not None and header.name and header.addresses:
        teid = header.name
        ends = tuple(End(address, teid) for address in header.addresses)
        message.tunnels.append(Tunnel(leg, role, ends))
    elif forwards is False:
        message.tunnels.append(Tunnel(leg, role, ()))  # buffered or dropped: the UE is idle


def joined(request: Message, response: Message) -> list[Tunnel]:
    """Return the tunnels of an answered request, those that the UPF chose included."""
    roles = request.roles | response.roles
    return [
        Tunnel(leg, role or roles.get(leg, ""), ends)
        for leg, role, ends in (*request.tunnels, *response.tunnels)
    ]
