"""The driver's second half: link types and layers that few captures have.

They stand apart so that a packet of a common kind takes one comparison to pass them by.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer
from veilwatch.traffic.decode.capwap import capwap
from veilwatch.traffic.decode.etherip import etherip, ethernet_in_ip, mpls_in_ip
from veilwatch.traffic.decode.fabric import framed, macsec, nsh, trill
from veilwatch.traffic.decode.gue import ayiya, gre_in_udp, gue, lisp, mpls_in_udp
from veilwatch.traffic.decode.juniper import juniper
from veilwatch.traffic.decode.l2tp import l2tp, l2tp_in_ip
from veilwatch.traffic.decode.lan import (
    arcnet,
    docsis,
    fddi,
    fibre_channel,
    firewire,
    ipoib,
    mpacket,
    netanalyzer_transparent,
    switch_tag,
    token_ring,
)
from veilwatch.traffic.decode.overlay import charging, teredo
from veilwatch.traffic.decode.ppp import cisco_hdlc, hdlc, pppd
from veilwatch.traffic.decode.records import (
    enc,
    erf,
    ipnet,
    nflog,
    pflog,
    pflog_old,
    pktap,
    ppi,
    symantec,
)
from veilwatch.traffic.decode.steps import (
    ARCNET,
    ARCNET_BSD,
    ATM,
    AVS,
    AYIYA,
    CAPWAP,
    CISCO_HDLC,
    CISCO_HDLC_WITH_DIRECTION,
    DCCP,
    DOCSIS,
    ENC,
    EPON,
    ERF,
    ETHERIP,
    ETHERNET,
    ETHERNET_IN_IP,
    FABRICPATH,
    FDDI,
    FIBRE_CHANNEL,
    FIREWIRE,
    FRAME_RELAY,
    FRAME_RELAY_WITH_DIRECTION,
    GRE_IN_UDP,
    GTP_CHARGING,
    GUE,
    HDLC,
    IPNET,
    IPOIB,
    L2TP,
    L2TP_IN_IP,
    LANE,
    LISP,
    MACSEC,
    MPACKET,
    MPLS_IN_IP,
    MPLS_IN_UDP,
    NETANALYZER,
    NETANALYZER_TRANSPARENT,
    NFLOG,
    NOT_IP,
    PBB,
    PFLOG,
    PFLOG_OLD,
    PKTAP,
    PPI,
    PPP,
    PPP_PPPD,
    PPP_WITH_DIRECTION,
    PRISM,
    RADIOTAP,
    RAW_IP,
    SLIP,
    SUN_ATM,
    SWITCH_TAG,
    SWITCH_TAG_EDSA,
    SWITCH_TAG_IN_FRONT,
    SYMANTEC,
    TEREDO,
    TOKEN_RING,
    TRILL,
    TZSP,
    TZSP_FRAME,
    UDP_LITE,
    WLAN,
    Walk,
)
from veilwatch.traffic.decode.transport import dccp, udp_lite
from veilwatch.traffic.decode.tzsp import tzsp, tzsp_frame
from veilwatch.traffic.decode.wan import atm, frame_relay, lane, sun_atm
from veilwatch.traffic.decode.wireless import avs, prism, radiotap, skipped, wlan

DIRECTION: Final = 1
EPON_PREAMBLE: Final = 8  # holds the logical link (IEEE 802.3, 65.1.3.2)
SLIP_HEADER: Final = 16  # direction and the compressed header
SWITCH_TAG_BYTES: Final = 4
EDSA_BYTES: Final = 8
NETANALYZER_BYTES: Final = 4
BACKBONE_TAG: Final = 4  # the service instance of 802.1ah
FABRICPATH_TAG: Final = 2


@inner_kernel
def other_link(step: int, buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read a layer of `steps.FIRST_LINK` … `FIRST_LAYER` - 1."""
    if step == WLAN:
        return wlan(buffer, offset, end, wire)
    if step == RADIOTAP:
        return radiotap(buffer, offset, end, wire)
    if step == HDLC:
        return hdlc(buffer, offset, end, wire)
    if step == CISCO_HDLC:
        return cisco_hdlc(buffer, offset, end, wire)
    if step == PPP_PPPD:
        return pppd(buffer, offset, end, wire)
    if step == FRAME_RELAY:
        return frame_relay(buffer, offset, end, wire)
    if step == ATM:
        return atm(buffer, offset, end, wire)
    if step == SUN_ATM:
        return sun_atm(buffer, offset, end, wire)
    if step == LANE:
        return lane(buffer, offset, end, wire)
    if step == TOKEN_RING:
        return token_ring(buffer, offset, end, wire)
    if step == FDDI:
        return fddi(buffer, offset, end, wire)
    if step == FIBRE_CHANNEL:
        return fibre_channel(buffer, offset, end, wire)
    if step == FIREWIRE:
        return firewire(buffer, offset, end, wire, p)
    if step == ENC:
        return enc(buffer, offset, end, wire)
    if step == PFLOG:
        return pflog(buffer, offset, end, wire)
    if step == PFLOG_OLD:
        return pflog_old(buffer, offset, end, wire)
    if step == IPNET:
        return ipnet(buffer, offset, end, wire)
    if step == NFLOG:
        return nflog(buffer, offset, end, wire)
    if step == PPI:
        return ppi(buffer, offset, end, wire)
    if step == PKTAP:
        return pktap(buffer, offset, end, wire)
    if step == ERF:
        return erf(buffer, offset, end, wire)
    if step == PRISM:
        return prism(buffer, offset, end, wire)
    if step == AVS:
        return avs(buffer, offset, end, wire)
    if step == MPACKET:
        return mpacket(buffer, offset, end, wire)
    if step == DOCSIS:
        return docsis(buffer, offset, end, wire)
    if step == IPOIB:
        return ipoib(buffer, offset, end, wire)
    if step == NETANALYZER_TRANSPARENT:
        return netanalyzer_transparent(buffer, offset, end, wire)
    if step == TZSP_FRAME:
        return tzsp_frame(buffer, offset, end, wire)
    if step == SYMANTEC:
        return symantec(buffer, offset, end, wire)
    if step in (ARCNET, ARCNET_BSD):
        return arcnet(buffer, 4 if step == ARCNET else 2, offset, end, wire)
    if step in (SWITCH_TAG, SWITCH_TAG_EDSA):
        size = SWITCH_TAG_BYTES if step == SWITCH_TAG else EDSA_BYTES
        return switch_tag(buffer, size, offset, end, wire, p)
    following, size = behind(step)
    if size > 0:
        return skipped(following, size, offset, end, wire)
    return juniper(buffer, step, offset, end, wire)


