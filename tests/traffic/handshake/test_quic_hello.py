"""Hellos inside QUIC Initial packets, against the facts of the same hellos over TCP."""

from __future__ import annotations

import ssl
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.handshake.peers import issued, shake
from tests.traffic.handshake.quic_peer import (
    DCID,
    DRAFT_29,
    PADDING,
    PING,
    SALT_V1,
    SCID,
    V1,
    V2,
    VERSIONS,
    Version,
    closed,
    crypto,
    initial,
    integer,
    negotiation,
    retry,
)
from tests.traffic.handshake.streams import datagram_head, head
from veilwatch.schema.flows import MAX_DATAGRAMS
from veilwatch.traffic.handshake import EMPTY, read_heads
from veilwatch.traffic.handshake.byte_stream import MAX_STREAM
from veilwatch.traffic.handshake.quic_frames import MAX_FRAMES, CryptoStream, crypto_frames
from veilwatch.traffic.handshake.quic_hello import read_quic
from veilwatch.traffic.handshake.tls import MAX_BARE_MESSAGES, bare_messages

ACK = b"\x02" + integer(70_000) + integer(5) + integer(2) + integer(1) + integer(7) * 4
ACK_ECN = b"\x03\x09\x00\x00\x00" + bytes(3)
SHORT = b"\x41" + bytes(40)
LARGE = tuple(f"protocol-number-{k:03}" for k in range(90))
"""Protocols offered to make a ClientHello as long as one with a post-quantum key share."""


@cache
def hellos(*, large: bool = False, curve: str = "") -> tuple[bytes, bytes]:
    """Handshake messages in clear of both sides of a real TLS 1.3 handshake."""
    shaken = shake(
        issued(),
        version=ssl.TLSVersion.TLSv1_3,
        client_alpn=("h3", *LARGE) if large else ("h3",),
        server_curve=curve,
    )
    return clear(shaken.client), clear(shaken.server)


def clear(stream: bytes) -> bytes:
    """Handshake messages up to the first encrypted record, whatever else stands between."""
    out = b""
    while stream[:1] in (b"\x16", b"\x14"):
        end = 5 + int.from_bytes(stream[3:5], "big")
        out += stream[5:end] if stream[0] == 0x16 else b""
        stream = stream[end:]
    return out


def over_tcp(client: bytes, server: bytes = b"") -> dict[str, Any]:
    """What the same messages say in TLS records, in QUIC's terms."""
    first, second = (
        b"\x16\x03\x03" + len(messages).to_bytes(2, "big") + messages if messages else b""
        for messages in (client, server)
    )
    facts = read_heads(head(first, second)).row(0, named=True)
    facts["ja4"] = facts["ja4"].replace("t", "q", 1)
    return {name: facts[name] for name in facts if name.startswith(("tls", "ja", "cert"))} | {
        "tls_record_version": 0
    }


def facts(client: list[bytes], server: list[bytes] | None = None) -> dict[str, Any]:
    return read_heads(datagram_head(client, server or [])).row(0, named=True)


def assert_facts(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: found[name] for name in expected} == expected
    assert found["quic_initial_opened"] is True


@pytest.mark.parametrize("version", VERSIONS)
def test_both_hellos(version: Version) -> None:
    client, server = hellos()
    found = facts(
        [initial(crypto(0, client), version, scid=b"client", pad=1200)],
        [initial(ACK + crypto(0, server), version, side="server", dcid=b"client", scid=SCID)],
    )
    assert_facts(found, over_tcp(client, server))
    assert found["tls_sni"] == "www.example.org"
    assert found["tls_version"] == 0x0304
    assert found["quic_version"] == found["quic_server_version"] == version.number
    assert (found["quic_dcid"], found["quic_scid"]) == (DCID.hex(), SCID.hex())
    assert (found["quic_retry"], found["quic_versions"], found["quic_token_bytes"]) == (
        False,
        [],
        0,
    )


def test_direction_does_not_matter() -> None:
    client, server = hellos()
    first = initial(crypto(0, client), scid=b"12345678", pad=1200)
    answer = initial(crypto(0, server), side="server", dcid=b"12345678", scid=SCID)
    assert facts([answer], [first]) == facts([first], [answer])


