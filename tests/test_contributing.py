"""The lists of CONTRIBUTING are true: the files exist, and each kind of change touches few."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.conftest import ROOT

AT_MOST: Final = {"A drift monitor": 5, "A report language": 1}
"""Most files of kinds of change that the design holds to a number."""

MOST: Final = 6
"""Most files of any other kind."""

TO_COME: Final = ("src/veilwatch/learning/drift/", "tests/learning/drift/")
"""Folders that the page says are not there yet; they leave this list when they are."""


def recipes() -> dict[str, list[str]]:
    """Return the files that each kind of change touches, by the heading of its list."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, text = page.partition("## How to add …\n")
    text, _, _ = text.partition("\n## ")
    parts = re.split(r"^### (.*)$", text, flags=re.M)[1:]
    return {
        heading: re.findall(r"^- `([^`]+)`", body, flags=re.M)
        for heading, body in zip(parts[::2], parts[1::2], strict=True)
    }


RECIPES: Final = recipes()


def missing(name: str) -> bool:
    """Whether a file is not there; of a new one, whether there is none like it."""
    return not any(ROOT.glob(name.replace("NAME", "*")))


def files() -> Iterator[str]:
    for names in RECIPES.values():
        yield from names


def test_the_kinds_of_change_that_are_asked_for_are_there() -> None:
    assert {
        *("A tunnel or link type", "A feature", "A detector", "A sink"),
        *("A drift monitor", "A report language"),
    } <= set(RECIPES)


@pytest.mark.parametrize("heading", RECIPES)
def test_a_change_touches_few_files(heading: str) -> None:
    assert 0 < len(RECIPES[heading]) <= AT_MOST.get(heading, MOST)


@pytest.mark.parametrize("name", sorted(set(files())))
def test_files_exist(name: str) -> None:
    if name.startswith(TO_COME):
        assert not any((ROOT / folder).exists() for folder in TO_COME), "take it off TO_COME"
    else:
        assert not missing(name)


def test_the_citation_names_the_version_that_is_built() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in citation
