"""The meter's kernels against the plain-Python oracle on random packet streams."""

from __future__ import annotations

import random
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.flow.file_messages import EXAMPLES
from tests.traffic.flow.oracle import LATER_FRAGMENT, Oracle, Packet, TunnelEnd
from tests.traffic.flow.streams import (
    MAPPED,
    SECOND,
    SEED,
    assert_same,
    assert_same_flows,
    batch,
    bindings,
    joined,
    packet,
    reply,
)
from veilwatch.schema.flows import EndReason, FlowBatch
from veilwatch.traffic.flow import FlowMeter, InterimPoints, MeterConfig, state
from veilwatch.traffic.flow import interim as interim_module

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

HOSTS = [
    (0, MAPPED + 0x0A000001),
    (0, MAPPED + 0x0A000002),
    (0x2001_0DB8_0000_0000, 1),
]
GNB, OTHER_GNB, UPF, ANCHOR = ((0, MAPPED + 1), (5, MAPPED + 2), (0, MAPPED + 2), (0, MAPPED + 3))
TUNNELS = [None, None, None, (GNB, UPF), (GNB, UPF), (OTHER_GNB, UPF), (UPF, ANCHOR)]
SESSIONS: dict[TunnelEnd, int] = {(UPF, 5): 1, (GNB, 5): 1, (OTHER_GNB, 6): 1, (UPF, 6): 2}
TUNNEL_FIELDS = ("gtp_depth", "outer_src_hi", "outer_src_lo", "outer_dst_hi", "outer_dst_lo")
FLAGS = [SYN, SYN | ACK, *([ACK, ACK | PSH] * 6), ACK | FIN, RST, RST | ACK, 0, 0x1FF]
HELLO = bytes.fromhex("16030100400100003c0303")
OPENINGS = [
    HELLO,
    b"\x16\x03\x03\x00\x40\x02\x00\x00",
    b"\x16\x03\x03",
    b"\xc3" + bytes(range(40)),
    b"\x0d01234567Q039 and on and on",
    b"GET / HTTP/1.1",
    *EXAMPLES[4::9],
]

