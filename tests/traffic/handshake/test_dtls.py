"""Hellos over DTLS: messages of real TLS handshakes in its records, OpenSSL beside tshark."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.handshake.captures import DCCP, UDP_LITE, udp_capture
from tests.traffic.handshake.peers import issued, shake
from tests.traffic.handshake.streams import datagram_head, head
from veilwatch.traffic.handshake import EMPTY, read_heads
from veilwatch.traffic.handshake.dtls import MAX_MESSAGES, client_hello, read_flight
from veilwatch.traffic.handshake.tls import handshake_messages
from veilwatch.traffic.pipeline import FlowReader

V1_0, V1_2, V1_3 = 0xFEFF, 0xFEFD, 0xFEFC
Piece = tuple[int, int, int, bytes]  # kind, length, offset, content


def record(content: bytes, number: int = 0, version: int = V1_2, epoch: int = 0) -> bytes:
    header = b"\x16" + version.to_bytes(2, "big") + epoch.to_bytes(2, "big")
    return header + number.to_bytes(6, "big") + len(content).to_bytes(2, "big") + content


def fragment(kind: int, body: bytes, number: int, start: int = 0, end: int | None = None) -> bytes:
    part = body[start:end]
    head = bytes([kind]) + len(body).to_bytes(3, "big") + number.to_bytes(2, "big")
    return head + start.to_bytes(3, "big") + len(part).to_bytes(3, "big") + part


def as_dtls(body: bytes, *, cookie: bytes | None = b"", version: int = V1_2) -> bytes:
    """The body of a hello with DTLS's version, and a cookie in a client's."""
    if cookie is None:
        return version.to_bytes(2, "big") + body[2:]
    at = 35 + body[34]
    return version.to_bytes(2, "big") + body[2:at] + bytes([len(cookie)]) + cookie + body[at:]


@cache
def bodies() -> tuple[bytes, list[tuple[int, bytes]]]:
    """A ClientHello, and kind and body of the server's messages, of TLS 1.2."""
    shaken = shake(issued(), client_alpn=("webrtc", "c-webrtc"), server_alpn=("webrtc",))
    (first, *_) = handshake_messages(shaken.client)
    server = [(m.kind, m.body) for m in handshake_messages(shaken.server) if m.kind in (2, 11, 14)]
    return first.body, server


def facts(client: list[bytes], server: list[bytes] | None = None) -> dict[str, Any]:
    return read_heads(datagram_head(client, server or [])).row(0, named=True)


def over_tcp(client: bytes, server: list[tuple[int, bytes]]) -> dict[str, Any]:
    def stream(messages: list[tuple[int, bytes]]) -> bytes:
        raw = b"".join(bytes([k]) + len(b).to_bytes(3, "big") + b for k, b in messages)
        return b"\x16\x03\x03" + len(raw).to_bytes(2, "big") + raw

    return read_heads(head(stream([(1, client)]), stream(server))).row(0, named=True)


def test_both_hellos_and_the_certificate() -> None:
    client, server = bodies()
    answers = [(k, as_dtls(b, cookie=None) if k == 2 else b) for k, b in server]
    found = facts(
        [record(fragment(1, as_dtls(client), 0), version=V1_0)],
        [record(fragment(k, b, n), n) for n, (k, b) in enumerate(answers)],
    )
    same = over_tcp(client, server)
    changed = {"tls_record_version", "tls_client_version", "tls_version"}
    changed |= {"tls_client_hello_bytes", "ja3", "ja3s", "ja4"}
    assert {n: v for n, v in found.items() if n not in changed} == {
        n: v for n, v in same.items() if n not in changed
    }
    assert found["tls_sni"] == "www.example.org"
    assert found["cert_subject"] == "www.example.org" and found["cert_matches_sni"] is True
    assert found["tls_client_hello_bytes"] == same["tls_client_hello_bytes"] + 1
    assert (found["tls_client_version"], found["tls_version"]) == (V1_2, V1_2)
    assert found["tls_record_version"] == V1_0
    assert found["ja4"] == "dd2" + same["ja4"][3:]
    assert len(found["ja3"]) == len(found["ja3s"]) == 32
    assert found["ja3"] != same["ja3"]


def test_the_hello_with_the_cookie_counts() -> None:
    client, _ = bodies()
    verify = record(fragment(3, b"\xfe\xff\x04abcd", 0), version=V1_0)
    other = client.replace(b"www.example.org", b"xxx.example.org")
    first = record(fragment(1, as_dtls(other), 0))
    second = record(fragment(1, as_dtls(client, cookie=b"abcd"), 1), 1)
    found = facts([first, first, second], [verify])
    assert found["tls_sni"] == "www.example.org"
    assert facts([second, first], [verify]) == found  # they overtook each other
    assert facts([first], [verify])["tls_sni"] == "xxx.example.org"
    half = record(fragment(1, as_dtls(client, cookie=b"abcd"), 1, 0, 90), 1)
    assert facts([first, half], [verify])["tls_sni"] == "xxx.example.org"


