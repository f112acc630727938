"""TLS facts against what OpenSSL itself says of its own handshakes."""

from __future__ import annotations

import ssl
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traffic.handshake.peers import Handshake, issued, self_signed, shake
from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import EMPTY, read_heads

CODES = {
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
}
VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def facts(client: bytes, server: bytes = b"") -> dict[str, Any]:
    return read_heads(head(client, server)).row(0, named=True)


@cache
def handshakes() -> tuple[Handshake, ...]:
    tls13 = ssl.TLSVersion.TLSv1_3
    shake_alpn = partial(shake, client_alpn=("h2", "http/1.1"), server_alpn=("http/1.1",))
    return (
        shake_alpn(issued()),
        shake(self_signed(), server_name=None),
        shake_alpn(issued(), version=tls13),
        shake(issued(), version=tls13, server_curve="secp384r1"),
    )


@pytest.mark.parametrize("index", range(4))
def test_facts_are_what_openssl_agreed(index: int) -> None:
    shaken = handshakes()[index]
    found = facts(shaken.client, shaken.server)
    assert found["tls_version"] == VERSIONS[shaken.version]
    assert found["tls_cipher"] == CODES[shaken.cipher]
    assert found["tls_cipher"] in found["tls_ciphers"]
    # In TLS 1.3 the chosen protocol is encrypted.
    assert found["tls_server_alpn"] == (shaken.alpn if found["tls_version"] == 0x0303 else "")


def test_client_hello_of_tls_1_3() -> None:
    found = facts(handshakes()[2].client)
    assert found["tls_client_version"] == 0x0304
    assert found["tls_supported_versions"] == [0x0304, 0x0303]
    assert found["tls_record_version"] == 0x0301
    assert found["tls_session_id_bytes"] == 32
    assert found["tls_sni"] == "www.example.org"
    assert found["tls_alpn"] == ["h2", "http/1.1"]
    assert {0, 10, 13, 16, 43, 51} <= set(found["tls_extensions"])
    assert 0x001D in found["tls_groups"]  # x25519
    assert 0x0403 in found["tls_signature_algorithms"]  # ecdsa_secp256r1_sha256
    record = int.from_bytes(handshakes()[2].client[3:5], "big")
    assert found["tls_client_hello_bytes"] == record - 4
    assert len(found["ja3"]) == 32
    assert found["ja4"][:4] == "t13d"
    assert found["tls_version"] == 0


def test_client_without_server_name() -> None:
    found = facts(handshakes()[1].client)
    assert found["tls_sni"] == ""
    assert found["ja4"][:4] == "t12i"
    assert found["tls_client_version"] == 0x0303


def test_hello_retry_request_does_not_hide_the_server_hello() -> None:
    shaken = handshakes()[3]
    found = facts(shaken.client, shaken.server)
    size = int.from_bytes(shaken.server[3:5], "big")
    after_retry = shaken.server[5 + size :]
    assert after_retry[:6] == bytes.fromhex("140303000101")  # change cipher spec in between
    plain = facts(b"", after_retry[6:])
    assert found["ja3s"] == plain["ja3s"] != ""
    assert found["tls_server_hello_bytes"] == plain["tls_server_hello_bytes"]
    only_retry = facts(b"", shaken.server[: 5 + size])
    assert (only_retry["tls_version"], only_retry["tls_cipher"]) == (0x0304, found["tls_cipher"])
    assert only_retry["ja3s"] == ""


@pytest.mark.parametrize("index", range(4))
def test_sides_are_told_by_their_bytes(index: int) -> None:
    shaken = handshakes()[index]
    assert facts(shaken.server, shaken.client) == facts(shaken.client, shaken.server)


def records(messages: bytes, cuts: list[int], alert: bool = False) -> bytes:
    """Put handshake messages into records that end at `cuts`, with an alert between them."""
    out = b""
    bounds = [0, *sorted({cut % len(messages) for cut in cuts} - {0}), len(messages)]
    for start, end in pairwise(bounds):
        out += b"\x16\x03\x03" + (end - start).to_bytes(2, "big") + messages[start:end]
        if alert:
            out += bytes.fromhex("15030300020170")  # unrecognized_name, a warning
    return out


def clear_messages(stream: bytes) -> bytes:
    """Handshake messages of a stream up to the first record of another type."""
    out, offset = b"", 0
    while stream[offset : offset + 1] == b"\x16":
        size = int.from_bytes(stream[offset + 3 : offset + 5], "big")
        out += stream[offset + 5 : offset + 5 + size]
        offset += 5 + size
    return out


