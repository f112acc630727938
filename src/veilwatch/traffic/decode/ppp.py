"""Point-to-point framing: PPP (RFC 1661, 1662) and Cisco's HDLC."""

from __future__ import annotations

from typing import Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.steps import (
    IPV4,
    IPV6,
    MPLS,
    NOT_IP,
    TRUNCATED_LINK,
    Walk,
    step_of_ethertype,
)

IN_HDLC_FRAMING: Final = 0xFF03  # address and control field of RFC 1662
CISCO_UNICAST: Final = 0x0F  # RFC 1547, 4.3.1
CISCO_MULTICAST: Final = 0x8F


@inner_kernel
def ppp(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a PPP header: framing bytes or none, protocol of two bytes or compressed to one."""
    if offset + 2 <= end and u16(buffer, offset) == IN_HDLC_FRAMING:
        offset += 2
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    protocol = u8(buffer, offset)
    offset += 1
    if protocol & 1 == 0:
        protocol = protocol << 8 | u8(buffer, offset)
        offset += 1
    if protocol == 0x21:
        return IPV4, offset, end, wire
    if protocol == 0x57:
        return IPV6, offset, end, wire
    if protocol == 0x281 or protocol == 0x283:
        return MPLS, offset, end, wire
    return NOT_IP, offset, end, wire


@inner_kernel
def cisco_hdlc(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read Cisco's HDLC header: address, control, and an EtherType."""
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    return step_of_ethertype(u16(buffer, offset + 2)), offset + 4, end, wire


@inner_kernel
def hdlc(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read PPP or Cisco's HDLC, which the first byte tells apart (LINKTYPE_PPP_HDLC)."""
    first = u8(buffer, offset) if offset < end else 0
    if first in (CISCO_UNICAST, CISCO_MULTICAST):
        return cisco_hdlc(buffer, offset, end, wire)
    return ppp(buffer, offset, end, wire)


@inner_kernel
def pppd(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read PPP of LINKTYPE_PPP_PPPD: a direction stands in place of the address field's 0xFF."""
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    return ppp(buffer, offset + (2 if u8(buffer, offset + 1) == 0x03 else 1), end, wire)
