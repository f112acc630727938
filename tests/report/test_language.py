"""A language is its catalogue and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tests.report import factory
from tests.report.test_document import document
from veilwatch.report import catalogue as module
from veilwatch.report.detection.page import render_html

TITLE = ("Malware in encrypted traffic", "加密流量中的惡意程式")


@pytest.fixture
def language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A language of which there is a catalogue, and no line of code."""
    english = (files("veilwatch.report") / "text" / "en.toml").read_text(encoding="utf-8")
    assert TITLE[0] in english
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "zh-Hant.toml").write_text(english.replace(*TITLE), encoding="utf-8")
    monkeypatch.setattr(module, "files", lambda _package: tmp_path)
    yield "zh-Hant"
    module.catalogue.cache_clear()


def test_a_new_catalogue_is_all_that_a_language_takes(language: str) -> None:
    page = render_html(document(factory.empty_scene()), language=language)
    assert '<html lang="zh-Hant">' in page
    assert TITLE[1] in page and TITLE[0] not in page