@given(st.lists(st.integers(1, 4000), max_size=8), st.booleans(), st.integers(0, 2))
def test_framing_does_not_matter(cuts: list[int], alert: bool, index: int) -> None:
    shaken = handshakes()[index]
    # TLS 1.2 clients send more handshake records after the server's flight: hello only.
    hello = clear_messages(shaken.client)
    hello = hello[: 4 + int.from_bytes(hello[1:4], "big")]
    server = records(clear_messages(shaken.server), cuts, alert)
    found = facts(records(hello, cuts, alert), server)
    expected = facts(shaken.client, shaken.server)
    expected["tls_record_version"] = found["tls_record_version"]  # the one that `records` writes
    assert found == expected


@given(st.integers(0, 6000), st.integers(0, 6000), st.integers(0, 3))
def test_a_cut_gives_no_wrong_fact(client_end: int, server_end: int, index: int) -> None:
    shaken = handshakes()[index]
    whole = facts(shaken.client, shaken.server)
    cut = facts(shaken.client[:client_end], shaken.server[:server_end])
    for name, value in cut.items():
        assert value in (whole[name], EMPTY.get(name)), name


def test_a_cut_client_hello_has_no_fingerprint() -> None:
    shaken = handshakes()[2]
    size = 5 + int.from_bytes(shaken.client[3:5], "big")
    found = facts(shaken.client[: size - 1])
    assert (found["ja3"], found["ja4"], found["tls_extensions"]) == ("", "", [])
    assert found["tls_ciphers"] != []  # these came whole
    assert facts(shaken.client[:size])["ja3"] != ""


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_any_bytes_are_survived(first: bytes, second: bytes) -> None:
    read_heads(head(first, second))


@given(st.data(), st.integers(0, 3))
def test_damaged_handshakes_are_survived(data: st.DataObject, index: int) -> None:
    shaken = handshakes()[index]
    streams = []
    for stream in (shaken.client, shaken.server):
        damaged = bytearray(stream)
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        streams.append(bytes(damaged))
    read_heads(head(streams[0], streams[1]))


def hello(
    extensions: bytes | None, ciphers: bytes = b"\x00\x2f", version: bytes = b"\x03\x01"
) -> bytes:
    body = version + bytes(32) + b"\x00" + len(ciphers).to_bytes(2, "big") + ciphers + b"\x01\x00"
    if extensions is not None:
        body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def test_ssl_3_hello_has_no_extensions() -> None:
    found = facts(hello(None, version=b"\x03\x00"))
    assert found["tls_client_version"] == 0x0300
    assert found["ja4"].startswith("ts3i010000_")
    assert found["ja4"].endswith("_000000000000")
    assert found["ja3"] != ""


def test_grease_stays_in_lists_and_out_of_fingerprints() -> None:
    versions = extension(43, b"\x04\xfa\xfa\x03\x03")
    groups = extension(10, b"\x00\x04\x3a\x3a\x00\x1d")
    plain = facts(hello(extension(43, b"\x02\x03\x03") + extension(10, b"\x00\x02\x00\x1d")))
    greased = facts(hello(extension(0x4A4A, b"") + versions + groups, ciphers=b"\xda\xda\x00\x2f"))
    assert greased["tls_extensions"] == [0x4A4A, 43, 10]
    assert greased["tls_ciphers"] == [0xDADA, 0x002F]
    assert greased["tls_groups"] == [0x3A3A, 0x001D]
    assert greased["tls_supported_versions"] == [0xFAFA, 0x0303]
    assert greased["tls_client_version"] == 0x0303
    assert (greased["ja3"], greased["ja4"]) == (plain["ja3"], plain["ja4"])


def test_server_names_are_safe_to_print() -> None:
    name = b"a\x1b[31m\n<b>\xff"
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    found = facts(hello(extension(0, len(entry).to_bytes(2, "big") + entry)))
    assert found["tls_sni"] == "a\\027[31m\\010<b>\\255"


def test_an_extension_that_overruns_gives_no_fingerprint() -> None:
    found = facts(hello(b"\x00\x0a\x00\xff\x00"))
    assert (found["ja3"], found["tls_client_version"]) == ("", 0)


def test_a_server_hello_of_an_early_draft_has_no_session_id() -> None:
    body = b"\x7f\x12" + bytes(32) + b"\x13\x01" + b"\x00\x00"
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    found = facts(b"", b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    assert (found["tls_version"], found["tls_cipher"]) == (0x7F12, 0x1301)


def test_a_message_longer_than_a_head_is_left_alone() -> None:
    found = facts(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(2000))
    assert found["ja3"] == ""
    assert found["tls_client_hello_bytes"] == 0xFFFF
