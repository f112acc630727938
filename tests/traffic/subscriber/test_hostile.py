"""Hostile control traffic: cut, mutated, bloated; nothing raises and bounds hold."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.subscriber.build import (
    CHOOSE,
    ENB,
    IMSI,
    MME,
    SGW,
    SMF,
    UE,
    UPF,
    Core,
    apn,
    bcd,
    bearer,
    block,
    cause,
    created,
    far,
    fseid,
    fteid,
    gtpv1,
    gtpv2,
    ie,
    local,
    paa,
    packed,
    pdr,
    pfcp,
    pie,
    tlv,
    tv,
    ue_ip,
    uli,
)
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.subscriber import Directory
from veilwatch.traffic.subscriber.control import MAX_DATAGRAM
from veilwatch.traffic.subscriber.elements import MAX_ELEMENTS, walk_gtpv1, walk_gtpv2, walk_pfcp

pytest.importorskip("pycrate_mobile")

GTPC, PFCP = 2123, 8805
DIALOGUE = [
    (MME, SGW, GTPC, gtpv2(32, 0, 1, ie(1, bcd(IMSI)), ie(76, bcd("886912345678")),
        ie(75, bcd("3569380356438091")), ie(71, apn("internet")), uli(1, 257),
        fteid(10, 0x10, MME), bearer(5))),
    (SGW, MME, GTPC, gtpv2(33, 0x10, 1, cause(), fteid(11, 0x20, SGW), paa(UE),
        bearer(5, cause(), fteid(1, 0x200, SGW)))),
    (MME, SGW, GTPC, gtpv2(34, 0x20, 2, bearer(5, fteid(0, 0x100, ENB)))),
    (SGW, MME, GTPC, gtpv2(35, 0x10, 2, cause(), bearer(5, cause()))),
    (SMF, UPF, PFCP, pfcp(50, 0, 3, fseid(0x61, SMF), pdr(1, 0, CHOOSE, ue_ip(UE)),
        pdr(2, 1, pie(22, b"internet"), ue_ip(UE)), far(1, 1, None), far(2, 0, (0x101, ENB)),
        pie(141, b"\x01\x08" + bcd(IMSI)))),
    (UPF, SMF, PFCP, pfcp(51, 0x61, 3, pie(19, b"\x01"), fseid(0x51, UPF),
        created(1, local(0x201, UPF)))),
    (MME, SGW, GTPC, gtpv1(16, 0, 4, tv(2, bcd(IMSI)), tv(16, b"\0\0\1\0"), tv(17, b"\0\0\0\x10"),
        tv(20, b"\5"), tlv(128, b"\xf1\x21"), tlv(131, apn("web")), tlv(133, packed(MME)),
        tlv(133, packed(ENB)), tlv(152, b"\0\0\xf1\x10\0\1\0\2"))),
    (SGW, MME, GTPC, gtpv1(17, 0x10, 4, tv(1, b"\x80"), tv(16, b"\0\0\3\0"), tv(17, b"\0\0\0\x21"),
        tlv(128, b"\xf1\x21" + packed("10.46.0.9")), tlv(133, packed(SGW)), tlv(133, packed(UPF)))),
    (MME, SGW, GTPC, gtpv2(36, 0x20, 5, ie(73, b"\5"))),
    (SGW, MME, GTPC, gtpv2(37, 0x10, 5, cause())),
]  # fmt: skip
"""One of everything: three sessions, the first of which is released."""


def observe(directory: Directory, messages: list[tuple[str, str, int, bytes]]) -> None:
    for n, (src, dst, port, payload) in enumerate(messages):
        directory.observe(block((src, dst, port, n * 10**9, payload)))
    check(directory)


def check(directory: Directory) -> None:
    """What always holds: live F-TEIDs and bindings are the same, no identity is left."""
    bound = {(int(r["teid"]), int(r["session"])) for r in directory.bindings()}
    sessions = directory.sessions()
    live = {(e.teid, s.number) for s in sessions for e in s.tunnels if e.last_ns is None}
    assert bound == live
    for session in sessions:
        assert session.ended_ns is None or all(e.last_ns is not None for e in session.tunnels)
    assert IMSI not in repr(vars(directory)) and IMSI not in repr(sessions)


def test_the_whole_dialogue_is_understood() -> None:
    directory = Directory()
    observe(directory, DIALOGUE)
    assert directory.counters["refused"] == {} and len(directory.sessions()) == 3
    assert len(directory.bindings()) == 4


@pytest.mark.parametrize("which", range(len(DIALOGUE)))
def test_a_message_cut_at_every_length(which: int) -> None:
    src, dst, port, whole = DIALOGUE[which]
    for length in range(len(whole)):
        directory = Directory()
        observe(
            directory, [*DIALOGUE[:which], (src, dst, port, whole[:length]), *DIALOGUE[which + 1 :]]
        )


@examples(60)
@given(st.randoms(use_true_random=False))
def test_mutated_messages(draw: random.Random) -> None:
    directory = Directory()
    for _ in range(4):
        messages = []
        for src, dst, port, whole in DIALOGUE:
            data = bytearray(whole)
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            messages.append((src, dst, port, bytes(data)))
        draw.shuffle(messages)
        observe(directory, messages)


@given(st.binary(max_size=300))
def test_walks_stay_within(data: bytes) -> None:
    for walk, header in ((walk_gtpv1, 1), (walk_gtpv2, 4), (walk_pfcp, 4)):
        total = sum(len(element.value) + header for element in walk(data))
        assert total <= len(data)


def test_a_cut_capture_keeps_what_stands_before_the_cut() -> None:
    batch = block(*((s, d, p, n, m) for n, (s, d, p, m) in enumerate(DIALOGUE[:2])))
    batch.packets["payload_captured"][1] -= 3  # the last element is lost, the message is not
    directory = Directory()
    directory.observe(batch)
    assert directory.counters["refused"] == {"cut by the capture": 1}
    assert len(directory.sessions()) == 1


def bloated() -> list[bytes]:
    """Messages as large as they may be, of many elements, of groups within groups."""
    room = MAX_DATAGRAM - 64
    nested = b""
    while len(nested) < room - 8:
        nested = pie(2, nested)
    tiny2 = gtpv2(32, 1, 1, ie(1, b"") * (room // 4))
    return [
        tiny2,
        gtpv2(33, 1, 1, fteid(1, 7, SGW) * (room // 13)),
        gtpv2(33, 1, 1, uli(1, 2) * (room // 17)),
        gtpv1(16, 1, 1, tv(14, b"\1") * (room // 2)),
        gtpv1(16, 1, 1, tlv(152, b"\0\0\xf1\x10\0\1\0\2") * (room // 11)),
        pfcp(50, 0, 1, pie(57) * (room // 4)),
        pfcp(50, 0, 1, pdr(1, 0, local(5, UPF), ue_ip(UE)) * (room // 44)),
        pfcp(50, 0, 1, nested),
    ]


def test_bloated_messages_are_bounded() -> None:
    directory = Directory()
    for payload in bloated():
        port = PFCP if payload[0] >> 5 == 1 and payload[1] == 50 else GTPC
        begun = time.process_time()
        directory.observe(block((MME, SGW, port, 0, payload)))
        assert time.process_time() - begun < 5  # pycrate's own parser takes 9 s for the first
    refused = directory.counters["refused"]
    assert refused["elements that do not fit"] > 0
    directory.observe(block((MME, SGW, GTPC, 0, bytes(MAX_DATAGRAM + 1))))
    assert directory.counters["refused"]["too long"] == 1
    assert sum(1 for _ in walk_gtpv2(ie(1, b"") * 5000)) == MAX_ELEMENTS


def test_many_sessions_of_one_message_flood() -> None:
    """Bounds of a session: F-TEIDs without end in one message."""
    core = Core()
    ends = b"".join(bearer(5, cause(), fteid(1, n, SGW)) for n in range(1, 200))
    core.ask(MME, SGW, 32, (0, 0x10), fteid(10, 0x10, MME) + bearer(5), cause() + ends)
    check(core.directory)
    ends = b"".join(bearer(n % 15 + 1, fteid(n % 5, n, ENB)) for n in range(1, 200))
    core.ask(MME, SGW, 34, (0x10, 0x10), ends, cause())
    many = b"".join(pdr(n, 0, local(n, UPF)) for n in range(1, 300))
    core.pfcp(50, (0, 9), fseid(9, SMF) + many, pie(19, b"\1") + fseid(8, UPF))
    check(core.directory)
    assert len(core.bound()) <= 64 + 64
    assert core.directory.counters["refused"]["F-TEIDs beyond the bound"] > 0


@pytest.mark.corpus
def test_hostile_captures(corpus_path: Path) -> None:
    """Whatever is on control ports in the folder of hostile captures raises nothing."""
    directory, decoder = Directory(), Decoder()
    seen = 0
    paths = [*(corpus_path / "hostile").glob("*/*gtp*"), *(corpus_path / "gtp").glob("pfcp*")]
    for path in sorted(paths):
        with open_captures([path]) as stream:
            for each in stream:
                directory.observe(decoder.decode(each))
                seen += 1
    check(directory)
    assert seen


def test_garbage_is_counted() -> None:
    directory = Directory()
    observe(directory, [(MME, SGW, GTPC, struct.pack("!Q", n) * 3) for n in range(50)])
    assert directory.counters["refused"]["not a control message"] == 50