DAY = 86_400 * SECOND
IDLE, ACTIVE, LINGER = 10 * SECOND, 5 * SECOND, 2 * SECOND
STEPS = [
    *(0, 0, 1, 1000, 99_999, 100_000, SECOND // 2, SECOND - 1, SECOND, SECOND + 1),
    *(LINGER - 1, LINGER, LINGER + 1, IDLE - 1, IDLE, IDLE + 1, ACTIVE, ACTIVE + 1),
    *(-1, -1000, -SECOND, -LINGER - 1, -IDLE, -IDLE - 1),
    *(3600 * SECOND, DAY - 1, DAY, DAY + 1, 4000 * DAY, -DAY, -DAY - 1, -4000 * DAY),
]
DRAWN_STEPS = st.integers(0, len(STEPS) - 1)
SEEDS = st.integers(0, 2**20)
START = 1_700_000_000 * SECOND
EPOCH, END_OF_TIME = 0, 2**62 - 1


def conversation(choice: random.Random) -> dict[str, int]:
    """What all packets of a flow share, seen from one side."""
    protocol = choice.choice([6, 6, 6, 6, 17, 17, 1, 132])
    source, destination = choice.sample(HOSTS, 2)
    fields = {
        "protocol": protocol,
        "ip_version": choice.choice([4] * 9 + [6]),
        "src_hi": source[0],
        "src_lo": source[1],
        "dst_hi": destination[0],
        "dst_lo": destination[1],
        "src_port": choice.choice([443, 40000, 53]) if protocol != 1 else 0,
        "dst_port": choice.choice([443, 40000]) if protocol != 1 else 0,
    }
    return fields | tunnel_fields(choice)


def tunnel_fields(choice: random.Random) -> dict[str, int]:
    tunnel = choice.choice(TUNNELS)
    if not tunnel:
        return dict.fromkeys(TUNNEL_FIELDS, 0)
    ends = dict(zip(TUNNEL_FIELDS[1:], (*tunnel[0], *tunnel[1]), strict=True))
    return {"gtp_depth": choice.choice([1, 2])} | ends


def copied(original: Packet, choice: random.Random) -> Packet:
    """A packet once more: from another place, or a little later."""
    row = dict(original.row)
    changes = choice.choice(
        [
            *({"vlan": 9}, {"ttl": row["ttl"] - 1}, {"source": 2}, {}, {}),
            *({"interface": 1}, {"interface": 2}, tunnel_fields(choice)),
            dict.fromkeys((*TUNNEL_FIELDS, "gtp_teid"), 0),
        ]
    )
    later = choice.choice([0, 0, 1000, 1_000_000, 1_001_000, 50_000_000, 50_001_000, -1000])
    time = min(max(row["ts_ns"] + later, EPOCH), END_OF_TIME)
    return Packet(row | changes | {"ts_ns": time}, original.payload)


def fragment_of(first: Packet, choice: random.Random) -> Packet:
    """A later fragment of a packet, or of one that nobody saw."""
    names = (*TUNNEL_FIELDS, "src_hi", "src_lo", "dst_hi", "dst_lo", "protocol", "ip_version")
    payload = choice.randbytes(choice.choice([0, 8, 64]))
    later = choice.choice([0, 1000, SECOND, 30 * SECOND, 30 * SECOND + 1])
    return packet(
        payload,
        **{name: first.row[name] for name in names},
        status=LATER_FRAGMENT,
        tcp_flags=0,
        src_port=0,
        dst_port=0,
        fragment=2,
        fragment_key=first.fragment_key or choice.choice([1, 2**64 - 1]),
        fragment_offset=choice.choice([8, 40, 48, 600, 65_528]),
        ts_ns=min(first.ts_ns + later, END_OF_TIME),
    )


def shaped(now: int, talk: dict[str, int], choice: random.Random) -> Packet:
    """One packet of a conversation, with anything in it that a packet may hold."""
    fields = dict(talk)
    payload = b""
    if choice.random() < 0.7:
        payload = choice.choice([*OPENINGS, choice.randbytes(choice.choice([1, 70, 500]))])
    length = len(payload) + choice.choice([0, 0, 0, 1, 200, 70_000])
    if choice.random() < 0.3:
        payload = payload[: choice.randrange(80)]
    if talk["protocol"] == 6:
        fields |= {
            "tcp_flags": choice.choice(FLAGS),
            "tcp_seq": (2**32 - 50 + choice.choice([0, 0, 1, 10, 11, 70, 500, 2**31])) % 2**32,
            "tcp_ack": choice.choice([0, 2**32 - 49, 2**32 - 39]),
            "tcp_window": choice.choice([0, 1, 65535]),
            "tcp_mss": choice.choice([0, 1460]),
            "tcp_wscale": choice.choice([255, 0, 7]),
        }
    else:
        fields |= {"tcp_flags": 0, "tcp_wscale": 255}
    if choice.random() < 0.1:
        fields |= tunnel_fields(choice)
    if fields["gtp_depth"]:
        fields |= {
            "gtp_teid": choice.choice([5, 5, 5, 6]),
            "gtp_qfi": choice.choice([255, 0, 9]),
            "gtp_pdu_type": choice.choice([255, 0, 1]),
        }
    if choice.random() < 0.1:
        fields["fragment_key"] = choice.choice([256 * 7 + 1, 256 * 9 + 1])
        fields["fragment"] = choice.choice([0, 1])
        fields["payload_offset"] = choice.choice([8, 20, 40])  # `fragment_start` is 0
    return choice.choice([packet, reply])(
        payload,
        ts_ns=min(max(now, EPOCH), END_OF_TIME),
        status=choice.choice([0] * 19 + [4]),
        ip_id=choice.choice([0, 0, 7, 7, 8, choice.randrange(2**16), 2**16, 2**32 - 1]),
        payload_length=length,
        ip_length=length + choice.choice([20, 28, 40]),
        icmp_type=choice.randrange(3),
        icmp_code=choice.randrange(3),
        ttl=choice.choice([63, 64]),
        vlan=choice.choice([0, 0, 0, 7]),
        number=choice.randrange(2**40),
        source=choice.choice([0, 0, 0, 1]),
        **fields,
    )


def configured(flows: int, heads: int, sequence: int) -> MeterConfig:
    return MeterConfig(
        idle_timeout_s=IDLE / SECOND,
        active_timeout_s=ACTIVE / SECOND,
        linger_s=LINGER / SECOND,
        max_flows=flows,
        max_heads=heads,
        sequence_length=sequence,
    )


CONFIGS = st.builds(
    configured,
    st.sampled_from([1, 2, 3, 100]),
    st.sampled_from([1, 2, 3, 100]),
    st.sampled_from([1, 3, 32]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Packet]:
    """Few conversations and large steps in time; packets are drawn by seed, so that they shrink."""
    now = draw(st.sampled_from([EPOCH, START]))
    talks = [conversation(random.Random(draw(SEEDS))) for _ in range(draw(st.integers(1, 3)))]
    packets: list[Packet] = []
    for step, talk, seed in draw(st.lists(st.tuples(DRAWN_STEPS, st.integers(0, 2), SEEDS))):
        now += STEPS[step]
        packets.append(drawn(packets, now, talks[talk % len(talks)], random.Random(seed)))
    return packets


def drawn(before: list[Packet], now: int, talk: dict[str, int], choice: random.Random) -> Packet:
    """Another packet of a conversation, or one that repeats or continues one of those before."""
    kind = choice.random()
    if before and kind < 0.2:
        earlier = choice.choice(before[-5:])
        return copied(earlier, choice) if kind < 0.15 else fragment_of(earlier, choice)
    return shaped(now, talk, choice)


POINTS = st.sampled_from(
    [
        None,
        InterimPoints(packets=(1, 2, 3, 5, 8), age_s=None),
        InterimPoints(packets=(), age_s=1.0),
        InterimPoints(packets=(2, 7), age_s=ACTIVE / SECOND),
    ]
)


@examples(250)
@given(streams(), CONFIGS, st.lists(st.integers(0, 40), max_size=3), st.booleans(), POINTS)
def test_drawn_streams(
    packets: list[Packet],
    config: MeterConfig,
    cuts: list[int],
    controlled: bool,
    early: InterimPoints | None,
) -> None:
    sessions = SESSIONS if controlled else {}
    cuts = [min(cut, len(packets)) for cut in cuts]
    oracle = assert_same(packets, config, cuts, sessions, early)
    if oracle.reports:
        assert_as_if_cut(packets, config, early, oracle)


def assert_as_if_cut(
    packets: list[Packet], config: MeterConfig, early: InterimPoints | None, oracle: Oracle
) -> None:
    """Assert that reports are what the meter gives of the stream up to the packet that decided."""
    for report in oracle.reports[:: max(1, len(oracle.reports) // 5)]:
        with patch("secrets.randbits", return_value=int(SEED)):
            cut = FlowMeter(config)
        if oracle.sessions:
            cut.bind(bindings(oracle.sessions))
        cut.add(batch(packets[: report.packet + 1]))
        cut.finish()
        flows, heads = joined([cut.take()])
        (row,) = np.flatnonzero(flows.records["flow_id"] == report.record["flow_id"])
        found = flows.records[row].copy()
        found["end_reason"] = EndReason.EARLY  # all that differs
        # But for when it was, where the end of the input settles a doubt about the clock.
        moved = found["first_ns"] - report.record["first_ns"]
        found["first_ns"] -= moved
        found["last_ns"] -= moved
        seen = found["way"]["packets"] > 0
        found["start"]["dir_first_ns"] -= moved * seen
        found["way"]["dir_last_ns"] -= moved * seen
        assert_same_flows(
            FlowBatch(found[None], flows.sequences[row][None]), [report.record], [report.sequence]
        )
        if report.streams is not None:
            parent = report.record["parent_id"]
            streams = [head[-1] for head in heads if head[0] == parent]
            assert streams == ([report.streams] if any(report.streams) else [])


@pytest.mark.slow
def test_long_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of packets with mostly small steps, so that flows live long; outputs run full."""
    reasons, heads, cut, reports = Counter[EndReason](), 0, 0, 0
    found = np.zeros(4, int)
    for seed in range(30):
        choice = random.Random(seed)
        monkeypatch.setattr(state, "OUT_FLOWS", choice.choice([1, 2, 4096]))
        monkeypatch.setattr(state, "OUT_HEADS", choice.choice([3, 5, 512]))
        monkeypatch.setattr(interim_module, "OUT_EARLY", choice.choice([1, 2, 512]))
        config = configured(choice.choice([2, 5, 1000]), choice.choice([1, 4, 1000]), 8)
        talks = [conversation(choice) for _ in range(choice.choice([2, 8, 40]))]
        now = START
        packets: list[Packet] = []
        for _ in range(1000):
            if choice.random() < 0.02:
                now += choice.choice(STEPS)
            if choice.random() < 0.001:
                now = choice.choice([EPOCH, END_OF_TIME, START])
            now += choice.randrange(40_000_000)
            stray = choice.random() < 0.02
            shown = choice.choice([EPOCH, END_OF_TIME, now + DAY, now - 3600 * SECOND])
            packets.append(drawn(packets, shown if stray else now, choice.choice(talks), choice))
        cuts = [choice.randrange(1000) for _ in range(choice.randrange(5))]
        early = InterimPoints(packets=(1, 4, 9), age_s=1.0) if seed % 2 else None
        oracle = assert_same(packets, config, cuts, SESSIONS if seed % 3 == 0 else {}, early)
        reports += len(oracle.reports)
        reasons.update(EndReason(int(record["end_reason"])) for record in oracle.records)
        heads += len(oracle.heads)
        cut += oracle.heads_cut
        handovers = sum(int(record["handovers"]) for record in oracle.records)
        found += [oracle.seen_twice, oracle.ambiguous, oracle.followed, handovers]
    # The streams reach every way out.
    assert min(reasons[reason] for reason in EndReason if reason != EndReason.EARLY) >= 100
    assert reports >= 1000
    assert heads >= 1000
    assert cut >= 100
    assert found.min() >= 100, "copies, ambiguous packets, fragments, handovers"
