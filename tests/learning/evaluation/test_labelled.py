"""Truth of a corpus beside its flows."""

from __future__ import annotations

import polars as pl

from tests.learning.training.factory import entry
from tests.report.factory import flow_frame
from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.evaluation.labelled import read_labels

LABELS = ("malicious", "malicious", "benign")
UPDATE, EVIL = "192.0.2.1", "192.0.2.2"


def test_background_is_told_by_the_name_that_an_address_was_resolved_from() -> None:
    flows = flow_frame(
        7,
        src_ip=["10.0.0.1"] * 7,
        dst_ip=["10.0.0.53", UPDATE, EVIL, UPDATE, "10.0.0.53", UPDATE, UPDATE],
        dst_port=[53, 80, 80, 80, 53, 80, 443],
        first_ns=[0, 10, 10, 10, 0, 10, 10],
        dns_query=["au.windowsupdate.com", "", "", "", "au.windowsupdate.com", "", ""],
        dns_addresses=[[UPDATE], [], [], [], [UPDATE], [], []],
        tls_sni=[""] * 6 + ["evil.example"],
    ).with_columns(capture=pl.Series([0, 0, 0, 1, 2, 2, 0], dtype=pl.UInt32))
    entries = [entry(k, label) for k, label in enumerate(LABELS)]
    found = read_labels(Corpus(entries, flows, {}, {}))
    # The question and what followed it; not in a capture where nobody asked, nor of a benign one,
    # nor where the flow names another.
    assert found.background.tolist() == [True, True, False, False, False, False, False]
