"""What holds for every verb alike: how it is spelled, what it says, and what it leaves."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.cli.helpers import feed, veilwatch, veilwatch_process, write_capture
from tests.store.samples import make_event, make_incident
from veilwatch.cli import main, terminal
from veilwatch.cli.main import command_line
from veilwatch.cli.outputs import leaving, left
from veilwatch.errors import VeilwatchError
from veilwatch.store import Store

IPV6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
NAME = "a-rather-long-name-of-a-server-in-a-content-network.eu-central-1.cdn.example"
PSEUDONYM = "s-4936b394c1918f10"

Verb = tuple[tuple[str, ...], Any]


def verbs(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[Verb]:
    """Yield every verb with the words that name it."""
    command = command or typer.main.get_command(command_line())
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, verb in below.items():
        yield from verbs(verb, (*words, name))


ALL = {" ".join(words): command for words, command in verbs()}


def options(command: Any) -> dict[str, Any]:
    """Return options by the name of their parameter."""
    return {p.name: p for p in command.params if p.param_type_name == "option"}


def run(*words: str | Path) -> Result:
    asked = [str(word) for word in words]
    return CliRunner().invoke(command_line(asked), asked)


@pytest.mark.parametrize("name", ALL)
def test_every_verb_has_help_under_both_names_with_an_example(name: str) -> None:
    short, long = run(*name.split(), "-h"), run(*name.split(), "--help")
    assert short.exit_code == long.exit_code == 0 and short.stdout == long.stdout
    assert f"Example:\n    veilwatch {name}" in short.stdout
    assert "`" not in short.stdout and "…..." not in short.stdout


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ALL)
def test_help_never_cuts_the_name_of_an_option(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = run(*name.split(), "-h").stdout
    for option in options(ALL[name]).values():
        for spelling in option.opts:
            assert re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", text), spelling
    if width >= 80:
        choices = max((len(x) for x in re.findall(r"<\S+>", text)), default=0)
        # An example is one line, so that it can be copied.
        lines = [line for line in text.splitlines() if not line.startswith("    veilwatch ")]
        assert max(map(len, lines)) <= max(width, choices + 30)


def test_what_verbs_share_is_spelled_and_explained_alike() -> None:
    told: dict[str, set[tuple[str, ...]]] = {}
    for command in ALL.values():
        for name, option in options(command).items():
            spelling = (*option.opts, *option.secondary_opts)
            if name in ("output", "output_"):
                assert spelling[:2] == ("--output", "-o"), spelling
                assert set(spelling[2:]) <= {"--out"}
                continue
            if name in ("as_json", "quiet", "force", "seed", "threads", "detector", "folds"):
                told.setdefault(name, set()).add((*spelling, option.help))
            if "--config" in spelling or "-c" in spelling:
                assert spelling == ("--config", "-c") and option.metavar == "FILE"
            if "--host" in spelling:
                assert spelling == ("--host",)
    for name, ways in told.items():
        assert len(ways) == 1, (name, ways)
    assert {name: way[0] for (name, (way,)) in ((n, tuple(w)) for n, w in told.items())} == {
        "as_json": "--json",
        "quiet": "--quiet",
        "force": "--force",
        "seed": "--seed",
        "threads": "--threads",
        "detector": "--detector",
        "folds": "--folds",
    }


@pytest.mark.parametrize("name", ALL)
def test_conventions_of_a_verb(name: str) -> None:
    known = options(ALL[name])
    by_opt = {opt: option for option in known.values() for opt in option.opts}
    assert by_opt["-q"].name == "quiet" and by_opt["-q"].opts == ["--quiet", "-q"]
    if "-o" in by_opt and name not in ("demo", "split"):  # which say in their help what they do
        assert "--force" in by_opt
    for opt in ("--since", "--until", "--duration", "--idle-timeout", "--active-timeout"):
        if opt in by_opt:
            assert by_opt[opt].metavar in ("WHEN", "TIME")
    assert not {"--html", "--json-file", "--outfile"} & by_opt.keys()
    if "--json" in by_opt:
        assert by_opt["--json"].is_flag
    assert all(option.help for option in known.values())


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with names and addresses as long as they come."""
    path = str(tmp_path / "x.db")
    incident = make_incident(0, family="Conti", host=IPV6, subscriber=PSEUDONYM, alerts=1_234_567)
    with Store(path) as store:
        store.record(
            [
                make_event(0, host=IPV6, src_ip=IPV6, dst_ip=IPV6, dst_port=65535, application=""),
                make_event(1, host="10.0.0.2", application=NAME, family="Conti"),
            ],
            [incident],
        )
    return path


