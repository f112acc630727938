"""Flows: the meter's record, the heads it keeps for handshakes, and the table made of both.

Direction 0 (`fwd`) runs from the initiator (`src`) to the responder (`dst`), direction 1
(`bwd`) the other way. Sizes come from the innermost IP length, so that wrapping, padding and
truncation do not change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.schema.packets import NONE8

SIZE_EDGES: Final = (0, 1, 64, 128, 256, 512, 1024, 1400)
"""Lower edges of the payload size histogram, bytes."""

GAP_EDGES_NS: Final = (0, 100_000, 1_000_000, 10_000_000, 100_000_000, 10**9, 10**10, 6 * 10**10)
"""Lower edges of the histogram of gaps within one direction: 0, 0.1, 1, 10, 100 ms, 1, 10, 60 s."""

PREFIX_BYTES: Final = 64
"""Payload bytes kept per direction to tell a protocol and its byte distribution; a capture cut
to headers + 64 bytes still holds all of them."""

SEQUENCE_LENGTH: Final = 64
"""Packets of a flow's head that are kept one by one unless the caller asks for more."""

MAX_HOLES: Final = 4
"""Missing ranges of a TCP stream remembered per direction: as many as a receiver can tell its
sender of (RFC 2018 cl. 3). Beyond it the one farthest back is given up, which in a capture that
lost packets nobody fills any more."""

HEAD_BYTES: Final = 8192
"""Most stream bytes of a handshake kept per direction: a ClientHello with a post-quantum key
share takes 1.8 KB, a TLS 1.2 server's flight with three certificates 4–6 KB."""

MAX_DATAGRAMS: Final = 24
"""Most datagrams of a QUIC or DTLS handshake kept per direction. Six full ones fill `HEAD_BYTES`,
so this bounds small ones: a server's Initial packets without their padding, fragments of DTLS."""

TLS_SERVICES: Final = frozenset({"tls", "dtls", "quic"})
"""Values of `service` that begin with a handshake of TLS, whatever carries it."""

DTLS_OVER: Final = (17, 33, 136)
"""Protocols that carry DTLS: UDP (RFC 6347), DCCP (RFC 5238), UDP-Lite."""

ENCRYPTED_SERVICES: Final = TLS_SERVICES | {"ssh", "wireguard", "openvpn"}
"""Values of `service` that encrypt from their first or second message on."""

FILE_MESSAGES: Final = (
    *("open", "close", "read", "write", "change", "list", "other", "error", "encrypted"),
)
"""Kinds of SMB and NFS messages that are counted, see traffic/flow/file_sharing.py."""

MAX_PROXY_HEADERS: Final = 4
"""Most PROXY headers before the first byte of a stream: each load balancer in a row may add one,
and three in a row are rare."""


class EndReason(IntEnum):
    """Why the meter let go of a flow."""

    IDLE = 0  # no packet for the idle timeout
    ACTIVE = 1  # longer than the active timeout; the next record continues it
    CLOSED = 2  # TCP FIN in both directions or RST, and the linger passed
    EVICTED = 3  # the table was full and this flow was the first to go
    END = 4  # the input ended
    REUSED = 5  # a SYN opened a new connection on the same 5-tuple
    EARLY = 6  # it did not: a report of a live flow, whose record is still to come


class TcpState:
    """Bits of `tcp_state`."""

    SYN: Final = 1
    SYN_ACK: Final = 2
    ESTABLISHED: Final = 4  # an ACK after the SYN-ACK
    FIN_FWD: Final = 8
    FIN_BWD: Final = 16
    RST: Final = 32
    MIDSTREAM: Final = 64  # neither SYN nor SYN-ACK of the connection was seen


