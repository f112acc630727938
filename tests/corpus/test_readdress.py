"""Other addresses in packets, against checksums that scapy computes anew."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from veilwatch.corpus.readdress import readdress

OLD, NEW, SERVER = "10.0.0.5", "172.16.250.17", "93.184.216.34"
OLD6, NEW6, SERVER6 = "2001:db8::5", "fd00:ffff::abcd:1", "2001:db8:ffff::1"


def packed(text: str) -> bytes:
    address = ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def moved(packet: Packet, cut: int | None = None) -> bytes:
    data = bytearray(bytes(packet)[:cut])
    old, new = (OLD, NEW) if bytes(data[:1]) < b"P" else (OLD6, NEW6)
    readdress(data, packed(old), packed(new))
    return bytes(data)


def ipv4(host: str, *, sends: bool = True) -> IP:
    return IP(src=host, dst=SERVER, id=77) if sends else IP(src=SERVER, dst=host, id=77)


def ipv6(host: str, *, sends: bool = True) -> IPv6:
    return IPv6(src=host, dst=SERVER6) if sends else IPv6(src=SERVER6, dst=host)


UPPER = {
    "tcp": TCP(sport=5000, dport=443, seq=9) / Raw(b"odd"),
    "udp": UDP(sport=5000, dport=443) / Raw(b"even"),
    "nothing": Raw(b""),
}


@pytest.mark.parametrize("sends", [True, False])
@pytest.mark.parametrize("upper", UPPER.values(), ids=UPPER)
def test_packets_are_what_scapy_would_build(upper: Packet, sends: bool) -> None:
    assert moved(ipv4(OLD, sends=sends) / upper) == bytes(ipv4(NEW, sends=sends) / upper)
    assert moved(ipv6(OLD6, sends=sends) / upper) == bytes(ipv6(NEW6, sends=sends) / upper)


@pytest.mark.parametrize("host", [OLD, NEW])
@pytest.mark.parametrize("upper", [UDP(sport=1, dport=2), TCP(sport=1, dport=2)])
def test_sums_around_zero(upper: Packet, host: str) -> None:
    def packet(host: str, value: int) -> Packet:
        return ipv4(host) / upper / Raw((value % 2**16).to_bytes(2, "big"))

    parsed = IP(bytes(packet(host, 0)))
    zero = parsed[type(upper)].chksum  # a payload of this value makes the checksum 0
    for value in (*range(zero - 3, zero + 4), *range(0, 2**16, 4099)):
        assert moved(packet(OLD, value)) == bytes(packet(NEW, value))


def test_a_datagram_without_checksum_gets_none() -> None:
    upper = UDP(sport=1, dport=2, chksum=0) / Raw(b"x")
    assert moved(ipv4(OLD) / upper) == bytes(ipv4(NEW) / upper)


def test_what_was_cut_keeps_the_checksum_of_the_whole() -> None:
    upper = TCP(sport=1, dport=2) / Raw(b"x" * 1000)
    whole = bytes(ipv4(NEW) / upper)
    for cut in set(range(20, 80)) - {37}:  # of half a checksum nothing can be said
        assert moved(ipv4(OLD) / upper, cut) == whole[:cut]


def test_what_is_shorter_than_a_header_stays() -> None:
    data = bytes(ipv4(OLD) / UPPER["tcp"])[:19]
    assert moved(Raw(data)) == data
    assert moved(Raw(b"")) == b""


def test_icmpv6_covers_the_addresses_and_icmp_does_not() -> None:
    assert moved(ipv6(OLD6) / ICMPv6EchoRequest(data=b"abc")) == bytes(
        ipv6(NEW6) / ICMPv6EchoRequest(data=b"abc")
    )
    assert moved(ipv4(OLD) / ICMP() / Raw(b"abc")) == bytes(ipv4(NEW) / ICMP() / Raw(b"abc"))


def test_the_packet_that_an_error_shows_is_readdressed_too() -> None:
    def error(host: str) -> Packet:
        shown = bytes(IP(src=SERVER, dst=host, id=5) / UDP(sport=53, dport=999) / Raw(b"xyz"))
        return ipv4(host) / ICMP(type=3, code=3) / IPerror(shown)

    assert moved(error(OLD)) == bytes(error(NEW))
    assert UDPerror in error(NEW)

    def error6(host: str) -> Packet:
        shown = bytes(IPv6(src=SERVER6, dst=host) / UDP(sport=53, dport=999) / Raw(b"xyz"))
        return ipv6(host) / ICMPv6DestUnreach(code=4) / Raw(shown)

    assert moved(error6(OLD6)) == bytes(error6(NEW6))


def test_extension_headers_are_stepped_over() -> None:
    def packet(host: str) -> Packet:
        return ipv6(host) / IPv6ExtHdrDestOpt() / UPPER["udp"]

    assert moved(packet(OLD6)) == bytes(packet(NEW6))


def test_a_later_fragment_has_no_transport_header() -> None:
    data = Raw(bytes(range(64)))
    assert moved(IP(src=OLD, dst=SERVER, frag=185, proto=6) / data) == bytes(
        IP(src=NEW, dst=SERVER, frag=185, proto=6) / data
    )

    def later(host: str) -> Packet:
        return ipv6(host) / IPv6ExtHdrFragment(offset=185, nh=6) / data

    assert moved(later(OLD6)) == bytes(later(NEW6))


def test_other_packets_stay_as_they_are() -> None:
    other = bytes(IP(src="10.0.0.6", dst=SERVER) / UPPER["tcp"])
    assert moved(Raw(other)) == other


def test_chains_without_end_are_given_up() -> None:
    endless = (
        IPv6(src=OLD6, dst=SERVER6, nh=60)
        / Raw(bytes([60, 0]) + bytes(6))
        / Raw((bytes([60, 0]) + bytes(6)) * 100)
    )
    assert moved(endless)[40:] == bytes(endless)[40:]