@pytest.mark.parametrize(
    ("version", "offered", "shown", "mark"),
    [
        (V1_0, (), V1_0, "d1"),
        (V1_2, (), V1_2, "d2"),
        (V1_2, (0x0A0A, V1_3, V1_2), V1_3, "d3"),
        (V1_2, (V1_2, V1_0), V1_2, "d2"),
        (V1_2, (0x0304,), V1_2, "d2"),  # TLS has no place in DTLS
    ],
)
def test_versions(version: int, offered: tuple[int, ...], shown: int, mark: str) -> None:
    """DTLS counts down: its highest version has the lowest number."""
    body = version.to_bytes(2, "big") + bytes(32) + b"\0\0" + b"\0\x02\xc0\x2b" + b"\x01\0"
    if offered:
        listed = b"".join(v.to_bytes(2, "big") for v in offered)
        listed = bytes([len(listed)]) + listed
        listed = b"\0\x2b" + len(listed).to_bytes(2, "big") + listed
        body += len(listed).to_bytes(2, "big") + listed
    found = facts([record(fragment(1, body, 0))])
    assert found["tls_client_version"] == shown
    assert found["ja4"][:3] == "d" + mark
    assert found["tls_ciphers"] == [0xC02B]


@examples(150)
@given(st.integers(0, 2**32))
def test_any_fragments(seed: int) -> None:
    choice = Random(seed)
    client, _ = bodies()
    body = as_dtls(client, cookie=choice.randbytes(choice.choice([0, 20, 32])))
    whole = facts([record(fragment(1, body, 0))])
    cuts = sorted(choice.sample(range(1, len(body)), choice.randrange(8)))
    parts = [fragment(1, body, 0, a, b) for a, b in pairwise([0, *cuts, len(body)])]
    parts += choice.choices(parts, k=2)  # repeated
    a, b = sorted(choice.sample(range(len(body)), 2))
    parts.append(fragment(1, body, 0, a, b))
    choice.shuffle(parts)
    datagrams = [b""]
    for number, part in enumerate(parts):
        if datagrams[-1] and (choice.random() < 0.6 and len(datagrams) < 20):
            datagrams.append(b"")
        datagrams[-1] += record(part, number)
    assert facts(datagrams) == whole


def test_every_cut_is_survived() -> None:
    client, _ = bodies()
    datagram = record(fragment(1, as_dtls(client), 0))
    for size in range(len(datagram) + 1):
        found = facts([datagram[:size]] if size else [], [datagram[:25]])
        assert (found["ja4"] != "") is (size == len(datagram))


@examples(300)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_datagrams_are_survived(datagrams: list[bytes]) -> None:
    read_flight(datagrams)
    client_hello(read_flight([b"\x16\xfe\xfd\0\0" + datagram for datagram in datagrams]))
    facts([b"\x16" + datagram for datagram in datagrams] or [b"\x16"])


def test_contradicting_messages_take_no_memory() -> None:
    """Each claims 16 MB and another length under one number."""
    many = [
        record(b"\x01" + (2**24 - 1 - k).to_bytes(3, "big") + bytes(2) + bytes(3) + bytes(3))
        for k in range(2000)
    ]
    flight = read_flight([b"".join(many)])
    assert len(flight.messages) == MAX_MESSAGES
    assert sum(len(message.body) for message in flight.messages) == 0


def test_what_is_encrypted_says_nothing() -> None:
    client, _ = bodies()
    sealed = record(fragment(1, as_dtls(client), 0), epoch=1)
    found = facts([b"\x16" + sealed[1:]])
    assert {n: v for n, v in found.items() if n in EMPTY} == {n: EMPTY[n] for n in EMPTY}


def test_webrtc_is_named_by_its_hello(tmp_path: Path) -> None:
    """STUN comes first on the same ports; JA3, JA4 and the service come from what follows."""
    client, server = bodies()
    answers = [(k, as_dtls(b, cookie=None) if k == 2 else b) for k, b in server]
    stun = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(11)
    turns = [("cs"[k % 2], stun + bytes([k])) for k in range(50)]
    turns.append(("c", record(fragment(1, as_dtls(client), 0))))
    turns += [("s", record(fragment(k, b, n), n)) for n, (k, b) in enumerate(answers)]
    turns += [("c", b"\x80\x60" + bytes([k]) * 100) for k in range(20)]
    (flow,) = flows(udp_capture(tmp_path / "webrtc.pcap", turns))
    assert (flow["service"], flow["tls_sni"]) == ("dtls", "www.example.org")
    assert flow["ja4"].startswith("dd2d")
    (only,) = flows(udp_capture(tmp_path / "stun.pcap", turns[:50]))
    assert only["service"] == "stun"


