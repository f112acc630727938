"""The verbs over a store: what is listed, said and exported, and one line for every fault."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from tests.detection.alerting.samples import make_row
from tests.known import known
from tests.report.factory import HOSTILE_NAMES
from tests.store.samples import make_event, make_incident
from veilwatch.cli.main import command_line
from veilwatch.errors import VeilwatchError
from veilwatch.schema.scores import Reason
from veilwatch.sinks import eve_types
from veilwatch.store import Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with four alerts and two incidents."""
    path = str(tmp_path / "x.db")
    incident = make_incident(0, family="Conti", alerts=3)
    reasons = (Reason("a", 1.0, 2.0, "Talks every minute."),)
    with Store(path) as store:
        store.record(
            [
                make_event(0, host="10.0.0.1", severity=1, family="Conti", incident=incident),
                make_event(1, host="10.0.0.2", reasons=reasons, application="cdn.example"),
                make_event(2, host="10.0.0.3", severity=3, kind="host"),
                make_event(3, host="fd00::1", src_ip="fd00::1", dst_ip="fd00::2"),
            ],
            [incident, make_incident(1, status="closed", host="10.0.0.9")],
        )
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(command_line(words), list(words), catch_exceptions=True)


def good(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def listed(url: str, *words: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(
        good("alerts", "list", "--store", url, "--json", *words)
    )
    return [item["alert"]["host"] for item in found]


def first_id(url: str, host: str = "10.0.0.1") -> str:
    (item,) = json.loads(good("alerts", "list", "--store", url, "--json", "--host", host))
    return str(item["event_id"])


def test_list_and_its_filters(url: str) -> None:
    assert listed(url) == ["fd00::1", "10.0.0.3", "10.0.0.2", "10.0.0.1"]
    assert listed(url, "--limit", "1") == ["fd00::1"]
    assert listed(url, "--severity", "high") == ["10.0.0.1"]
    assert listed(url, "--family", "conti") == ["10.0.0.1"]
    assert listed(url, "--since", "2026-06-01T08:40:02") == ["fd00::1", "10.0.0.3"]
    assert listed(url, "--until", "2026-06-01T10:40:01+02:00") == ["10.0.0.1"]
    assert listed(url, "--since", "9999-01-01") == listed(url, "--until", "1900-01-01") == []
    assert len(listed(url, "--since", "999999w", "--until", "0s")) in (0, 4)
    assert listed(url, "--verdict", "benign") == []
    assert len(listed(url, "--verdict", "none")) == 4
    text = good("alerts", "list", "--store", url)
    assert "4 alerts" in text and "10.0.0.2" in text


def test_verdicts_of_one_person_are_all_kept_and_the_latest_counts(url: str) -> None:
    name = first_id(url)
    for kind, note in (("false_positive", "hm"), ("true_positive", "it was")):
        words = (
            "alerts",
            "verdict",
            name[:10],
            kind,
            "--store",
            url,
            "--by",
            "ana",
            "--note",
            note,
        )
        assert f"{name[:12]}: {kind} by ana" in good(*words)
    assert listed(url, "--verdict", "true_positive") == ["10.0.0.1"]
    assert listed(url, "--verdict", "false_positive") == []
    told = json.loads(good("alerts", "show", name, "--store", url, "--json"))
    assert [said["note"] for said in told["verdicts"]] == ["it was", "hm"]
    text = good("alerts", "show", name[:6], "--store", url)
    assert "true_positive by ana" in text and "false_positive by ana" in text
    assert "T1573.002" in text and "Conti" in text


def test_show_gives_the_reasons(url: str) -> None:
    text = good("alerts", "show", first_id(url, "10.0.0.2"), "--store", url)
    assert "Talks every minute." in text and "cdn.example" in text and "medium" in text


def test_export_as_eve_is_what_readers_of_eve_take(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = good("alerts", "export", "-o", str(out), "--format", "eve", "--store", url)
    assert "4 alerts written" in text
    events = [TypeAdapter(eve_types.Event).validate_json(line) for line in out.open()]
    assert events[0].alert.metadata["host"] == ["10.0.0.1"]
    assert [event.ip_v for event in events] == [4, 4, 4, 6]
    assert known(events[0].flow).bytes_toserver == make_row().fwd_bytes


def test_export_of_events_without_a_row(tmp_path: Path) -> None:
    from dataclasses import replace

    path = str(tmp_path / "x.db")
    with Store(path) as store:
        store.record([replace(make_event(0, src_ip="fd00::1"), flow=None)])
    text = good("alerts", "export", "-o", "-", "--format", "eve", "--store", path)
    assert json.loads(text)["ip_v"] == 6


def test_export_as_json_lines_and_csv(url: str) -> None:
    lines = good("alerts", "export", "-o", "-", "--store", url).splitlines()
    assert json.loads(lines[0])["alert"]["host"] == "10.0.0.1"
    text = good("alerts", "export", "-o", "-", "--format", "csv", "--store", url, "--limit", "2")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["host"] for row in rows] == ["10.0.0.1", "10.0.0.2"]
    assert rows[1]["reasons"] == "Talks every minute."
    assert {row["thin"] for row in rows} == {"false"}


def test_little_evidence_is_shown_and_exported(tmp_path: Path) -> None:
    path = str(tmp_path / "thin.db")
    event = make_event(0, thin=True)
    with Store(path) as store:
        store.record([event])
    text = good("alerts", "export", "-o", "-", "--format", "csv", "--store", path)
    assert [row["thin"] for row in csv.DictReader(io.StringIO(text))] == ["true"]
    assert "little: no conversation" in good("alerts", "show", event.event_id, "--store", path)


def test_an_export_that_fails_leaves_what_stood_there(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("before")
    with Store(url) as store, store._database.writing() as connection:
        connection.exec_driver_sql("UPDATE vw_events SET document = '{}' WHERE host = '10.0.0.3'")
    result = run("alerts", "export", "-o", str(out), "--format", "csv", "--store", url)
    assert isinstance(result.exception, VeilwatchError)
    assert out.read_text() == "before" and len(list(tmp_path.glob(".out*"))) == 0


def test_incidents(url: str) -> None:
    def ids(*words: str) -> list[str]:
        found = json.loads(good("incidents", "list", "--store", url, "--json", *words))
        return [item["incident_id"] for item in found]

    one, two = make_incident(0).incident_id, make_incident(1).incident_id
    assert ids() == [one]
    assert ids("--status", "all") == [two, one] and ids("--status", "closed") == [two]
    assert ids("--status", "all", "--host", "10.0.0.9") == [two]
    assert "Conti" in good("incidents", "list", "--store", url)
    assert "began" in good("incidents", "show", one[:8], "--store", url)
    words = ("--store", url, "--by", "bo", "--note", "reinstalled")
    assert "closed by bo" in good("incidents", "close", one[:8], *words)
    assert ids() == []
    assert "closed by bo: reinstalled" in good("incidents", "show", one, "--store", url)
    told = json.loads(good("incidents", "show", one, "--store", url, "--json"))
    assert (told["closed_by"], told["status"]) == ("bo", "closed")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_do_not_act_on_the_screen(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "x.db")
    reason = (Reason("a", 1.0, 1.0, name),)
    event = make_event(0, family=name, application=name, reasons=reason, subscriber=name)
    incident = make_incident(0, family=name, subscriber=name)
    with Store(path) as store:
        store.record([event], [incident])
    out = good("alerts", "list", "--store", path) + good(
        "alerts", "show", event.event_id, "--store", path
    )
    words = ("--store", path, "--by", "ana\x1b[31m", "--note", name[:2000])
    out += good("alerts", "verdict", event.event_id, "unknown", *words)
    out += good("alerts", "show", event.event_id, "--store", path)
    out += good("incidents", "list", "--store", path)
    out += good("incidents", "show", incident.incident_id, "--store", path)
    for acting in ("\x1b", "\u202e", "\u2028", "\r", "\t"):
        assert acting not in out
    exported = good("alerts", "export", "-o", "-", "--format", "csv", "--store", path)
    (row,) = csv.DictReader(io.StringIO(exported, newline=""))
    assert row["application"] == name.replace("\r\n", "\n")  # the runner's doing


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("alerts", "list", "--store", "{no}"), "no such store"),
        (("alerts", "list", "--since", "yesterday"), "is no time"),
        (("alerts", "list", "--since", "9999999d"), "is no time"),
        (("alerts", "list", "--severity", "worst"), "known: high, medium, low"),
        (("alerts", "show", "zz"), "is no id"),
        (("alerts", "show", "ffffffffffff"), "no event has an id"),
        (("alerts", "verdict", "ffffffff", "benign"), "no event has an id"),
        (("alerts", "export", "-o", "/proc/nowhere/x"), "cannot write"),
        (("incidents", "show", "ffffffff"), "no incident has an id"),
        (("incidents", "close", "ffffffff", "--by", " "), "needs a name"),
    ],
)
def test_faults_are_one_line(url: str, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    asked = [word.format(no=tmp_path / "none.db") for word in words]
    if "--store" not in asked:
        asked += ["--store", url]
    result = run(*asked)
    assert isinstance(result.exception, VeilwatchError), (result.output, result.exception)
    assert told in str(result.exception) and "\n" not in str(result.exception)


def test_the_store_is_named_by_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEILWATCH_STORE", url)
    assert len(json.loads(good("alerts", "list", "--json"))) == 4
