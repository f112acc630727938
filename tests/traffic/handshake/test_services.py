"""The service a flow speaks, from openings as the protocols' own documents give them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traffic.handshake.streams import PlainFlow, make_records
from veilwatch.schema.flows import (
    ENCRYPTED_SERVICES,
    FLOW_RECORD_DTYPE,
    PREFIX_BYTES,
    TLS_SERVICES,
)
from veilwatch.traffic.handshake import SERVICES, recognise_services

TCP, UDP = 6, 17


def opening(
    protocol: int, port: int, first: bytes, second: bytes = b"", size: int | None = None
) -> PlainFlow:
    """A flow that begins like that; its first payload has `size` bytes."""
    flow = PlainFlow(protocol, ("192.0.2.1", 40000), ("198.51.100.2", port), 1)
    flow.prefix = [first[:PREFIX_BYTES], second[:PREFIX_BYTES]]
    flow.first_payload = [len(first) if size is None else size, len(second)]
    return flow


def service(protocol: int, port: int, first: bytes, second: bytes = b"") -> str:
    return str(recognise_services(make_records([opening(protocol, port, first, second)]))[0])


DNS_QUERY = bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 00 0001 0001")
RDP_COOKIE = bytes.fromhex("0300002f2ae00000000000") + b"Cookie: mstshash=" + bytes(19)
CASES = [
    ("tls", TCP, 8443, bytes.fromhex("1603010200010001fc0303"), b""),
    ("tls", TCP, 443, b"", bytes.fromhex("170303001100112233")),  # seen from the middle
    ("tls", TCP, 443, bytes.fromhex("8028010301") + bytes(37), b""),  # hello of SSL 2.0
    ("", TCP, 443, bytes.fromhex("1603090200010001fc0303"), b""),
    ("", TCP, 443, bytes.fromhex("160301ffff010001fc0303"), b""),
    ("", UDP, 443, bytes.fromhex("1603010200010001fc0303"), b""),
    ("quic", UDP, 8443, bytes.fromhex("c300000001 08 0011223344556677 00 4000"), b""),
    ("quic", UDP, 443, b"\x0d" + b"c" * 8 + b"Q043", b""),
    ("", UDP, 443, bytes.fromhex("c312345678 08 0011223344556677 00 4000"), b""),
    ("dtls", UDP, 4433, bytes.fromhex("16feff00000000000000000002 0100"), b""),
    ("", UDP, 4433, bytes.fromhex("16feff000000000000000000ff 0100"), b""),
    ("dns", UDP, 53, DNS_QUERY, b""),
    ("dns", UDP, 5353, DNS_QUERY, b""),
    ("dns", TCP, 53, len(DNS_QUERY).to_bytes(2, "big") + DNS_QUERY, b""),
    ("", UDP, 4000, DNS_QUERY, b""),
    ("", UDP, 53, b"\xff" * 40, b""),
    ("http", TCP, 8080, b"GET / HTTP/1.1\r\n", b""),
    ("http", TCP, 80, b"", b"HTTP/1.1 200 OK\r\n"),
    ("http", TCP, 80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
    ("", TCP, 80, b"GETX / HTTP/1.1\r\n", b""),
    ("", TCP, 80, b"GE", b""),
    ("ssdp", UDP, 1900, b"M-SEARCH * HTTP/1.1\r\n", b""),
    ("sip", UDP, 5060, b"OPTIONS sip:a@b SIP/2.0\r\n", b""),
    ("rtsp", TCP, 554, b"OPTIONS rtsp://a/ RTSP/1.0\r\n", b""),
    ("ssh", TCP, 2222, b"SSH-2.0-OpenSSH_9.6\r\n", b""),
    ("smb", TCP, 445, b"\x00\x00\x00\x85\xffSMBr", b""),
    ("smb", TCP, 445, b"\x00\x00\x00\xd8\xfeSMB@\x00", b""),
    ("netbios", TCP, 139, b"\x81\x00\x00\x44 CKFDENECFDEFFCFGEFFC", b"\x82\x00\x00\x00"),
    ("netbios", UDP, 137, bytes.fromhex("8000 0110 0001 0000 0000 0000 20") + b"C" * 32, b""),
    ("smtp", TCP, 2525, b"EHLO x\r\n", b"220 mail ready\r\n"),
    ("smtp", TCP, 4000, b"", b"220 mx ESMTP Postfix\r\n"),
    ("smtp", TCP, 25, b"", b"220 mx\r\n"),
    ("ftp", TCP, 21, b"USER anonymous\r\n", b"220 welcome\r\n"),
    ("pop3", TCP, 110, b"USER a\r\n", b"+OK ready\r\n"),
    ("imap", TCP, 143, b"a1 LOGIN", b"* OK IMAP4rev1\r\n"),
    ("irc", TCP, 4711, b"NICK bot17\r\nUSER a b c :d\r\n", b""),
    ("", TCP, 4711, b"PASS x\r\n", b""),
    ("irc", TCP, 6667, b"PASS x\r\n", b""),
    ("rdp", TCP, 4489, bytes.fromhex("0300 0013 0e e0 0000 0000 00 01 00 0800 03000000"), b""),
    ("rdp", TCP, 3390, RDP_COOKIE, b""),
    ("", TCP, 102, bytes.fromhex("0300 0016 11 e0 0000 0001 00 c1020100c2020102c0010a"), b""),
    ("vnc", TCP, 5901, b"", b"RFB 003.008\n"),
    ("telnet", TCP, 23, b"\xff\xfd\x18\xff\xfd\x20", b""),
    ("ntp", UDP, 123, b"\x23" + bytes(47), b""),
    ("", UDP, 9123, b"\x23" + bytes(47), b""),
    ("", UDP, 123, b"\x23" + bytes(20), b""),
    ("dhcp", UDP, 67, b"\x01\x01\x06\x00" + bytes(240), b""),
    ("dhcp", UDP, 547, b"\x01\x10\x08\x74" + bytes(30), b""),
    ("stun", UDP, 50000, bytes.fromhex("000100002112a442") + bytes(12), b""),
    ("stun", UDP, 3478, bytes.fromhex("0001000000112233") + bytes(12), b""),
    ("", UDP, 3478, bytes.fromhex("0001000400112233") + bytes(12), b""),
    ("bittorrent", TCP, 51413, b"\x13BitTorrent protocol" + bytes(48), b""),
    ("", TCP, 51413, b"\x13BitTorrent protoc0l" + bytes(48), b""),
    ("bittorrent", UDP, 6881, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping", b""),
    ("socks", TCP, 1080, b"\x05\x02\x00\x02", b"\x05\x00"),
    ("", TCP, 1080, b"\x05\x02\x00\x02\x00", b"\x05\x00"),
    ("socks", TCP, 9050, b"\x04\x01\x01\xbb\x01\x02\x03\x04\x00", b"\x00\x5a" + bytes(6)),
    ("mqtt", TCP, 1883, b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c", b""),
    ("mqtt", TCP, 1883, b"\x10\x90\x01\x00\x06MQIsdp\x03", b""),
    ("kerberos", UDP, 88, bytes.fromhex("6a81c03081bda103020105a20302010a"), b""),
    ("kerberos", TCP, 88, bytes.fromhex("000000c36a81c03081bda103020105a20302010a"), b""),
    ("ldap", TCP, 389, bytes.fromhex("300c020101600702010304008000"), b""),
    ("ldap", TCP, 389, bytes.fromhex("30840000000d0201016384000000040400"), b""),
    ("snmp", UDP, 161, bytes.fromhex("302602010104067075626c6963a019"), b""),
    ("dcerpc", TCP, 135, bytes.fromhex("05000b0310000000480000000100"), b""),
    ("tds", TCP, 1433, bytes.fromhex("1201000e00000100") + bytes(6), b""),
    ("mysql", TCP, 3306, b"", b"\x0a\x00\x00\x00\x0a8.0.36\x00\x00\x00"),
    ("postgresql", TCP, 5432, bytes.fromhex("0000000804d2162f"), b"S"),
    ("http", TCP, 80, b"OPTIONS * HTTP/1.1\r\n", b""),
    ("http", TCP, 80, b"OPTIONS /a HTTP/1.1\r\n", b""),
    ("xmpp", TCP, 5222, b"<?xml version='1.0'?><stream:stream to='a'>", b""),
    ("stratum", TCP, 3333, b'{"id":1,"method":"mining.subscribe","params":[]}\n', b""),
    ("wireguard", UDP, 51820, b"\x01\x00\x00\x00" + bytes(144), b""),
    ("openvpn", UDP, 1194, b"\x38" + bytes(13), b"\x40" + bytes(25)),
    ("tftp", UDP, 69, b"\x00\x01file\x00octet\x00", b""),
    ("", TCP, 443, b"", b""),
    ("", 1, 0, b"GET / HTTP/1.1\r\n", b""),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "protocol", "port", "first", "second"), CASES)
def test_openings(expected: str, protocol: int, port: int, first: bytes, second: bytes) -> None:
    assert service(protocol, port, first, second) == expected


def test_every_service_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(SERVICES)


def test_encrypted_services_are_services() -> None:
    assert set(SERVICES) > ENCRYPTED_SERVICES > TLS_SERVICES


def test_flows_do_not_influence_each_other() -> None:
    flows = []
    for _, protocol, port, first, second in CASES:
        flow = PlainFlow(protocol, ("192.0.2.1", 40000), ("198.51.100.2", port), 1)
        flow.prefix = [first[:PREFIX_BYTES], second[:PREFIX_BYTES]]
        flow.first_payload = [len(first), len(second)]
        flows.append(flow)
    assert recognise_services(make_records(flows)).tolist() == [case[0] for case in CASES]


def test_no_flows() -> None:
    assert len(recognise_services(np.zeros(0, FLOW_RECORD_DTYPE))) == 0


@pytest.mark.parametrize(("expected", "protocol", "port", "first", "second"), CASES)
def test_a_cut_prefix_is_never_taken_for_another_service(
    expected: str, protocol: int, port: int, first: bytes, second: bytes
) -> None:
    # What is left of the server's greeting alone may name the family less exactly.
    allowed = {expected, "", *({"ftp"} if expected == "smtp" else ())}
    cuts = [
        opening(protocol, port, first[:end], second[:end], size=len(first))
        for end in range(PREFIX_BYTES + 1)
    ]
    assert set(recognise_services(make_records(cuts))) <= allowed


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 65535))
def test_any_bytes_are_survived(first: bytes, second: bytes, port: int) -> None:
    for protocol in (TCP, UDP, 132):
        assert service(protocol, port, first, second) in SERVICES


def test_random_bytes_have_no_service() -> None:
    rng = np.random.default_rng(7)
    records = np.zeros(20_000, FLOW_RECORD_DTYPE)
    records["start"]["prefix"] = rng.integers(0, 256, (len(records), 2, PREFIX_BYTES))
    records["way"]["prefix_used"] = PREFIX_BYTES
    records["way"]["first_payload"] = rng.integers(PREFIX_BYTES, 1400, (len(records), 2))
    records["protocol"] = rng.choice([TCP, UDP], len(records))
    records["src_port"] = rng.integers(1024, 65536, len(records))
    records["dst_port"] = rng.choice([443, 4444, 8080, 50000], len(records))
    assert np.count_nonzero(recognise_services(records) != "") <= 5
