"""QUIC from packets to columns: what comes between the parts of a hello, and every version."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.traffic.handshake.captures import udp_capture
from tests.traffic.handshake.quic_peer import (
    DCID,
    DRAFT_29,
    PING,
    SALT_V1,
    SCID,
    V1,
    V2,
    Version,
    closed,
    crypto,
    initial,
    integer,
    negotiation,
    retry,
)
from tests.traffic.handshake.test_quic_hello import hellos, over_tcp
from veilwatch.traffic.pipeline import FlowReader

Turn = tuple[str, bytes]
SALT_23 = "c3eef712c72ebb5a11a7d2432bb46365bef9f502"
SALT_22 = "7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a"
OPENED = {
    "v1": V1,
    "v2": V2,
    "v2 draft": Version(0x709A50C4, "a707c203a59b47184a1d62ca570406ea7ae3e5d3", "quicv2", 1),
    "draft 22": Version(0xFF000016, SALT_22),
    "draft 23": Version(0xFF000017, SALT_23),
    "draft 27": Version(0xFF00001B, SALT_23),
    "draft 28": Version(0xFF00001C, SALT_23),
    "draft 29": DRAFT_29,
    "draft 32": Version(0xFF000020, DRAFT_29.salt),
    "draft 33": Version(0xFF000021, SALT_V1),
    "mvfst 22": Version(0xFACEB001, SALT_22),
    "mvfst 24": Version(0xFACEB001, SALT_23),
    "mvfst 27": Version(0xFACEB002, SALT_23),
    "mvfst v1": Version(0xFACEB003, SALT_V1),
    "mvfst experimental": Version(0xFACEB00E, SALT_23),
    "mvfst alias": Version(0xFACEB010, SALT_23),
    "mvfst alias of v1": Version(0xFACEB011, SALT_V1),
    "mvfst alias of draft 29": Version(0xFACEB013, DRAFT_29.salt),
}
NOT_IN_TSHARK = ("v2", "mvfst 24", "mvfst v1", "mvfst alias")
"""Which its release does not know, or knows by one salt only (by the beginning of their names)."""


def read(path: Path, turns: list[Turn]) -> dict[str, Any]:
    with FlowReader([udp_capture(path, turns)]) as reader:
        (flow,) = reader.read_all().frame.iter_rows(named=True)
    return flow


def assert_opened(flow: dict[str, Any], client: bytes, server: bytes = b"") -> None:
    expected = over_tcp(client, server)
    assert {name: flow[name] for name in expected} == expected
    assert flow["quic_initial_opened"] is True
    assert flow["service"] == "quic"


def spread(
    client: bytes, parts: int, version: Version = V1, *, scatter: bool = False, **options: Any
) -> list[bytes]:
    """A hello over so many datagrams, in order or in many small frames without any."""
    cuts = [len(client) * k // parts for k in range(parts + 1)]
    frames = [crypto(a, client[a:b]) for a, b in pairwise(cuts)]
    if scatter:
        choice = Random(parts)
        edges = sorted(choice.sample(range(1, len(client)), 60))
        pieces = [crypto(a, client[a:b]) for a, b in pairwise([0, *edges, len(client)])]
        choice.shuffle(pieces)
        frames = [PING.join(pieces[k::parts]) for k in range(parts)]
    return [
        initial(content, version, number=k, pad=1200, **options) for k, content in enumerate(frames)
    ]


def between(version: Version, kind: int, count: int) -> list[bytes]:
    """Packets that nobody can open, each another one."""
    return [
        closed(kind, version) + bytes([0x40 + k]) * (900 if version is V1 else 90)
        for k in range(count)
    ]


@pytest.mark.parametrize("version", OPENED.values(), ids=OPENED)
def test_every_version_is_opened(tmp_path: Path, version: Version) -> None:
    client, server = hellos()
    answer = initial(crypto(0, server), version, side="server", dcid=b"", scid=SCID)
    flow = read(tmp_path / "a.pcap", [("c", spread(client, 1, version)[0]), ("s", answer)])
    assert_opened(flow, client, server)
    assert flow["quic_version"] == version.number


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("name", [n for n in OPENED if not n.startswith(NOT_IN_TSHARK)])
def test_what_tshark_opens_is_opened(tmp_path: Path, name: str) -> None:
    client, _ = hellos()
    flow = read(tmp_path / "a.pcap", [("c", spread(client, 1, OPENED[name])[0])])
    found = subprocess.run(
        ["tshark", "-r", str(tmp_path / "a.pcap"), "-T", "fields", "-e", "tls.handshake.ja3"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not found:
        pytest.skip(f"this tshark does not open {name}")
    assert flow["ja3"] == found


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 6])
def test_a_hello_over_many_datagrams(
    tmp_path: Path, version: Version, scatter: bool, parts: int
) -> None:
    client, server = hellos(large=True)
    datagrams = spread(client, max(parts, 2), version, scatter=scatter)
    answer = initial(crypto(0, server), version, side="server", dcid=b"", scid=SCID)
    turns = [("c", datagram) for datagram in datagrams] + [("s", answer)]
    assert_opened(read(tmp_path / "a.pcap", turns), client, server)
    assert_opened(read(tmp_path / "b.pcap", turns[:-1][::-1] + turns[-1:]), client, server)


@pytest.mark.parametrize("version", [V1, V2, OPENED["mvfst 27"]])
def test_what_comes_between_takes_no_place(tmp_path: Path, version: Version) -> None:
    """0-RTT before and between, exact repeats, the server's repeats, Handshake packets after."""
    client, server = hellos(large=True)
    first, second = spread(client, 2, version)
    early = [("c", datagram) for datagram in between(version, 1, 9)]
    answers = [
        initial(crypto(0, server), version, side="server", dcid=b"", scid=SCID, number=k)
        + closed(2, version, b"", SCID)
        for k in range(12)
    ]
    turns = [*early, ("c", first), *early, *[("c", first)] * 8, ("c", second)]
    turns += [("s", answer) for answer in answers]
    turns += [("c", datagram) for datagram in between(version, 2, 5)]
    assert_opened(read(tmp_path / "a.pcap", turns), client, server)