def joined(text: str) -> str:
    """Return what is shown without the breaks between lines."""
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("width", ["60", "80", "120", ""])
def test_tables_of_the_store_cut_nothing(
    url: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", width)
    alerts = run("alerts", "list", "--store", url).stdout
    incidents = run("incidents", "list", "--store", url).stdout
    assert IPV6 in alerts and "10.0.0.2" in alerts and IPV6 in incidents
    assert PSEUDONYM in incidents and "1,234,567" in incidents
    assert NAME in joined(alerts) and f"[{IPV6}]:65535" in joined(alerts)
    for event in json.loads(run("alerts", "list", "--store", url, "--json").stdout):
        assert event["event_id"][:12] in alerts
        shown = run("alerts", "show", event["event_id"], "--store", url).stdout
        assert event["event_id"] in shown and "…" not in shown
    assert "…" not in alerts + incidents
    for line in (alerts + incidents).splitlines():
        assert len(line) <= int(width or 10_000) and line == line.rstrip()
    if not width:  # redirected: one line a row
        assert len(alerts.splitlines()) == 4 and NAME in alerts
        assert f"[{IPV6}]:65535" in alerts


@pytest.mark.parametrize("width", ["60", "80", "120", ""])
def test_inspect_cuts_nothing(tmp_path: Path, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", width)
    capture = write_capture(tmp_path / f"{'x' * 90}.pcap")
    wrapped = tmp_path / "n3.pcapng"
    assert run("corpus", "encapsulate", capture, "-o", wrapped, "-q", "--outer-ipv6").exit_code == 0
    text = run("inspect", capture, wrapped, "-q").stdout
    told = json.loads(run("inspect", capture, wrapped, "--json").stdout)
    # The name may be folded within its column, but no letter of it is lost.
    assert text[: text.index("Sessions")].count("x") >= 90
    assert told["sessions"]
    for session in told["sessions"]:
        assert len(re.findall(r"\bs-[0-9a-f]{16}\b", text)) == len(told["sessions"])
        for end in session["tunnels"]:
            assert f"0x{end['teid']:08x}" in text and end["address"] in text
    assert "…" not in text
    table = text[text.index("Sessions") :].splitlines() if width else []
    assert all(len(line) <= int(width) for line in table if "flows without" not in line)


def test_quiet_leaves_results_and_errors(tmp_path: Path, url: str) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    quiet = run("flows", capture, "-o", tmp_path / "a.csv", "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")
    loud = run("flows", capture, "-o", tmp_path / "b.csv")
    assert "5 flows from 29 packets" in loud.stderr
    shown = run("inspect", capture, "-q")
    assert "Balance" in shown.stdout and shown.stderr == ""
    listed = run("alerts", "list", "--store", url, "-q").stdout
    assert "10.0.0.2" in listed and "2 alerts" not in listed
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-7])
    told = run("flows", cut, "-o", tmp_path / "c.csv", "-q")
    assert "cut.pcap" in told.stderr
    both = run("flows", cut, "-o", tmp_path / "d.csv")
    assert both.stderr.count("cut.pcap") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("flows", "{capture}", "-o", "{there}.csv"),
        ("record", "-i", "lo", "-o", "{there}.pcapng"),
        ("corpus", "encapsulate", "{capture}", "-o", "{there}.pcapng"),
        ("corpus", "lab", "{folder}"),
        ("detect", "{capture}", "--model", "{none}", "-o", "{folder}"),
        ("train", "--corpus", "{none}", "-o", "{folder}"),
        ("compare", "--corpus", "{none}", "-o", "{folder}"),
        ("evaluate", "--corpus", "{none}", "--split", "flow", "-o", "{there}.json"),
        ("reproduce", "header-words", "--corpus", "{none}", "-o", "{there}.json"),
        ("alerts", "export", "--store", "{url}", "-o", "{there}.csv"),
        ("report", "field", "--store", "{url}", "-o", "{there}.html"),
        ("site", "learn", "-c", "{none}", "--name", "x", "--since", "7d", "-o", "{there}.json"),
        ("config", "init", "{there}.toml"),
    ],
)
def test_what_exists_is_replaced_only_when_asked(
    tmp_path: Path, url: str, words: tuple[str, ...]
) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("MANIFEST.csv", "eve.json", "model.json", "comparison.html"):
        (folder / name).write_text("before")
    there = tmp_path / "there"
    for suffix in (".csv", ".json", ".html", ".pcapng", ".toml"):
        there.with_suffix(suffix).write_text("before")
    places = {"capture": capture, "there": there, "folder": folder, "url": url}
    asked = [word.format(none=tmp_path / "none", **places) for word in words]
    if words[0] == "site":
        config = tmp_path / "sensor.toml"
        run("config", "init", config)
        asked[3] = str(config)
    result = run(*asked)
    assert isinstance(result.exception, VeilwatchError), (result.output, result.exception)
    told = str(result.exception)
    if words[0] != "site":
        assert "exists already" in told and "--force" in told
    before = {p.name: p.read_text() for p in (*folder.iterdir(), *tmp_path.glob("there.*"))}
    assert set(before.values()) == {"before"}


