"""`veilwatch config`: what it writes is good, what it prints holds no secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.cli.helpers import veilwatch
from veilwatch.cli.main import command_line
from veilwatch.errors import VeilwatchError


def run(*words: str | Path) -> Result:
    texts = [str(word) for word in words]
    return CliRunner().invoke(command_line(texts), texts, env={"COLUMNS": "200"})


def good(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_init_writes_a_file_that_check_finds_good(tmp_path: Path) -> None:
    path = tmp_path / "sensor.toml"
    assert "written" in good("config", "init", path)
    assert path.stat().st_mode & 0o007 == 0
    text = good("config", "check", path)
    assert "good" in text and "no model at /etc/veilwatch/model" in text
    again = run("config", "init", path)
    assert isinstance(again.exception, VeilwatchError) and "already" in str(again.exception)
    assert good("config", "init", "-") == path.read_text()


def test_show_masks_secrets_and_names_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sensor.toml"
    path.write_text(
        '[capture]\nfolder = "spool"\n[model]\npath = "m"\n[store]\n'
        'url = "postgresql://vw:hunter2@db/vw"\n[sinks]\nurls = ["https://u:hunter2@h/?token=hunter2"]\n'
    )
    monkeypatch.setenv("VEILWATCH_LOG__LEVEL", "debug")
    text = good("config", "show", path, "--set", "capture.ring_mb=128")
    values = json.loads(good("config", "show", path, "--set", "capture.ring_mb=128", "--json"))
    assert "hunter2" not in text and "hunter2" not in json.dumps(values)
    assert values["log.level"] == {"value": "debug", "from": "VEILWATCH_LOG__LEVEL"}
    assert values["capture.ring_mb"] == {"value": 128, "from": "--set"}
    assert values["capture.folder"]["from"] == f"{path}:2"
    assert values["flow.max_flows"]["from"] == "default"
    path.chmod(0o644)
    assert "everybody can read it" in good("config", "check", path)
    path.chmod(0o600)
    assert "everybody can read it" not in good("config", "check", path)


def test_check_reads_the_allow_list(tmp_path: Path) -> None:
    path = tmp_path / "sensor.toml"
    path.write_text(
        '[capture]\ninterfaces = ["e"]\n[model]\npath = "m"\n[alerts]\nallow_file = "a.toml"\n'
    )
    allow = tmp_path / "a.toml"
    allow.write_text('[[allow]]\nreason = "old"\nuntil = 2020-01-01\nport = 1\n')
    text = good("config", "check", path)
    assert "a.toml:1: expired" in text
    allow.write_text("[[allow]]\nreason = 'x'\nuntil = 2020-01-01\n")
    result = run("config", "check", path)
    assert "a.toml:1" in str(result.exception) and "everything" in str(result.exception)


def test_check_looks_for_interfaces_folders_and_what_sinks_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sensor.toml"

    def check(capture: str, *urls: str) -> str:
        sinks = json.dumps(urls)
        path.write_text(f"[capture]\n{capture}\n[model]\npath = 'm'\n[sinks]\nurls = {sinks}\n")
        return " ".join(good("config", "check", path).split())

    text = check('interfaces = ["lo", "no-such-if"]')
    assert "no interface no-such-if on this machine, which has" in text
    assert "no interface lo " not in text
    assert "no folder at" in check(f'folder = "{tmp_path / "none"}"')
    assert "no folder at" not in check(f'folder = "{tmp_path}"')
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    text = check(
        'interfaces = ["lo"]',
        "kafka://broker:9092/alerts",
        "eve+flie:///tmp/x",
        "webhook+https://h/services/hunter2?secret-file=/nonexistent/key",
        f"jsonl+file://{tmp_path}",
        f"jsonl+file://{tmp_path}?keep-days=3",
    )
    for part in (
        "Kafka needs confluent-kafka",
        "did you mean eve+file?",
        "/nonexistent/key: cannot read the secret",
        "is named twice",
    ):
        assert part in text
    assert "hunter2" not in text and text.count("would not start") == 3
    assert list(tmp_path.iterdir()) == [path]  # nothing was sent


def test_check_reads_the_model(tmp_path: Path) -> None:
    path = tmp_path / "sensor.toml"
    path.write_text('[capture]\nfolder = "."\n[model]\npath = "m"\n')
    assert "model.path: no model at" in good("config", "check", path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text("{ not json")
    text = " ".join(good("config", "check", path).split())
    assert "model.path: the sensor would not start: " in text and "model.json" in text
    # One of emulated traffic: tests/cli/test_documented_watch.py.


def test_no_secret_in_a_path_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "sensor.toml"
    path.write_text(
        '[capture]\nfolder = "."\n[model]\npath = "m"\n'
        '[sinks]\nurls = ["webhook+https://hooks.example/services/hunter2/hunter2"]\n'
    )
    for words in ((), ("--json",)):
        text = good("config", "show", path, *words)
        assert "hunter2" not in text and "hooks.example/services/" in text


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "sensor.toml"
    path.write_text('[capture]\ninterfaces = ["e"]\nring_mbs = 3\n[model]\npath = "m"\n')
    result = veilwatch("config", "check", path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == (
        f"veilwatch: {path}:3: unknown name capture.ring_mbs (did you mean ring_mb?)\n"
    )