@inner_kernel
def behind(step: int) -> tuple[int, int]:
    """Return what follows a header of which nothing matters, and its length; length 0: none."""
    if step == PPP_WITH_DIRECTION:
        return PPP, DIRECTION
    if step == CISCO_HDLC_WITH_DIRECTION:
        return CISCO_HDLC, DIRECTION
    if step == FRAME_RELAY_WITH_DIRECTION:
        return FRAME_RELAY, DIRECTION
    if step == NETANALYZER:
        return ETHERNET, NETANALYZER_BYTES
    if step == SWITCH_TAG_IN_FRONT:
        return ETHERNET, SWITCH_TAG_BYTES
    if step == EPON:
        return ETHERNET, EPON_PREAMBLE
    if step == SLIP:
        return RAW_IP, SLIP_HEADER
    return NOT_IP, 0


@inner_kernel
def other_layer(
    step: int,
    buffer: Buffer,
    offset: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Read a layer of `steps.FIRST_LAYER` and above."""
    if step == L2TP:
        return l2tp(buffer, offset, end, wire, p, counters)
    if step == TZSP:
        return tzsp(buffer, offset, end, wire, p, counters)
    if step == CAPWAP:
        return capwap(buffer, offset, end, wire, p, counters)
    if step == TEREDO:
        return teredo(buffer, offset, end, wire, p, counters)
    if step == GTP_CHARGING:
        return charging(buffer, offset, end, wire, counters)
    if step == UDP_LITE:
        return udp_lite(buffer, offset, end, wire, p)
    if step == DCCP:
        return dccp(buffer, offset, end, wire, p)
    if step == ETHERIP:
        return etherip(buffer, offset, end, wire, p, counters)
    if step == L2TP_IN_IP:
        return l2tp_in_ip(buffer, offset, end, wire, p, counters)
    if step == MPLS_IN_IP:
        return mpls_in_ip(buffer, offset, end, wire, p)
    if step == ETHERNET_IN_IP:
        return ethernet_in_ip(buffer, offset, end, wire, p)
    if step == MPLS_IN_UDP:
        return mpls_in_udp(buffer, offset, end, wire, p, counters)
    if step == GRE_IN_UDP:
        return gre_in_udp(buffer, offset, end, wire, p, counters)
    if step == GUE:
        return gue(buffer, offset, end, wire, p, counters)
    if step == LISP:
        return lisp(buffer, offset, end, wire, p, counters)
    if step == AYIYA:
        return ayiya(buffer, offset, end, wire, p, counters)
    if step in (PBB, FABRICPATH):
        size = BACKBONE_TAG if step == PBB else FABRICPATH_TAG
        return framed(size, offset, end, wire, counters)
    if step == TRILL:
        return trill(buffer, offset, end, wire, counters)
    if step == MACSEC:
        return macsec(buffer, offset, end, wire, p, counters)
    return nsh(buffer, offset, end, wire, counters)
