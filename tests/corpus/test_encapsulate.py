"""Wrapping in GTP-U, checked by tshark and scapy."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.corpus.tshark import tshark
from tests.traffic.capture.build import read_all
from tests.traffic.decode.links import INNER as LINK_INNER
from tests.traffic.decode.links import LINKS, REFUSED
from veilwatch.corpus.encapsulate import (
    DROPS,
    EncapsulateOptions,
    encapsulate,
    parse_networks,
)
from veilwatch.corpus.tunnel import MAX_INNER, Subscriber, checksum, word_sum, wrap
from veilwatch.errors import CaptureError
from veilwatch.traffic.capture import PcapngWriter, open_captures

UE = "10.0.0.5"
SERVER = "93.184.216.34"


def subscriber(outer: int = 4) -> Subscriber:
    gnb, upf = ("172.20.1.10", "172.20.9.2") if outer == 4 else ("2001:db8::1", "2001:db8::2")
    return Subscriber(ip_address(UE), 0x11223344, 0x55667788, 9, ip_address(gnb), ip_address(upf))


def capture(path: Path, frames: list[Packet], link: int = 1, cut: int | None = None) -> Path:
    with PcapngWriter(path, link=link) as writer:
        for number, frame in enumerate(frames):
            data = bytes(frame)
            writer.write(10**18 + number * 1000, data[:cut], len(data))
    return path


def conversation(client: str = UE, server: str = SERVER) -> list[Packet]:
    up, down = IP(src=client, dst=server), IP(src=server, dst=client)
    return [
        Ether() / up / TCP(sport=5000, dport=443, flags="S"),
        Ether() / down / TCP(sport=443, dport=5000, flags="SA"),
        Ether() / up / TCP(sport=5000, dport=443, flags="A") / Raw(b"x" * 301),
    ]


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("pdu_session", [True, False])
@pytest.mark.parametrize("uplink", [True, False])
@pytest.mark.parametrize("size", [0, 1, 1200])
def test_frame_is_what_scapy_would_build(
    outer: int, pdu_session: bool, uplink: bool, size: int
) -> None:
    inner = bytes(IP(src=UE, dst=SERVER) / UDP(sport=1, dport=2) / Raw(b"\xa5" * size))
    frame = wrap(inner, subscriber(outer), uplink=uplink, pdu_session=pdu_session)
    parsed = Ether(frame)
    again = parsed.copy()
    if outer == 4:
        del again[IP].chksum, again[IP].len
    else:
        del again[IPv6].plen
    del again[UDP].chksum, again[UDP].len
    assert bytes(again) == frame
    assert frame.endswith(inner)
    gtp = bytes(parsed[UDP].payload)
    assert gtp[0] == (0x34 if pdu_session else 0x30)
    assert int.from_bytes(gtp[2:4], "big") == len(gtp) - 8
    assert int.from_bytes(gtp[4:8], "big") == (0x11223344 if uplink else 0x55667788)
    if pdu_session:
        assert gtp[8:16] == bytes([0, 0, 0, 0x85, 1, 0x10 if uplink else 0, 9, 0])


def test_checksum_of_the_example_in_rfc_1071() -> None:
    assert word_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum(0xFFFF) == 0 and checksum(1) == 0xFFFE


def test_packet_that_would_not_fit_is_refused() -> None:
    assert len(wrap(bytes(MAX_INNER), subscriber(), uplink=True, pdu_session=True)) > MAX_INNER
    with pytest.raises(ValueError, match="no room"):
        wrap(bytes(MAX_INNER + 1), subscriber(), uplink=True, pdu_session=True)


@pytest.mark.parametrize(("field", "value"), [("qfi", 64), ("uplink_teid", 0), ("upf", "::1")])
def test_impossible_session_is_refused(field: str, value: int | str) -> None:
    good: dict[str, Any] = {"uplink_teid": 1, "downlink_teid": 2, "qfi": 1, "upf": "172.20.9.2"}
    said = good | {field: value}
    with pytest.raises(ValueError, match=r"outside|different IP versions"):
        Subscriber(
            address=ip_address(UE), gnb=ip_address("172.20.1.1"),
            uplink_teid=said["uplink_teid"], downlink_teid=said["downlink_teid"],
            qfi=said["qfi"], upf=ip_address(said["upf"]),
        )  # fmt: skip


def test_tshark_reads_teid_qfi_direction_and_inner_addresses(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcapng", conversation())
    summary = encapsulate([source], tmp_path / "out.pcapng")
    session = summary.subscribers[ip_address(UE)]
    assert (summary.read, summary.uplink, summary.downlink) == (3, 2, 1)
    found = tshark(
        tmp_path / "out.pcapng", "ip.src", "ip.dst", "gtp.teid",
        "gtp.ext_hdr.pdu_ses_con.pdu_type", "gtp.ext_hdr.pdu_ses_con.qos_flow_id",
        "udp.checksum.status", "ip.checksum.status", "tcp.checksum.status", "frame.len",
    )  # fmt: skip
    lengths = [len(bytes(frame)) + 44 for frame in conversation()]
    for line, uplink, length in zip(found, (True, False, True), lengths, strict=True):
        ends = (str(session.gnb), str(session.upf)), (UE, SERVER)
        outer, inner = ends if uplink else (ends[0][::-1], ends[1][::-1])
        teid = session.uplink_teid if uplink else session.downlink_teid
        assert line == [
            f"{outer[0]},{inner[0]}", f"{outer[1]},{inner[1]}", f"0x{teid:08x}",
            str(int(uplink)), str(session.qfi), "1", "1,1", "1", str(length),
        ]  # fmt: skip
    assert tshark(tmp_path / "out.pcapng", "frame.number", keep="_ws.malformed") == []
    assert (
        b"synthetic GTP-U wrapping by Veilwatch of in.pcapng"
        in (tmp_path / "out.pcapng").read_bytes()
    )


def test_cut_packets_stay_cut_and_keep_their_length(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcapng", conversation(), cut=60)
    encapsulate([source], tmp_path / "out.pcapng")
    found = tshark(
        tmp_path / "out.pcapng", "frame.len", "frame.cap_len", "udp.length", "ip.len", "gtp.length"
    )
    whole = [len(bytes(frame)) for frame in conversation()]
    for line, length in zip(found, whole, strict=True):
        inner = length - 14
        assert line == [
            str(length + 44), str(min(length, 60) + 44), str(inner + 24),
            f"{inner + 44},{inner}", str(inner + 8),
        ]  # fmt: skip


def test_padding_and_vlan_tags_go_and_refusals_are_counted(tmp_path: Path) -> None:
    frames = [
        Ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP(src=UE, dst=SERVER) / UDP() / Raw(b"hi"),
        Ether(bytes(Ether() / IP(src=UE, dst=SERVER) / UDP() / Raw(b"")) + bytes(18)),
        Ether() / ARP(),
        Ether() / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67),
        Ether(bytes(Ether() / IP(src=UE, dst=SERVER))[:20]),
    ]
    source = capture(tmp_path / "in.pcapng", frames)
    summary = encapsulate([source], tmp_path / "out.pcapng")
    assert summary.uplink + summary.downlink + sum(summary.dropped.values()) == summary.read == 5
    assert summary.dropped["not_ip"] == 1
    assert summary.dropped["cut"] == 1
    lengths = tshark(tmp_path / "out.pcapng", "ip.len")
    assert [line[0].split(",")[1] for line in lengths][:2] == ["30", "28"]


def test_initiators_become_subscribers_and_their_servers_do_not(tmp_path: Path) -> None:
    frames = conversation(UE, "10.0.0.1") + conversation("192.0.2.7", "10.0.0.9")
    frames += conversation("198.51.100.1", "203.0.113.1")
    reply_first = conversation("10.0.0.77", "10.0.0.1")[1:]
    source = capture(tmp_path / "in.pcapng", frames + reply_first)
    summary = encapsulate([source], tmp_path / "out.pcapng")
    assert {str(a) for a in summary.subscribers} == {UE, "10.0.0.9", "198.51.100.1", "10.0.0.77"}


def test_between_two_subscribers_only_the_uplink_leg_is_written(tmp_path: Path) -> None:
    frames = conversation(UE, "10.0.0.6") + conversation("10.0.0.6", SERVER)
    source = capture(tmp_path / "in.pcapng", frames)
    summary = encapsulate([source], tmp_path / "out.pcapng")
    assert len(summary.subscribers) == 2
    kinds = [row[0] for row in tshark(tmp_path / "out.pcapng", "gtp.ext_hdr.pdu_ses_con.pdu_type")]
    assert kinds == ["1", "1", "1", "1", "0", "1"]


def test_inside_networks_can_be_named(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcapng", conversation())
    inside = parse_networks(["93.184.0.0/16"])
    options = EncapsulateOptions(inside=inside, pdu_session=False, outer_ipv6=True)
    summary = encapsulate([source], tmp_path / "out.pcapng", options=options)
    assert inside == [ip_network("93.184.0.0/16")]
    assert {str(a) for a in summary.subscribers} == {SERVER}
    assert (summary.uplink, summary.downlink) == (1, 2)
    rows = tshark(tmp_path / "out.pcapng", "ipv6.src", "udp.checksum.status", "gtp.flags.e")
    assert len(rows) == 3 and all(row[1:] == ["1", "0"] for row in rows)


def test_inner_ipv6_over_raw_link(tmp_path: Path) -> None:
    frames = [IPv6(src="fd00::5", dst="2001:db8::9") / TCP(dport=443, flags="S")]
    source = capture(tmp_path / "in.pcapng", frames, link=101)
    summary = encapsulate([source], tmp_path / "out.pcapng")
    rows = tshark(tmp_path / "out.pcapng", "ipv6.src", "tcp.checksum.status")
    assert rows == [["fd00::5", "1"]] and summary.uplink == 1


def test_same_seed_same_bytes_other_seed_other_tunnels(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcapng", conversation())
    outputs = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.pcapng"
        encapsulate([source], path, options=EncapsulateOptions(seed=seed))
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] != outputs[2]


def test_standard_input_needs_named_networks(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="only once"):
        encapsulate(["-"], tmp_path / "out.pcapng")


def test_nonsense_network_is_a_clear_error() -> None:
    with pytest.raises(CaptureError, match=r"10\.0\.0\.0/8"):
        parse_networks(["ten"])


@pytest.mark.corpus
def test_real_captures_keep_their_traffic(corpus_path: Path, tmp_path: Path) -> None:
    chosen = sorted((corpus_path / "malicious").glob("*/*"))[::120]
    assert chosen
    for number, source in enumerate(chosen):
        path = tmp_path / f"{number}.pcapng"
        summary = encapsulate([source], path)
        assert summary.uplink + summary.downlink + sum(summary.dropped.values()) == summary.read
        rows = tshark(path, "gtp.teid", "ip.src")
        assert len(rows) == summary.uplink + summary.downlink
        known = {f"0x{s.uplink_teid:08x}" for s in summary.subscribers.values()}
        known |= {f"0x{s.downlink_teid:08x}" for s in summary.subscribers.values()}
        assert {row[0] for row in rows} <= known


@pytest.mark.parametrize("name", LINKS)
def test_every_link_type_is_taken_off(tmp_path: Path, name: str) -> None:
    link, data = LINKS[name]
    source = tmp_path / "in.pcapng"
    with PcapngWriter(source, link=link) as writer:
        writer.write(10**18, data)
    summary = encapsulate([source], tmp_path / "out.pcapng")
    assert (summary.uplink, summary.dropped) == (1, dict.fromkeys(DROPS, 0))
    (frame,) = [record.frame for record in read_all(open_captures([tmp_path / "out.pcapng"]))]
    assert frame.endswith(LINK_INNER)


def test_the_outermost_packet_is_wrapped_and_not_one_further_in(tmp_path: Path) -> None:
    frame = Ether() / IP(src=UE, dst=SERVER) / GRE() / IP(src="10.9.9.9", dst="10.9.9.8") / UDP()
    source = capture(tmp_path / "in.pcapng", [frame])
    summary = encapsulate([source], tmp_path / "out.pcapng")
    assert [str(address) for address in summary.subscribers] == [UE]


def test_what_has_no_ip_is_dropped_as_that(tmp_path: Path) -> None:
    for link, data in REFUSED.values():
        source = tmp_path / "in.pcapng"
        with PcapngWriter(source, link=link) as writer:
            writer.write(10**18, data)
        summary = encapsulate([source], tmp_path / "out.pcapng")
        assert summary.dropped["not_ip"] == summary.read == 1
