"""Sentences of the verdict: whole for none, one and several, and what puts it in doubt."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.report import factory
from tests.report.test_document import document as build
from veilwatch.counting import counted, plural
from veilwatch.report.catalogue import catalogue
from veilwatch.report.detection.document import Origin, ReportDocument
from veilwatch.report.detection.verdict import details, doubts, verdict

TEXT = catalogue()


@pytest.fixture(scope="module")
def document() -> ReportDocument:
    return build(factory.scene())


def changed(document: ReportDocument, **values: Any) -> ReportDocument:
    chosen = {k: values.pop(k) for k in ("flows", "hosts_seen") if k in values}
    renamed = {"hosts" if k == "hosts_seen" else k: v for k, v in chosen.items()}
    traffic = document.traffic.model_copy(update=renamed)
    return document.model_copy(update={"traffic": traffic, **values})


@pytest.mark.parametrize("count", [0, 1, 2, 1200])
def test_counts_agree_with_their_nouns(document: ReportDocument, count: int) -> None:
    for hosts in ((), document.hosts):
        found = changed(
            document,
            flows=count,
            hosts_seen=count,
            hosts=hosts,
            alerted_hosts=count if hosts else 0,
            alerted_flows=count,
            thin_alerts=count,
        )
        words = " ".join([verdict(found, TEXT), *details(found, TEXT)])
        assert not re.search(r"\b1 (flows|hosts)\b(?! judged)", words)
        assert not re.search(r"\b(0|2|1,200) (flow|host|alert)\b", words)
        assert " ." not in words and "; ." not in words and "by mistake;" not in words
    assert counted(count, "flow") == f"{count:,} {'flow' if count == 1 else 'flows'}"
    assert plural("malware family", count).endswith("family" if count == 1 else "families")


def test_false_alerts_that_are_expected_are_not_mixed_up_with_alerts(
    document: ReportDocument,
) -> None:
    words = " ".join(details(changed(document, flows=2000, alerted_flows=216), TEXT))
    assert "false alerts would be expected. Alerted, rightly or not: 216 flows." in words


def test_severity_and_probability_are_explained_where_they_are_shown(
    document: ReportDocument,
) -> None:
    card = document.hosts[0]
    alert = card.alert.model_copy(update={"severity": 3, "score": 0.937, "probability": 0.031})
    model = document.model.model_copy(update={"prior": 0.001})
    hosts = (card.model_copy(update={"alert": alert}),)
    words = " ".join(details(changed(document, hosts=hosts, model=model), TEXT))
    assert "score 0.937, low severity" in words
    assert "if 1 host in 1,000 is infected, this one is with a probability of 3.1 %" in words
    assert "Severity says how far a score lies above its threshold" in words


def test_what_the_model_learned_from_stands_above_the_verdict(document: ReportDocument) -> None:
    def said(**values: Any) -> list[str]:
        return doubts(document.model_copy(update={"origin": Origin(**values)}), TEXT)

    assert said() == []
    (emulated,) = said(emulated=True)
    assert emulated.startswith("This model was trained on emulated traffic")
    (one,) = said(learned=("a.pcap",), learned_flows=0.9)
    assert "this very capture (a.pcap)" in one
    (more,) = said(learned=("a.pcap", "b.pcap"), more_learned=3)
    assert "from 5 of these very captures (a.pcap, b.pcap, …)" in more
    (flows,) = said(learned_flows=0.254)
    assert flows.startswith("About 25% of these flows")