def test_a_hello_over_two_datagrams() -> None:
    client, _ = hellos(large=True)
    assert len(client) > 1700
    datagrams = [
        initial(crypto(0, client[:1100]), pad=1200),
        initial(crypto(1100, client[1100:]), number=1, pad=1200),
    ]
    assert_facts(facts(datagrams), over_tcp(client))
    assert_facts(facts(datagrams[::-1]), over_tcp(client))
    half = facts(datagrams[:1])
    assert half["quic_initial_opened"] is False
    assert half["tls_client_hello_bytes"] == len(client) - 4
    assert (half["tls_sni"], half["ja3"], half["ja4"]) == ("www.example.org", "", "")
    assert facts(datagrams[1:])["tls_client_hello_bytes"] == 0


def test_a_server_hello_over_two_datagrams() -> None:
    client, server = hellos()
    answers = [
        initial(ACK + crypto(0, server[:60]), side="server", dcid=b"", scid=SCID),
        initial(crypto(60, server[60:]), side="server", dcid=b"", scid=SCID, number=1)
        + closed(2, dcid=b"", scid=SCID),
    ]
    found = facts([initial(crypto(0, client), pad=1200)], answers)
    assert_facts(found, over_tcp(client, server))
    cut = facts([initial(crypto(0, client), pad=1200)], answers[:1])
    assert (cut["tls_server_hello_bytes"], cut["ja3s"]) == (0, "")
    assert cut["quic_server_version"] == 1


def test_a_hello_retry_request() -> None:
    """The client says hello twice and the server too, in one stream each."""
    client, server = hellos(curve="secp384r1")
    found = facts(
        [initial(crypto(0, client), pad=1200)],
        [initial(crypto(0, server), side="server", dcid=b"", scid=SCID)],
    )
    assert_facts(found, over_tcp(client, server))
    assert found["tls_server_hello_bytes"] > 0


@pytest.mark.parametrize("seen", ["both", "first only", "second only"])
def test_after_a_retry_the_keys_are_of_its_connection_id(seen: str) -> None:
    client, server = hellos()
    first = initial(crypto(0, client), pad=1200)
    again = initial(crypto(0, client), dcid=SCID, keyed=SCID, token=b"a token", number=1, pad=1200)
    client_side = {"both": [first, again], "first only": [first], "second only": [again]}[seen]
    answer = initial(crypto(0, server), side="server", dcid=b"", scid=b"final", keyed=SCID)
    found = facts(client_side, [retry(), answer])
    assert_facts(found, over_tcp(client, server))
    assert found["quic_retry"] is True
    assert found["quic_scid"] == b"final".hex()
    assert found["quic_token_bytes"] == (7 if seen == "second only" else 0)
    assert found["quic_dcid"] == (SCID if seen == "second only" else DCID).hex()


def test_a_token_of_an_earlier_connection() -> None:
    client, _ = hellos()
    found = facts([initial(crypto(0, client), token=bytes(90), pad=1200)])
    assert_facts(found, over_tcp(client))
    assert found["quic_token_bytes"] == 90


def test_version_negotiation() -> None:
    client, server = hellos()
    unknown = Version(0xFACEB00F, SALT_V1)
    found = facts(
        [
            initial(crypto(0, client), unknown, pad=1200),
            initial(crypto(0, client), V2, dcid=b"another one", keyed=b"another one", pad=1200),
        ],
        [
            negotiation([1, 0x0A1A2A3A, V2.number]),
            initial(crypto(0, server), V2, side="server", dcid=b"", keyed=b"another one"),
        ],
    )
    assert_facts(found, over_tcp(client, server))
    assert found["quic_versions"] == [1, 0x0A1A2A3A, V2.number]
    assert found["quic_version"] == unknown.number
    assert found["quic_server_version"] == V2.number


def test_a_server_may_answer_in_a_compatible_version() -> None:
    """RFC 9368, section 2.3: no packet is lost for it, the keys are of the new version."""
    client, server = hellos()
    found = facts(
        [initial(crypto(0, client), V1, pad=1200)],
        [initial(crypto(0, server), V2, side="server", dcid=b"", scid=SCID)],
    )
    assert_facts(found, over_tcp(client, server))
    assert (found["quic_version"], found["quic_server_version"]) == (1, V2.number)