def test_retransmissions_under_new_numbers(tmp_path: Path) -> None:
    """They cannot be told from new content without keys: there is room for some."""
    client, _ = hellos(large=True)
    first, second = spread(client, 2)
    again = [
        initial(crypto(0, client[: len(client) // 2]), number=9 + k, pad=1200) for k in range(4)
    ]
    turns = [("c", first), *[("c", each) for each in again], ("c", second)]
    assert_opened(read(tmp_path / "a.pcap", turns), client)


def test_coalesced_packets_are_cut_away(tmp_path: Path) -> None:
    """Small Initials, each with 0-RTT that fills its datagram: more of them than whole ones fit."""
    client, _ = hellos(large=True)
    cuts = [len(client) * k // 12 for k in range(13)]
    datagrams = []
    for k, (a, b) in enumerate(pairwise(cuts)):
        early = closed(1)[:-61]  # up to the length
        rest = 1100 - (b - a)
        early += integer(rest, 2) + bytes([k]) * rest
        datagrams.append(initial(crypto(a, client[a:b]), number=k) + early)
    flow = read(tmp_path / "a.pcap", [("c", datagram) for datagram in datagrams])
    assert_opened(flow, client)


def test_initials_after_a_retry(tmp_path: Path) -> None:
    """New keys by the server's connection id, and a token: the hello begins anew."""
    client, server = hellos(large=True)
    first = spread(client, 2)
    again = spread(client, 2, dcid=SCID, keyed=SCID, token=bytes(90))
    answer = initial(crypto(0, server), side="server", dcid=b"", scid=b"final", keyed=SCID)
    turns = [("c", first[0]), ("s", retry()), ("c", first[1]), ("s", retry())]
    turns += [*[("c", each) for each in again], ("s", answer)]
    flow = read(tmp_path / "a.pcap", turns)
    assert_opened(flow, client, server)
    assert (flow["quic_retry"], flow["quic_dcid"]) == (True, DCID.hex())


def test_initials_after_version_negotiation(tmp_path: Path) -> None:
    client, server = hellos(large=True)
    unknown = Version(0x1A2A3A4A, "00" * 20)
    turns = [("c", each) for each in spread(client, 2, unknown)]
    turns += [("s", negotiation([V2.number]))] * 3
    turns += [("c", each) for each in spread(client, 2, V2, dcid=b"another", keyed=b"another")]
    turns.append(
        ("s", initial(crypto(0, server), V2, side="server", dcid=b"", keyed=b"another", pad=1200))
    )
    flow = read(tmp_path / "a.pcap", turns)
    assert_opened(flow, client, server)
    assert flow["quic_versions"] == [V2.number]


def test_the_client_follows_the_server_s_connection_id(tmp_path: Path) -> None:
    """The second part goes to another connection id; the keys are of the first."""
    client, server = hellos(large=True)
    half = len(client) // 2
    acknowledgement = initial(b"\x02\0\0\0\0", side="server", dcid=b"", scid=SCID)
    turns = [
        ("c", initial(crypto(0, client[:half]), pad=1200)),
        ("s", acknowledgement),
        ("c", initial(crypto(half, client[half:]), dcid=SCID, number=1, pad=1200)),
        ("s", initial(crypto(0, server), side="server", dcid=b"", scid=SCID, number=1, pad=1200)),
    ]
    assert_opened(read(tmp_path / "a.pcap", turns), client, server)
