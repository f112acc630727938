"""`veilwatch sinks list` and `veilwatch esm check` as a user sees them."""

from __future__ import annotations

from pathlib import Path

from tests.cli.helpers import veilwatch
from tests.sinks.receivers import Elasticsearch, closed_port
from veilwatch.sinks.base import SCHEMES


def test_every_kind_of_sink_is_listed() -> None:
    shown = veilwatch("sinks", "list")
    assert shown.returncode == 0
    for name, scheme in SCHEMES.items():
        assert f"{name}://" in shown.stdout and scheme.example in shown.stdout


def test_a_check_that_finds_nothing_wrong(tmp_path: Path) -> None:
    done = veilwatch("esm", "check", f"secbuzzer+file://{tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "41730009" in done.stdout and "suricata-" in done.stdout
    assert "+08:00" in done.stdout and "wrong" not in done.stdout
    with Elasticsearch() as server:
        url = f"secbuzzer+http://u:secret-word@127.0.0.1:{server.port}"
        done = veilwatch("esm", "check", url)
        assert done.returncode == 0 and "eta-malware-" in done.stdout
        assert "secret-word" not in done.stdout + done.stderr
        assert veilwatch("esm", "check", url, "-q").stdout == ""


def test_a_check_that_finds_something_is_one_clear_line(tmp_path: Path) -> None:
    for url, told in (
        (f"secbuzzer+unix://{tmp_path}/eve.socket", "start DetectionEdge"),
        (f"secbuzzer+file://{tmp_path}/none", "SURICATA_LOG_PATH"),
        (f"secbuzzer+http://u:secret-word@127.0.0.1:{closed_port()}", "Connection refused"),
        ("secbuzer+unix:///x", "did you mean secbuzzer+unix?"),
    ):
        done = veilwatch("esm", "check", url)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("veilwatch: ") and told in line
        assert "secret-word" not in done.stdout + done.stderr
