"""A plain-Python flow meter for tests: scapy takes packets apart, this puts streams together.

It mirrors the rules by which the real meter keeps heads, slowly and obviously, so that the
handshake package can be tested against real captures on its own. `capture_flows` is the one place
where heads and records of a capture come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scapy.config import conf
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.utils import RawPcapNgReader, RawPcapReader

from tests.traffic.flow import oracle
from veilwatch.schema.flows import (
    FLOW_RECORD_DTYPE,
    HEAD_BYTES,
    HEAD_DTYPE,
    PREFIX_BYTES,
    HeadBatch,
)

SEARCHED_PACKETS = 16  # data packets of a direction among which a handshake may begin
EndPoint = tuple[str, int]


class Packet(NamedTuple):
    number: int
    protocol: int
    source: EndPoint
    destination: EndPoint
    seq: int
    syn: bool
    payload: bytes
    length: int  # of the payload on the wire


@dataclass
class PlainFlow:
    protocol: int
    source: EndPoint
    destination: EndPoint
    first_number: int
    syn_seq: int | None = None
    data_packets: list[int] = field(default_factory=lambda: [0, 0])
    first_payload: list[int] = field(default_factory=lambda: [0, 0])
    prefix: list[bytes] = field(default_factory=lambda: [b"", b""])
    base: list[int | None] = field(default_factory=lambda: [None, None])
    pieces: list[list[tuple[int, bytes]]] = field(default_factory=lambda: [[], []])
    datagrams: list[list[bytes]] = field(default_factory=lambda: [[], []])
    answered: bool = False

    def add(self, packet: Packet) -> None:
        if not packet.length:
            return
        side = 0 if packet.source == self.source else 1
        self.data_packets[side] += 1
        if self.data_packets[side] == 1:
            self.first_payload[side] = packet.length
        if len(self.prefix[side]) < PREFIX_BYTES:
            self.prefix[side] = (self.prefix[side] + packet.payload)[:PREFIX_BYTES]
        if self.protocol == 17:
            self._add_datagram(side, packet)
            return
        if self.base[side] is None:
            if self.data_packets[side] > SEARCHED_PACKETS or not _greets(packet.payload):
                return
            self.base[side] = packet.seq
        self.pieces[side].append((packet.seq, packet.payload))

    def _add_datagram(self, side: int, packet: Packet) -> None:
        """Keep what the meter keeps of a datagram, by the oracle's rules."""
        row = {"protocol": 17, "payload_length": packet.length}
        row |= {"src_port": packet.source[1], "dst_port": packet.destination[1]}
        datagram = oracle.Packet(row, packet.payload)
        heads = [oracle.Datagrams(0, kept) if kept else None for kept in self.datagrams]
        flow: Any = SimpleNamespace(heads=heads)
        if self.answered or not packet.payload:
            return
        fresh = heads[side] is None
        if oracle.begins(datagram, flow) if fresh else _continues(datagram):
            head = heads[side] = heads[side] or oracle.Datagrams(0, self.datagrams[side])
            head.put(oracle.part_kept(datagram, fresh=fresh))
        self.answered = oracle.is_answered(datagram, side, flow)

    def stream(self, side: int) -> bytes:
        """Contiguous bytes from the head's start; what came first stays."""
        if self.protocol == 17:
            return b"".join(len(d).to_bytes(2, "big") + d for d in self.datagrams[side])
        base = self.base[side]
        if base is None:
            return b""
        content: dict[int, int] = {}
        for seq, payload in self.pieces[side]:
            start = (seq - base + 2**31) % 2**32 - 2**31
            for i, byte in enumerate(payload):
                if 0 <= start + i < HEAD_BYTES:
                    content.setdefault(start + i, byte)
        size = next((i for i in range(HEAD_BYTES) if i not in content), HEAD_BYTES)
        return bytes(content[i] for i in range(size))


@dataclass
class CaptureFlows:
    """Flows of one capture, the heads among them, and all records, in the order of `flow_id`."""

    flows: list[PlainFlow]
    heads: HeadBatch
    records: npt.NDArray[np.void]


def capture_flows(path: Path) -> CaptureFlows:
    flows = plain_flows(path)
    return CaptureFlows(flows, make_heads(flows), make_records(flows))


def plain_flows(path: Path) -> list[PlainFlow]:
    done: list[PlainFlow] = []
    active: dict[Any, PlainFlow] = {}
    for packet in read_packets(path):
        ends = frozenset((packet.source, packet.destination))
        key = (packet.protocol, ends)
        flow = active.get(key)
        if flow is None or (packet.syn and flow.syn_seq != packet.seq):
            flow = PlainFlow(packet.protocol, packet.source, packet.destination, packet.number)
            flow.syn_seq = packet.seq if packet.syn else None
            active[key] = flow
            done.append(flow)
        flow.add(packet)
    return done


