"""Classes of flows: each flow has one, told from its record alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.learning.features import naive_channels
from tests.learning.features.factory import random_flows
from veilwatch.learning.features.flow_class import FLOW_CLASSES, flow_class, is_encrypted
from veilwatch.traffic.handshake import SERVICES

READ = [
    *("service", "dns_query", "bwd_packets", "quic_version"),
    *("tls_client_hello_bytes", "tls_server_hello_bytes"),
]


@pytest.mark.parametrize("seed", range(3))
def test_as_in_plain_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 800
    frame = random_flows(rows, seed=seed).frame.with_columns(
        service=pl.Series(rng.choice(np.array(SERVICES), rows).tolist(), dtype=pl.String),
        dns_query=pl.Series(rng.choice(np.array(["", "a.example"]), rows).tolist()),
        bwd_packets=pl.Series(rng.integers(0, 2, rows), dtype=pl.UInt32),
    )
    found = frame.select(flow_class()).to_series()
    assert found.dtype == pl.UInt8
    wanted = [naive_channels.flow_class(row) for row in frame.to_dicts()]
    assert found.to_list() == wanted
    assert set(wanted) == set(range(len(FLOW_CLASSES)))
    assert frame.select(is_encrypted()).to_series().to_list() == [one == 0 for one in wanted]
    # Nothing else is read.
    assert frame.select(READ).select(flow_class()).to_series().equals(found)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"service": "tls"}, "encrypted"),
        ({"quic_version": 1}, "encrypted"),
        ({"tls_server_hello_bytes": 90, "service": "smb"}, "encrypted"),
        ({"service": "dns"}, "names"),
        ({"dns_query": "a.example", "service": "smb"}, "names"),
        ({"service": "rdp"}, "file_sharing"),
        ({"bwd_packets": 1}, "other"),
        ({"service": "ssh", "bwd_packets": 1}, "other"),
        ({}, "unanswered"),
    ],
)
def test_the_first_class_that_fits(told: dict[str, object], name: str) -> None:
    row = dict.fromkeys(READ, 0) | {"service": "", "dns_query": ""} | told
    assert FLOW_CLASSES[pl.DataFrame([row]).select(flow_class()).item()] == name
