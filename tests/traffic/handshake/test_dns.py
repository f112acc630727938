"""DNS facts against messages that scapy wrote."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, dns_compress

from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.dns import MAX_ADDRESSES, read_dns


def facts(first: bytes, second: bytes = b"", port: int = 53) -> tuple[Any, ...]:
    row = read_heads(head(first, second, protocol=17, port=port)).row(0, named=True)
    names = ("query", "query_type", "response_code", "answers", "min_ttl")
    return tuple(row[f"dns_{name}"] for name in names)


def question(name: str = "WWW.Example.org", kind: str = "AAAA", number: int = 7) -> DNS:
    return DNS(id=number, rd=1, qd=DNSQR(qname=name, qtype=kind))


def answer(number: int = 7) -> DNS:
    records = [
        DNSRR(rrname="www.example.org", type="CNAME", ttl=600, rdata="a.example.org"),
        DNSRR(rrname="a.example.org", type="A", ttl=30, rdata="192.0.2.1"),
        DNSRR(rrname="a.example.org", type="A", ttl=90, rdata="192.0.2.2"),
    ]
    message = DNS(id=number, qr=1, qd=DNSQR(qname="www.example.org", qtype="A"), an=records)
    return dns_compress(message)


@pytest.mark.parametrize("port", [53, 5353, 5355])
def test_question_and_answer(port: int) -> None:
    asked, told = bytes(question()), bytes(answer())
    assert facts(asked, told, port) == ("www.example.org", 28, 0, 3, 30)
    assert facts(told, asked, port) == ("www.example.org", 28, 0, 3, 30)


def test_question_alone_is_unanswered() -> None:
    assert facts(bytes(question())) == ("www.example.org", 28, -1, 0, 0)


def test_answer_alone_names_its_question() -> None:
    assert facts(b"", bytes(answer())) == ("www.example.org", 1, 0, 3, 30)


def test_answer_to_another_question_does_not_count() -> None:
    assert facts(bytes(question()), bytes(answer(8)))[2:] == (-1, 0, 0)


def test_no_such_name() -> None:
    refused = DNS(id=7, qr=1, rcode=3, qd=DNSQR(qname="x.example"))
    assert facts(bytes(question()), bytes(refused))[2:4] == (3, 0)


def test_other_ports_are_not_dns() -> None:
    assert facts(bytes(question()), port=4000) == ("", 0, -1, 0, 0)


def test_labels_are_escaped() -> None:
    label = b"a.B\\\x00\xff\n"
    raw = bytes(question("x"))[:12] + bytes((len(label),)) + label + b"\x00\x00\x01\x00\x01"
    message = read_dns(raw)
    assert message is not None
    assert message.name == "a\\.b\\092\\000\\255\\010"


def header(questions: int = 1, answers: int = 0) -> bytes:
    return b"\0\1\1\0" + questions.to_bytes(2, "big") + answers.to_bytes(2, "big") + bytes(4)


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\x01a\xc0\x0c",  # to the label before it
        b"\xc0\x0e\xc0\x0c",  # two that point at each other
        b"\xc0\xff",  # behind the end
        b"\xc0\x00",  # into the header: a zero octet, but no name
        b"\x40" + b"a" * 64 + b"\x00",  # a label of 64 octets
        (b"\x3f" + b"a" * 63) * 4 + b"\x00",  # 257 octets
        b"\x05abc",  # cut
        b"",
    ],
)
def test_malformed_names_are_refused(name: bytes) -> None:
    assert read_dns(header() + name) is None
    if name not in (b"", b"\x05abc"):  # these two would be completed by what follows
        assert read_dns(header() + name + b"\x00\x01\x00\x01") is None


def test_a_name_may_have_255_octets() -> None:
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\x00"
    message = read_dns(header() + longest + b"\x00\x01\x00\x01")
    assert message is not None
    assert len(message.name) == 63 * 3 + 61 + 3


def test_promised_records_that_are_missing_do_not_count() -> None:
    whole = bytes(answer())
    for end in range(len(whole)):
        message = read_dns(whole[:end])
        assert message is None or message.answers < 3


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    read_dns(data)
    read_dns(header(1, 65535) + data)
    lies = read_dns(message(data, count=65_535))
    assert lies is None or len(lies.addresses) <= MAX_ADDRESSES


def addresses(first: bytes, second: bytes = b"", port: int = 53) -> list[str]:
    row = read_heads(head(first, second, protocol=17, port=port)).row(0, named=True)
    found: list[str] = row["dns_addresses"]
    return found


def message(*records: bytes, count: int | None = None) -> bytes:
    """Return an answer of records to a question for `x`."""
    flags = b"\0\7\x81\x80\0\1" + (len(records) if count is None else count).to_bytes(2, "big")
    return flags + bytes(4) + b"\1x\0\0\1\0\1" + b"".join(records)


def record(kind: int, data: bytes, *, cls: int = 1, size: int | None = None) -> bytes:
    return struct.pack(">HHHIH", 0xC00C, kind, cls, 60, len(data) if size is None else size) + data


def test_addresses_of_an_answer_whichever_name_of_a_chain_has_them() -> None:
    assert addresses(bytes(question()), bytes(answer())) == ["192.0.2.1", "192.0.2.2"]
    assert addresses(b"", bytes(answer())) == ["192.0.2.1", "192.0.2.2"]
    assert addresses(bytes(question())) == []
    assert addresses(bytes(question()), bytes(answer(8))) == []


def test_addresses_of_both_kinds_stand_in_order_and_as_flows_write_them() -> None:
    mapped = bytes(10) + b"\xff\xff" + IPv4Address("192.0.2.9").packed
    told = message(
        record(28, IPv6Address("2001:db8::1").packed),
        record(1, IPv4Address("192.0.2.1").packed),
        record(28, mapped),
    )
    assert addresses(b"", told) == ["2001:db8::1", "192.0.2.1", "192.0.2.9"]


def test_only_addresses_of_the_internet_are_read() -> None:
    address = IPv4Address("192.0.2.1").packed
    told = message(
        record(1, address, cls=3),  # Chaosnet
        record(1, address, cls=255),
        record(16, address),  # text of four bytes
        record(1, address + b"\0"),
        record(1, address[:3]),
        record(28, address),
        record(1, bytes(16)),
        record(1, IPv4Address("192.0.2.2").packed, cls=0x8001),  # multicast: forget older ones
    )
    assert addresses(b"", told) == ["192.0.2.2"]
    assert facts(b"", told)[3] == 8


def test_authority_and_additional_records_are_no_answer() -> None:
    told = DNS(
        id=7,
        qr=1,
        qd=DNSQR(qname="x.example"),
        ns=DNSRR(rrname="example", type="NS", rdata="ns.example"),
        ar=DNSRR(rrname="ns.example", type="A", rdata="192.0.2.53"),
    )
    assert addresses(b"", bytes(told)) == []


def test_what_a_question_brings_along_is_no_answer() -> None:
    asked = bytearray(message(record(1, IPv4Address("192.0.2.1").packed)))
    asked[2] &= 0x7F  # as multicast DNS tells what it knows
    assert addresses(bytes(asked)) == []


def test_prerequisites_of_a_dynamic_update_are_no_answer() -> None:
    updated = bytearray(message(record(1, IPv4Address("192.0.2.1").packed)))
    updated[2] |= 5 << 3
    assert addresses(b"", bytes(updated)) == []


def test_addresses_are_bounded() -> None:
    many = [record(1, IPv4Address(0xC0000200 + i).packed) for i in range(250)]
    assert addresses(b"", message(*many)) == [f"192.0.2.{i}" for i in range(MAX_ADDRESSES)]
    assert facts(b"", message(*many))[3] == 250
    assert len(addresses(b"", message(*many[:3], count=65_535))) == 3


def test_a_record_whose_length_lies_ends_the_answer() -> None:
    address = IPv4Address("192.0.2.1").packed
    good, lying = record(1, address), record(1, address, size=5)
    assert addresses(b"", message(good, lying, good)) != addresses(b"", message(good, good, good))
    assert addresses(b"", message(good, lying)) == ["192.0.2.1"]
    assert addresses(b"", message(good, record(1, address, size=65_535), good)) == ["192.0.2.1"]


RECORDS = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 28, 28, 5, 16, 64]),
        st.sampled_from([1, 1, 1, 3, 0x8001]),
        st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    ),
    max_size=40,
)


@given(RECORDS, st.integers(0, 1200))
def test_addresses_of_any_records_cut_anywhere(
    drawn: list[tuple[int, int, bytes]], cut: int
) -> None:
    parts = [record(kind, data, cls=cls) for kind, cls, data in drawn]
    whole = message(*parts)
    start = len(whole) - sum(map(len, parts))
    expected, end = [], start
    for (kind, cls, data), part in zip(drawn, parts, strict=True):
        end += len(part)
        if end <= cut and cls in (1, 0x8001) and (kind, len(data)) in ((1, 4), (28, 16)):
            six = IPv6Address(data) if kind == 28 else None
            mapped = six.ipv4_mapped if six else IPv4Address(data)
            expected.append(IPv4Address(mapped) if mapped else IPv6Address(data))
    read = read_dns(whole[:cut])
    if cut < start:
        assert read is None
        return
    assert read is not None
    found = [(IPv6Address if ":" in text else IPv4Address)(text) for text in read.addresses]
    assert found == expected[:MAX_ADDRESSES]


LABEL = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=5), st.integers(1, 65535), st.integers(0, 65535))
def test_names_as_scapy_writes_them(labels: list[str], kind: int, number: int) -> None:
    name = ".".join(labels)
    message = read_dns(bytes(DNS(id=number, qd=DNSQR(qname=name, qtype=kind))))
    assert message is not None
    assert (message.identifier, message.name, message.kind) == (number, name, kind)
