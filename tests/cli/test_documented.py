"""Every command that a page prints is understood, and runs as printed or has a reason not to."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from tests.store.samples import make_event, make_incident
from tests.test_docs import PAGES, commands
from veilwatch.cli.main import command_line
from veilwatch.store import Store

NOT_RUN: Final = {
    r"sudo ": "needs root, or the sensor's user",
    r".* -i eth1": "needs a network interface and the right to read it",
    r".*\bwatch ": "runs until it is stopped; tests/cli/test_documented_watch.py runs it",
    r".*trial/": "runs beside the sensor of the trial; tests/cli/test_documented_watch.py runs it",
    r".*\besm check ": "needs ESM; tests/cli/test_sinks.py runs it against a stand-in",
    r".*tcpdump ": "needs root and tcpdump",
    r".*postgresql://": "needs a PostgreSQL server",
    r".*\b(train|compare|reproduce) ": "takes minutes; tests/cli has small ones",
    r".*evaluate .*--split": "trains, which takes minutes; test_train_evaluate_detect runs one",
    r".*--subscriber-key-file": "needs a secret key; tests/cli/test_subscribers.py runs it",
}
"""Commands that this test only has parsed, by how they begin, and why."""

BEFORE: Final = re.compile(r"(sudo (-u \S+ )?)?(env )?([A-Z_]+=\S+ )*")
"""What may stand before `veilwatch`: who runs it, and with which environment."""

PRINTED: Final = sorted(
    {
        (page.name, command.partition(" #")[0].strip())
        for page in PAGES
        for command in commands(page)
        if re.match(BEFORE.pattern + r"(\S*/)?veilwatch\s", command)
    }
)


def words_of(command: str) -> list[str]:
    """Return the arguments of `veilwatch` in a command."""
    return shlex.split(BEFORE.sub("", command, count=1))[1:]


def parse(words: list[str]) -> Any:
    """Have a command line understood, without running it; return the verb."""
    command: Any = typer.main.get_command(command_line(words))
    context = command.make_context("veilwatch", list(words))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return command


def reason(command: str) -> str:
    """Return why a command is not run, '' if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), "")


@pytest.mark.parametrize(("page", "command"), PRINTED)
def test_commands_are_understood(page: str, command: str) -> None:
    assert parse(words_of(command)).callback is not None


def test_every_reason_is_needed() -> None:
    for pattern in NOT_RUN:
        if pattern != r".*tcpdump ":  # no command of ours begins it
            assert any(re.match(pattern, command) for _, command in PRINTED), pattern


EVERY: Final = 6
"""Of so many labelled captures one is in the manifests: a command is to work, not to find much."""


@pytest.fixture
def place(emulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> Path:
    """A folder with what a command names, as a reader of the pages has it."""
    monkeypatch.chdir(tmp_path)
    field = emulation / "field" / "n3.pcapng"
    for name in ("mirror.pcapng", "n3.pcapng", "core.pcapng", "infected.pcap"):
        shutil.copy(field, tmp_path / name)
    (tmp_path / "n3-monday").mkdir()
    shutil.copy(field, tmp_path / "n3-monday" / "09.pcapng")
    (tmp_path / "model").symlink_to(emulation / "model")
    lab = (emulation / "lab" / "MANIFEST.csv").read_text().splitlines()
    for name in re.findall(r"\S+\.csv", command.partition("--corpus")[2])[:1]:
        # Captures that the model was not trained on: the same, with another end.
        others = [lab[0]]
        for row in lab[1::EVERY]:
            file, rest = row.split(",", 1)
            copy = tmp_path / "other" / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((emulation / "lab" / file).read_bytes()[:-64])
            others.append(f"other/{file},{rest}")
        (tmp_path / name).write_text("\n".join(others) + "\n")
    store = tmp_path / "store.db"
    monkeypatch.setenv("VEILWATCH_STORE", str(store))
    event = replace(make_event(0, family="Conti"), event_id="3f2a9c" + "0" * 26)
    incident = replace(make_incident(0, family="Conti"), incident_id="9b1c04" + "0" * 26)
    with Store(str(store)) as opened:
        opened.record([event], [incident])
    return tmp_path


RUN: Final = [item for item in PRINTED if not reason(item[1])]
NEEDS_CONFIG: Final = re.compile(r"config (check|show)")


@pytest.mark.parametrize(("page", "command"), RUN)
def test_commands_run_as_printed(
    place: Path, page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in re.findall(r"\b([A-Z_]+)=(\S+) ", command.partition("veilwatch")[0]):
        monkeypatch.setenv(name, value)
    words = words_of(command)
    if NEEDS_CONFIG.search(command):
        init = ["config", "init", words[2]]
        assert CliRunner().invoke(command_line(init), init).exit_code == 0
    result = CliRunner().invoke(command_line(words), words)
    assert result.exit_code == 0, (result.output, result.exception)
    for output in re.findall(r"-o (\S+)", command):
        assert (place / output).exists() or "split" in words, output
