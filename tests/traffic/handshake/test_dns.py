"""DNS facts against messages that scapy wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, dns_compress

from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.dns import read_dns


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


LABEL = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=5), st.integers(1, 65535), st.integers(0, 65535))
def test_names_as_scapy_writes_them(labels: list[str], kind: int, number: int) -> None:
    name = ".".join(labels)
    message = read_dns(bytes(DNS(id=number, qd=DNSQR(qname=name, qtype=kind))))
    assert message is not None
    assert (message.identifier, message.name, message.kind) == (number, name, kind)