def test_force_replaces_and_devices_take_what_they_are_given(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    out = tmp_path / "a.csv"
    out.write_text("before")
    assert run("flows", capture, "-o", out, "-q", "--force").exit_code == 0
    assert len(out.read_text().splitlines()) == 6
    before = Path("/dev/null").stat().st_rdev
    assert run("flows", capture, "-o", "/dev/null", "-q").exit_code == 0
    assert Path("/dev/null").stat().st_rdev == before
    assert run("flows", capture, "-o", tmp_path, "-q").exit_code != 0
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert run("flows", capture, "-o", pipe, "-q").exit_code == 0
    assert reader.communicate(timeout=30)[0].decode() == out.read_text()
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "--corpus", "{none}", "-o", "m", "--detector", "lightgmb"), "mean lightgbm?"),
        (("train", "--corpus", "{none}", "-o", "m", "--split", "moon"), "--split: unknown split"),
        (("evaluate", "--corpus", "{none}", "--split", "flow", "--detector", "x"), "--detector:"),
        (("evaluate", "--corpus", "{none}", "--split", "moon"), "--split: unknown split 'moon'"),
        (("evaluate", "--corpus", "{none}", "--split", "flow", "-o", "x.txt"), ".json, .html"),
        (("compare", "--corpus", "{none}", "-o", "m", "--detectors", "lstm,x"), "--detectors:"),
        (("compare", "--corpus", "{none}", "-o", "m", "--splits", "x"), "--splits:"),
        (("alerts", "list", "--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("incidents", "list", "--until", "2026-13-01"), "--until: '2026-13-01' is no time"),
        (("report", "field", "-o", "x.html", "--since", "1y"), "--since: '1y' is no time"),
        (("report", "field", "-o", "x.pdf"), "known: .html"),
        (("report", "field"), "nothing to write"),
        (("alerts", "list", "--since", "1d", "--until", "2d"), "ends before it begins"),
        (("alerts", "export", "-o", "x.xlsx"), "known: .csv, .jsonl, .json"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(word.format(none=tmp_path / "none.csv") for word in words))
    assert isinstance(result.exception, VeilwatchError), (result.output, result.exception)
    assert told in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        *(("90", True), ("90s", True), ("1.5m", True), ("24h", True), ("7d", True), ("2 m", True)),
        *(("", False), ("x", False), ("-3", False), ("5y", False), ("0", False), ("1e9", False)),
        *(("9" * 30, False), ("\u0663s", False)),
    ],
)
def test_durations(tmp_path: Path, text: str, good: bool) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    words = ("flows", capture, "-o", "-", "-q", "--idle-timeout", text, "--active-timeout", "1h")
    result = run(*words)
    assert (result.exit_code == 0) is good, result.output
    assert good or "--idle-timeout" in result.stderr


