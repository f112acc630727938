"""Handshakes are as programs write them, and repeat by seed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest

from veilwatch.corpus.lab.clients import CLIENTS, Program
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import CertificateKind
from veilwatch.corpus.lab.tls import Connection, TlsServer, certify_server, record_lengths

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def server(kind: CertificateKind, version: str, key: str = "x") -> TlsServer:
    return certify_server(
        "a.example", certificate=kind, version=version, alpn=("h2",), day=DAY, draw=Draw(key)
    )


def offered(hello: bytes) -> tuple[list[int], list[int], bytes]:
    """Return suites, extensions and session id of a ClientHello; fail if a length is wrong."""
    assert hello[:3] == b"\x16\x03\x01" and hello[5] == 1
    assert int.from_bytes(hello[3:5], "big") == len(hello) - 5
    assert int.from_bytes(hello[6:9], "big") == len(hello) - 9
    at = 43 + 1 + hello[43]
    session = hello[44:at]
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    suites = [int.from_bytes(hello[i : i + 2], "big") for i in range(at + 2, end, 2)]
    assert hello[end : end + 2] == b"\1\0"
    at = end + 4
    assert int.from_bytes(hello[end + 2 : at], "big") == len(hello) - at
    kinds = []
    while at < len(hello):
        kinds.append(int.from_bytes(hello[at : at + 2], "big"))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
    assert at == len(hello)
    return suites, kinds, session


def is_grease(value: int) -> bool:
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", get_args(CertificateKind))
def test_handshake_repeats_by_seed(kind: CertificateKind, version: str) -> None:
    peer = server(kind, version)
    runs = [
        Connection(peer, "chrome-pq", Draw(key), alpn=("h2",)).handshake()
        for key in ("one", "one", "two")
    ]
    assert runs[0] == runs[1]
    assert runs[0][0].data[11:43] != runs[2][0].data[11:43]


@pytest.mark.parametrize("program", get_args(Program))
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_hello_offers_what_the_server_chooses(program: Program, version: str) -> None:
    for kind in ("public-ec", "public-rsa"):
        hello, answer = Connection(
            server(kind, version), program, Draw(kind), alpn=("h2",)
        ).handshake()[:2]
        suites, kinds, session = offered(hello.data)
        assert len({k for k in kinds if not is_grease(k)}) == sum(not is_grease(k) for k in kinds)
        assert hello.uplink and not answer.uplink
        body = answer.data[5:]
        assert body[0] == 2
        at = 4 + 2 + 32
        length = body[at]
        chosen = int.from_bytes(body[at + 1 + length : at + 3 + length], "big")
        assert chosen in suites
        if version == "1.3" and CLIENTS[program].newest == 0x0304:
            assert body[at + 1 : at + 1 + length] == session and chosen >> 8 == 0x13


def test_browsers_draw_reserved_values_and_others_do_not() -> None:
    peer = server("public-ec", "1.3")

    def reserved(program: Program) -> set[int]:
        hellos = [Connection(peer, program, Draw(key)).handshake()[0].data for key in range(8)]
        return {suite for hello in hellos for suite in offered(hello)[0] if is_grease(suite)}

    assert len(reserved("chrome")) > 2
    assert not reserved("go") and not reserved("schannel10")


def test_a_hello_without_a_name_says_none() -> None:
    peer = server("self-signed", "1.2")
    named = Connection(peer, "schannel10", Draw(1)).handshake()[0].data
    bare = Connection(peer, "schannel10", Draw(1), sni=False).handshake()[0].data
    assert b"a.example" in named and b"a.example" not in bare
    assert 0 in offered(named)[1] and 0 not in offered(bare)[1]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_session_is_resumed_with_a_shorter_handshake(version: str) -> None:
    peer = replace(server("public-rsa", version), ticket_bytes=192)
    first = Connection(peer, "openssl3", Draw(1))
    full = first.handshake()
    again = Connection(peer, "openssl3", Draw(2), session=first.session)
    short = again.handshake()
    assert again.resumed and not first.resumed
    assert len(short[1].data) < len(full[1].data) / 2


def test_bulk_data_become_records_of_the_wanted_size() -> None:
    connection = Connection(server("public-ec", "1.3"), "okhttp", Draw(1))
    connection.handshake()
    lengths = record_lengths(connection.send(10_000, record=4096))
    assert lengths == [4096 + 17, 4096 + 17, 10_000 - 8192 + 17]  # content type and tag
    assert record_lengths(connection.close()) == [19]


def test_records_of_older_ciphers_are_whole_blocks() -> None:
    peer = replace(server("public-rsa", "1.2"), suites=(0xC013,))
    connection = Connection(peer, "schannel7", Draw(1))
    connection.handshake()
    lengths = [record_lengths(connection.send(size))[0] for size in range(1, 60)]
    assert all(length % 16 == 0 for length in lengths)
    assert all(16 + size + 20 < length for size, length in enumerate(lengths, start=1))
