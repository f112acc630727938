"""What ties alerts of one address together: that they are of one subscriber."""

from __future__ import annotations

from typing import Final

from veilwatch.schema.alerts import Alert

OUTSIDE: Final = " outside tunnels"
"""End of the tie of an address where no tunnel tells subscribers apart."""


def ties_of(alert: Alert) -> tuple[str, ...]:
    """Return what tells that alerts of one address are of one subscriber: its tunnel, its flow.

    A tunnel is known by its F-TEIDs, each the end point that packets go to and the TEID that they
    carry (3GPP TS 29.281 cl. 5.1); of a handover one of the two stays.
    """
    ties = []
    if alert.kind == "flow":
        place = f"{alert.src_port} {alert.dst_ip} {alert.dst_port} {alert.protocol}"
        ties.append(f"{alert.host} flow {place} {alert.first_ns}")
    if alert.tunnel is None:
        return (*ties, outside_tunnels(alert.host))
    tunnel = alert.tunnel
    ends = ((tunnel.dst_ip, tunnel.fwd_teid), (tunnel.src_ip, tunnel.bwd_teid))
    return (*ties, *(f"{alert.host} tunnel {end} {teid}" for end, teid in ends if teid))


def outside_tunnels(host: str) -> str:
    """Return the tie of an address outside of tunnels, where nothing else tells subscribers."""
    return f"{host}{OUTSIDE}"


def host_key(alert: Alert) -> str:
    """Return whose incident an alert belongs to: its subscriber's, or else its address's."""
    return f"subscriber {alert.subscriber}" if alert.subscriber else f"host {alert.host}"
