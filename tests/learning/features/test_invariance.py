"""Tunnels, VLAN tags and padding are how a packet travels: no feature may notice them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.learning.features.factory import Inner, ethernet, read, write
from veilwatch.corpus.encapsulate import EncapsulateOptions, encapsulate
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.registry import KEY_COLUMNS
from veilwatch.schema.flows import FlowTable
from veilwatch.traffic.pipeline import FlowReader

MAC = bytes(12)


def vlan(data: bytes) -> bytes:
    return MAC + bytes.fromhex("8100 0064 0800") + data


def stacked_vlan(data: bytes) -> bytes:
    return MAC + bytes.fromhex("88a8 0064 8100 00c8 0800") + data


def padded(data: bytes) -> bytes:
    return ethernet(data).ljust(60, b"\xaa") + b"\xbb" * 4  # and a frame check sequence


def in_order(table: FlowTable) -> FlowTable:
    ends = [name for name in KEY_COLUMNS if not name.endswith("_id")]
    return FlowTable(table.frame.sort("first_ns", *ends, "protocol"))


def assert_same_features(found: FlowTable, plain: FlowTable) -> None:
    found, plain = in_order(found), in_order(plain)
    assert len(found) == len(plain)
    ours, theirs = (compute_features(table, shortcuts=True) for table in (found, plain))
    different = [
        name
        for k, name in enumerate(ours.schema.names)
        if not np.array_equal(ours.values[:, k], theirs.values[:, k], equal_nan=True)
    ]
    assert different == []


@pytest.mark.parametrize("frame", [vlan, stacked_vlan, padded])
def test_link_layer(
    frame: Callable[[bytes], bytes], played: list[Inner], flows: FlowTable, tmp_path: Path
) -> None:
    assert_same_features(read(write(tmp_path / "other.pcapng", played, frame)), flows)


@pytest.mark.parametrize(
    "options",
    [
        EncapsulateOptions(),
        EncapsulateOptions(pdu_session=False, gnbs=1, outer_ipv6=True, seed=3),
    ],
    ids=["5G", "4G over IPv6"],
)
def test_gtp(
    options: EncapsulateOptions, played: list[Inner], flows: FlowTable, tmp_path: Path
) -> None:
    plain = write(tmp_path / "plain.pcapng", played)
    summary = encapsulate([plain], tmp_path / "gtp.pcapng", options=options)
    assert summary.read == summary.uplink + summary.downlink == len(played)
    wrapped = read(tmp_path / "gtp.pcapng")
    assert (wrapped.frame["gtp_depth"] == 1).all()
    assert_same_features(wrapped, flows)


@pytest.mark.corpus
@pytest.mark.parametrize("rank", [20, 40, 60, 100])
def test_gtp_around_real_captures(rank: int, corpus_path: Path, tmp_path: Path) -> None:
    captures = [path for path in corpus_path.glob("malicious/**/*.pcap*") if path.is_file()]
    capture = sorted(captures, key=lambda path: path.stat().st_size)[rank]
    encapsulate([capture], tmp_path / "gtp.pcapng")
    with FlowReader([tmp_path / "gtp.pcapng"]) as reader:
        wrapped = reader.read_all()
        if reader.balance["gtp_not_ip"]:
            pytest.skip("segmentation offload left inner packets without a length")
    assert_same_features(wrapped, read(capture))