def read_packets(path: Path) -> Iterator[Packet]:
    """TCP and UDP packets over IP, without tunnels."""
    conf.layers.filter([Ether, Dot1Q, CookedLinux, IP, IPv6, TCP, UDP])
    try:
        with RawPcapReader(str(path)) as reader:
            link = None if isinstance(reader, RawPcapNgReader) else reader.linktype
            for number, (raw, meta) in enumerate(reader, start=1):
                packet = _packet(number, _dissect(raw, meta.linktype if link is None else link))
                if packet is not None:
                    yield packet
    finally:
        conf.layers.unfilter()


def _dissect(raw: bytes, link: int) -> Any:
    if link == 0:  # BSD loopback: scapy knows one system's numbers only
        return (IPv6 if raw[4:5] and raw[4] >> 4 == 6 else IP)(raw[4:])
    return conf.l2types.get(link, Ether)(raw)


def _packet(number: int, frame: Any) -> Packet | None:
    network = frame.getlayer(IP) or frame.getlayer(IPv6)
    if network is None or (network.name == "IP" and network.frag):
        return None
    transport = network.payload
    if transport.name not in ("TCP", "UDP"):
        return None
    # An IP length of 0 means that the network card was left to cut the packet up.
    if network.name == "IP":
        inner = (network.len or len(network)) - 4 * network.ihl
    else:
        inner = network.plen
    header = 4 * transport.dataofs if transport.name == "TCP" and transport.dataofs else 8
    length = max(inner - header, 0)
    ends = (network.src, transport.sport), (network.dst, transport.dport)
    payload = bytes(transport.payload)[:length]
    if transport.name == "UDP":
        return Packet(number, 17, *ends, 0, False, payload, length)
    syn = transport.flags.S and not transport.flags.A
    return Packet(number, 6, *ends, transport.seq, bool(syn), payload, length)


def _continues(datagram: oracle.Packet) -> bool:
    return not oracle.is_dns(datagram) and oracle.continues(datagram)


def _greets(payload: bytes) -> bool:
    return (
        len(payload) >= 6
        and payload[0] == 0x16
        and payload[1] == 3
        and payload[2] <= 4
        and payload[5] in (1, 2)
    )


def make_heads(flows: list[PlainFlow]) -> HeadBatch:
    """Pack the heads of `flows`; `flow_id` is the index in the list."""
    rows = [
        (i, flow.stream(0), flow.stream(1), flow)
        for i, flow in enumerate(flows)
        if flow.base != [None, None] or flow.datagrams != [[], []]
    ]
    table = np.zeros(len(rows), HEAD_DTYPE)
    data = bytearray()
    for row, (i, first, second, flow) in zip(table, rows, strict=True):
        row["flow_id"] = i
        row["protocol"] = flow.protocol
        row["src_port"], row["dst_port"] = flow.source[1], flow.destination[1]
        for side, stream in enumerate((first, second)):
            row["start"][side], row["length"][side] = len(data), len(stream)
            data += stream
    return HeadBatch(np.frombuffer(data, np.uint8), table)


def make_records(flows: list[PlainFlow]) -> npt.NDArray[np.void]:
    """Records with the fields that recognition of services reads."""
    records = np.zeros(len(flows), FLOW_RECORD_DTYPE)
    for i, (record, flow) in enumerate(zip(records, flows, strict=True)):
        record["flow_id"] = i
        record["protocol"] = flow.protocol
        record["src_port"], record["dst_port"] = flow.source[1], flow.destination[1]
        record["way"]["first_payload"] = flow.first_payload
        for side in (0, 1):
            prefix = np.frombuffer(flow.prefix[side], np.uint8)
            record["start"]["prefix"][side, : len(prefix)] = prefix
            record["way"]["prefix_used"][side] = len(prefix)
    return records


def head(first: bytes, second: bytes = b"", protocol: int = 6, port: int = 443) -> HeadBatch:
    """A batch with one head; over UDP each side is one datagram."""
    if protocol == 17:
        return datagram_head([first], [second] if second else [], port)
    flow = PlainFlow(protocol, ("192.0.2.1", 40000), ("198.51.100.2", port), 1)
    for side, stream in enumerate((first, second)):
        flow.base[side], flow.pieces[side] = 0, [(0, stream)]
    return make_heads([flow])


def datagram_head(first: list[bytes], second: list[bytes], port: int = 443) -> HeadBatch:
    """A batch with one head of a UDP flow."""
    flow = PlainFlow(17, ("192.0.2.1", 40000), ("198.51.100.2", port), 1)
    flow.datagrams = [first, second]
    return make_heads([flow])
