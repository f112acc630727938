"""Sessions and subscribers as the verbs show them, from captures with control and user traffic."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from tests.cli.helpers import veilwatch
from tests.traffic.subscriber.build import (
    ENB,
    IMSI,
    MME,
    SGW,
    UE,
    apn,
    bcd,
    bearer,
    cause,
    fteid,
    gtpv2,
    ie,
    paa,
    uli,
)

pytest.importorskip("pycrate_mobile")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """An attach on S11 and three flows: two of the subscriber, one in a tunnel of nobody."""
    control = [
        (MME, SGW, gtpv2(32, 0, 1, ie(1, bcd(IMSI)), ie(71, apn("internet")), uli(1, 257),
                         fteid(10, 0x10, MME), bearer(5))),
        (SGW, MME, gtpv2(33, 0x10, 1, cause(), fteid(11, 0x20, SGW), paa(UE),
                         bearer(5, cause(), fteid(1, 0x200, SGW)))),
        (MME, SGW, gtpv2(34, 0x20, 2, bearer(5, fteid(0, 0x100, ENB)))),
        (SGW, MME, gtpv2(35, 0x10, 2, cause())),
    ]  # fmt: skip
    frames = [
        Ether() / IP(src=src, dst=dst) / UDP(sport=2123, dport=2123) / Raw(payload)
        for src, dst, payload in control
    ]
    for teid, server in ((0x200, "198.51.100.1"), (0x200, "198.51.100.2"), (7, "198.51.100.3")):
        inner = IP(src=UE, dst=server) / UDP(sport=5000, dport=9999) / Raw(b"hello")
        outer = Ether() / IP(src=ENB, dst=SGW) / UDP(sport=2152, dport=2152)
        frames.append(outer / GTP_U_Header(teid=teid) / inner)
    for n, frame in enumerate(frames):
        frame.time = 1_700_000_000 + n
    path = tmp_path / "s1.pcap"
    wrpcap(str(path), frames)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(bytes(range(32)))
    return path


def test_inspect_shows_sessions(capture: Path, key: Path) -> None:
    result = veilwatch("inspect", capture, "--json", "--subscriber-key-file", key)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    (session,) = found["sessions"]
    assert (session["apn"], session["addresses"], session["flows"]) == ("internet", [UE], 2)
    assert session["location"] == "TAI 001-01-1, ECGI 001-01-257"
    assert found["control"]["messages"]["GTPv2-C Create Session Request"] == 1
    assert found["control"]["flows"] == {"control": 2, "ambiguous": 1}
    assert found["control"]["unattributed"] == [{"end_points": [SGW, ENB], "flows": 1}]
    page = veilwatch("inspect", capture, "--subscriber-key-file", key).stdout
    assert "1 flows without subscriber" in page and "2 by control traffic" in page
    assert IMSI not in page + result.stdout


def test_flows_carry_pseudonyms_that_the_key_decides(capture: Path, key: Path) -> None:
    names: list[str] = []
    for arguments in (("--subscriber-key-file", str(key)),) * 2 + (
        ("--subscriber-key-file", str(key), "--subscriber-rotation", "monthly"),
        (),
    ):
        out = capture.with_name(f"{len(names)}.parquet")
        result = veilwatch("flows", capture, "-o", out, "--quiet", *arguments)
        assert result.returncode == 0, result.stderr
        frame = pl.read_parquet(out).filter(pl.col("fwd_teid") == 0x200)
        assert set(frame["subscriber_by"]) == {"control"} and set(frame["apn"]) == {"internet"}
        (name,) = set(frame["subscriber"])
        names.append(name)
    assert names[0] == names[1] and len(set(names)) == 3


def test_a_key_that_others_can_read_is_refused(capture: Path, key: Path) -> None:
    key.chmod(0o644)
    for verb in (("inspect",), ("flows", "-o", "-")):
        result = veilwatch(verb[0], capture, *verb[1:], "--subscriber-key-file", key)
        assert result.returncode == 2
        assert "open to others (mode 0644)" in result.stderr
        assert "Traceback" not in result.stderr
