"""Synthetic captures for measuring speed and memory: deterministic, interleaved, fast to make.

Flows arrive at random times and last from milliseconds to minutes, some two hundred of them at a
time at the default rate; their lengths follow a log-normal law, so that a few elephants carry a
large part of the packets. TCP flows open and close properly and count their bytes right; payloads
are random bytes and TCP checksums are left 0. Nothing here says anything about malware::

    python benchmarks/generate.py /tmp/plain.pcap --packets 1800000 --flows 40000
    python benchmarks/generate.py /tmp/n3.pcap --gtp --tls 0.5
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.lab.clients import Program
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.tls import Connection, certify_server
from veilwatch.files import replacing
from veilwatch.schema.packets import MAX_CAPTURED

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.void]

EPOCH_NS: Final = 1_700_000_000 * 10**9
SEGMENT_PACKETS: Final = 2_000_000  # made at one time, about 1 GB of arrays
CHUNK_PACKETS: Final = 32_768  # written at one time
NOISE_BYTES: Final = 16 * 1024 * 1024  # repeated under all payloads
SHORTEST_SNAP: Final = 128  # holds every header that is written here
MSS: Final = 1400
SUBSCRIBERS: Final = 4096
FIRST_PORT: Final = 32_768

MEAN_GAP_S: Final = 0.02  # between packets of one flow
FLOW_LENGTH_SIGMA: Final = 1.6  # of the log-normal law of packets a flow
UDP_SHARE: Final = 0.15  # of flows long enough for TCP; shorter ones are UDP anyway
SHORTEST_TCP: Final = 8  # SYN, SYN-ACK, ACK, two of data, FIN, FIN, ACK

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10

PACKET: Final = np.dtype(
    [
        ("ts_ns", np.int64),
        ("flow", np.uint32),
        ("seq", np.uint32),
        ("ack", np.uint32),
        ("payload", np.uint16),
        ("tls", np.int16),  # index into the handshakes, -1 none
        ("tls_at", np.int16),  # which packet of that handshake
        ("flags", np.uint8),
        ("backward", np.bool_),
        ("tcp", np.bool_),
    ]
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a capture holds.

    Attributes
    ----------
    packets, flows
        How many; the same mixture at every size.
    packets_per_second
        Mean rate: how many flows are active at a time follows from it.
    gtp
        Whether everything runs inside GTP-U with a PDU session container.
    tls
        Share of TCP flows that begin with a real TLS handshake.
    snap
        Most bytes captured of a packet.
    seed
        Of everything random but keys and ciphertext within TLS handshakes.
    """

    packets: int = 1_800_000
    flows: int = 40_000
    packets_per_second: float = 10_000.0
    gtp: bool = False
    tls: float = 0.0
    snap: int = MAX_CAPTURED
    seed: int = 7


def write_capture(path: Path, traffic: Traffic) -> None:
    """Write a nanosecond pcap, whole or not at all."""
    handshakes = tls_handshakes() if traffic.tls else []
    with replacing(path) as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_CAPTURED, 1))
        noise = np.random.default_rng(traffic.seed).integers(0, 256, NOISE_BYTES, np.uint8)
        for packets in _segments(traffic, handshakes):
            for start in range(0, len(packets), CHUNK_PACKETS):
                _write(stream, packets[start : start + CHUNK_PACKETS], traffic, handshakes, noise)


def tls_handshakes() -> list[list[bytes]]:
    """Return handshakes: payloads of the ClientHello and of the server's first flight."""
    found = []
    for number in range(12):
        draw = Draw("benchmark", number)
        server = certify_server(
            f"host{number}.example.net",
            certificate=draw.one(["public-ec", "public-rsa"]),
            version=draw.one(["1.2", "1.3"]),
            alpn=("h2", "http/1.1"),
            day=datetime(2023, 11, 1, tzinfo=UTC),
            draw=draw,
        )
        program: Program = draw.one(["chrome", "okhttp", "schannel10", "openssl3"])
        hello, answer = Connection(server, program, draw, alpn=("h2", "http/1.1")).handshake()[:2]
        parts = [answer.data[at : at + MSS] for at in range(0, len(answer.data), MSS)]
        found.append([hello.data, *parts])
    return found


