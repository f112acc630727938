"""`veilwatch sinks list` and `veilwatch esm check` as a user sees them."""

from __future__ import annotations

from pathlib import Path

from tests.cli.helpers import veilwatch
from tests.sinks.events import many
from tests.sinks.receivers import Elasticsearch, closed_port
from veilwatch.sinks.base import SCHEMES, open_sink
from veilwatch.sinks.delivery import Delivery
from veilwatch.sinks.spool import Spool


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


def test_a_spool_can_be_looked_at_and_sent_from_again(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with Elasticsearch() as server, Spool(path) as spool:
        url = f"secbuzzer+http://127.0.0.1:{server.port}"
        delivery = Delivery("esm", open_sink(url), spool)
        events = many(6)
        spool.append(events, ["esm", "other"])
        server.item_faults = {events[0].event_id: (400, "mapper_parsing_exception")}
        delivery.run_once()
        shown = veilwatch("sinks", "status", path)
        assert shown.returncode == 0 and "mapper_parsing_exception" in shown.stdout
        assert [line.split()[0] for line in shown.stdout.splitlines()][2:4] == ["esm", "other"]

        server.item_faults = {}
        assert "1 events" in veilwatch("sinks", "readmit", path, "esm").stdout
        assert delivery.run_once().delivered == 1
        del server.documents[sorted(server.documents)[0]]
        done = veilwatch("sinks", "reconcile", path, "esm", url, "--since", "2026-05-01")
        assert "1 events are missing" in done.stdout, done.stderr
        assert delivery.run_once().delivered == 1 and len(server.documents) == 6
        done = veilwatch("sinks", "resend", path, "esm", "--since", "2026-05-01T00:00+08:00")
        assert "6 events" in done.stdout


def test_mistakes_with_a_spool_are_told(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    Spool(path).close()
    mistakes: list[tuple[list[str | Path], str]] = [
        (["status", tmp_path / "none"], "no spool here"),
        (["readmit", path, "esm"], "it is empty"),
        (["resend", path, "esm", "--since", "yesterday"], "is no time"),
        (["resend", path, "esm", "--since", "2026-06-02", "--until", "2026-06-01"], "before"),
    ]
    for words, told in mistakes:
        done = veilwatch("sinks", *words)
        assert done.returncode == 2 and told in done.stderr, done.stderr
