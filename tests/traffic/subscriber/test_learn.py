"""Subscribers learned from tunnels alone."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.subscriber.build import ENB, ENB2, SGW, START, UE, S, flow, flows
from veilwatch.traffic.subscriber import Directory, KeyRing
from veilwatch.traffic.subscriber.learn import MAX_JOINED, Learner, TunnelledFlow
from veilwatch.traffic.subscriber.messages import End

SERVERS = [f"198.51.100.{n}" for n in range(1, 9)]
OTHER = "10.45.0.3"


def names(directory: Directory, rows: Iterable[dict[str, object]]) -> list[str]:
    return directory.annotate(flows(*rows))["subscriber"].to_list()


def up(server: str, *, ue: str = UE, core: int = 0x200, access: int = 0x100, enb: str = ENB,
       direction: str = "", first: int = START) -> dict[str, object]:  # fmt: skip
    """A flow that the UE opens, seen in both directions."""
    return flow(ue, server, forth=(enb, SGW, core), back=access, first=first, direction=direction)


def down(server: str, *, ue: str = UE, core: int = 0x200, access: int = 0x100) -> dict[str, object]:
    """A flow that a server opens."""
    return flow(server, ue, forth=(SGW, ENB, access), back=core)


def test_the_common_end_is_the_subscriber() -> None:
    directory = Directory()
    found = names(directory, [up(SERVERS[0]), up(SERVERS[1]), down(SERVERS[2])])
    assert found[0] and len(set(found)) == 1
    (session,) = directory.sessions()
    assert session.subscriber == found[0] and session.addresses == (UE,)
    assert {(end.teid, end.role) for end in session.tunnels} == {(0x200, "core"), (0x100, "access")}
    assert (session.flows, session.handovers, session.subscriber_by) == (3, 0, "learned")


def test_one_flow_without_direction_stays_unknown() -> None:
    directory = Directory()
    assert names(directory, [up(SERVERS[0])]) == [""]
    assert directory.counters["flows"] == {"ambiguous": 1}
    assert directory.counters["unattributed"] == [{"end_points": [SGW, ENB], "flows": 1}]


def test_the_container_tells_the_direction() -> None:
    directory = Directory()
    (name,) = names(directory, [up(SERVERS[0], direction="uplink")])
    assert name
    other = {**down(SERVERS[0]), "gtp_direction": "downlink"}
    assert names(directory, [other]) == [name]


def test_a_handover_keeps_the_subscriber() -> None:
    directory = Directory()
    first = names(directory, [up(SERVERS[0]), up(SERVERS[1])])
    after = names(directory, [up(SERVERS[2], access=0x101, enb=ENB2)])
    assert after == first[:1]
    lonely = flow(SERVERS[3], UE, forth=(SGW, ENB2, 0x101))  # downlink only, in the new tunnel
    assert names(directory, [lonely]) in ([first[0]], [""])
    assert directory.sessions()[0].handovers == 1


def test_the_next_session_of_a_teid_is_another_subscriber() -> None:
    directory = Directory()
    first = names(directory, [up(SERVERS[0]), up(SERVERS[1])])
    later = names(directory, [up(SERVERS[0], ue=OTHER), up(SERVERS[1], ue=OTHER)])
    assert first[0] == first[1] and later[0] == later[1]
    assert first[0] != later[0] and "" not in first + later


def test_one_address_in_two_tunnels_is_two_subscribers() -> None:
    directory = Directory()
    found = names(
        directory,
        [
            *(up(server) for server in SERVERS[:2]),
            *(up(server, core=0x201, access=0x111) for server in SERVERS[:2]),
        ],
    )
    assert found[0] == found[1] != found[2] == found[3] and "" not in found


def test_a_server_that_two_sessions_share_is_not_taken_for_the_subscriber() -> None:
    """One TEID, two sessions one after the other, one server: the server is the common end."""
    directory = Directory()
    known = [
        up(server, ue=f"10.45.1.{n}", core=0x300 + n, access=0x400 + n)
        for n in range(4)
        for server in SERVERS[:3]
    ]
    assert "" not in names(directory, known)
    found = names(directory, [up(SERVERS[0]), up(SERVERS[0], ue=OTHER)])
    assert "" not in found and found[0] != found[1]
    assert {s.addresses[0] for s in directory.sessions()} >= {UE, OTHER}
    assert SERVERS[0] not in {s.addresses[0] for s in directory.sessions()}


def test_an_ipv6_prefix_is_one_subscriber() -> None:
    directory = Directory()
    found = names(
        directory,
        [
            up("2001:db8::1", ue="2001:db8:1:2::aaaa"),
            up("2001:db8:5::2", ue="2001:db8:1:2::bbbb"),
        ],
    )
    assert found[0] == found[1] != ""
    assert directory.sessions()[0].addresses == ("2001:db8:1:2::/64",)


def test_the_same_key_gives_the_same_names() -> None:
    rows = [up(SERVERS[0]), up(SERVERS[1])]
    key = bytes(range(32))
    assert names(Directory(KeyRing(key)), rows) == names(Directory(KeyRing(key)), rows)
    assert names(Directory(KeyRing(key)), rows) != names(Directory(), rows)


def test_bounds_hold() -> None:
    learner = Learner(limit=100)
    for n in range(1000):
        seen = TunnelledFlow(1 << 100, 2 << 100, 7, 8, End(8, n + 1), End(7, n + 1), "uplink", n, n)
        for step in (learner.observe, learner.vote, learner.join):
            step(seen)
    assert len(learner.learned()) == 50 and learner.forgotten == 1900
    learner = Learner()
    for n in range(3 * MAX_JOINED):
        seen = TunnelledFlow(1 << 100, 2 << 100, 7, 8, End(8, 1), End(7, n + 1), "uplink", n, n)
        learner.join(seen)
    (learned,) = learner.learned()
    assert len(learned.nodes) == MAX_JOINED and learned.core == End(8, 1)


@examples(60)
@given(st.data())
def test_subscribers_never_mix(data: st.DataObject) -> None:
    """Whatever tunnels subscribers get, flows of two of them never share a name."""
    count = data.draw(st.integers(1, 5))
    rows, truth = [], []
    for n in range(count):
        ue = f"10.45.0.{data.draw(st.integers(1, 3))}"
        for step in range(data.draw(st.integers(1, 3))):  # handovers
            for server in data.draw(st.lists(st.sampled_from(SERVERS), min_size=1, max_size=3)):
                rows.append(
                    up(
                        server,
                        ue=ue,
                        core=0x200 + n,
                        access=0x1000 + 16 * n + step,
                        direction=data.draw(st.sampled_from(("", "uplink"))),
                    )
                )
                truth.append(n)
    found = names(Directory(), rows)
    for name in set(found) - {""}:
        assert len({who for who, given in zip(truth, found, strict=True) if given == name}) == 1
    for who in range(count):
        assert len({g for w, g in zip(truth, found, strict=True) if w == who and g}) <= 1


def test_untunnelled_flows_are_left_alone() -> None:
    directory = Directory()
    assert names(directory, [flow(UE, SERVERS[0], first=START + S)]) == [""]
    assert directory.counters["flows"] == {}
    assert directory.annotate(flows()).height == 0