def _segments(traffic: Traffic, handshakes: list[list[bytes]]) -> Iterator[Rows]:
    """Yield packets in time order; flows that outlast their segment carry over."""
    rng = np.random.default_rng(traffic.seed)
    count = -(-traffic.packets // SEGMENT_PACKETS)
    packet_shares = np.diff(np.linspace(0, traffic.packets, count + 1).astype(np.int64))
    flow_shares = np.diff(np.linspace(0, traffic.flows, count + 1).astype(np.int64))
    start, first_flow = EPOCH_NS, 0
    late = np.zeros(0, PACKET)
    for packets, flows in zip(packet_shares, flow_shares, strict=True):
        span = int(packets / traffic.packets_per_second * 1e9)
        made = _segment(rng, int(packets), int(flows), start, span, traffic.tls, handshakes)
        made["flow"] += first_flow
        start, first_flow = start + span, first_flow + int(flows)
        made = np.concatenate([late, made])
        made = made[np.argsort(made["ts_ns"], kind="stable")]
        cut = int(np.searchsorted(made["ts_ns"], start))
        late = made[cut:]
        yield made[:cut]
    yield late


def _segment(
    rng: np.random.Generator,
    packets: int,
    flows: int,
    start: int,
    span: int,
    tls: float,
    handshakes: list[list[bytes]],
) -> Rows:
    """Return the packets of `flows` flows, flow by flow."""
    length = _flow_lengths(rng, packets, flows)
    tcp_flow = (length >= SHORTEST_TCP) & (rng.random(flows) >= UDP_SHARE)
    flow = np.repeat(np.arange(flows), length)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    index = np.arange(packets) - first[flow]
    to_end = length[flow] - 1 - index

    out = np.zeros(packets, PACKET)
    out["flow"] = flow
    out["tcp"] = tcp = tcp_flow[flow]
    gaps = rng.exponential(MEAN_GAP_S * rng.lognormal(-0.5, 1.0, flows)[flow])
    gaps[first] = 0
    arrival = np.sort(rng.random(flows)) * span
    out["ts_ns"] = start + arrival[flow].astype(np.int64) + _running(gaps * 1e9, first, flow)

    # Sizes and directions: an acknowledgement, something small or a full segment; downloads lead.
    kind = rng.random(packets)
    small = rng.integers(30, 400, packets)
    payload = np.where(kind < 0.4, np.where(tcp, 0, small), np.where(kind < 0.6, small, MSS))
    backward = rng.random(packets) < np.where(payload == MSS, 0.85, 0.45)
    out["flags"] = np.where(payload > 0, ACK | PSH, ACK)
    out["tls"] = -1

    opening, closing = tcp & (index < 3), tcp & (to_end < 3)
    payload[opening | closing] = 0
    backward[index == 0] = False
    out["flags"][tcp & (index == 0)] = SYN
    out["flags"][tcp & (index == 1)] = SYN | ACK
    out["flags"][tcp & ((to_end == 1) | (to_end == 2))] = FIN | ACK
    backward[tcp & ((index == 1) | (to_end == 1))] = True
    backward[tcp & ((index == 2) | (to_end == 2) | (to_end == 0))] = False

    if handshakes:
        chosen = np.where(rng.random(flows) < tls, rng.integers(0, len(handshakes), flows), -1)
        for number, parts in enumerate(handshakes):
            fits = tcp_flow & (chosen == number) & (length >= 6 + len(parts))
            for k, part in enumerate(parts):
                rows = first[fits] + 3 + k
                payload[rows], backward[rows] = len(part), k > 0
                out["tls"][rows], out["tls_at"][rows] = number, k

    out["payload"], out["backward"] = payload, backward
    used = payload + ((out["flags"] & (SYN | FIN)) > 0)
    initial = rng.integers(0, 2**32, (2, flows))
    sent = [
        initial[d][flow] + _running(np.where(backward == d, used, 0), first, flow, before=True)
        for d in (0, 1)
    ]
    out["seq"] = (np.where(backward, sent[1], sent[0]) & 0xFFFF_FFFF).astype(np.uint32)
    out["ack"] = (np.where(backward, sent[0], sent[1]) & 0xFFFF_FFFF).astype(np.uint32)
    return out


def _flow_lengths(rng: np.random.Generator, packets: int, flows: int) -> npt.NDArray[np.int64]:
    """Share `packets` out among `flows`, at least two each."""
    weight = rng.lognormal(0.0, FLOW_LENGTH_SIGMA, flows)
    length = 2 + np.floor(weight / weight.sum() * (packets - 2 * flows)).astype(np.int64)
    length[np.argmax(length)] += packets - length.sum()
    return np.asarray(length)


def _running(
    values: npt.NDArray[Any],
    first: npt.NDArray[np.int64],
    flow: npt.NDArray[np.int64],
    *,
    before: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the sum of each flow's values up to each packet, or only of those before it."""
    values = values.astype(np.int64)
    total = np.cumsum(values)
    base = total[first] - values[first]
    return np.asarray(total - base[flow] - (values if before else 0))


def _write(
    stream: IO[bytes], packets: Rows, traffic: Traffic, handshakes: list[list[bytes]], noise: Bytes
) -> None:
    """Write packets that are in time order."""
    transport = np.where(packets["tcp"], 20, 8)
    tunnel = 44 if traffic.gtp else 0
    wire = 14 + tunnel + 20 + transport + packets["payload"]
    captured = np.minimum(wire, traffic.snap)
    ends = np.cumsum(16 + captured)
    at = ends - captured
    shift = int(packets["ts_ns"][0]) % (len(noise) // 4)
    out = np.resize(noise[shift:], int(ends[-1]) + 1)
    payload_at = at + (wire - packets["payload"])
    # Neither TLS nor a long QUIC header; without payload it falls on what is written next.
    out[payload_at] = 0x41
    for row in np.flatnonzero(packets["tls"] >= 0):
        part = handshakes[packets["tls"][row]][packets["tls_at"][row]][
            : ends[row] - payload_at[row]
        ]
        out[payload_at[row] : payload_at[row] + len(part)] = np.frombuffer(part, np.uint8)
    for rows in (np.flatnonzero(packets["tcp"]), np.flatnonzero(~packets["tcp"])):
        headers = _headers(packets[rows], wire[rows], traffic.gtp)
        out[at[rows, None] + np.arange(headers.shape[1])] = headers
    records = np.zeros(len(packets), [(name, "<u4") for name in ("s", "ns", "captured", "wire")])
    records["s"], records["ns"] = np.divmod(packets["ts_ns"], 10**9)
    records["captured"], records["wire"] = captured, wire
    out[at[:, None] - 16 + np.arange(16)] = records.view(np.uint8).reshape(-1, 16)
    stream.write(out[: ends[-1]].data)


def _headers(packets: Rows, wire: npt.NDArray[np.int64], gtp: bool) -> Bytes:
    """Return the headers of packets of one transport, shape (n, bytes)."""
    tcp = bool(len(packets) and packets["tcp"][0])
    start = 14 + (44 if gtp else 0)
    h = np.zeros((len(packets), start + 20 + (20 if tcp else 8)), np.uint8)
    flow = packets["flow"].astype(np.int64)
    subscriber = flow % SUBSCRIBERS
    client = 0x0A00_0000 + 256 + subscriber  # 10.0.1.0 and on
    server = 0xC612_0000 + flow * 40_503 % 65_536  # 198.18.0.0/16, for benchmarks (RFC 2544)
    backward = packets["backward"]

    def ends(a: Any, b: Any) -> tuple[Any, Any]:
        return np.where(backward, b, a), np.where(backward, a, b)

    h[:, 0:12] = np.frombuffer(bytes.fromhex("020000000002020000000001"), np.uint8)
    _put(h, 12, 2, 0x0800)
    if gtp:
        gnb, upf = 0xAC14_0101 + subscriber % 4, 0xAC14_0901
        _ipv4(h, 14, wire - 14, 17, *ends(gnb, upf))
        _put(h, 34, 2, 2152)
        _put(h, 36, 2, 2152)
        _put(h, 38, 2, wire - 34)
        h[:, 42], h[:, 43] = 0x34, 0xFF  # version 1, extension header follows; G-PDU
        _put(h, 44, 2, wire - 50)
        _put(h, 46, 4, np.where(backward, 0x2000_0000, 0x1000_0000) + subscriber)
        h[:, 53], h[:, 54] = 0x85, 1  # PDU session container of four octets (TS 38.415)
        h[:, 55], h[:, 56] = np.where(backward, 0x00, 0x10), 1 + subscriber % 9
    _ipv4(h, start, wire - start, 6 if tcp else 17, *ends(client, server))
    source, destination = ends(
        FIRST_PORT + flow // SUBSCRIBERS % (65_536 - FIRST_PORT), 443 if tcp else 3478
    )
    at = start + 20
    _put(h, at, 2, source)
    _put(h, at + 2, 2, destination)
    if tcp:
        _put(h, at + 4, 4, packets["seq"].astype(np.int64))
        _put(h, at + 8, 4, np.where(packets["flags"] & ACK, packets["ack"].astype(np.int64), 0))
        h[:, at + 12], h[:, at + 13] = 0x50, packets["flags"]
        _put(h, at + 14, 2, 0xFA00)
    else:
        _put(h, at + 4, 2, wire - at)
    return h


def _ipv4(h: Bytes, at: int, length: Any, protocol: int, source: Any, destination: Any) -> None:
    """Write an IPv4 header with its checksum (RFC 791) at column `at`."""
    h[:, at], h[:, at + 8], h[:, at + 9] = 0x45, 64, protocol
    _put(h, at + 2, 2, length)
    _put(h, at + 12, 4, source)
    _put(h, at + 16, 4, destination)
    words = h[:, at : at + 20].astype(np.int64)
    total = (words[:, 0::2] * 256 + words[:, 1::2]).sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    _put(h, at + 10, 2, 0xFFFF - total)


def _put(h: Bytes, at: int, count: int, value: Any) -> None:
    """Write `value` as `count` bytes, most significant first, at column `at`."""
    for k in range(count):
        h[:, at + k] = (value >> (8 * (count - 1 - k))) & 0xFF


def main() -> None:
    """Write one capture as the command line says."""
    default = Traffic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packets", type=int, default=default.packets)
    parser.add_argument("--flows", type=int, default=default.flows)
    parser.add_argument("--rate", type=float, default=default.packets_per_second, help="packets/s")
    parser.add_argument("--gtp", action="store_true", help="wrap in GTP-U, as on N3")
    parser.add_argument(
        "--tls", type=float, default=0.0, help="share of TCP flows with a handshake"
    )
    parser.add_argument("--snap", type=int, default=default.snap, help="bytes captured of a packet")
    parser.add_argument("--seed", type=int, default=default.seed)
    args = parser.parse_args()
    if not 0 < 2 * args.flows <= args.packets:
        parser.error("a flow has at least two packets")
    if args.snap < SHORTEST_SNAP:
        parser.error(f"--snap below {SHORTEST_SNAP} would cut headers")
    began = time.monotonic()
    traffic = Traffic(args.packets, args.flows, args.rate, args.gtp, args.tls, args.snap, args.seed)
    write_capture(args.out, traffic)
    size = args.out.stat().st_size
    print(
        f"{args.out}: {args.packets:,} packets, {args.flows:,} flows, {size / 1e6:,.0f} MB", end=""
    )
    print(f", in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