WAY_DTYPE: Final = np.dtype(
    [
        ("bytes", np.uint64),  # sum of IP lengths
        ("dir_last_ns", np.int64),
        ("payload_bytes", np.uint64),
        ("payload_sumsq", np.float64),  # of payload lengths over payload packets, bytes²
        ("gap_min_ns", np.int64),
        ("gap_max_ns", np.int64),
        ("gap_sumsq", np.float64),  # s²
        ("size_sumsq", np.float64),  # of IP lengths, bytes²
        #
        ("window_sum", np.uint64),
        ("burst_max_bytes", np.uint64),  # payload of the largest burst
        ("old_bytes", np.uint64),  # payload that adds nothing to the TCP stream
        ("packets", np.uint32),
        ("payload_packets", np.uint32),
        ("next_seq", np.uint32),
        ("tunnel", np.uint32),  # hash of the F-TEID, see traffic/flow/tunnel.py
        ("size_min", np.uint32),
        ("size_max", np.uint32),
        ("payload_max", np.uint32),
        ("window_min", np.uint16),
        ("window_max", np.uint16),
        ("ip_id", np.uint16),  # the last one, 0 none; with the next two see traffic/flow/dedup.py
        ("id_changes", np.uint8),  # packets whose IP identification differs from the last
        ("id_repeats", np.uint8),  # packets of other content that have the same
        ("seq_known", np.uint8),  # 1 where `next_seq` is, 2 where `base_seq` is by a SYN
        ("prefix_used", np.uint8),
        ("moved", np.uint8),  # whether a handover makes a new tunnel likely
        #
        ("flag_counts", np.uint32, (8,)),  # FIN SYN RST PSH ACK URG ECE CWR
        ("size_counts", np.uint32, (8,)),  # payload lengths by SIZE_EDGES
        #
        ("gap_counts", np.uint32, (8,)),  # gaps by GAP_EDGES_NS
        ("first_payload", np.uint32),  # size of the first payload
        ("bursts", np.uint32),
        ("retransmissions", np.uint32),
        ("out_of_order", np.uint32),
        ("keep_alives", np.uint32),
        ("duplicates", np.uint32),  # copies of packets that were counted before
        ("fragments", np.uint32),  # IP fragments after the first
        ("zero_windows", np.uint32),
    ],
    align=True,
)
"""What the packets of one direction change: four cache lines of 64 bytes."""

START_DTYPE: Final = np.dtype(
    [
        ("dir_first_ns", np.int64),
        ("base_seq", np.uint32),  # first byte of the stream, as far as is known
        ("fin_seq", np.uint32),  # of the latest FIN
        ("teid", np.uint32),  # this and what follows as the first packet showed it
        ("window_first", np.uint16),
        ("mss", np.uint16),
        ("vlan", np.uint16),
        ("prefix_skip", np.uint16),  # bytes of a PROXY header before `prefix`
        ("wscale", np.uint8),
        ("ttl", np.uint8),
        ("qfi", np.uint8),
        ("gtp_pdu_type", np.uint8),
        ("prefix", np.uint8, (PREFIX_BYTES,)),  # first payload bytes
    ],
    align=True,
)
"""How one direction began, and where its stream begins and ends: seldom changed."""

LIVE_DTYPE: Final = np.dtype(
    [
        # Read or changed by every packet, two cache lines.
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("src_port", np.uint16),
        ("dst_port", np.uint16),
        ("pair", np.uint32),  # hash of the two end points of the flow's tunnels
        ("sequence_used", np.uint16),
        ("protocol", np.uint8),
        ("ip_version", np.uint8),
        ("tcp_state", np.uint8),
        ("burst_direction", np.uint8),  # of the running burst, 2 before the first
        ("gtp_depth", np.uint8),
        ("end_reason", np.uint8),
        #
        ("flow_id", np.int64),
        ("parent_id", np.int64),  # flow_id of the connection's first record
        ("burst_bytes", np.uint64),  # of the burst that is running, 0 after a pause
        ("session", np.int64),  # number of the subscriber's session, 0 unknown
        ("pause_sum", np.float64),  # s, gaps of the whole flow longer than 1 s
        ("pause_sumsq", np.float64),  # s²
        ("pauses", np.uint32),
        ("turns", np.uint32),  # changes of the talking direction among payload packets
        ("alternate", np.uint32),  # end points of a second place where the flow was seen
        ("extra", np.uint32),  # row of what few flows have, see traffic/flow/extra.py, 0 none
        # One of them for each packet.
        ("way", WAY_DTYPE, (2,)),
        # Seldom changed.
        ("start", START_DTYPE, (2,)),
        ("outer_src_hi", np.uint64),  # GTP-U end points as seen on the first fwd packet
        ("outer_src_lo", np.uint64),
        ("outer_dst_hi", np.uint64),
        ("outer_dst_lo", np.uint64),
        ("first_number", np.int64),  # record number of the first packet in its source
        ("source", np.uint32),
        ("syn_seq", np.uint32),  # of the SYN that opened the flow
        ("handovers", np.uint16),
        ("icmp_type", np.uint8),
        ("icmp_code", np.uint8),
        ("turned", np.uint8),  # whether fwd was bwd at first, see traffic/flow/turn.py
        ("unused", np.uint8, (11,)),  # so that every record begins with a cache line
    ],
    align=True,
)
"""What the meter keeps of every flow: 14 cache lines, of which a packet changes six."""

