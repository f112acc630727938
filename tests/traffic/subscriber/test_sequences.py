"""What sequences of control messages make of sessions, bindings and flows."""

from __future__ import annotations

import struct

import pytest

from tests.traffic.subscriber.build import (
    CHOOSE,
    ENB,
    ENB2,
    IMSI,
    MME,
    PGW,
    SGW,
    SMF,
    START,
    UE,
    UPF,
    Core,
    S,
    apn,
    bcd,
    bearer,
    block,
    cause,
    created,
    far,
    flow,
    flows,
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
from veilwatch.traffic.subscriber import Directory, KeyRing
from veilwatch.traffic.subscriber.session_store import MAX_CONTEXTS

pytest.importorskip("pycrate_mobile")

UPLINK = (ENB, SGW, 0x200)


def test_an_attached_subscriber() -> None:
    core = Core()
    core.attach()
    core.modify(0x100, ENB)
    assert core.bound() == {(SGW, 0x200): 1, (ENB, 0x100): 1}
    (session,) = core.directory.sessions()
    assert (session.apn, session.addresses, session.rat) == ("internet", (UE,), "E-UTRAN")
    assert session.location == "TAI 001-01-1, ECGI 001-01-257"
    assert session.handovers == 0 and session.ended_ns is None
    assert {(end.address, end.teid, end.role) for end in session.tunnels} == {
        (SGW, 0x200, "core"),
        (ENB, 0x100, "access"),
    }
    assert session.subscriber == KeyRing(bytes(range(32))).pseudonym(
        KeyRing(bytes(range(32))).token("imsi", IMSI.encode()), START
    )
    assert IMSI not in repr(core.directory.sessions())


def test_flows_are_named_in_both_directions() -> None:
    core = Core()
    core.attach()
    core.modify(0x100, ENB)
    begin = core.now
    frame = core.directory.annotate(
        flows(
            flow(UE, "198.51.100.1", forth=UPLINK, back=0x100, first=begin),
            flow("198.51.100.1", UE, forth=(SGW, ENB, 0x100), first=begin),  # downlink only
            flow(UE, "198.51.100.1", forth=(ENB, SGW, 0x999), first=begin),  # nobody's TEID
            flow(UE, "198.51.100.1", first=begin),  # on N6
            flow("198.51.100.1", "198.51.100.2", first=begin),  # a stranger
            flow(UE, "198.51.100.1", session=1, first=begin),
        )
    )
    name = core.directory.sessions()[0].subscriber
    assert frame["subscriber"].to_list() == [name, name, "", name, "", name]
    assert frame["subscriber_by"].to_list() == ["control", "control", "", "control", "", "control"]
    assert frame["apn"].to_list() == ["internet", "internet", "", "internet", "", "internet"]
    assert frame["location"][0] == "TAI 001-01-1, ECGI 001-01-257"


def test_a_handover_changes_the_access_end_only() -> None:
    core = Core()
    core.attach()
    core.modify(0x100, ENB)
    before = core.directory.version
    core.modify(0x101, ENB2)
    assert core.directory.version > before
    assert core.bound() == {(SGW, 0x200): 1, (ENB2, 0x101): 1}
    (session,) = core.directory.sessions()
    assert session.handovers == 1
    former = next(end for end in session.tunnels if end.address == ENB)
    assert former.last_ns == core.now
    core.modify(0x101, ENB2)  # the same again is no handover
    assert core.directory.sessions()[0].handovers == 1


def test_idle_and_back_is_no_handover() -> None:
    core = Core()
    core.attach()
    core.modify(0x100, ENB)
    core.ask(MME, SGW, 170, (0x20, 0x10), b"", cause())
    assert core.bound() == {(SGW, 0x200): 1}
    core.modify(0x102, ENB2)
    assert core.directory.sessions()[0].handovers == 0
    assert (ENB2, 0x102) in core.bound()


def test_release_and_reuse_of_a_teid() -> None:
    core = Core()
    core.attach()
    core.modify(0x100, ENB)
    middle = core.now
    core.detach()
    assert core.bound() == {}
    core.attach(imsi="001010000000001", ue="10.45.0.3")
    core.modify(0x100, ENB)
    one, two = core.directory.sessions()
    assert one.subscriber != two.subscriber and one.end_reason == "released"
    frame = core.directory.annotate(
        flows(
            flow(UE, "198.51.100.1", forth=UPLINK, first=middle),
            flow("10.45.0.3", "198.51.100.1", forth=UPLINK, first=core.now),
        )
    )
    assert frame["subscriber"].to_list() == [one.subscriber, two.subscriber]


def test_reuse_without_release_ends_the_old_session() -> None:
    core = Core()
    core.attach()
    core.attach(imsi="001010000000001", ue="10.45.0.3", sgw=0x21, mme=0x11)
    one, two = core.directory.sessions()
    assert one.end_reason == "replaced" and two.ended_ns is None
    assert core.bound() == {(SGW, 0x200): 2}
    assert core.directory.counters["reused_fteids"] == 1


def test_a_repeated_attach_begins_anew() -> None:
    core = Core()
    core.attach()
    core.attach(sgw=0x21, mme=0x11, core=0x201, ue="10.45.0.9")
    one, two = core.directory.sessions()
    assert one.subscriber == two.subscriber and one.end_reason == "replaced"
    assert core.bound() == {(SGW, 0x201): 2}


def test_two_networks_with_one_address() -> None:
    core = Core()
    core.attach()
    core.attach(imsi="001010000000001", sgw=0x21, mme=0x11, core=0x201, name="corporate")
    now = core.now
    frame = core.directory.annotate(
        flows(
            flow(UE, "198.51.100.1", forth=(ENB, SGW, 0x200), first=now),
            flow(UE, "198.51.100.1", forth=(ENB, SGW, 0x201), first=now),
            flow(UE, "198.51.100.1", first=now),  # on N6: whose?
        )
    )
    assert frame["apn"].to_list() == ["internet", "corporate", ""]
    assert frame["subscriber"].n_unique() == 3
    assert core.directory.counters["flows"]["ambiguous"] == 1


def test_two_pdn_connections_share_the_teids_of_s11() -> None:
    core = Core()
    core.attach()
    core.attach(ue="10.46.0.2", core=0x300, name="ims", ebi=6)
    core.modify(0x100, ENB)
    core.modify(0x110, ENB, ebi=6)
    assert core.bound() == {
        (SGW, 0x200): 1,
        (ENB, 0x100): 1,
        (SGW, 0x300): 2,
        (ENB, 0x110): 2,
    }
    core.detach(ebi=6)
    assert set(core.bound()) == {(SGW, 0x200), (ENB, 0x100)}


def test_a_dedicated_bearer_comes_and_goes() -> None:
    core = Core()
    core.attach()
    core.ask(
        SGW,
        MME,
        95,
        (0x10, 0x20),
        ie(73, b"\x05") + bearer(0, fteid(1, 0x210, SGW), fteid(5, 0x310, PGW, 1)),
        cause() + bearer(6, cause(), fteid(0, 0x120, ENB), fteid(1, 0x210, SGW, 1)),
    )
    assert set(core.bound()) == {(SGW, 0x200), (SGW, 0x210), (PGW, 0x310), (ENB, 0x120)}
    core.ask(SGW, MME, 99, (0x10, 0x20), ie(73, b"\x06", 1), cause())
    assert set(core.bound()) == {(SGW, 0x200)}
    core.ask(SGW, MME, 99, (0x10, 0x20), ie(73, b"\x05"), cause())
    assert core.bound() == {} and core.directory.sessions()[0].end_reason == "released"


def test_a_refused_bearer_leaves_nothing() -> None:
    core = Core()
    core.ask(
        MME,
        SGW,
        32,
        (0, 0x10),
        ie(1, bcd(IMSI)) + fteid(10, 0x10, MME) + bearer(5) + bearer(6, fteid(4, 0x66, SGW, 2)),
        cause(17) + fteid(11, 0x20, SGW) + bearer(5, cause(), fteid(1, 0x200, SGW))
        + bearer(6, cause(73)),
    )  # fmt: skip
    assert set(core.bound()) == {(SGW, 0x200)}


def test_a_refused_request_changes_nothing() -> None:
    core = Core()
    core.attach()
    core.ask(MME, SGW, 34, (0x20, 0x10), bearer(5, fteid(0, 0x100, ENB)), cause(94))
    assert core.bound() == {(SGW, 0x200): 1}
    assert core.directory.counters["refused"]["refused by their receiver"] == 1


def test_retransmissions_and_late_responses_are_harmless() -> None:
    core = Core()
    request = gtpv2(32, 0, 7, ie(1, bcd(IMSI)), fteid(10, 0x10, MME), bearer(5))
    response = gtpv2(
        33, 0x10, 7, cause(), fteid(11, 0x20, SGW), bearer(5, cause(), fteid(1, 0x200, SGW))
    )
    for payload in (request, request):
        core.send(MME, SGW, payload)
    for payload in (response, response):
        core.send(SGW, MME, payload)
    assert len(core.directory.sessions()) == 1
    assert core.directory.counters["refused"] == {"responses without request": 1}
    core.send(MME, SGW, gtpv2(34, 0x20, 8, bearer(5, fteid(0, 0x100, ENB))))
    core.now += 120 * S
    core.send(SGW, MME, gtpv2(35, 0x10, 8, cause()))
    assert core.bound() == {(SGW, 0x200): 1}


def test_a_piggybacked_request_is_read() -> None:
    core = Core()
    core.send(MME, SGW, gtpv2(32, 0, 7, ie(1, bcd(IMSI)), fteid(10, 0x10, MME), bearer(5)))
    answer = gtpv2(
        33,
        0x10,
        7,
        cause(),
        fteid(11, 0x20, SGW),
        paa(UE),
        bearer(5, cause(), fteid(1, 0x200, SGW)),
        piggybacked=True,
    )
    more = gtpv2(95, 0x10, 900, ie(73, b"\x05"), bearer(0, fteid(1, 0x210, SGW)))
    core.send(SGW, MME, answer + more)
    core.send(MME, SGW, gtpv2(96, 0x20, 900, cause(), bearer(6, cause(), fteid(1, 0x210, SGW, 1))))
    assert set(core.bound()) == {(SGW, 0x200), (SGW, 0x210)}


def test_two_legs_of_one_session_are_one() -> None:
    """S11 and S5/S8, with one control TEID that the SGW gave out on both."""
    core = Core()
    core.send(MME, SGW, gtpv2(32, 0, 1, ie(1, bcd(IMSI)), fteid(10, 0x10, MME), bearer(5)))
    core.send(
        SGW,
        PGW,
        gtpv2(
            32,
            0,
            1,
            ie(1, bcd(IMSI)) + fteid(6, 0x20, SGW),
            bearer(5, fteid(4, 0x400, SGW, 2)),
        ),
    )
    core.send(
        PGW,
        SGW,
        gtpv2(33, 0x20, 1, cause(), fteid(7, 0x30, PGW, 1), paa(UE),
              bearer(5, cause(), fteid(5, 0x500, PGW, 2))),
    )  # fmt: skip
    core.send(
        SGW,
        MME,
        gtpv2(33, 0x10, 1, cause(), fteid(11, 0x20, SGW), paa(UE),
              bearer(5, cause(), fteid(1, 0x200, SGW), fteid(5, 0x500, PGW, 2))),
    )  # fmt: skip
    assert len(core.directory.sessions()) == 1
    assert core.bound() == {(SGW, 0x400): 1, (PGW, 0x500): 1, (SGW, 0x200): 1}
    core.detach()
    assert core.directory.sessions()[0].ended_ns is None  # S5/S8 still stands
    core.ask(SGW, PGW, 36, (0x30, 0x20), ie(73, b"\x05"), cause())
    assert core.bound() == {} and core.directory.sessions()[0].ended_ns is not None


def establish(
    core: Core, *, up: int = 0x51, cp: int = 0x61, teid: int = 0x200, ue: str = UE
) -> None:
    """A PDU session whose UPF chooses its end."""
    core.pfcp(
        50,
        (0, cp),
        fseid(cp, SMF)
        + pdr(1, 0, CHOOSE, ue_ip(ue)) + pdr(2, 1, pie(22, b"internet"), ue_ip(ue))
        + far(1, 1, None) + far(2, 0, None),
        pie(19, b"\x01") + fseid(up, UPF) + created(1, local(teid, UPF)),
    )  # fmt: skip


def update(core: Core, peer: tuple[int, str] | None, *, up: int = 0x51, cp: int = 0x61) -> None:
    core.pfcp(
        52,
        (up, cp),
        far(2, 0, peer, update=True, action=2 if peer else 12),
        pie(19, b"\x01"),
    )


def test_a_pdu_session_by_pfcp() -> None:
    core = Core()
    establish(core)
    update(core, (0x100, ENB))
    assert core.bound() == {(UPF, 0x200): 1, (ENB, 0x100): 1}
    (session,) = core.directory.sessions()
    assert (session.apn, session.addresses) == ("internet", (UE,))
    assert {end.teid: end.role for end in session.tunnels} == {0x200: "core", 0x100: "access"}
    update(core, (0x101, ENB2))
    assert core.directory.sessions()[0].handovers == 1
    update(core, None)
    assert core.bound() == {(UPF, 0x200): 1}
    update(core, (0x102, ENB))
    assert core.directory.sessions()[0].handovers == 1
    core.pfcp(54, (0x51, 0x61), b"", pie(19, b"\x01"))
    assert core.bound() == {} and core.directory.sessions()[0].end_reason == "released"


def test_bundled_pfcp_messages_are_read() -> None:
    core = Core()
    for sequence, (cp, ue) in enumerate(((0x61, UE), (0x62, "10.45.0.3")), 100):
        core.send(
            SMF, UPF, pfcp(50, 0, sequence, fseid(cp, SMF), pdr(1, 0, CHOOSE, ue_ip(ue))), 8805
        )
    answers = [
        pfcp(
            51,
            cp,
            sequence,
            pie(19, b"\x01") + fseid(up, UPF) + created(1, local(teid, UPF)),
            more=sequence == 100,
        )
        for sequence, cp, up, teid in ((100, 0x61, 0x51, 0x200), (101, 0x62, 0x52, 0x201))
    ]
    core.send(UPF, SMF, b"".join(answers), 8805)
    assert core.bound() == {(UPF, 0x200): 1, (UPF, 0x201): 2}


def test_a_reused_end_of_a_upf_ends_the_old_session() -> None:
    core = Core()
    establish(core)
    update(core, (0x100, ENB))
    establish(core, up=0x52, cp=0x62)  # the same F-TEID and address; the release was not seen
    one, two = core.directory.sessions()
    assert one.end_reason == "replaced" and two.ended_ns is None
    assert core.bound() == {(UPF, 0x200): 2}


@pytest.mark.parametrize("kind", [1, 5])
def test_a_restarted_upf_loses_its_sessions(kind: int) -> None:
    """By its association at once, by heartbeats when the new time stamp is repeated."""
    core = Core()

    def tell(stamp: int, sequence: int) -> None:
        core.send(UPF, SMF, pfcp(kind, None, sequence, pie(96, struct.pack("!I", stamp))), 8805)

    tell(1000, 1)
    establish(core)
    tell(1000, 2)
    tell(900, 3)  # an old message
    assert core.bound()
    tell(1001, 4)
    tell(1001, 4)  # retransmitted
    assert bool(core.bound()) is (kind == 1)
    tell(1001, 5)
    assert core.bound() == {} and core.directory.sessions()[0].end_reason == "restart"
    establish(core, up=0x53, cp=0x63)
    tell(1001, 6)
    assert core.bound()


def test_a_time_stamp_that_always_moves_is_no_restart() -> None:
    core = Core()
    establish(core)
    for sequence in range(1, 9):
        stamp = pie(96, struct.pack("!I", 1000 + sequence))
        core.send(SMF, UPF, pfcp(1, None, 100 + sequence, stamp), 8805)
    assert core.bound()


def test_a_restarted_mme_loses_its_sessions() -> None:
    core = Core()
    core.send(MME, SGW, gtpv2(1, 0, 1, ie(3, b"\xff")))
    core.attach()
    for sequence in (2, 3):
        core.send(MME, SGW, gtpv2(1, 0, sequence, ie(3, b"\x00")))  # 255 is followed by 0
    assert core.bound() == {}


def test_a_released_association_ends_its_sessions() -> None:
    core = Core()
    establish(core)
    core.send(SMF, UPF, pfcp(9, None, 77, pie(60, b"\0", packed(SMF))), 8805)
    core.send(UPF, SMF, pfcp(10, None, 77, pie(60, b"\0", packed(UPF)), pie(19, b"\x01")), 8805)
    assert core.directory.sessions()[0].end_reason == "association"


def test_s11_and_pfcp_tell_of_one_session() -> None:
    core = Core()
    establish(core)  # the SGW's user plane comes first
    core.ask(
        MME,
        SGW,
        32,
        (0, 0x10),
        ie(1, bcd(IMSI)) + fteid(10, 0x10, MME) + bearer(5),
        cause() + fteid(11, 0x20, SGW) + paa(UE) + bearer(5, cause(), fteid(1, 0x200, UPF)),
    )
    core.modify(0x100, ENB)
    update(core, (0x100, ENB))
    core.modify(0x101, ENB2)
    update(core, (0x101, ENB2))
    (session,) = core.directory.sessions()
    assert session.number == 1 and session.handovers == 1
    assert session.protocols == ("GTPv2-C", "PFCP")
    assert session.subscriber == Core().directory._keys.pseudonym(
        KeyRing(bytes(range(32))).token("imsi", IMSI.encode()), START
    )
    assert core.bound() == {(UPF, 0x200): 1, (ENB2, 0x101): 1}
    frame = core.directory.annotate(flows(flow(UE, "198.51.100.1", session=2)))
    assert frame["subscriber"][0] == session.subscriber  # the number of the merged one


def pdp_request(kind: int, teid: int, sequence: int, *parts: bytes) -> bytes:
    return gtpv1(kind, teid, sequence, *parts)


def test_a_pdp_context() -> None:
    core = Core()
    sgsn = tlv(133, packed(MME)) + tlv(133, packed(ENB))
    ggsn = tlv(133, packed(SGW)) + tlv(133, packed(PGW))
    core.send(MME, SGW, gtpv1(16, 0, 1, tv(2, bcd(IMSI) + b""), tv(16, b"\0\0\1\0"),
              tv(17, b"\0\0\0\x10"), tv(20, b"\x05"), tlv(128, b"\xf1\x21"),
              tlv(131, apn("internet")), sgsn, tlv(151, b"\x02")))  # fmt: skip
    core.send(SGW, MME, gtpv1(17, 0x10, 1, tv(1, b"\x80"), tv(16, b"\0\0\2\0"),
              tv(17, b"\0\0\0\x20"), tlv(128, b"\xf1\x21" + packed(UE)), ggsn))  # fmt: skip
    assert core.bound() == {(ENB, 0x100): 1, (PGW, 0x200): 1}
    (session,) = core.directory.sessions()
    assert (session.apn, session.addresses, session.rat) == ("internet", (UE,), "GERAN")
    moved = tlv(133, packed(MME)) + tlv(133, packed(ENB2))
    core.send(MME, SGW, gtpv1(18, 0x20, 2, tv(16, b"\0\0\1\1"), tv(17, b"\0\0\0\x10"),
              tv(20, b"\x05"), moved))  # fmt: skip
    core.send(SGW, MME, gtpv1(19, 0x10, 2, tv(1, b"\x80"), tv(16, b"\0\0\2\0"),
              tv(17, b"\0\0\0\x20"), ggsn))  # fmt: skip
    assert core.bound() == {(ENB2, 0x101): 1, (PGW, 0x200): 1}
    assert core.directory.sessions()[0].handovers == 1
    core.send(MME, SGW, gtpv1(20, 0x20, 3, tv(19, b"\xff"), tv(20, b"\x05")))
    core.send(SGW, MME, gtpv1(21, 0x10, 3, tv(1, b"\x80")))
    assert core.bound() == {} and core.directory.sessions()[0].end_reason == "released"


def test_messages_of_subscribers_are_not_believed() -> None:
    core = Core()
    core.attach()
    forged = gtpv2(36, 0x20, 99, ie(73, b"\x05"))
    answer = gtpv2(37, 0x10, 99, cause())
    core.directory.observe(
        block((MME, SGW, 2123, core.now, forged), (SGW, MME, 2123, core.now, answer), depth=1)
    )
    core.send(UE, SGW, forged)
    core.send(SGW, UE, answer)
    assert core.bound() and core.directory.counters["refused"]["sent by or to subscribers"] == 4


def test_bounds_hold() -> None:
    directory = Directory(max_sessions=8)
    core = Core()
    core.directory = directory
    for n in range(1, 30):
        core.attach(imsi=f"{n:015}", ue=f"10.45.0.{n}", sgw=n, mme=n, core=n)
    assert len(directory.sessions()) == 8
    assert directory.counters["sessions_evicted"] == 21
    assert {teid for _, teid in core.bound()} == set(range(22, 30))
    core.attach(sgw=29, mme=29, core=500)
    for n in range(2 * MAX_CONTEXTS):
        core.attach(sgw=29, mme=29, core=600 + n, ebi=5 + n % 11)
    assert len(directory.sessions()) == 8


def test_locations_follow_the_subscriber() -> None:
    core = Core()
    core.attach()
    then = core.now
    core.ask(MME, SGW, 38, (0x20, 0x10), uli(2, 258), cause())
    frame = core.directory.annotate(
        flows(
            flow(UE, "198.51.100.1", forth=UPLINK, first=then, last=then),
            flow(UE, "198.51.100.1", forth=UPLINK, first=core.now),
        )
    )
    assert frame["location"].to_list() == [
        "TAI 001-01-1, ECGI 001-01-257",
        "TAI 001-01-2, ECGI 001-01-258",
    ]


def test_without_pycrate_the_note_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.traffic.subscriber.directory.load", lambda: None)
    core = Core()
    core.attach()
    assert core.bound() == {}
    assert core.directory.note == (
        "2 packets of GTP-C or PFCP were seen but not read: pip install '.[mobile]' "
        "to learn subscribers from them"
    )
    frame = core.directory.annotate(
        flows(flow(UE, "198.51.100.1", forth=UPLINK, direction="uplink"))
    )
    assert frame["subscriber_by"].to_list() == ["learned"]
