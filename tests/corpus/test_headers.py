"""Headers of a corpus: extracted once, cached by content, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.cli.helpers import write_capture
from tests.learning.training.factory import entry
from veilwatch.corpus import cache, headers
from veilwatch.corpus.cache import content_hashes
from veilwatch.corpus.headers import load_headers
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import CorpusError
from veilwatch.progress import Silent
from veilwatch.schema.headers import HEADER_PACKETS, HeaderTable
from veilwatch.traffic.pipeline import read_headers


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "cache_home", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "headers"


@pytest.fixture
def entries(folder: Path, tmp_path: Path) -> list[CaptureEntry]:
    """Three captures, of which the last two are equal."""
    made = []
    for k, flows in enumerate((3, 1, 1)):
        item = entry(k, "malicious" if k else "benign")
        path = write_capture(tmp_path / f"{k}.pcap", flows=flows)
        made.append(replace(item, file=path))
    return made


def load(entries: list[CaptureEntry], **settings: Any) -> list[HeaderTable]:
    return load_headers(entries, content_hashes(entries), workers=1, **settings)


def test_headers_of_each_capture_in_order(entries: list[CaptureEntry]) -> None:
    tables = load(entries)
    for item, table in zip(entries, tables, strict=True):
        np.testing.assert_array_equal(table.values, read_headers([item.file])[0].values)
    assert len(tables[0]) > len(tables[1]) == len(tables[2])


def test_equal_captures_are_read_once_and_a_second_time_none(
    entries: list[CaptureEntry], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(entries)
    assert len(list(folder.rglob("*.parquet"))) == 2
    monkeypatch.setattr(headers, "read_headers", None)
    again = load(entries)
    assert all((a.values == b.values).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("damage", ["cut", "columns", "nulls", "long"])
def test_a_damaged_entry_is_made_anew(
    damage: str, entries: list[CaptureEntry], folder: Path
) -> None:
    first = load(entries)
    path = max(folder.rglob("*.parquet"), key=lambda item: item.stat().st_size)
    frame = pl.read_parquet(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        {
            "columns": frame.rename({"gap": "gaps"}),
            "nulls": frame.with_columns(pl.lit(None, pl.Int64).alias("gap")),
            "long": pl.concat([frame] * HEADER_PACKETS),
        }[damage].write_parquet(path)
    notes = Notes()
    again = load(entries, progress=notes)
    assert all((a.values == b.values).all() for a, b in zip(first, again, strict=True))
    assert len(notes.notes) >= 1 and "made anew" in notes.notes[0]


def test_what_is_no_capture_is_one_line(entries: list[CaptureEntry]) -> None:
    entries[1].file.write_bytes(b"not a capture at all, just words\n" * 3)
    with pytest.raises(CorpusError) as caught:
        load(entries)
    assert str(entries[1].file) in str(caught.value) and caught.value.hint
