"""Connections in disorder, from wire to columns, with tshark where it is the judge."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from veilwatch.traffic.pipeline import FlowReader

NAME = "shop.example.net"
BASE = 2**32 - 700
PROXY = b"PROXY TCP4 203.0.113.7 192.0.2.10 56324 443\r\n"


def hello(version: ssl.TLSVersion, names: int = 1) -> bytes:
    """A real ClientHello; many ALPN names make it as large as a post-quantum key share does."""
    context = ssl.create_default_context()
    context.maximum_version = version
    context.set_alpn_protocols([f"protocol-number-{k}" for k in range(names)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=NAME).do_handshake()
    return outgoing.read()


SMALL, LARGE = hello(ssl.TLSVersion.TLSv1_2), hello(ssl.TLSVersion.TLSv1_3, 90)


def wrapped(kind: str, port: int, **fields: Any) -> Any:
    """A packet of a client, inside what `kind` says."""
    segment = TCP(sport=port, dport=443, **fields)
    inner = IPv6(src="2001:db8::1", dst="2001:db8::2") if kind == "ipv6" else IP(dst="192.0.2.10")
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if kind != "gtp":
        return link / inner / segment
    outer = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=2152, dport=2152)
    return link / outer / GTP_U_Header(teid=7, gtp_type=255) / inner / segment


def pieces(content: bytes, *places: int) -> Iterator[tuple[int, bytes]]:
    for a, b in pairwise([0, *places, len(content)]):
        yield a, content[a:b]


def connection(kind: str, port: int, order: list[tuple[int, bytes]], *, syn: bool) -> list[Any]:
    opening = [wrapped(kind, port, flags="S", seq=(BASE - 1) % 2**32)] if syn else []
    return [
        *opening,
        *(
            wrapped(kind, port, flags="PA", ack=1, seq=(BASE + at) % 2**32) / payload
            for at, payload in order
        ),
    ]


def flows(path: Path, packets: list[Any]) -> pl.DataFrame:
    for k, packet in enumerate(packets):
        packet.time = 1_700_000_000 + k / 100
    wrpcap(str(path), packets)
    with FlowReader([path]) as reader:
        return reader.read_all().frame.sort("src_port")


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "gtp"])
@pytest.mark.parametrize("content", [SMALL, LARGE, PROXY + SMALL, PROXY + LARGE])
def test_a_real_hello_in_any_order(kind: str, content: bytes, tmp_path: Path) -> None:
    assert len(LARGE) > 1700
    packets: list[Any] = []
    port = 1000
    for places in ((), (2,), (1, 4), (len(content) // 2,), (30, len(content) - 9)):
        for order in permutations(pieces(content, *places)):
            for syn in (True, False):
                port += 1
                packets += connection(kind, port, list(order), syn=syn)
    frame = flows(tmp_path / "disorder.pcap", packets)
    assert frame.height == port - 1000
    assert frame["service"].unique().to_list() == ["tls"]
    assert frame["tls_sni"].unique().to_list() == [NAME]
    for column in ("ja3", "ja4", "tls_client_hello_bytes"):
        assert frame[column].n_unique() == 1
        assert frame[column][0]
    assert frame["fwd_stream_bytes"].unique().to_list() == [len(content)]
    assert frame["fwd_retransmissions"].sum() == 0


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_streams_are_as_long_as_tshark_puts_them_together(tmp_path: Path) -> None:
    """Segments in disorder, repeated and overlapping, and a FIN that overtakes."""
    choice = random.Random(5)
    packets: list[Any] = []
    count = 12
    for stream in range(count):
        content = choice.randbytes(choice.randrange(50, 4000))
        places = sorted(choice.sample(range(1, len(content)), 5))
        order = list(pieces(content, *places))
        choice.shuffle(order)
        a, b = sorted(choice.sample(range(len(content)), 2))
        order.insert(choice.randrange(1, 6), (a, content[a:b]))
        talk = connection("ipv4", 1000 + stream, order, syn=True)
        end = (BASE + len(content)) % 2**32
        fin = wrapped("ipv4", 1000 + stream, flags="FA", ack=1, seq=end)
        talk.insert(choice.randrange(2, len(talk) + 1), fin)
        packets += talk
    path = tmp_path / "streams.pcap"
    frame = flows(path, packets)
    assert frame.height == count
    asked = [part for k in range(count) for part in ("-z", f"follow,tcp,raw,{k}")]
    command = ["tshark", "-n", "-q", "-r", str(path), *asked]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    followed: list[int] = []
    for line in text.splitlines():
        if line.startswith("Filter:"):
            followed.append(0)
        elif followed and line and all(c in "0123456789abcdef" for c in line.strip()):
            followed[-1] += len(line.strip()) // 2
    assert sorted(frame["fwd_stream_bytes"]) == sorted(followed)
