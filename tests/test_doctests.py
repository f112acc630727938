"""The examples of docstrings: each module that has some is run as Python's `doctest` runs it."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from typing import Final

import pytest

from tests.conftest import ROOT

EXAMPLE: Final = re.compile(r"^ +>>> (?!.*# doctest: \+SKIP)", re.M)
"""An example that can be run; others are sketches that need a capture, a store or an interface."""

MODULES: Final = sorted(
    ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
    for folder, where in (("src", "src"), (".", "scripts"))
    for path in (ROOT / where).rglob("*.py")
    if EXAMPLE.search(path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert failed == 0, capsys.readouterr().out
    assert tried > 0, "examples that are never run"