def test_alerts_are_exported_in_the_form_of_the_suffix(tmp_path: Path, url: str) -> None:
    for name, begins in (("x.csv", "event_id,"), ("x.jsonl", '{"event_id"'), ("x.json", '{"time')):
        out = tmp_path / name
        assert run("alerts", "export", "-o", out, "--store", url, "-q").exit_code == 0
        assert out.read_text().startswith(begins), out.read_text()[:40]
    assert run("alerts", "export", "-o", tmp_path / "y.txt", "--store", url).exit_code != 0
    forced = ("alerts", "export", "-o", tmp_path / "y.txt", "--format", "csv", "--store", url)
    assert run(*forced).exit_code == 0


def test_a_filter_that_matches_nothing_is_said(tmp_path: Path, url: str) -> None:
    none = run("alerts", "list", "--store", url, "--host", "10.9.9.9", "--since", "900w", "-q")
    assert none.exit_code == 0 and "no alert matches --since 900w --host 10.9.9.9" in none.stdout
    none = run("incidents", "list", "--store", url, "--status", "closed")
    assert "no incident matches --status closed" in none.stdout
    out = tmp_path / "none.csv"
    none = run("alerts", "export", "--store", url, "--family", "x", "-o", out, "-q")
    assert none.exit_code == 0 and "no alert matches" in none.stderr
    capture = write_capture(tmp_path / "a.pcap")
    none = run("split", capture, "-o", tmp_path / "s", "--where", "dst_port = 1", "-q")
    assert none.exit_code == 0 and "no flow matches: where dst_port = 1" in none.stderr


def test_files_of_a_folder_that_are_no_captures_are_named(tmp_path: Path) -> None:
    write_capture(tmp_path / "a.pcap")
    for k in range(7):
        (tmp_path / f"note-{k}.txt").write_text("no capture")
    (tmp_path / "a\x1b[2J.txt").write_text("hostile")
    result = run("flows", tmp_path, "-o", "-")
    assert result.exit_code == 0
    assert "8 files are no captures and were left out" in result.stderr
    assert "note-0.txt" in result.stderr and "and 3 more" in result.stderr
    assert "\x1b" not in result.stderr
    (tmp_path / "a.pcap").unlink()
    with pytest.raises(VeilwatchError, match=r"no capture in this folder, only .*note-0\.txt"):
        raise run("flows", tmp_path, "-o", "-").exception or AssertionError


