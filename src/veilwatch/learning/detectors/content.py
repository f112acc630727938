"""Which flows hold enough to say what kind of malware they are like.

A model of families has a favourite for every flow, and a ping of one packet that looks like nothing
in particular looks most like something. What tells families apart is a conversation: what is
sent, what comes back, in which sizes and at which pace. A flow carries a family's name only if

- it is TCP, UDP, SCTP or DCCP, and no lookup, clock or announcement that every host makes, and
- both sides sent payload, in TCP after its handshake with two packets or more of each side,
  without a handshake with three or more of each side.

So pings, single SYNs, refused connections, unanswered datagrams, DNS and NTP carry none.
"""

from __future__ import annotations

from typing import Final

import polars as pl

TCP: Final = 6
CONVERSING: Final = (TCP, 17, 33, 132)
"""IP protocols of conversations: TCP, UDP, DCCP, SCTP (IANA). ICMP answers are echoes."""

PLAIN_SERVICES: Final = ("dns", "mdns", "llmnr", "netbios", "ntp", "dhcp", "ssdp", "stun", "snmp")
"""Services by which any host finds others, its address and the time: their messages have one form,
whoever sends them."""

LEAST_TCP: Final = 2
LEAST_OTHER: Final = 3
"""Packets of each side: fewer are one question and its answer."""

COLUMNS: Final = (
    *("protocol", "service", "fwd_packets", "bwd_packets"),
    *("fwd_payload_bytes", "bwd_payload_bytes"),
)
"""What is read of a flow table."""


def carries_content() -> pl.Expr:
    """Return whether each flow of a table holds a conversation; reads `COLUMNS`."""
    least = pl.when(pl.col("protocol") == TCP).then(LEAST_TCP).otherwise(LEAST_OTHER)
    return (
        pl.col("protocol").is_in(CONVERSING)
        & ~pl.col("service").is_in(PLAIN_SERVICES)
        & (pl.min_horizontal("fwd_payload_bytes", "bwd_payload_bytes") > 0)
        & (pl.min_horizontal("fwd_packets", "bwd_packets") >= least)
    )