MISSING_DTYPE: Final = np.dtype(
    [
        ("prefix_known", np.uint64),  # a bit for each byte of `prefix` that was seen
        ("hole_start", np.uint32, (MAX_HOLES,)),  # numbers that are missing, ascending; equal
        ("hole_end", np.uint32, (MAX_HOLES,)),  # where there is none
        ("far_start", np.uint32),  # of a segment that lay elsewhere, equal for none
        ("far_end", np.uint32),
    ],
    align=True,
)
"""What is missing of one direction's TCP stream."""

EXTRA_DTYPE: Final = np.dtype(
    [
        ("missing", MISSING_DTYPE, (2,)),
        ("file_messages", np.uint32, (len(FILE_MESSAGES),)),  # by kind, both ways
        ("next", np.uint32),  # of the rows that are free
    ],
    align=True,
)
"""What few flows have: streams that came with gaps or out of order, messages to file servers."""

FLOW_RECORD_DTYPE: Final = np.dtype(
    [
        *((name, LIVE_DTYPE[name]) for name in LIVE_DTYPE.names or ()),
        *((name, EXTRA_DTYPE[name]) for name in ("missing", "file_messages")),
    ],
    align=True,
)
"""Everything the meter knows about one flow, as it hands it on: fields of both directions as
`records["way"]["packets"]`, shape (flows, 2)."""

SEQUENCE_DTYPE: Final = np.dtype(
    [
        ("gap_us", np.uint32),  # since the flow's previous packet, clipped at 71 minutes
        ("size", np.int16),  # IP length, negative for bwd, clipped at ±32767
        ("payload", np.uint16),  # payload length, clipped at 65535
        ("flags", np.uint8),  # TCP flag bits
    ]
)
"""One packet of a flow's head."""

