"""GTPv1-C messages (TS 29.060) on Gn and Gp: PDP contexts between SGSN and GGSN."""

from __future__ import annotations

from typing import Final

from veilwatch.traffic.subscriber.elements import Element, walk_gtpv1
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.messages import (
    ACCESS,
    CORE,
    MAPPED,
    End,
    Leg,
    Message,
    Procedure,
    Protocol,
    Tunnel,
)
from veilwatch.traffic.subscriber.values import ValueReader

NAMES: Final = {
    1: "Echo Request",
    2: "Echo Response",
    3: "Version Not Supported",
    16: "Create PDP Context Request",
    17: "Create PDP Context Response",
    18: "Update PDP Context Request",
    19: "Update PDP Context Response",
    20: "Delete PDP Context Request",
    21: "Delete PDP Context Response",
    26: "Error Indication",
    27: "PDU Notification Request",
    28: "PDU Notification Response",
    31: "Supported Extension Headers Notification",
    48: "Identification Request",
    49: "Identification Response",
    50: "SGSN Context Request",
    51: "SGSN Context Response",
    52: "SGSN Context Acknowledge",
    53: "Forward Relocation Request",
    54: "Forward Relocation Response",
}
"""Message types (TS 29.060 table 1)."""

_PROCEDURES: Final = {
    16: Procedure.CREATE,
    18: Procedure.MODIFY,
    20: Procedure.DELETE_BEARERS,
}
"""By the type of the request; the response has the next number."""

_RATS: Final = {
    1: "UTRAN",
    2: "GERAN",
    3: "WLAN",
    4: "GAN",
    5: "HSPA Evolution",
    6: "E-UTRAN",
}
"""RAT types (TS 29.060 cl. 7.7.50)."""

MAX_EXTENSIONS: Final = 4
"""Extension headers passed over: TS 29.060 cl. 6.1 knows three that one message may carry."""

SGSN_SIDE: Final = 0
GGSN_SIDE: Final = 1


def parse(data: bytes, identify: Identifier, values: ValueReader) -> Message | None:
    """Read one message; None if it is none. See `veilwatch.traffic.subscriber.gtpv2.parse`."""
    if len(data) < 8 or data[0] >> 4 != 0b0011:  # version 1, protocol type GTP
        return None
    kind, context = data[1], int.from_bytes(data[4:8], "big")
    end = 8 + int.from_bytes(data[2:4], "big")
    data = data[:end]
    start, sequence = 8, 0
    if data[0] & 0x07:
        if len(data) < 12:
            return None
        sequence = int.from_bytes(data[8:10], "big")
        start = _after_extensions(data)
    request = kind in _PROCEDURES or kind == 1
    procedure = _PROCEDURES.get(kind if request else kind - 1, Procedure.OTHER)
    message = Message(Protocol.GTPV1, kind, request, procedure, sequence, context)
    if procedure is Procedure.CREATE and request and context:
        message.procedure = Procedure.MODIFY  # a secondary context within a known session
    found: dict[tuple[int, int], bytes] = {}
    for element in walk_gtpv1(data[start:]):
        _take(message, element, identify, values)
        found.setdefault((element.kind, element.instance), element.value)
    _take_ends(message, found)
    return message


def _after_extensions(data: bytes) -> int:
    """Return where the elements begin (TS 29.060 cl. 6)."""
    position, following = 12, data[11] if data[0] & 0x04 else 0
    for _ in range(MAX_EXTENSIONS):
        if not following or position >= len(data) or not data[position]:
            break
        position += 4 * data[position]
        if position > len(data):
            break
        following = data[position - 1]
    return position


def _take(message: Message, element: Element, identify: Identifier, values: ValueReader) -> None:
    kind, instance, value = element
    if kind == 2:
        identify(message, "imsi", values.digits(value))
    elif kind == 134:  # begins with nature and plan of the number
        identify(message, "msisdn", values.digits(value[1:]))
    elif kind == 154:
        identify(message, "imei", values.digits(value))
    elif kind == 1:
        message.cause = value[0]
    elif kind == 14:
        message.recovery = value[0]
    elif kind == 19:
        if value[0] & 1 and message.procedure is Procedure.DELETE_BEARERS:
            message.procedure = Procedure.DELETE  # tear down all that share the address
    elif kind == 20:
        # The second NSAPI of a secondary context is that of the context it belongs to.
        message.linked = value[0] & 0x0F
        if instance == 0:
            message.bearers.add(message.linked)
    elif kind == 128:
        message.addresses.extend(values.end_user_addresses(value) or ())
    elif kind == 131:
        message.apn = values.name(value) or message.apn
    elif kind == 151 and value:
        message.rat = _RATS.get(value[0], "")
    elif kind == 152:
        message.location = values.old_location(value) or message.location


def _take_ends(message: Message, found: dict[tuple[int, int], bytes]) -> None:
    """Join TEIDs with the addresses of the GSN: the first is for control, the second for data.

    A third and fourth, if any, are alternatives of the other IP version (cl. 7.3.1). Whose end it
    is, `joined` finds out.
    """
    addresses = []
    for instance in range(4):
        raw = found.get((133, instance), b"")
        addresses.append(_address(raw) if len(raw) in (4, 16) else 0)
    control = found.get((17, 0))
    data = found.get((16, 0))
    if control is not None:
        teid = int.from_bytes(control, "big")
        message.control = [End(a, teid) for a in (addresses[0], addresses[2]) if a]
    if data is not None and any(data):
        teid = int.from_bytes(data, "big")
        ends = tuple(End(a, teid) for a in (addresses[1], addresses[3]) if a)
        bearer = min(message.bearers, default=0)
        if ends:
            message.tunnels.append(Tunnel(Leg(bearer, SGSN_SIDE), ACCESS, ends))


def joined(request: Message, response: Message, *, by_sgsn: bool) -> list[Tunnel]:
    """Return the tunnels of an answered request.

    Parameters
    ----------
    request, response
        The pair. A response does not repeat the NSAPI.
    by_sgsn
        Whether the SGSN asked; a GGSN may ask for an update too (TS 29.060 cl. 7.3.3).
    """
    bearer = min(request.bearers, default=0)
    tunnels: list[Tunnel] = []
    for message, from_sgsn in ((request, by_sgsn), (response, not by_sgsn)):
        side, role = (SGSN_SIDE, ACCESS) if from_sgsn else (GGSN_SIDE, CORE)
        tunnels.extend(Tunnel(Leg(bearer, side), role, t.ends) for t in message.tunnels)
    return tunnels


def _address(raw: bytes) -> int:
    number = int.from_bytes(raw, "big")
    return number | MAPPED if len(raw) == 4 else number
