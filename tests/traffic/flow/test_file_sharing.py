"""SMB and NFS messages: counted by kind, once each, and never read past what was captured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.traffic.flow.file_messages import (
    DENIED,
    EXAMPLES,
    MORE,
    encrypted,
    kind,
    nfs,
    smb1,
    smb2,
)
from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import assert_same, meter, packet, reply
from veilwatch.schema.flows import FILE_MESSAGES
from veilwatch.traffic.flow import MeterConfig, measure_table

CONFIG = MeterConfig()
FIRST_PORT = 40_000


def counted(packets: list[Packet]) -> dict[str, int]:
    """What kernels, and the oracle, count of one flow."""
    assert_same(packets, CONFIG)
    (row,) = measure_table(meter(packets, CONFIG)[0]).to_dicts()
    return kinds_of(row)


def kinds_of(row: dict[str, Any]) -> dict[str, int]:
    """Messages of a flow by kind."""
    return {name: row[f"file_{name}"] for name in FILE_MESSAGES if row[f"file_{name}"]}


def in_turn(payloads: list[bytes]) -> list[Packet]:
    """Payloads of a stream one after the other."""
    starts = np.cumsum([0, *map(len, payloads)]).tolist()
    return [packet(data, tcp_seq=1 + at) for data, at in zip(payloads, starts, strict=False)]


def test_encrypting_a_share() -> None:
    file = [smb2(5), smb2(8), smb2(9), smb2(9), smb2(17), smb2(6)]
    assert counted(in_turn(file * 3)) == {"open": 3, "read": 3, "write": 6, "change": 3, "close": 3}


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (smb2(14), "list"),
        (smb2(0), "other"),
        (smb1(0xA2), "open"),
        (smb1(0x2F), "write"),
        (smb1(0x07), "change"),
        (smb1(0x32), "other"),
        (encrypted(), "encrypted"),
        (nfs(6), "read"),
        (nfs(7), "write"),
        (nfs(12), "change"),
        (nfs(14), "change"),
        (nfs(1, version=4), "other"),
    ],
)
def test_a_request(payload: bytes, name: str) -> None:
    assert counted([packet(payload)]) == {name: 1}
    assert counted([packet(payload[:64], payload_length=len(payload))]) == {name: 1}


@pytest.mark.parametrize("answer", [smb1, smb2])
def test_an_answer_counts_where_it_is_an_error(answer: Callable[..., bytes]) -> None:
    for status, wanted in ((0, {}), (MORE, {}), (DENIED, {"error": 1})):
        answered = answer(1, status=status, response=True)
        assert counted([packet(b"x"), reply(answered)]) == wanted


def test_what_is_sent_again_counts_once() -> None:
    once = in_turn([smb2(9), smb2(9)])
    assert counted([*once, *(Packet({**p.row, "ip_id": 9}, p.payload) for p in once)]) == {
        "write": 2
    }


def test_udp_is_left_alone() -> None:
    assert counted([packet(smb2(9), protocol=17, tcp_flags=0)]) == {}


@pytest.mark.parametrize("example", EXAMPLES)
def test_cut_at_every_length(example: bytes) -> None:
    cuts = [example[:end] for end in range(len(example) + 1)]
    flows = [
        packet(cut, payload_length=len(example), src_port=FIRST_PORT + k)
        for k, cut in enumerate(cuts)
    ]
    assert_same(flows, CONFIG)
    rows = measure_table(meter(flows, CONFIG)[0])
    assert rows["src_port"].to_list() == [FIRST_PORT + k for k in range(len(cuts))]
    for cut, row in zip(cuts, rows.to_dicts(), strict=True):
        assert kinds_of(row) == Counter(filter(None, [kind(cut)]))


def test_every_command_is_read_as_the_oracle_does() -> None:
    commands = [smb1(c) for c in range(256)] + [smb2(c) for c in range(40)]
    stream = in_turn(commands + [nfs(p) for p in range(30)])
    found = Counter(name for p in stream if (name := kind(p.payload)))
    assert counted(stream) == found
    assert set(found) == set(FILE_MESSAGES) - {"error", "encrypted"}


def test_kinds_are_names() -> None:
    assert all(re.fullmatch("[a-z]+", name) for name in FILE_MESSAGES)
