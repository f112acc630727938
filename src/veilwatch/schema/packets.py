"""What the capture room hands to decode, and what decode hands to the flow meter.

Both are *blocks*: one structured array with a row per packet, so that a kernel takes one
argument and the fields of one packet share a cache line or two. `batch.packets["src_port"]` is
a column like any other NumPy array.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK_RECORDS: Final = 1024
"""Most records in one block: small enough that raw bytes, packets and flow updates stay in the
second-level cache, large enough that a call into a kernel costs next to nothing a packet."""

MAX_CAPTURED: Final = 262_144
"""Most captured bytes of one record, the ceiling that libpcap and Wireshark set as well
(MAXIMUM_SNAPLEN); a record that claims more is taken for corruption."""

RECORD_DTYPE: Final = np.dtype(
    [
        ("ts_ns", np.int64),  # packet time, ns since 1970-01-01 UTC
        ("offset", np.int64),  # of the first captured byte in the block's buffer
        ("number", np.int64),  # 1-based number of the record within its source
        ("captured", np.uint32),  # bytes captured
        ("length", np.uint32),  # bytes on the wire
        ("source", np.uint32),  # index into CaptureReport.files
        ("link", np.uint16),  # LINKTYPE_ value of the interface
        ("interface", np.uint16),  # pcapng interface id, live the system's index; 0 for pcap
    ],
    align=True,
)
"""One record of a capture: where its bytes lie and when it was seen."""

NONE8: Final = 255
"""Value of a one-byte field that the packet does not carry (QFI, PDU type, window scale)."""


@dataclass(frozen=True, slots=True)
class RawBlock:
    """Records of a capture, undecoded.

    Attributes
    ----------
    buffer
        uint8 array that `records["offset"]` points into. It is only valid until the next block
        is asked for: readers reuse their buffers.
    records
        Array of `RECORD_DTYPE`, at most `BLOCK_RECORDS` long, in the order they were read.
    now_ns
        Of a live capture the time up to which every packet has been handed out, ns since the
        epoch: flows may end by it where no packet comes. 0 where only packets tell the time.
    """

    buffer: npt.NDArray[np.uint8]
    records: npt.NDArray[np.void]
    now_ns: int = 0

    def __len__(self) -> int:
        return len(self.records)


class Status(IntEnum):
    """What became of a packet: every packet read has exactly one.

    Only `OK` packets reach a flow. The others are counted under their name, so that
    OK + all refusals = packets read.
    """

    OK = 0
    EMPTY = 1  # no captured bytes
    UNSUPPORTED_LINK = 2  # a link type nobody taught us
    TRUNCATED_LINK = 3  # capture ends inside the link header
    NOT_IP = 4  # ARP, LLDP, 802.11 management … : no IP packet inside
    TRUNCATED_NETWORK = 5  # capture ends inside an IP header or extension header
    BAD_NETWORK = 6  # wrong version, header length or total length
    LATER_FRAGMENT = 7  # second or later fragment: no transport header inside
    TRUNCATED_TRANSPORT = 8  # capture ends inside a TCP, UDP, SCTP or ICMP header
    BAD_TRANSPORT = 9  # impossible TCP data offset or UDP length
    TRUNCATED_TUNNEL = 10  # capture ends inside a tunnel header
    BAD_TUNNEL = 11  # a tunnel header that contradicts itself
    TOO_DEEP = 12  # more nested tunnels than MAX_TUNNEL_DEPTH
    TUNNEL_PAYLOAD = 13  # a tunnel that carries something other than IP


PACKET_DTYPE: Final = np.dtype(
    [
        # identity: the innermost IP packet; IPv4 as ::ffff:a.b.c.d, host byte order halves
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        # end points of the innermost GTP-U tunnel, all zero outside one
        ("outer_src_hi", np.uint64),
        ("outer_src_lo", np.uint64),
        ("outer_dst_hi", np.uint64),
        ("outer_dst_lo", np.uint64),
        ("ts_ns", np.int64),
        ("number", np.int64),
        ("flow_id", np.int64),  # of the flow that the meter put it into, 0 none or not yet
        ("ip_offset", np.int64),  # of the innermost IP header in the block's buffer
        ("payload_offset", np.int64),  # of the transport payload (a later fragment's data) there
        ("fragment_key", np.uint64),  # the same for all fragments of one IP packet, 0 whole
        ("fragment_start", np.int64),  # where the data of the fragmented IP packet begins there
        ("ip_length", np.uint32),  # of the innermost IP packet, from its header, with header
        ("payload_length", np.uint32),  # of the transport payload, from the IP length
        ("payload_captured", np.uint32),  # how much of it the capture holds
        ("tcp_seq", np.uint32),
        ("tcp_ack", np.uint32),
        ("gtp_teid", np.uint32),  # innermost GTP-U TEID, 0 outside GTP
        ("gtp_extensions", np.uint32),  # types of the first 4 extension headers, first lowest
        ("ip_id", np.uint32),  # IPv4 identification or IPv6 fragment identification
        ("fragment_offset", np.uint32),  # of a later fragment's data in its IP packet, bytes
        ("source", np.uint32),  # index into CaptureReport.files
        ("wire_length", np.uint32),  # whole frame on the wire
        ("link_length", np.uint16),  # bytes in front of the outermost IP header, at most 65,535
        ("src_port", np.uint16),  # 0 where the protocol has none
        ("dst_port", np.uint16),
        ("tcp_flags", np.uint16),  # 8 flag bits, CWR highest; NS as bit 8
        ("tcp_window", np.uint16),
        ("tcp_mss", np.uint16),  # of a SYN, 0 without the option
        ("checksum", np.uint16),  # of TCP, UDP, ICMP as it stands
        ("vlan", np.uint16),  # innermost 802.1Q identifier, 0 untagged
        ("interface", np.uint16),  # where it was captured: tells places apart, names none
        ("status", np.uint8),  # a Status
        ("ip_headers", np.uint8),  # IP headers that were reached, 0 where there is no IP
        ("ip_version", np.uint8),
        ("protocol", np.uint8),  # IANA protocol number of the innermost packet
        ("ttl", np.uint8),
        ("dscp", np.uint8),  # whole traffic class / TOS byte
        ("tcp_wscale", np.uint8),  # of a SYN, NONE8 without the option
        ("icmp_type", np.uint8),
        ("icmp_code", np.uint8),
        ("gtp_depth", np.uint8),  # nested GTP-U tunnels, 0 outside
        ("gtp_message", np.uint8),  # GTP-U message type (255 G-PDU), 0 outside GTP
        ("gtp_qfi", np.uint8),  # of the PDU session container, NONE8 without
        ("gtp_pdu_type", np.uint8),  # 0 downlink, 1 uplink, NONE8 without container
        ("gtp_extension_count", np.uint8),
        ("fragment", np.uint8),  # 0 whole, 1 first fragment, 2 later (innermost IP packet); the
        # fragment_ fields also tell of an outer packet whose first fragment this is
    ],
    align=True,
)
"""One decoded packet. Fields that do not apply are 0 (NONE8 where 0 has a meaning)."""


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """Decoded packets of one block.

    Attributes
    ----------
    buffer
        The block's bytes; `packets["payload_offset"]` points into it.
    packets
        Array of `PACKET_DTYPE`, one row per record of the block in the same order, refused
        packets included (see `status`).
    """

    buffer: npt.NDArray[np.uint8]
    packets: npt.NDArray[np.void]

    def __len__(self) -> int:
        return len(self.packets)
