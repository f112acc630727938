"""The manifest reader: the real manifests, and every fault named with its line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from veilwatch.corpus import manifest as manifest_module
from veilwatch.corpus.manifest import COLUMNS, CaptureEntry, read_manifest, write_manifest
from veilwatch.errors import CorpusError, OutputError

HEADER = "file,label,family,is_ransomware,group,source_repo,capture_start,notes"
ROW = 'a/b.pcap,malicious,Locky,1,g1,who/what,2016-03-01,"with, comma"'
BENIGN = "c.pcap,benign,,0,g2,,,"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.pcap").touch()
    (tmp_path / "c.pcap").touch()
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    path = folder / "M.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_become_entries(folder: Path) -> None:
    first, second = read_manifest(write(folder, HEADER, ROW, "", BENIGN))
    assert first == CaptureEntry(
        file=folder / "a" / "b.pcap",
        name="a/b.pcap",
        label="malicious",
        family="Locky",
        is_ransomware=True,
        group="g1",
        source_repo="who/what",
        capture_start="2016-03-01",
        extra={"notes": "with, comma"},
    )
    assert (second.label, second.is_ransomware, second.family) == ("benign", False, "")


def test_columns_in_any_order_with_byte_order_mark_and_crlf(folder: Path) -> None:
    lines = [",".join(reversed(line.split(","))) for line in (HEADER, BENIGN)]
    path = folder / "M.csv"
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert [entry.name for entry in read_manifest(path)] == ["c.pcap"]


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        (["file,label,family", "x"], 1,
         "no column is_ransomware, group, source_repo, capture_start"),
        ([HEADER + ",notes"], 1, "column 'notes' appears twice"),
        ([HEADER, ROW.replace("malicious", "Malware")], 2, "unknown label 'Malware'"),
        ([HEADER, ROW.replace(",1,", ",maybe,")], 2, "is_ransomware is 'maybe'"),
        ([HEADER, ROW.replace(",1,", ",,")], 2, "is_ransomware is ''"),
        ([HEADER, BENIGN.replace(",0,", ",1,")], 2, "benign ransomware"),
