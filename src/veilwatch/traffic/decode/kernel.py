"""The driver: one call decodes a block, one loop walks each packet from layer to layer."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.packets import MAX_CAPTURED, NONE8
from veilwatch.traffic.decode.byteorder import Buffer, i64
from veilwatch.traffic.decode.cooked import cooked
from veilwatch.traffic.decode.counters import FIRST_FRAGMENT, VLAN_TAGGED
from veilwatch.traffic.decode.dispatch import other_layer, other_link
from veilwatch.traffic.decode.gre import gre, ip_in_ip
from veilwatch.traffic.decode.gtp_u import gtp_u
from veilwatch.traffic.decode.link import ethernet, loopback, raw_ip
from veilwatch.traffic.decode.network import ipv4, ipv6
from veilwatch.traffic.decode.overlay import geneve, vxlan
from veilwatch.traffic.decode.place import cooked_place, ethernet_place
from veilwatch.traffic.decode.ppp import ppp
from veilwatch.traffic.decode.shim import mpls, pppoe
from veilwatch.traffic.decode.steps import (
    COOKED,
    COOKED_V2,
    EMPTY,
    ETHERNET,
    FIRST_LAYER,
    FIRST_LINK,
    FIRST_STEP,
    GENEVE,
    GRE,
    GTP_U,
    ICMP,
    IPV4,
    IPV4_IN_IP,
    IPV6,
    IPV6_IN_IP,
    MPLS,
    NOT_IP,
    OTHER_TRANSPORT,
    PPP,
    PPPOE,
    RAW_IP,
    SCTP,
    TCP,
    TOO_DEEP,
    TUNNEL_PAYLOAD,
    UDP,
    VXLAN,
    Walk,
    step_of_link,
)
from veilwatch.traffic.decode.transport import icmp, payload, sctp, tcp, udp

MAX_TUNNEL_DEPTH: Final = 4
"""Most IP headers around the innermost one, and most Ethernet headers around the innermost frame: a
mirrored GTP-U tunnel has two, GTP-U roaming inside GTP-U three; one more leaves room, and deeper
nesting is an attack on the decoder."""

MAX_LINK_LENGTH: Final = 65_535
"""Most bytes in front of the outermost IP header that `link_length` can state. Real link headers
have some hundred; only a forged radio or per-packet header comes near."""


@kernel
def decode_block(
    buffer: Buffer,
    records: npt.NDArray[np.void],
    packets: npt.NDArray[np.void],
    counters: npt.NDArray[np.int64],
    tunnels: Buffer,
) -> None:
    """Decode every record of a block.

    Parameters
    ----------
    buffer
        uint8 array that holds all of each record's captured bytes.
    records
        Array of `RECORD_DTYPE`, shape (n,).
    packets
        Array of `PACKET_DTYPE`, at least n long; its first n rows have to be all zero bytes.
    counters
        int64 array of `counters.SLOTS`, added to.
    tunnels
        What may lie at each UDP port, see `steps.port_table`.
    """
    for i in range(len(records)):
        record = records[i]
        p = packets[i]
        p["ts_ns"] = record["ts_ns"]
        p["number"] = record["number"]
        p["source"] = record["source"]
        p["wire_length"] = record["length"]
        p["interface"] = record["interface"]
        p["tcp_wscale"] = NONE8
        p["gtp_qfi"] = NONE8
        p["gtp_pdu_type"] = NONE8

        step, offset, end, wire = begin(record)
        if step == ETHERNET:
            p["interface"] = ethernet_place(buffer, offset, end, p["interface"])
        ip_headers = 0
        frames = 0
        while step >= FIRST_STEP:
            if step in (IPV4, IPV6):
                if ip_headers > MAX_TUNNEL_DEPTH:
                    step = TOO_DEEP
                    break
                if ip_headers == 0:
                    p["link_length"] = min(offset - i64(record["offset"]), MAX_LINK_LENGTH)
                ip_headers += 1
            if step == ETHERNET:
                if frames > MAX_TUNNEL_DEPTH:
                    step = TOO_DEEP
                    break
                frames += 1
                step, offset, end, wire = ethernet(buffer, offset, end, wire, p)
            elif step == IPV4:
                step, offset, end, wire = ipv4(buffer, offset, end, wire, p)
            elif step == IPV6:
                step, offset, end, wire = ipv6(buffer, offset, end, wire, p)
            elif step == TCP:
                step, offset, end, wire = tcp(buffer, offset, end, wire, p)
            elif step == UDP:
                step, offset, end, wire = udp(buffer, tunnels, offset, end, wire, p)
            elif step == GTP_U:
                step, offset, end, wire = gtp_u(buffer, offset, end, wire, p, counters)
            elif step == ICMP:
                step, offset, end, wire = icmp(buffer, offset, end, wire, p)
            elif step == SCTP:
                step, offset, end, wire = sctp(buffer, offset, end, wire, p)
            elif step == OTHER_TRANSPORT:
                step, offset, end, wire = payload(offset, end, wire, p)
            elif step == GRE:
                step, offset, end, wire = gre(buffer, offset, end, wire, p, counters)
            elif step == IPV4_IN_IP:
                step, offset, end, wire = ip_in_ip(buffer, 4, offset, end, wire, p, counters)
            elif step == IPV6_IN_IP:
                step, offset, end, wire = ip_in_ip(buffer, 6, offset, end, wire, p, counters)
            elif step == MPLS:
                step, offset, end, wire = mpls(buffer, offset, end, wire, counters)
            elif step == PPPOE:
                step, offset, end, wire = pppoe(buffer, offset, end, wire, counters)
            elif step == PPP:
                step, offset, end, wire = ppp(buffer, offset, end, wire)
            elif step == VXLAN:
                step, offset, end, wire = vxlan(buffer, offset, end, wire, p, counters)
            elif step == GENEVE:
                step, offset, end, wire = geneve(buffer, offset, end, wire, p, counters)
            elif step >= FIRST_LAYER:
                step, offset, end, wire = other_layer(step, buffer, offset, end, wire, p, counters)
            elif step >= FIRST_LINK:
                step, offset, end, wire = other_link(step, buffer, offset, end, wire, p)
            elif step == RAW_IP:
                step, offset, end, wire = raw_ip(buffer, offset, end, wire)
            elif step == COOKED:
                p["interface"] = cooked_place(buffer, offset, end, p["interface"], False)
                step, offset, end, wire = cooked(
                    buffer, offset + 14, offset + 2, offset + 16, end, wire, p, counters
                )
            elif step == COOKED_V2:
                p["interface"] = cooked_place(buffer, offset, end, p["interface"], True)
                step, offset, end, wire = cooked(
                    buffer, offset, offset + 8, offset + 20, end, wire, p, counters
                )
            else:
                step, offset, end, wire = loopback(buffer, offset, end, wire)

        if step == NOT_IP and ip_headers > 0:
            step = TUNNEL_PAYLOAD
        p["status"] = step
        p["ip_headers"] = ip_headers
        counters[step] += 1
        if p["vlan"] != 0:
            counters[VLAN_TAGGED] += 1
        if p["fragment"] == 1:
            counters[FIRST_FRAGMENT] += 1


@inner_kernel
def begin(record: Any) -> Walk:
    """Return where the walk of a record begins.

    What a record claims of the wire matters only where IP's own length is 0. It is believed
    between what is plainly there and the largest frame that anybody captures.
    """
    captured = i64(record["captured"])
    offset = i64(record["offset"])
    wire = offset + max(captured, min(i64(record["length"]), MAX_CAPTURED))
    if captured == 0:
        return EMPTY, offset, offset, wire
    return step_of_link(i64(record["link"])), offset, offset + captured, wire