@pytest.mark.parametrize("salt", [V1.salt, DRAFT_29.salt])
def test_reserved_versions_are_tried_with_the_usual_salts(salt: str) -> None:
    client, _ = hellos()
    found = facts([initial(crypto(0, client), Version(0x1A2A3A4A, salt), pad=1200)])
    assert_facts(found, over_tcp(client))


def test_later_packets_keep_the_keys_of_the_first() -> None:
    """Once the server has chosen its connection id, the client sends to that."""
    client, _ = hellos(large=True)
    found = facts(
        [
            initial(crypto(0, client[:900]), pad=1200),
            initial(ACK + crypto(900, client[900:]), dcid=SCID, number=1, pad=1200),
        ]
    )
    assert_facts(found, over_tcp(client))


def test_the_fixed_bit_may_be_clear_in_an_answer() -> None:
    """A client may have said that it does not mind (RFC 9287)."""
    client, server = hellos()
    answer = initial(crypto(0, server), side="server", dcid=b"", scid=SCID, fixed_bit=0)
    assert answer[0] & 0xC0 == 0x80
    found = facts([initial(crypto(0, client), pad=1200)], [answer])
    assert_facts(found, over_tcp(client, server))


@st.composite
def flights(draw: st.DrawFn) -> tuple[Version, bytes, list[bytes]]:
    """A ClientHello in frames of any size and order, with others between, in some datagrams."""
    version = draw(st.sampled_from(VERSIONS))
    client, _ = hellos(large=draw(st.booleans()))
    choice = Random(draw(st.integers(0, 2**20)))
    cuts = sorted(choice.sample(range(1, len(client)), draw(st.integers(0, 12))))
    frames = [crypto(a, client[a:b]) for a, b in pairwise([0, *cuts, len(client)])]
    for _ in range(draw(st.integers(0, 3))):  # retransmitted in other pieces
        a, b = sorted(choice.sample(range(len(client)), 2))
        frames.append(crypto(a, client[a : min(b, a + 200)]))
    choice.shuffle(frames)
    others = [PING, PADDING, PADDING * 9, ACK, ACK_ECN, PING * 3]
    packets, room = [b""], 1100
    for frame in frames:
        frame += choice.choice(others) if choice.random() < 0.4 else b""
        if len(packets[-1]) + len(frame) > room:
            packets.append(b"")
        packets[-1] += frame
    number_bytes = choice.randrange(1, 5)
    datagrams = []
    for number, content in enumerate(packets):
        datagrams.append(
            initial(content, version, scid=b"me", number=number, number_bytes=number_bytes)
        )
    return version, client, datagrams


@examples(120)
@given(flights(), st.integers(0, 2**20))
def test_any_flight(drawn: tuple[Version, bytes, list[bytes]], seed: int) -> None:
    version, client, packets = drawn
    choice = Random(seed)
    choice.shuffle(packets)
    datagrams = [packets[0]]
    for packet in packets[1:]:  # coalesced with the one before, or in a datagram of its own
        if choice.random() < 0.3 or len(datagrams) == MAX_DATAGRAMS:
            datagrams[-1] += packet
        else:
            datagrams.append(packet)
    tails = [b"", closed(1, version, scid=b"me"), SHORT, bytes(20)]
    datagrams = [datagram + choice.choice(tails) for datagram in datagrams]
    found = facts(datagrams)
    assert_facts(found, over_tcp(client))
    assert found["quic_version"] == version.number


def test_every_cut_is_survived() -> None:
    client, server = hellos()
    datagram = initial(crypto(0, client), scid=b"me", token=b"token") + closed(1, scid=b"me")
    answer = initial(crypto(0, server), side="server", dcid=b"me", scid=SCID)
    whole = len(datagram) - len(closed(1, scid=b"me"))
    for size in range(len(datagram) + 1):
        found = facts([datagram[:size]], [answer[:size]])
        opened = found["quic_initial_opened"]
        assert opened is (None if size < 17 else size >= whole)
        assert found["tls_client_hello_bytes"] == (len(client) - 4 if opened else 0)
        assert found["quic_dcid"] == ("" if size < 17 else DCID.hex())


