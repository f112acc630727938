"""Headers of the first packets of captures: what reading adds to single packets."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from veilwatch.corpus.encapsulate import encapsulate
from veilwatch.schema.headers import ABSENT, HEADER_FIELDS, HEADER_PACKETS, WIRE_FIELDS
from veilwatch.traffic.capture import PcapWriter
from veilwatch.traffic.pipeline import read_headers

COLUMN = {field.name: k for k, field in enumerate(HEADER_FIELDS)}

TSHARK = {
    "eth.src": "eth_src",
    "ip.hdr_len": "ip_ihl",
    "ip.dsfield": "ip_tos",
    "ip.id": "ip_id",
    "ip.ttl": "ip_ttl",
    "ip.proto": "ip_protocol",
    "ip.checksum": "ip_checksum",
    "tcp.srcport": "tcp_src_port",
    "tcp.dstport": "tcp_dst_port",
    "tcp.seq_raw": "tcp_seq",
    "tcp.ack_raw": "tcp_ack",
    "tcp.hdr_len": "tcp_offset",
    "tcp.flags": "tcp_flags",
    "tcp.window_size_value": "tcp_window",
    "tcp.checksum": "tcp_checksum",
    "tcp.urgent_pointer": "tcp_urgent",
    "udp.srcport": "udp_src_port",
    "udp.dstport": "udp_dst_port",
    "udp.length": "udp_length",
    "udp.checksum": "udp_checksum",
    "icmp.type": "icmp_type",
    "icmp.code": "icmp_code",
}
"""Fields by tshark's names; header lengths are in bytes there and in words here."""


def write(path: Path, packets: list[Packet], gap_ns: int = 1_000_000) -> Path:
    with PcapWriter(path) as writer:
        for k, packet in enumerate(packets):
            writer.write(1_700_000_000_000_000_000 + k * gap_ns, bytes(packet))
    return path


def column(path: Path, name: str) -> list[int]:
    return [int(value) for value in read_headers([path])[0].values[:, COLUMN[name]]]


def talk(client: str, port: int) -> tuple[Packet, Packet]:
    up = Ether() / IP(src=client, dst="203.0.113.5") / TCP(sport=port, dport=443, flags="PAE")
    down = Ether() / IP(src="203.0.113.5", dst=client) / TCP(sport=443, dport=port, flags="A")
    return up / Raw(b"u" * 10), down


def test_flows_are_counted_and_directions_told(tmp_path: Path) -> None:
    up, down = talk("10.0.0.1", 5000)
    other_up, other_down = talk("10.0.0.2", 5000)
    path = write(tmp_path / "a.pcap", [up, down, other_up, down, other_down, up])
    assert column(path, "flow") == [0, 0, 1, 0, 1, 0]
    assert column(path, "direction") == [0, 1, 0, 1, 1, 0]
    assert column(path, "payload") == [10, 0, 10, 0, 0, 10]
    assert column(path, "control") == [0x18, 0x10, 0x18, 0x10, 0x10, 0x18]  # without ECN's bits
    assert column(path, "gap") == [0] + [1_000_000] * 5


def test_one_host_that_talks_to_itself_is_the_initiator(tmp_path: Path) -> None:
    packet = Ether() / IP(src="127.0.0.1", dst="127.0.0.1") / UDP(sport=7, dport=7)
    other = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=7)
    path = write(tmp_path / "a.pcap", [packet, packet, other])
    assert column(path, "flow") == [0, 0, 1]
    assert column(path, "direction") == [0, 0, 0]


def test_time_that_runs_backwards_is_no_silence(tmp_path: Path) -> None:
    up, _ = talk("10.0.0.1", 5000)
    assert column(write(tmp_path / "a.pcap", [up] * 3, gap_ns=-5_000_000), "gap") == [0, 0, 0]


def test_reading_ends_with_the_last_packet_that_is_wanted(tmp_path: Path) -> None:
    up, _ = talk("10.0.0.1", 5000)
    path = write(tmp_path / "a.pcap", [Ether() / ARP(), *[up] * (HEADER_PACKETS + 3000)])
    table, report = read_headers([path])
    assert len(table) == HEADER_PACKETS
    assert report.files[0].packets < 3000
    assert len(read_headers([path], packets=5)[0]) == 5
    assert len(read_headers([path], packets=10**9)[0]) == HEADER_PACKETS


def test_no_ip_packet_gives_no_row(tmp_path: Path) -> None:
    table, _ = read_headers([write(tmp_path / "a.pcap", [Ether() / ARP()])])
    assert table.values.shape == (0, len(HEADER_FIELDS))


def test_wrapping_in_gtp_changes_only_the_link(tmp_path: Path) -> None:
    packets = [item for k in range(8) for item in talk(f"10.0.0.{k + 1}", 4000 + k)]
    path = write(tmp_path / "a.pcap", packets)
    encapsulate([path], tmp_path / "gtp.pcapng")
    bare, wrapped = (read_headers([item])[0].values for item in (path, tmp_path / "gtp.pcapng"))
    link = [COLUMN[name] for name in ("eth_src", "eth_dst", "vlan_tags")]
    assert (wrapped[:, link] == ABSENT).all()
    np.testing.assert_array_equal(np.delete(bare, link, 1), np.delete(wrapped, link, 1))


@pytest.mark.corpus
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_real_captures_as_tshark_reads_them(corpus_path: Path) -> None:
    files = sorted((corpus_path / "malicious").glob("*/*.pcap*"))[::60]
    compared = 0
    for path in files:
        ours = read_headers([path])[0].values
        theirs = _tshark(path)
        if len(theirs) != len(ours):  # tunnels and broken packets: what we leave out, it does not
            continue
        for name, field in TSHARK.items():
            if field == "eth_src" and (ours[:, COLUMN[field]] == ABSENT).any():
                continue
            found = ours[:, COLUMN[field]].tolist()
            wanted = [_number(row[name], name) for row in theirs]
            assert found == wanted, (path, field)
        compared += len(ours)
    assert compared > 200


def _tshark(path: Path) -> list[dict[str, str]]:
    """Return the first IP packets as tshark sees them, whole ones without a tunnel."""
    words = ["tshark", "-r", str(path), "-Y", "ip && !ipv6", "-c", "400", "-T", "fields"]
    words += ["-E", "header=y", "-E", "separator=,", "-E", "quote=d", "-E", "occurrence=f"]
    for name in TSHARK:
        words += ["-e", name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return list(csv.DictReader(io.StringIO(done.stdout)))[:HEADER_PACKETS]


def _number(text: str, name: str) -> int:
    if not text:
        return ABSENT
    if name == "eth.src":
        return int(text.replace(":", ""), 16)
    value = int(text, 0)
    return value // 4 if name.endswith("hdr_len") else value


def test_every_field_has_a_place_and_a_name_of_its_own() -> None:
    assert len(COLUMN) == len(HEADER_FIELDS)
    assert HEADER_FIELDS[: len(WIRE_FIELDS)] == WIRE_FIELDS