def test_none_is_null_in_every_form(tmp_path: Path) -> None:
    import csv

    import polars as pl

    capture = write_capture(tmp_path / "a.pcap")
    for suffix in ("parquet", "csv", "jsonl", "log"):
        run("flows", capture, "-o", tmp_path / f"a.{suffix}", "-q")
    columns = ("fwd_qfi", "bwd_qfi", "fwd_wscale", "bwd_wscale", "dns_response_code")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert all(frame[name].null_count() == frame.height == 5 for name in columns)
    with (tmp_path / "a.csv").open(newline="") as stream:
        assert {row[name] for row in csv.DictReader(stream) for name in columns} == {""}
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        assert all(json.loads(line)[name] is None for name in columns)
    written = [x for x in (tmp_path / "a.log").read_text().splitlines() if x[0] != "#"]
    assert not any("255" in line.split("\t") for line in written)
    out = tmp_path / "s"
    assert run("split", capture, "-o", out, "--where", "fwd_qfi IS NULL", "-q").exit_code == 0
    assert (out / "all.pcapng").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["flows", "{capture}", "-o", "-", "-q"],
        ["--help"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                ["inspect", "{capture}", "-q"],
                ["inspect", "{capture}", "--json"],
                ["split", "-h"],
                ["sinks", "list"],
            )
        ),
    ],
)
def test_nobody_reads_on(tmp_path: Path, words: list[str]) -> None:
    capture = write_capture(tmp_path / "a.pcap", flows=60)
    process = subprocess.Popen(
        [sys.executable, "-m", "veilwatch", *(word.format(capture=capture) for word in words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # as `head -0` does
    said = process.stderr.read().decode()
    assert process.wait(60) == 0, said
    assert "Traceback" not in said and "Broken pipe" not in said and "Exception" not in said


def hard_to_say(folder: Path) -> list[list[str]]:
    """Commands that print what many encodings have not: signs of ours, and names of files."""
    capture = write_capture(folder / "α…→.pcap")
    odd = os.fsdecode(os.fsencode(str(folder)) + b"/\xff.pcap")
    Path(odd).write_bytes(capture.read_bytes())
    return [
        ["inspect", str(capture)],
        ["inspect", odd, "-q"],
        ["flows", odd, "-o", str(folder / "a.csv"), "--force"],
        ["inspect", str(folder / "ж.pcap")],
        ["sinks", "list"],
        ["inspect", "-h"],
        ["demo", "-h"],
    ]


def check_said(code: int, words: list[str], said: str) -> None:
    assert "Traceback" not in said and "UnicodeEncodeError" not in said, (words, said)
    assert code == (2 if "ж" in words[-1] else 0), (words, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_ends_in_a_traceback(tmp_path: Path, encoding: str) -> None:
    for words in hard_to_say(tmp_path):
        done = veilwatch(*words, encoding=encoding)
        check_said(done.returncode, words, done.stderr)


@pytest.mark.parametrize(
    ("encoding", "first"),
    [
        ("ascii", 3),
        *(
            pytest.param(name, None, marks=pytest.mark.slow)
            for name in ("ascii", "latin-1", "utf-8")
        ),
    ],
)
def test_no_terminal_ends_in_a_traceback(
    tmp_path: Path, encoding: str, first: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("LC_ALL", "C")
    for words in hard_to_say(tmp_path)[:first]:
        done = veilwatch_process(*words)
        check_said(done.returncode, words, done.stderr)


def test_signs_have_a_plain_form() -> None:
    codecs.register_error("veilwatch", main._replacement)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="veilwatch")
    stream.write("a … → ж \udcff")
    stream.flush()
    assert stream.buffer.getvalue() == b"a ... -> \\u0436 \\xff"


def test_ctrl_c_says_what_it_left(tmp_path: Path) -> None:
    done, other = tmp_path / "a.csv", tmp_path / "b.csv"
    with pytest.raises(KeyboardInterrupt), leaving(done, other, kept="the cache stays"):
        done.write_text("whole")
        raise KeyboardInterrupt
    assert left() == f"written: {done}; the cache stays"
    with leaving(other):
        pass
    assert left() == "nothing was written"
    with pytest.raises(VeilwatchError), leaving(other, kept="the cache stays"):
        raise VeilwatchError("bad input")
    assert left() == "nothing was written"
    with pytest.raises(KeyboardInterrupt), leaving(done):
        raise KeyboardInterrupt
    assert left() == "nothing was written"


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (signal.SIGINT, ["flows", "-", "-o", "{out}.csv"], b"nothing was written"),
        (signal.SIGTERM, ["flows", "-", "-o", "{out}.csv"], b"nothing was written"),
        (signal.SIGTERM, ["inspect", "-"], b"nothing was written"),
        (
            signal.SIGINT,
            ["split", "-", "-o", "{out}", "--rotate-mb", "1"],
            b"a rotation had finished stay",
        ),
    ],
)
def test_ctrl_c_and_sigterm_in_a_verb(
    tmp_path: Path, number: int, words: list[str], told: bytes
) -> None:
    asked = [word.format(out=tmp_path / "out") for word in words]
    process = subprocess.Popen(
        [sys.executable, "-m", "veilwatch", *asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    feed(process, tmp_path / "in.pcap")
    for _ in range(1 if number == signal.SIGINT else 2):  # as `timeout` sends it
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    said = b"interrupted" if number == signal.SIGINT else b"ended by SIGTERM"
    assert b"Traceback" not in stderr and b"veilwatch: " + said + b"; " in stderr and told in stderr
    assert not list(tmp_path.glob("out.csv")) and not list(tmp_path.glob(".out*"))


def test_advice_follows_the_cause(tmp_path: Path) -> None:
    import errno

    from veilwatch.files import output_error

    for number, words in (
        (errno.EACCES, "may not write there"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "free some space"),
        (errno.ENOENT, "no such folder"),
        (errno.EISDIR, "is a folder"),
    ):
        told = str(output_error(tmp_path, OSError(number, os.strerror(number))))
        assert words in told and ("space" in told) == (number == errno.ENOSPC)


def test_screens_are_as_wide_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert terminal.console.width == 72
    monkeypatch.delenv("COLUMNS")
    assert terminal.console.width == terminal.UNBOUNDED
    assert veilwatch_process("--version").stdout.startswith("veilwatch ")