@examples(300)
@given(st.data())
def test_changed_bytes_open_nothing_else(data: st.DataObject) -> None:
    client, _ = hellos()
    datagram = bytearray(initial(crypto(0, client), scid=b"me", token=b"token"))
    before = bytes(datagram)
    for at in data.draw(st.lists(st.integers(0, len(datagram) - 1), min_size=1, max_size=3)):
        datagram[at] ^= data.draw(st.integers(1, 255))
    found = facts([bytes(datagram)])
    assert found["quic_initial_opened"] in ((True,) if datagram == before else (False, None))
    assert found["tls_sni"] == ("www.example.org" if datagram == before else "")


@examples(300)
@given(st.lists(st.binary(max_size=120), max_size=6), st.lists(st.binary(max_size=120), max_size=6))
def test_any_datagrams_are_survived(first: list[bytes], second: list[bytes]) -> None:
    read_quic(first, second)
    read_quic([b"\xc0\x00\x00\x00\x01" + datagram for datagram in first], second)


@examples(300)
@given(st.binary(max_size=300))
def test_any_frames_are_survived(frames: bytes) -> None:
    stream = CryptoStream()
    stream.add(frames)
    assert len(stream.whole()) <= sum(len(content) for _, content in crypto_frames(frames))


@pytest.mark.parametrize(
    "frames",
    [
        b"\x06" + integer(0) + integer(2**62 - 1) + b"x",  # longer than the packet
        b"\x06\x01\xc0",  # cut inside a number
        b"\x02" + integer(1) + integer(1) + integer(2**62 - 1) + integer(1) * 50,
        b"\x02\x01",
        b"\x03" + bytes(6),  # without the ECN counts
        b"\x1c" + bytes(20),  # CONNECTION_CLOSE
        b"\x40\x06\x00\x01x",  # a type must be as short as it can be
    ],
)
def test_frames_that_end_the_reading(frames: bytes) -> None:
    assert list(crypto_frames(crypto(0, b"before") + frames)) == [(0, b"before")]


def test_a_frame_far_away_takes_no_memory() -> None:
    far = b"\x06" + integer(2**62 - 1) + integer(1) + b"x"
    stream = CryptoStream()
    stream.add(crypto(0, b"before") + far + crypto(MAX_STREAM - 1, b"xyz") + crypto(6, b"behind"))
    assert stream.whole() == b"beforebehind"
    assert list(crypto_frames(far)) == [(2**62 - 1, b"x")]


def test_no_more_frames_than_the_bound_are_read() -> None:
    frames = b"".join(crypto(k, b"x") for k in range(MAX_FRAMES + 5))
    assert len(list(crypto_frames(frames))) == MAX_FRAMES
    filling = (PING + PADDING) * MAX_FRAMES
    assert list(crypto_frames(filling + crypto(0, b"x"))) == [(0, b"x")]


def test_what_came_first_stays() -> None:
    stream = CryptoStream()
    stream.add(crypto(0, b"abc") + crypto(6, b"gh") + crypto(1, b"XXXXXXXXX"))
    assert stream.whole() == b"abcXXXghXX"
    stream.add(crypto(10, b"end") + crypto(0, b"other"))
    assert stream.whole() == b"abcXXXghXXend"


@examples(200)
@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=20)), max_size=12))
def test_the_stream_is_what_a_dictionary_holds(pieces: list[tuple[int, bytes]]) -> None:
    stream = CryptoStream()
    seen: dict[int, int] = {}
    for offset, content in pieces:
        stream.add(crypto(offset, content))
        for at, byte in enumerate(content, offset):
            seen.setdefault(at, byte)
    whole = next(at for at in range(100) if at not in seen)
    assert stream.whole() == bytes(seen[at] for at in range(whole))


def test_a_stream_of_empty_messages_is_not_read_to_its_end() -> None:
    assert len(bare_messages(bytes(8192))) == MAX_BARE_MESSAGES + 1
    found = facts([initial(crypto(0, bytes(1100)), pad=1200)])
    assert found["quic_initial_opened"] is False


def test_other_messages_give_no_client() -> None:
    """A server's message in a client's Initial, and a stream that does not begin at 0."""
    client, server = hellos()
    for frames in (crypto(0, server), crypto(1, client), PING, b""):
        found = facts([initial(frames, pad=1200)])
        assert found["quic_initial_opened"] is False
        assert found["tls_ciphers"] == EMPTY["tls_ciphers"]
    assert facts([SHORT])["quic_initial_opened"] is None
    assert facts([negotiation([1])], [negotiation([1])])["quic_versions"] == []