HEAD_DTYPE: Final = np.dtype(
    [
        ("flow_id", np.int64),
        ("first_ns", np.int64),
        ("start", np.int64, (2,)),  # of each direction's bytes in HeadBatch.data
        ("length", np.int32, (2,)),  # contiguous bytes from that start, 0 none
        ("src_port", np.uint16),
        ("dst_port", np.uint16),
        ("protocol", np.uint8),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class HeadBatch:
    """The first stream bytes of flows that began like a handshake.

    Attributes
    ----------
    data
        uint8 array that `rows["start"]` points into.
    rows
        Array of `HEAD_DTYPE`. For TCP the bytes are reassembled by sequence number and begin
        at the first TLS handshake record, or at the PROXY header before it. For UDP they are
        datagrams, at most `MAX_DATAGRAMS`, each behind its length in two bytes, big-endian: the
        first of DNS, those of DTLS that are in clear, and of QUIC what `traffic/flow/datagrams.py`
        keeps of them (Initial packets without what is coalesced with them). The last one is shorter
        than on the wire where the head was full.
    """

    data: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.void]

    def stream(self, row: int, direction: int) -> bytes:
        """Return the bytes of one direction of one flow."""
        start = int(self.rows["start"][row, direction])
        return self.data[start : start + int(self.rows["length"][row, direction])].tobytes()

    def datagrams(self, row: int, direction: int) -> list[bytes]:
        """Return the datagrams of one direction of one UDP flow, at most `MAX_DATAGRAMS`."""
        stream = self.stream(row, direction)
        found: list[bytes] = []
        offset = 0
        while len(found) < MAX_DATAGRAMS and offset + 2 < len(stream):
            end = offset + 2 + int.from_bytes(stream[offset : offset + 2], "big")
            found.append(stream[offset + 2 : end])
            offset = end
        return found


@dataclass(frozen=True, slots=True)
class FlowBatch:
    """Flows that the meter has finished with.

    Attributes
    ----------
    records
        Array of `FLOW_RECORD_DTYPE`, shape (n,).
    sequences
        Array of `SEQUENCE_DTYPE`, shape (n, sequence length); rows beyond `sequence_used` are 0.
    """

    records: npt.NDArray[np.void]
    sequences: npt.NDArray[np.void]

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class InterimBatch:
    """Live flows as they were at a point of their life.

    Attributes
    ----------
    flows
        Records that end with `EndReason.EARLY`; a flow may be there once for each point.
    heads
        A row for each of them, in the same order: what had come of its heads. `flow_id` is that of
        the record, -1 where the heads had been handed on before.
    """

    flows: FlowBatch
    heads: HeadBatch

    def __len__(self) -> int:
        return len(self.flows)


class Column(NamedTuple):
    """One documented column of the flow table; `unset` is the number that stands for none."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    unit: str
    doc: str
    unset: int | None = None


def _pair(
    name: str, dtype: type[pl.DataType], unit: str, doc: str, unset: int | None = None
) -> list[Column]:
    return [
        Column(f"fwd_{name}", dtype, unit, f"{doc}, initiator to responder", unset),
        Column(f"bwd_{name}", dtype, unit, f"{doc}, responder to initiator", unset),
    ]


IDENTITY_COLUMNS: Final = [
    Column("flow_id", pl.Int64, "", "Identity of the flow within one run, below 2^53"),
    Column(
        "parent_id",
        pl.Int64,
        "",
        "flow_id of the connection's first record: differs from "
        "flow_id where the active timeout cut a long flow",
    ),
    Column("source", pl.UInt32, "", "Index of the input that held the first packet"),
    Column("first_number", pl.Int64, "", "Record number of the first packet in that input"),
    Column("first_ns", pl.Int64, "ns", "Time of the first packet since 1970-01-01 UTC"),
    Column("last_ns", pl.Int64, "ns", "Time of the last packet since 1970-01-01 UTC"),
    Column("src_ip", pl.String, "", "Address of the initiator (inner address inside a tunnel)"),
    Column("src_port", pl.UInt16, "", "Port of the initiator, 0 where the protocol has none"),
    Column("dst_ip", pl.String, "", "Address of the responder (inner address inside a tunnel)"),
    Column("dst_port", pl.UInt16, "", "Port of the responder, 0 where the protocol has none"),
    Column("protocol", pl.UInt8, "", "IANA protocol number (6 TCP, 17 UDP …)"),
    Column("ip_version", pl.UInt8, "", "4 or 6"),
    Column("icmp_type", pl.UInt8, "", "ICMP type of the first packet, 0 for other protocols"),
    Column("icmp_code", pl.UInt8, "", "ICMP code of the first packet, 0 for other protocols"),
    Column("fwd_vlan", pl.UInt16, "", "VLAN identifier on the way out, 0 untagged"),
    Column("bwd_vlan", pl.UInt16, "", "VLAN identifier on the way back, 0 untagged"),
    Column("gtp_depth", pl.UInt8, "", "Nested GTP-U tunnels around the flow, 0 outside"),
    Column(
        "fwd_teid",
        pl.UInt32,
        "",
        "GTP-U TEID of packets from the initiator, 0 none; a number here, 0x and eight hexadecimal "
        "digits wherever it is shown to people",
    ),
    Column("bwd_teid", pl.UInt32, "", "GTP-U TEID of packets to the initiator, 0 none"),
    Column("fwd_qfi", pl.UInt8, "", "QoS flow identifier from the initiator, null none", NONE8),
    Column("bwd_qfi", pl.UInt8, "", "QoS flow identifier to the initiator, null none", NONE8),
    Column(
        "gtp_direction",
        pl.String,
        "",
        "'uplink' if the initiator is the subscriber side by "
        "its PDU session container, 'downlink' if the responder is, '' unknown",
    ),
    Column("outer_src_ip", pl.String, "", "Tunnel end point that sent the first packet, '' none"),
    Column("outer_dst_ip", pl.String, "", "Tunnel end point that received it, '' none"),
    Column("handovers", pl.UInt16, "", "Moves of the flow to another tunnel end point"),
    Column("session", pl.Int64, "", "Session by control traffic, 0 unknown"),
    Column(
        "tcp_state",
        pl.UInt8,
        "",
        "What TCP has shown, added up: 1 SYN, 2 SYN-ACK, 4 established, 8 FIN of the initiator, "
        "16 FIN of the responder, 32 RST, 64 begun before the capture; 0 without TCP",
    ),
    Column(
        "end_reason",
        pl.UInt8,
        "",
        "Why the record ended: 0 idle timeout, 1 active timeout, 2 closed by FIN or RST, 3 evicted "
        "from a full table, 4 end of the input, 5 a new SYN on the same 5-tuple, 6 a report while "
        "the flow goes on",
    ),
    Column("subscriber", pl.String, "", "Pseudonym of the mobile subscriber, '' unknown"),
    Column(
        "subscriber_by",
        pl.String,
        "",
        "How the subscriber is known: 'control' by GTP-C or PFCP, 'learned' by its tunnels, ''",
    ),
    Column("apn", pl.String, "", "Access point or data network name of the session, '' unknown"),
    Column("location", pl.String, "", "Cell or area of the subscriber, '' unknown"),
]

MEASURE_COLUMNS: Final = [
    *_pair("packets", pl.UInt32, "packets", "Packets"),
    *_pair("bytes", pl.UInt64, "bytes", "Sum of IP lengths"),
    *_pair("payload_packets", pl.UInt32, "packets", "Packets with payload, keep-alives excepted"),
    *_pair("payload_bytes", pl.UInt64, "bytes", "Sum of payload lengths, keep-alives excepted"),
    *_pair("size_min", pl.UInt32, "bytes", "Smallest IP length, 0 without packets"),
    *_pair("size_max", pl.UInt32, "bytes", "Largest IP length"),
    *_pair("size_std", pl.Float32, "bytes", "Standard deviation of IP lengths"),
    *_pair("payload_max", pl.UInt32, "bytes", "Largest payload"),
    *_pair("payload_std", pl.Float32, "bytes", "Standard deviation of non-empty payload lengths"),
    *_pair("first_payload", pl.UInt32, "bytes", "Length of the first payload, 0 none"),
    *_pair("start", pl.Float32, "s", "First packet after the flow's first, NaN without packets"),
    *_pair("duration", pl.Float32, "s", "First to last packet"),
    *_pair("gap_min", pl.Float32, "s", "Shortest gap between packets, NaN below two packets"),
    *_pair("gap_max", pl.Float32, "s", "Longest gap between packets, NaN below two packets"),
    *_pair("gap_mean", pl.Float32, "s", "Mean gap between packets, NaN below two packets"),
    *_pair("gap_std", pl.Float32, "s", "Deviation of gaps between packets, NaN below two packets"),
    *_pair("window_first", pl.UInt16, "bytes", "First TCP window, unscaled"),
    *_pair("window_min", pl.UInt16, "bytes", "Smallest TCP window, unscaled"),
    *_pair("window_max", pl.UInt16, "bytes", "Largest TCP window, unscaled"),
    *_pair("window_mean", pl.Float32, "bytes", "Mean TCP window, unscaled"),
    *_pair("zero_windows", pl.UInt32, "packets", "Packets with a zero TCP window, RST excepted"),
    *_pair("mss", pl.UInt16, "bytes", "MSS option of the SYN, 0 none"),
    *_pair("wscale", pl.UInt8, "", "Window scale option of the SYN, null none", NONE8),
    *_pair("ttl", pl.UInt8, "", "TTL or hop limit of the first packet"),
    *_pair("retransmissions", pl.UInt32, "packets", "Payload packets that repeat old bytes"),
    *_pair("out_of_order", pl.UInt32, "packets", "Payload packets past a hole, or filling it"),
    *_pair("stream_bytes", pl.UInt64, "bytes", "Payload that is new in its TCP stream"),
    *_pair(
        "keep_alives", pl.UInt32, "packets", "TCP keep-alive probes, with a garbage byte or none"
    ),
    *_pair(
        "duplicates",
        pl.UInt32,
        "packets",
        "Copies of packets, from other places or a mirror of both ways; counted nowhere else",
    ),
    *_pair("fragments", pl.UInt32, "packets", "IP fragments after the first"),
    *_pair("bursts", pl.UInt32, "", "Runs of payload packets without a turn or a pause of 1 s"),
    *_pair("burst_max_bytes", pl.UInt64, "bytes", "Payload of the largest such run"),
    *[
        column
        for flag in ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
        for column in _pair(flag, pl.UInt32, "packets", f"Packets with {flag.upper()}")
    ],
    *[
        column
        for edge in SIZE_EDGES
        for column in _pair(
            f"size_from_{edge}", pl.UInt32, "packets", f"Packets with payload from {edge} bytes on"
        )
    ],
    *[
        column
        for i in range(len(GAP_EDGES_NS))
        for column in _pair(
            f"gap_from_{GAP_EDGES_NS[i] // 1000}us",
            pl.UInt32,
            "gaps",
            f"Gaps from {GAP_EDGES_NS[i] / 1e9:g} s on",
        )
    ],
    *_pair(
        "prefix_bytes", pl.UInt8, "bytes", "First bytes that were looked at, PROXY header excepted"
    ),
    *_pair("prefix_entropy", pl.Float32, "bit", "Entropy of those bytes, NaN without"),
    *_pair("prefix_printable", pl.Float32, "", "Share of printable ASCII among them, NaN without"),
    *_pair("prefix_zero", pl.Float32, "", "Share of zero bytes among them, NaN without"),
    Column("pauses", pl.UInt32, "", "Gaps of the whole flow longer than 1 s"),
    Column("pause_mean", pl.Float32, "s", "Mean of those gaps, NaN without"),
    Column("pause_std", pl.Float32, "s", "Deviation of those gaps, NaN below two"),
    Column("turns", pl.UInt32, "", "Changes of the talking direction among payload packets"),
    *[
        Column(f"file_{kind}", pl.UInt32, "", f"{doc} at the start of a TCP payload")
        for kind, doc in zip(
            FILE_MESSAGES,
            (
                "SMB and NFS requests to open or create a file",
                "SMB requests to close a file",
                "SMB and NFS requests to read",
                "SMB and NFS requests to write",
                "SMB and NFS requests to rename, delete or change attributes",
                "SMB and NFS requests to list a folder",
                "Other SMB and NFS requests",
                "SMB answers with an error",
                "Encrypted SMB 3 messages, both ways",
            ),
            strict=True,
        )
    ],
]

SEQUENCE_COLUMNS: Final = [
    Column("seq_size", pl.Array, "bytes", "IP length of the first packets, negative backwards"),
    Column("seq_payload", pl.Array, "bytes", "Payload length of the first packets"),
    Column("seq_gap_us", pl.Array, "us", "Gap before each of the first packets"),
    Column("seq_flags", pl.Array, "", "TCP flag bits of the first packets"),
]

HANDSHAKE_COLUMNS: Final = [
    Column(
        "service",
        pl.String,
        "",
        "What the first bytes look like: tls, quic, dns, http, ssh, "
        "smb, smtp, ftp, rdp, …; '' unknown. A flow with a hello of DTLS is dtls, also after STUN",
    ),
    Column(
        "tls_version",
        pl.UInt16,
        "",
        "Version the server chose, 0 unknown; DTLS counts down: 65279 1.0, 65277 1.2, 65276 1.3",
    ),
    Column("tls_client_version", pl.UInt16, "", "Highest version the client offered, 0 unknown"),
    Column("tls_record_version", pl.UInt16, "", "Version in the client's first record, 0 in QUIC"),
    Column(
        "tls_client_hello_bytes",
        pl.UInt16,
        "bytes",
        "Length of the ClientHello (of DTLS the one with a cookie), 0 none",
    ),
    Column("tls_server_hello_bytes", pl.UInt16, "bytes", "Length of the ServerHello, 0 none"),
    Column("tls_session_id_bytes", pl.UInt8, "bytes", "Length of the client's session id"),
    Column(
        "tls_sni",
        pl.String,
        "",
        "Server name that the client asked for, '' none; at most 255 bytes",
    ),
    Column("tls_alpn", pl.List(pl.String), "", "Protocols offered (ALPN), at most 16 of 64 bytes"),
    Column("tls_server_alpn", pl.String, "", "Protocol chosen (ALPN), '' none"),
    Column(
        "tls_ciphers", pl.List(pl.UInt16), "", "Cipher suites offered, GREASE included; at most 512"
    ),
    Column("tls_extensions", pl.List(pl.UInt16), "", "Client extensions in order, with GREASE"),
    Column("tls_groups", pl.List(pl.UInt16), "", "Supported groups, GREASE included"),
    Column("tls_point_formats", pl.List(pl.UInt8), "", "EC point formats"),
    Column("tls_signature_algorithms", pl.List(pl.UInt16), "", "Signature algorithms offered"),
    Column("tls_supported_versions", pl.List(pl.UInt16), "", "supported_versions, with GREASE"),
    Column("tls_cipher", pl.UInt16, "", "Cipher suite chosen, 0 unknown"),
    Column("tls_server_extensions", pl.List(pl.UInt16), "", "Server extensions in order"),
    Column("ja3", pl.String, "", "MD5 of the JA3 string of the ClientHello, '' none"),
    Column("ja3s", pl.String, "", "MD5 of the JA3S string of the ServerHello, '' none"),
    Column("ja4", pl.String, "", "JA4 of the ClientHello (t TCP, q QUIC, d DTLS), '' none"),
    Column("cert_count", pl.UInt8, "", "Certificates the server showed in clear (TLS <= 1.2)"),
    Column("cert_chain_bytes", pl.UInt32, "bytes", "Length of that chain"),
    Column(
        "cert_subject",
        pl.String,
        "",
        "Common name of the leaf's subject, '' none; at most 256 characters",
    ),
    Column(
        "cert_issuer",
        pl.String,
        "",
        "Common name (or organisation) of the leaf's issuer; at most 256 characters",
    ),
    Column("cert_self_signed", pl.Boolean, "", "Leaf's issuer and subject are the same bytes"),
    Column("cert_not_before_s", pl.Int64, "s", "Start of validity since 1970, null unknown"),
    Column("cert_not_after_s", pl.Int64, "s", "End of validity since 1970, null unknown"),
    Column("cert_names", pl.UInt16, "", "Subject alternative names of the leaf"),
    Column("cert_subject_fields", pl.UInt8, "", "Attributes in the leaf's subject"),
    Column("cert_key", pl.String, "", "Leaf's key: rsa, ec, ed25519, …, '' unknown"),
    Column("cert_key_bits", pl.UInt16, "bit", "Size of the leaf's key, 0 unknown"),
    Column("cert_matches_sni", pl.Boolean, "", "A name of the leaf covers the SNI, null unknown"),
    Column("quic_version", pl.UInt32, "", "QUIC version of the client's first Initial, 0 none"),
    Column("quic_server_version", pl.UInt32, "", "QUIC version of the server's Initial, 0 none"),
    Column("quic_dcid", pl.String, "", "Connection id the client's first Initial went to, hex"),
    Column("quic_scid", pl.String, "", "Connection id that the server chose, hex, '' none"),
    Column("quic_retry", pl.Boolean, "", "The server sent a Retry, null without QUIC"),
    Column("quic_versions", pl.List(pl.UInt32), "", "Offered by Version Negotiation, with GREASE"),
    Column("quic_token_bytes", pl.UInt16, "bytes", "Token in the client's first Initial"),
    Column(
        "quic_initial_opened",
        pl.Boolean,
        "",
        "The client's Initial packets, decrypted with the keys that their version makes public, "
        "gave a whole ClientHello; null without QUIC",
    ),
    Column("dns_query", pl.String, "", "First name asked for, '' none; at most 255 bytes"),
    Column("dns_query_type", pl.UInt16, "", "Type of that question, 0 none"),
    Column("dns_response_code", pl.Int8, "", "RCODE of the answer, null unanswered", -1),
    Column("dns_answers", pl.UInt16, "", "Answer records"),
    Column("dns_min_ttl", pl.UInt32, "s", "Smallest TTL of the answers, 0 none"),
    Column(
        "dns_addresses",
        pl.List(pl.String),
        "",
        "Addresses among the answers (A, AAAA) in order, whichever name of a chain has them; at "
        "most 16",
    ),
]

FLOW_COLUMNS: Final = [*IDENTITY_COLUMNS, *MEASURE_COLUMNS, *SEQUENCE_COLUMNS, *HANDSHAKE_COLUMNS]
"""Every column of a flow table, in order."""


@dataclass(frozen=True, slots=True)
class FlowTable:
    """Flows, one row each, with the columns of `FLOW_COLUMNS`.

    A table may carry further columns at its end (label, capture, score); rooms that need only
    the contract do not look at them.
    """

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    @classmethod
    def empty(cls) -> FlowTable:
        """Return a table without flows."""
        return cls(pl.DataFrame(schema={column.name: column.dtype for column in FLOW_COLUMNS}))

    def check(self) -> FlowTable:
        """Return the table itself if it has every column of the contract with its type.

        Raises
        ------
        VeilwatchError
            If a column is missing or of another type.
        """
        schema = self.frame.schema
        for column in FLOW_COLUMNS:
            found = schema.get(column.name)
            if found is None or found != column.dtype:
                raise VeilwatchError(
                    f"column {column.name} is {found or 'missing'}, expected {column.dtype}",
                    where="flow table",
                    hint="make the table anew with this version of Veilwatch",
                )
        return self
