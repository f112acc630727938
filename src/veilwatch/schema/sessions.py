"""Sessions of subscribers: what the directory tells the flow meter and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

SESSION_DTYPE: Final = np.dtype(
    [
        ("address_hi", np.uint64),  # of the tunnel end point, IPv4 as ::ffff:a.b.c.d
        ("address_lo", np.uint64),
        ("teid", np.uint32),
        ("session", np.int64),  # number of the session, from 1
    ],
    align=True,
)
"""One F-TEID that is valid now: G-PDUs sent to this address with this TEID are the session's."""


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """One F-TEID of a session.

    Attributes
    ----------
    address, teid
        Where G-PDUs are sent to (TS 29.281 cl. 3.1).
    role
        `access` if packets to it run downlink (eNB, gNB, SGSN), `core` if they run uplink
        (SGW, PGW, UPF, GGSN), '' unknown.
    first_ns, last_ns
        From when to when it was valid, ns since 1970; `last_ns` is None while it still is.
    """

    address: str
    teid: int
    role: str
    first_ns: int
    last_ns: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """One PDN connection, PDU session or PDP context, for reports.

    Attributes
    ----------
    number
        From 1, as flows carry it; 0 for a learned session.
    subscriber
        Pseudonym of the subscriber.
    subscriber_by
        `control` if control traffic told of it, `learned` if only its tunnels did.
    protocols
        Control protocols that told of it.
    apn
        Access point name or data network name, '' unknown.
    addresses
        Addresses of the UE; IPv6 as /64 prefix.
    tunnels
        F-TEIDs in the order they were learned of, former ones included.
    location, rat
        Last cell or area and radio access technology, '' unknown.
    created_ns, ended_ns
        ns since 1970; `ended_ns` is None while the session lasts.
    end_reason
        `released`, `replaced`, `restart`, `association`, `evicted`; '' while it lasts.
    handovers
        Changes from one access F-TEID to another.
    flows
        Flows attributed to it so far.
    """

    number: int
    subscriber: str
    subscriber_by: str
    protocols: tuple[str, ...]
    apn: str
    addresses: tuple[str, ...]
    tunnels: tuple[TunnelEnd, ...]
    location: str
    rat: str
    created_ns: int
    ended_ns: int | None
    end_reason: str
    handovers: int
    flows: int


@dataclass(frozen=True, slots=True)
class SubscriberReport:
    """What became known of subscribers.

    Attributes
    ----------
    sessions
        Those known from control traffic, then the learned ones.
    counters
        Control messages by type, what was refused by reason, flows by how they were attributed,
        end points whose flows were not; see `veilwatch.traffic.subscriber.Directory.counters`.
    note
        What stood in the way, on one line; empty if nothing did.
    """

    sessions: tuple[Session, ...]
    counters: dict[str, Any]
    note: str
