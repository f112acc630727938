"""Verdicts on a field capture beside its truth."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from veilwatch.cli.demo_truth import Infected, hold_against_truth


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Truth of a link with one infected and two healthy subscribers."""
    (tmp_path / "n3.truth.csv").write_text(
        "subscriber,label,family,variant\n10.0.0.1,malicious,X-like,x-field\n"
        "10.0.0.2,benign,,\n10.0.0.3,benign,,\n"
    )
    rows = [
        ("10.0.0.1", 1000, "malicious"),
        ("10.0.0.1", 1001, "malicious"),
        ("10.0.0.1", 1002, "benign"),
        ("10.0.0.2", 1000, "benign"),
    ]
    text = "".join(f"{host},{port},192.0.2.1,443,{label}\n" for host, port, label in rows)
    (tmp_path / "n3.flows.csv").write_text(f"src_ip,src_port,dst_ip,dst_port,label\n{text}")
    return tmp_path / "n3.pcapng"


def judged(*scores: float) -> pl.DataFrame:
    hosts = ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"]
    return pl.DataFrame(
        {
            "src_ip": hosts,
            "src_port": [1000, 1001, 1002, 1000],
            "dst_ip": "192.0.2.1",
            "dst_port": 443,
            "score": scores,
            "alert": [score > 0.5 for score in scores],
        }
    )


def test_flows_of_infection_and_person_are_counted_apart(field: Path) -> None:
    found = hold_against_truth(judged(0.9, 0.2, 0.8, 0.1), {"10.0.0.1", "10.0.0.3"}, field)
    assert found.infected == [Infected("10.0.0.1", "x-field", 2, 1, 1, 1, True)]
    assert (found.healthy, found.healthy_alerted, found.strangers) == (2, 1, 0)
    assert found.auc == 0.75


def test_a_missed_host_and_a_stranger(field: Path) -> None:
    found = hold_against_truth(judged(0.1, 0.2, 0.3, 0.4), {"192.0.2.1"}, field)
    assert not found.infected[0].found
    assert (found.healthy_alerted, found.strangers) == (0, 1)


def test_without_judged_flows_there_is_no_auc(field: Path) -> None:
    found = hold_against_truth(judged(0.1, 0.2, 0.3, 0.4).head(0), set(), field)
    assert found.infected[0].flows == 0
    assert math.isnan(found.auc)