@pytest.mark.parametrize("protocol", [DCCP, UDP_LITE])
@pytest.mark.parametrize("port", [443, 53])
def test_hellos_over_dccp_and_udp_lite_are_read(protocol: int, port: int, tmp_path: Path) -> None:
    client, server = bodies()
    answers = [(k, as_dtls(b, cookie=None) if k == 2 else b) for k, b in server]
    turns = [("c", record(fragment(1, as_dtls(client), 0)))]
    turns += [("s", record(fragment(k, b, n), n)) for n, (k, b) in enumerate(answers)]
    (plain,) = flows(udp_capture(tmp_path / "udp.pcap", turns))
    (flow,) = flows(udp_capture(tmp_path / "other.pcap", turns, port, protocol))
    assert (flow["protocol"], flow["service"]) == (protocol, "dtls")
    assert flow["tls_sni"] == "www.example.org"
    for name in ("ja3", "ja3s", "ja4", "tls_version", "cert_subject"):
        assert flow[name] == plain[name], name


def flows(path: Path) -> list[dict[str, Any]]:
    with FlowReader([path]) as reader:
        return list(reader.read_all().frame.iter_rows(named=True))


def exchange(folder: Path, client: list[str], server: list[str]) -> list[tuple[str, bytes]]:
    """The datagrams between `openssl s_client` and `openssl s_server`, through a relay."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dtls.test"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    relay, inner = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for each in (relay, inner, probe):
        each.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    run: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    run["stderr"] = subprocess.DEVNULL
    serving = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", *server),
            *("-key", str(folder / "key.pem"), "-cert", str(folder / "cert.pem")),
        ],
        **run,
    )
    time.sleep(0.5)
    asking = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{relay.getsockname()[1]}", *client], **run
    )
    turns: list[tuple[str, bytes]] = []
    peer: Any = None
    try:
        while (ready := select.select([relay, inner], [], [], 1.5)[0]) and len(turns) < 60:
            for each in ready:
                datagram, source = each.recvfrom(4096)
                turns.append(("c" if each is relay else "s", datagram))
                if each is relay:
                    peer = source
                    inner.sendto(datagram, ("127.0.0.1", port))
                else:
                    relay.sendto(datagram, peer)
    finally:
        for process in (asking, serving):
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        relay.close()
        inner.close()
    return turns


TSHARK_FIELDS = (
    *("dtls.handshake.type", "dtls.handshake.ja3", "dtls.handshake.ja3s"),
    "dtls.handshake.extensions_server_name",
)


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("tshark")), reason="needs openssl and tshark"
)
@pytest.mark.parametrize(
    ("client", "server"),
    [
        (["-dtls1_2"], ["-dtls1_2"]),
        (["-dtls1_2", "-alpn", "webrtc,h2"], ["-dtls1_2", "-listen"]),  # asks for a cookie
        (["-dtls"], ["-dtls", "-mtu", "400"]),  # fragments
    ],
)
def test_openssl_agrees_with_tshark(tmp_path: Path, client: list[str], server: list[str]) -> None:
    turns = exchange(tmp_path, [*client, "-servername", "shop.example.net"], server)
    assert len(turns) >= 4
    path = udp_capture(tmp_path / "dtls.pcap", turns)
    (flow,) = flows(path)
    command = ["tshark", "-r", str(path), "-d", "udp.port==443,dtls", "-T", "fields"]
    command += [argument for field in TSHARK_FIELDS for argument in ("-e", field)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    ja3 = [row[1] for row in rows if row[1]]
    ja3s = [row[2] for row in rows if row[2]]
    names = [row[3] for row in rows if row[3]]
    assert flow["service"] == "dtls"
    assert (flow["ja3"], flow["tls_sni"]) == (ja3[-1], names[-1])
    assert flow["ja3s"] == ja3s[-1]
    assert flow["tls_sni"] == "shop.example.net"
    assert flow["cert_subject"] == "dtls.test" and flow["cert_self_signed"] is True
    assert flow["tls_version"] == V1_2
    if "-listen" in server:
        assert flow["tls_alpn"] == ["webrtc", "h2"]
        assert any("3" in row[0].split(",") for row in rows)  # a HelloVerifyRequest was sent
