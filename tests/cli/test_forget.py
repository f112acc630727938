"""`veilwatch forget`: one person is gone from a state folder, everybody else is as before."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from tests.cli.helpers import veilwatch_process
from tests.conftest import ROOT
from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.cli.main import command_line
from veilwatch.detection.alerting.gate import AlertGate, Policy
from veilwatch.detection.alerting.limits import Limits
from veilwatch.errors import VeilwatchError
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.sensor.state import hold_state
from veilwatch.sinks.spool import Spool
from veilwatch.sinks.wire import from_bytes
from veilwatch.store import ArchiveLimits, FlowArchive, Store

HOST, NEIGHBOUR, SIX = "10.45.0.7", "10.45.0.70", "fd00::7"
SUBSCRIBER = "s-" + "a" * 16
SINK = "jsonl+file:///tmp/out"


def run(*words: str | Path) -> Result:
    texts = [str(word) for word in words]
    return CliRunner().invoke(command_line(texts), texts, env={"COLUMNS": "200"})


def good(*words: str | Path) -> str:
    result = run("forget", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def told(*words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(good(*words, "--json"))
    return found


def refused(*words: str | Path) -> str:
    result = run("forget", *words)
    assert isinstance(result.exception, VeilwatchError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def counts(document: dict[str, Any]) -> list[int]:
    return [value for value in document.values() if type(value) is int]


def make_sensor(folder: Path, people: list[tuple[str, str]]) -> Path:
    """Make what a sensor keeps of some hosts and subscribers; return its configuration."""
    folder.mkdir()
    file, state = folder / "sensor.toml", folder / "state"
    file.write_text(
        f'[sensor]\nname = "s1"\nstate = "state"\n[capture]\ninterfaces = ["eth1"]\n'
        f'[model]\npath = "model"\n[sinks]\nurls = ["{SINK}", "https://u:hunter2@h/"]\n'
    )
    gate = AlertGate("s1", Policy(limits=Limits(host_burst=1, host_per_hour=0.001)))
    state.mkdir(mode=0o700)
    with Store(str(state / "veilwatch.db")) as store, Spool(state / "spool.db") as spool:
        for n, (host, subscriber) in enumerate(people):
            for port in (443, 444):
                alert = make_alert(n, host=host, subscriber=subscriber, dst_port=port)
                row = make_row(src_ip=host, subscriber=subscriber)
                decision = gate.decide(alert, row, now_ns=alert.last_ns, made_ns=START_NS + n)
                spool.append(decision.events, [SINK])
                store.record(decision.events, decision.incidents, state={"desk": gate.state()})
                for event in decision.events:
                    store.judge(Verdict(event.event_id, VerdictKind.BENIGN, "ana", 1))
        store.save_state({"scores/s1/7": {"units": {"units": 1, "highest": [0.5]}}})
        store.count({"packets": 1}, minute_ns=START_NS, sensor="s1", run="a")
    limits = ArchiveLimits(days=None, max_bytes=None, keep_free=0)
    with FlowArchive(state / "flows", limits) as archive:
        for n, (host, subscriber) in enumerate(people):
            rows = {"src_ip": [host, "192.0.2.1"], "dst_ip": ["192.0.2.1", host]}
            flows = pl.DataFrame({**rows, "subscriber": [subscriber, ""], "number": [n, n]})
            archive.write(flows, START_NS + n // 2 * 3600 * SECOND)
    return file


PEOPLE = [(HOST, ""), (NEIGHBOUR, ""), (SIX, ""), ("10.45.0.9", SUBSCRIBER)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_sensor(tmp_path / "sensor", PEOPLE)


BODIES = "SELECT body FROM events ORDER BY seq"


def kept(config: Path) -> dict[str, Any]:
    """Return what a sensor keeps, without the tokens of all and ids of evidence."""
    state = config.parent / "state"
    with Store(str(state / "veilwatch.db")) as store, Spool(state / "spool.db") as spool:
        gate = store.load_state("desk")
        del gate["limits"]["all"], gate["limits"]["new"], gate["book"]["seen"]
        return {
            "desk": gate,
            "scores": store.load_state("scores/s1/7"),
            "events": list(store.events()),
            "incidents": store.incidents(),
            "counters": store.counters(),
            "spooled": [from_bytes(body) for (body,) in spool._file._db.execute(BODIES)],
            "flows": sorted(
                row
                for path in sorted((state / "flows").glob("flows-*.parquet"))
                for row in pl.read_parquet(path).iter_rows()
            ),
        }


def contents(folder: Path) -> dict[str, bytes]:
    """Return what the files hold but locks; of a database its rows: its header counts openings."""
    return {
        str(path.relative_to(folder)): rows(path) if path.suffix == ".db" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != "lock"
    }


def rows(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump()).encode()


def bytes_of(name: str, folder: Path) -> list[str]:
    """Return the files that hold a name which no longer one begins with."""
    word = name.encode()
    longer = {NEIGHBOUR.encode()} if name == HOST else set()
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file()
        and (data := path.read_bytes()).count(word) - sum(data.count(other) for other in longer)
    ]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--host", HOST), HOST),
        (("--host", "FD00:0:0::0007"), SIX),
        (("--subscriber", SUBSCRIBER), SUBSCRIBER),
    ],
)
def test_one_person_is_gone_and_what_is_of_others_is_as_it_was(
    config: Path, words: tuple[str, str], name: str
) -> None:
    state, key = config.parent / "state", words[0].removeprefix("--")
    assert bytes_of(name, state)
    before, files = kept(config), contents(state)
    dry = told("-c", config, *words, "--dry-run")
    assert contents(state) == files
    done = told("-c", config, *words)
    assert dry == {**done, "dry_run": True}
    assert done[key] == name and done["dry_run"] is False
    expected = {
        "events": 2,
        "verdicts": 2,
        "incidents": 1,
        "open_incidents": 1,
        "repeats": 1,
        "limits": 2,
        "spooled": 2,
        "flows": 2 if key == "host" else 1,
        "files": 1,
        "unfinished": 0,
    }
    assert {what: done[what] for what in expected} == expected
    assert bytes_of(name, state) == []

    def others(items: list[Any]) -> list[Any]:
        longer = NEIGHBOUR if name == HOST else "!"
        return [i for i in items if name not in json.dumps(i, default=repr).replace(longer, "")]

    after = kept(config)
    for what in ("events", "incidents", "spooled", "flows"):
        assert after[what] == others(before[what]), what
    for part, names in {"book": ["open", "spent"], "limits": ["hosts", "held"]}.items():
        for what in names:
            assert after["desk"][part][what] == others(before["desk"][part][what]), what
    assert after["desk"]["told"] == others(before["desk"]["told"])
    assert (after["scores"], after["counters"]) == (before["scores"], before["counters"])


def test_what_it_prints(config: Path) -> None:
    text = good("-c", config, "--host", HOST, "--dry-run")
    assert "would be deleted" in text and "nothing of" not in text
    text = good("-c", config, "--host", HOST)
    lines = {line.rsplit(maxsplit=1)[0]: line.split()[-1] for line in text.splitlines()}
    assert lines["store: incidents"] == "1" and lines["archive: flows"] == "2"
    assert SINK in text and "hunter2" not in text
    assert "backups" in text and "sudo" in text and "database server" not in text
    text = good("-c", config, "--host", HOST)
    assert f"there is nothing of {HOST} to delete" in text
    assert counts(told("-c", config, "--host", HOST)) == [0] * 10


def test_what_cannot_be_reached_is_named(config: Path) -> None:
    aside = config.parent / "state" / "veilwatch.db.damaged-20260601T084000Z"
    aside.write_text("old")
    file = config.read_text().replace('interfaces = ["eth1"]', 'folder = "drop"')
    config.write_text(file.partition("[sinks]")[0])
    with Store(str(config.parent / "state" / "veilwatch.db")) as store:
        alert = make_alert(9, host="10.45.0.1", dst_ip="10.45.0.3")
        gate = AlertGate("s1", Policy())
        store.record(gate.decide(alert, make_row(), now_ns=alert.last_ns, made_ns=1).events)
    said = "\n".join(told("-c", config, "--host", "10.45.0.3")["not_reached"])
    assert f"a damaged store, {aside}" in said and f"captures in {config.parent / 'drop'}" in said
    assert "configured no more" in said
    assert "events of others: 2 name them" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nobody is named (give either --host or --subscriber)"),
        (("--subscriber", ""), "nobody is named"),
        (("--host", HOST, "--subscriber", SUBSCRIBER), "at once"),
        (("--host", "10.45.0"), "'10.45.0' is no address"),
        (("--host", "10.45.0.0/24"), "is no address"),
        (("--host", "a\nb\x1b[31m"), "is no address"),
        (("--subscriber", "%"), "no pseudonym"),
    ],
)
def test_who_is_not_named_is_not_forgotten(
    config: Path, words: tuple[str, ...], message: str
) -> None:
    before = contents(config.parent)
    assert message in refused("-c", config, *words)
    assert contents(config.parent) == before


def test_a_store_or_folder_that_is_not_there(config: Path) -> None:
    state = config.parent / "state"
    (state / "veilwatch.db").rename(config.parent / "else.db")
    assert "no such store" in refused("-c", config, "--host", HOST)
    assert not (state / "veilwatch.db").exists()
    config.write_text(config.read_text().replace("[sinks]", '[store]\nurl = "else.db"\n[sinks]'))
    config.write_text(config.read_text().replace('"else.db"', f'"{config.parent / "else.db"}"'))
    config.write_text(config.read_text().replace('state = "state"', 'state = "none"'))
    assert "no state folder here" in refused("-c", config, "--host", HOST)
    assert not (config.parent / "none").exists()


def test_a_sensor_without_spool_and_archive(config: Path) -> None:
    state = config.parent / "state"
    for path in (*state.glob("spool.db*"), *state.glob("flows/*")):
        path.unlink()
    (state / "flows").rmdir()
    assert told("-c", config, "--host", HOST)["events"] == 2
    assert not (state / "spool.db").exists() and not (state / "flows").exists()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_it_refuses_while_a_sensor_or_what_is_left_of_one_works_there(config: Path) -> None:
    state = config.parent / "state"
    before = contents(state)
    with hold_state(state):
        text = refused("-c", config, "--host", HOST)
        # Counting changes nothing, and a sensor need not be stopped for it.
        beside = told("-c", config, "--host", HOST, "--dry-run")
    assert "works on it" in text and "stop the sensor first" in text
    with locked(state / "judge.lock"):
        assert "still works on it" in refused("-c", config, "--host", HOST)
        assert told("-c", config, "--host", HOST, "--dry-run") == beside
    assert contents(state) == before
    done = told("-c", config, "--host", HOST)
    assert done == {**beside, "dry_run": False} and done["events"] == 2


def test_a_damaged_desk_is_told_and_nothing_is_done(config: Path) -> None:
    state = config.parent / "state"
    with Store(str(state / "veilwatch.db")) as store:
        store.save_state({"desk": {"format": 2, "told": [[HOST]]}})
    before = kept_events(config)
    assert "start the sensor once" in refused("-c", config, "--host", HOST)
    assert kept_events(config) == before


def kept_events(config: Path) -> int:
    with Store(str(config.parent / "state" / "veilwatch.db")) as store:
        return len(list(store.events()))


def test_the_command_as_a_user_runs_it(config: Path) -> None:
    done = veilwatch_process("forget", "--config", config, "--host", HOST)
    assert done.returncode == 0 and "store: incidents" in done.stdout, done.stderr
    done = veilwatch_process("forget", "--config", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "--subscriber" in done.stderr


HELD = """
import sys, time
from veilwatch.cli import main
from veilwatch.sinks.spool import Spool
def wait(self, person, *, dry_run=False):
    print("in the spool", flush=True)
    time.sleep(60)
Spool.forget_person = wait
sys.argv[0] = "veilwatch"
main.run()
"""


def test_interrupted_it_can_be_run_again(config: Path) -> None:
    words = ["forget", "-c", str(config), "--host", HOST]
    with subprocess.Popen(
        [sys.executable, "-c", HELD, *words],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "in the spool\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    found = told(*words[1:])
    assert (found["events"], found["spooled"], found["flows"]) == (0, 2, 2)
    assert bytes_of(HOST, config.parent / "state") == []
