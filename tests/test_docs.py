"""What the pages promise: they match the code, their commands exist, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT
from veilwatch.cli.main import command_line
from veilwatch.learning.features import FEATURE_SETS
from veilwatch.schema.flows import FLOW_COLUMNS

PAGES = [
    path
    for path in (
        *sorted(ROOT.glob("*.md")),
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if path.is_file()
]

# Built from parts, so that this file does not hold what it looks for.
INDEX_HOSTS = re.compile("|".join(("py" + r"pi\.org", "python" + "hosted", "index" + "-url")))
MACHINE_PATHS = re.compile(
    r"(?<![\w.-])/(?:" + "|".join(("home/[a-z]", "Users/[A-Z]", "root/", "work/")) + ")"
)


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["counters.md", "features.md", "flows.md", "sensor-config.md", "sinks.md", "secbuzzer-esm.md"],
)
def test_generated_page_is_up_to_date(make_docs: ModuleType, name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == make_docs.PAGES[name](), "run `make docs`"


def test_generated_pages_are_complete(make_docs: ModuleType) -> None:
    features, flows = make_docs.features_page(), make_docs.flows_page()
    for item in FEATURE_SETS.values():
        told = make_docs.runs(item)
        assert sum(map(len, told)) == len(item.features)
        for specs in told:
            assert f"| {make_docs.named(specs)} |" in features
            assert len({(spec.unit, spec.shortcut) for spec in specs}) == 1
    assert [line.split("`")[1] for line in flows.splitlines() if line.startswith("| `")] == [
        column.name for column in FLOW_COLUMNS
    ]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (pl.UInt16, "u16"),
        (pl.Int64, "i64"),
        (pl.Float32, "f32"),
        (pl.Boolean, "bool"),
        (pl.String, "string"),
        (pl.List(pl.UInt8), "list of u8"),
        (pl.Array, "array"),
    ],
)
def test_types_in_short_words(make_docs: ModuleType, dtype: Any, expected: str) -> None:
    assert make_docs.type_name(dtype) == expected


def commands(page: Path) -> Iterator[str]:
    """Yield the command lines in a page's shell blocks."""
    for block in re.findall(
        r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ").partition("  #")[0].strip()
            if command and not command.startswith("#"):
                yield command


def unknown_in(command: str) -> str:
    """Return what a command line names that does not exist here, '' if all of it does."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return next((w for w in arguments if "=" not in w and w not in targets), "")
    if program.startswith("python"):
        script = next((w for w in arguments if w.endswith(".py")), None)
        return script if script and not (ROOT / script).is_file() else ""
    return unknown_to_veilwatch(arguments) if program == "veilwatch" else ""


def unknown_to_veilwatch(arguments: list[str]) -> str:
    """Return the verb or option that `veilwatch` does not have, '' if it has them all."""
    command: Any = typer.main.get_command(command_line())
    for word in arguments:
        if word in {"|", ">", "&&", ";"}:
            break
        verbs = getattr(command, "commands", None)
        if not word.startswith("-") and verbs is not None:
            if word not in verbs:
                return word
            command = verbs[word]
        elif word.startswith("-") and word not in {"-", "--help"}:
            known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            if word.partition("=")[0] not in known:
                return word
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_exist(page: Path) -> None:
    assert {c: bad for c in commands(page) if (bad := unknown_in(c))} == {}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make demo", ""),
        ("make dinner", "dinner"),
        ("PYTHON=python3 make setup", ""),
        (".venv/bin/veilwatch flows a.pcap -o a.parquet", ""),
        ("veilwatch flows a.pcap --no-such-option", "--no-such-option"),
        ("veilwatch guess a.pcap", "guess"),
        ("veilwatch corpus encapsulate a.pcap", ""),
        ("python benchmarks/no_such.py", "benchmarks/no_such.py"),
        ("git clone somewhere", ""),
    ],
)
def test_the_check_of_commands_itself(command: str, expected: str) -> None:
    assert unknown_in(command) == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_slow_test_is_named_in_the_page_on_testing() -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(tests/\S+\.py)` \|", page, re.M))
    slow = re.compile(r"\bpytest\.mark\.slow\b")
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if slow.search(path.read_text(encoding="utf-8"))
    }
    assert named == found


def test_every_package_has_its_place_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "veilwatch"
    packages = [path.parent.name for path in source.glob("*/__init__.py")]
    parted = ("traffic", "corpus", "learning", "detection")
    packages += [
        path.parent.name for name in parted for path in source.glob(f"{name}/*/__init__.py")
    ]
    assert [name for name in packages if f"`{name}/`" not in page] == []


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yield name and text of every text file under version control."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip(f"git cannot list the files: {listed.stderr.decode().strip()}")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                yield name, data.decode("utf-8", "replace")


def test_no_file_names_a_place_of_one_machine_or_a_package_index() -> None:
    here = str(ROOT)
    found = {
        f"{name}: {match.group()}"
        for name, text in tracked_texts()
        for pattern in (INDEX_HOSTS, MACHINE_PATHS, re.compile(re.escape(here) + r"\b"))
        for match in pattern.finditer(text)
    }
    assert found == set()


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    wanted = map(Requirement, [*project["dependencies"], *extras])
    unmet = [
        str(need)
        for need in wanted
        if not need.specifier.contains(versions.get(canonicalize_name(need.name), Version("0")))
    ]
    assert unmet == []
