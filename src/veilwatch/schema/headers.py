"""The header fields of a capture's first packets, innermost packet by innermost packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

HEADER_PACKETS: Final = 64
"""Packets of a capture whose headers are kept, and therefore most that a detector can look at.
Malware that was started for the recording has spoken by then, and a table takes 18 KB."""

ABSENT: Final = -1
"""Value of a field that the packet does not carry."""


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field of a packet's headers.

    Attributes
    ----------
    name
        As tshark has it, with the layer in front.
    unit
        "bytes", "s" or "" for pure numbers.
    doc
        What it is, so that "of packet 1" may follow.
    identifying
        Whether it names a place, a system or one connection rather than a behaviour.
    """

    name: str
    unit: str
    doc: str
    identifying: bool = True


WIRE_FIELDS: Final = (
    HeaderField("eth_src", "", "Source MAC address"),
    HeaderField("eth_dst", "", "Destination MAC address"),
    HeaderField("eth_type", "", "EtherType of the IP version"),
    HeaderField("vlan_tags", "", "Number of VLAN tags"),
    HeaderField("ip_version", "", "IP version"),
    HeaderField("ip_ihl", "", "IPv4 header length in words"),
    HeaderField("ip_tos", "", "IPv4 TOS or IPv6 traffic class"),
    HeaderField("ip_length", "bytes", "IP length"),
    HeaderField("ip_id", "", "IP identification"),
    HeaderField("ip_flags", "", "IPv4 flags"),
    HeaderField("ip_fragment_offset", "bytes", "IP fragment offset", identifying=False),
    HeaderField("ip_ttl", "", "IPv4 TTL or IPv6 hop limit"),
    HeaderField("ip_protocol", "", "IP protocol", identifying=False),
    HeaderField("ip_checksum", "", "IPv4 header checksum"),
    HeaderField("ip_src", "", "Source IP address"),
    HeaderField("ip_dst", "", "Destination IP address"),
    HeaderField("tcp_src_port", "", "TCP source port"),
    HeaderField("tcp_dst_port", "", "TCP destination port"),
    HeaderField("tcp_seq", "", "TCP sequence number"),
    HeaderField("tcp_ack", "", "TCP acknowledgement number"),
    HeaderField("tcp_offset", "", "TCP data offset in words"),
    HeaderField("tcp_flags", "", "TCP flags"),
    HeaderField("tcp_window", "bytes", "TCP window"),
    HeaderField("tcp_checksum", "", "TCP checksum"),
    HeaderField("tcp_urgent", "", "TCP urgent pointer"),
    HeaderField("udp_src_port", "", "UDP source port"),
    HeaderField("udp_dst_port", "", "UDP destination port"),
    HeaderField("udp_length", "bytes", "UDP length"),
    HeaderField("udp_checksum", "", "UDP checksum"),
    HeaderField("icmp_type", "", "ICMP type", identifying=False),
    HeaderField("icmp_code", "", "ICMP code", identifying=False),
)
"""Fields as they stand in the headers, in their order. Of 128-bit addresses and 48-bit ones an
integer below 2^48 is kept, IPv6 addresses as a hash."""

CONTEXT_FIELDS: Final = (
    HeaderField("flow", "", "Number of the flow within the capture", identifying=False),
    HeaderField("direction", "", "Direction (0 from the initiator)", identifying=False),
    HeaderField("control", "", "TCP flags without those of ECN", identifying=False),
    HeaderField("payload", "bytes", "Transport payload", identifying=False),
    HeaderField("gap", "s", "Silence before the packet", identifying=False),
)
"""What a packet's headers say beside those of the packets before it. Silence in ns here."""

HEADER_FIELDS: Final = (*WIRE_FIELDS, *CONTEXT_FIELDS)
"""Columns of a header table."""


@dataclass(frozen=True, slots=True)
class HeaderTable:
    """Header fields of the first packets of one capture.

    Attributes
    ----------
    values
        int64 array of shape (packets, `HEADER_FIELDS`), at most `HEADER_PACKETS` long, `ABSENT`
        where the packet has no such field.
    """

    values: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)
