"""`veilwatch report field`: page and document from a store, one line for every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.report import field_factory as factory
from tests.report.test_html import check_inert
from veilwatch.cli.main import command_line
from veilwatch.errors import VeilwatchError
from veilwatch.report.field.document import FieldDocument

PERIOD = ("--since", "2026-06-01", "--until", "2026-06-02")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("store") / "x.db")
    factory.past(days=1, alerts=24, every=30).fill(path)
    return path


def run(*words: str) -> Result:
    words = ("report", "field", *words)
    return CliRunner().invoke(command_line(words), list(words), catch_exceptions=True)


def test_page_and_document_come_from_the_store(url: str, tmp_path: Path) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    words = ("--store", url, *PERIOD, "-o", str(page), "-o", str(document))
    result = run(*words, "--title", "Ward <3>")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "24 alerts reported" in result.stdout
    text = " ".join(check_inert(page.read_text()).text)
    assert "Ward <3>" in text and "24 alerts on" in text and "UTC" in text
    plain = json.loads(document.read_text())
    found = FieldDocument.model_validate(plain)
    past = factory.past(days=1, alerts=24, every=30)
    assert found.carried.packets == sum(r[4] for r in past.counters if r[3] == "packets")
    assert found.uptime.sensors[0].starts == 2
    assert "--since 2026-06-01" in found.command and url not in found.command


def test_what_has_not_been_yet_is_no_gap(url: str, tmp_path: Path) -> None:
    document = tmp_path / "report.json"
    words = ("--since", "1h", "--until", "2200-01-01", "-o", str(document))
    assert run("--store", url, *words, "-o", str(tmp_path / "x.html")).exit_code == 0
    found = FieldDocument.model_validate_json(document.read_text())
    assert found.uptime.period_s < 3700


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--store", "{no}"), "no such store"),
        (("--since", "yesterday"), "is no time"),
        (("--since", "2026-06-02", "--until", "2026-06-01"), "ends before it begins"),
        (("--since", "2026-06-01", "--until", "2026-06-01"), "the period is empty"),
        (("--since", "1980-01-01"), "at most 1,100 days"),
        (("-o", "/proc/nowhere/x"), "cannot write"),
    ],
)
def test_faults_are_one_line(url: str, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    page = tmp_path / "report.html"
    asked = [word.format(no=tmp_path / "none.db") for word in words]
    for option, value in (("--store", url), ("-o", str(page))):
        if option not in asked:
            asked += [option, value]
    result = run(*asked)
    assert isinstance(result.exception, VeilwatchError), (result.output, result.exception)
    assert told in str(result.exception) and "\n" not in str(result.exception)
    assert not page.exists()
