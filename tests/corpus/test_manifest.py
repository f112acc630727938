"""The manifest reader: the real manifests, and every fault named with its line."""

from __future__ import annotations

import csv
import re
import time
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
        (["file,family", "x"], 1, "no column label"),
        ([f"file,label,{','.join(map(str, range(2_000)))}"], 1, "2,002 columns, and at most 256"),
        ([HEADER, "x" * 70_000 + BENIGN], 2, "a line of more than 65,536 characters"),
        ([HEADER, BENIGN + "x", BENIGN.replace(",g2,,", ",g2,,yesterday")], 3,
         "capture_start is 'yesterday'"),
        ([HEADER + ",notes"], 1, "column 'notes' appears twice"),
        ([HEADER, ROW.replace("malicious", "Malware")], 2, "unknown label 'Malware'"),
        ([HEADER, ROW.replace(",1,", ",maybe,")], 2, "is_ransomware is 'maybe'"),
        ([HEADER, BENIGN.replace(",0,", ",1,")], 2, "benign ransomware"),
        ([HEADER, ROW.replace("g1", "")], 2, "column 'group' is empty"),
        ([HEADER, ROW.replace("a/b.pcap", "")], 2, "column 'file' is empty"),
        ([HEADER, ROW, BENIGN, ROW.replace("a/b", "a//b")], 4,
         "'a//b.pcap' was named on line 2 already"),
        ([HEADER, ROW, "", "x.pcap" + BENIGN[6:], "y.pcap" + BENIGN[6:], "z" + BENIGN[6:]], 4,
         "'x.pcap' is not on disk (and 2 more)"),
        ([HEADER, "a" + BENIGN[6:]], 2, "'a' is not on disk"),
        ([HEADER, "n" * 5000 + BENIGN[6:]], 2, "is not on disk"),
        ([HEADER, "/etc/x" + BENIGN[6:]], 2, "'/etc/x' is not on disk"),
        ([HEADER, "a/../../x" + BENIGN[6:]], 2, "'a/../../x' is not on disk"),
        ([HEADER, "a\0b" + BENIGN[6:]], 2, "a path with a null byte"),
        ([HEADER, ROW, "c.pcap,benign"], 3, "2 fields where the first line names 8"),
        ([HEADER, ROW.replace('"with, comma"', '"with,\ntwo lines"'), "c.pcap,benign"], 4,
         "2 fields where the first line names 8"),
        ([HEADER, 'c.pcap,"benign', BENIGN], 2, "not CSV"),
        ([HEADER, 'c.pcap,"benign"x,a'], 2, "not CSV"),
    ],
)  # fmt: skip
def test_fault_names_the_line_and_what_to_do(
    folder: Path, lines: list[str], line: int, what: str
) -> None:
    path = write(folder, *lines)
    with pytest.raises(CorpusError) as caught:
        read_manifest(path)
    assert re.fullmatch(
        re.escape(f"{path}, line {line}") + r"(, column '\w+')?", caught.value.where
    )
    assert what in caught.value.what
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_two_columns_are_enough_and_paths_may_be_absolute(folder: Path) -> None:
    (folder / "below").mkdir()
    lines = ("label,file", f"benign,{folder / 'c.pcap'}", "malicious,../a/b.pcap")
    path = folder / "below" / "M.csv"
    path.write_text("\n".join(lines))
    first, second = read_manifest(path)
    assert first.file == folder / "c.pcap" and first.group == str(folder / "c.pcap")
    assert second.file.samefile(folder / "a" / "b.pcap") and not second.is_ransomware
    assert (second.family, second.source_repo, second.capture_start) == ("", "", "")


def test_a_column_is_named_with_its_fault(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"M\.csv, line 2, column 'is_ransomware': "):
        read_manifest(write(folder, HEADER, ROW.replace(",1,", ",maybe,")))


def test_many_columns_take_no_time(folder: Path) -> None:
    begun = time.monotonic()
    many = ",".join(f"c{k}" for k in range(10_000))
    with pytest.raises(CorpusError, match="columns"):
        read_manifest(write(folder, f"file,label,{many}", *[BENIGN] * 50))
    assert time.monotonic() - begun < 1


def test_faults_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorpusError, match="names no capture"):
        read_manifest(write(folder, HEADER))
    with pytest.raises(CorpusError, match="no column file"):
        read_manifest(write(folder))
    with pytest.raises(CorpusError, match="cannot read: No such file"):
        read_manifest(folder / "missing.csv")
    with pytest.raises(CorpusError, match="cannot read: Is a directory"):
        read_manifest(folder)
    path = folder / "M.csv"
    path.write_bytes(f"{HEADER}\n{ROW}\n".encode() + b"\xff\xfe")
    with pytest.raises(CorpusError, match="line 3: not UTF-8 text"):
        read_manifest(path)
    write(folder, HEADER, ROW, BENIGN)
    monkeypatch.setattr(manifest_module, "MAX_ROWS", 1)
    with pytest.raises(CorpusError, match="line 3: more than 1 rows"):
        read_manifest(path)
    monkeypatch.setattr(manifest_module, "MAX_BYTES", 100)
    with pytest.raises(CorpusError, match="longer than 100 bytes"):
        read_manifest(path)


def test_what_is_written_is_read_back(folder: Path) -> None:
    entries = read_manifest(write(folder, HEADER, ROW, BENIGN))
    write_manifest(folder / "N.csv", entries)
    assert read_manifest(folder / "N.csv") == entries
    (folder / "file").touch()
    with pytest.raises(OutputError):
        write_manifest(folder / "file" / "N.csv", entries)


@pytest.mark.corpus
@pytest.mark.parametrize("part", [".", "gtp", "hostile"])
def test_real_manifests(corpus_path: Path, part: str, tmp_path: Path) -> None:
    path = corpus_path / part / "MANIFEST.csv"
    entries = read_manifest(path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(entries) == len(rows) > 100
    for entry, row in zip(entries, rows, strict=True):
        assert entry.file == path.parent / row["file"]
        assert (entry.label, entry.family, entry.group) == (
            row["label"],
            row["family"],
            row["group"],
        )
        assert entry.is_ransomware == (row["is_ransomware"] == "1")
        assert entry.extra == {name: row[name] for name in row if name not in COLUMNS}
    write_manifest(tmp_path / "again.csv", entries)
    with (tmp_path / "again.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == rows
