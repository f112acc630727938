"""The manifest of a corpus: a CSV with one row for each labelled capture.

Only `file` and `label` are needed; the other columns of `COLUMNS` have a meaning where they are
there, and any further ones are kept as text in `CaptureEntry.extra`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Literal, cast

from veilwatch.errors import CorpusError
from veilwatch.files import write_text

Label = Literal["malicious", "benign"]

COLUMNS: Final = (
    "file",
    "label",
    "family",
    "is_ransomware",
    "group",
    "source_repo",
    "capture_start",
    "publisher",
    "setting",
    "malicious_endpoints",
)
"""Columns with a meaning, in the order in which they are written."""

NEEDED: Final = ("file", "label")
"""Columns without which there is no manifest."""

MAX_COLUMNS: Final = 256
"""Most columns: manifests have a dozen, and each costs a little for each row."""

MAX_ROW_CHARS: Final = 65_536
"""Longest row: paths have at most 4,096 bytes, remarks a few hundred."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Longest manifest: a quarter of a million rows at a kilobyte each, read into memory at once."""

MAX_ROWS: Final = 250_000
"""Most captures of one corpus: more than any public collection, less than memory minds."""

_LABELS: Final = ("malicious", "benign")
_TRUTH: Final = {"1": True, "0": False, "true": True, "false": False, "": False}


@dataclass(frozen=True, slots=True)
class CaptureEntry:
    """One labelled capture.

    Attributes
    ----------
    file
        Where it lies.
    name
        Its path as the manifest gives it: absolute, or relative to the manifest.
    label
        "malicious" or "benign".
    family
        Malware family, or kind of benign traffic; empty where unknown.
    is_ransomware
        Whether the family is ransomware.
    group
        Captures of one group stay on one side of every split; without the column each capture is
        a group of its own, by its name.
    source_repo
        Who published it.
    capture_start
        Day or time of the first packet, ISO 8601; empty where unknown.
    publisher
        The author, wherever the captures are mirrored; without the column, or where it is empty,
        the owner of the source.
    setting
        What kind of network or act it shows, as in "enterprise-ad"; empty where unknown.
    malicious_endpoints
        Responders whose flows are malicious for sure, as "address:port" with ";" between them;
        empty where only the capture as a whole is known to be malicious.
    extra
        The columns beyond the contract, by name.
    """

    file: Path
    name: str
    label: Label
    family: str
    is_ransomware: bool
    group: str
    source_repo: str
    capture_start: str
    publisher: str = ""
    setting: str = ""
    malicious_endpoints: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the owner of the source for the author where nobody says who that is."""
        if not self.publisher:
            object.__setattr__(self, "publisher", owner(self.source_repo))


def read_manifest(path: str | Path) -> list[CaptureEntry]:
    """Read and check a manifest; every capture it names is on disk.

    Raises
    ------
    CorpusError
        At the first fault, with file, line and column: unreadable, not UTF-8, no CSV, a needed
        column missing or one named twice, too many columns, no rows or too many, a row too long or
        with a wrong number of fields, an empty file or group, an unknown label or truth value, a
        time of the first packet that is none, a capture named twice, captures that are not on disk.
    """
    path = Path(path)
    entries: list[CaptureEntry] = []
    seen: dict[Path, int] = {}
    missing: list[tuple[int, str]] = []
    for line, row in _rows(path, _text(path)):
        if len(entries) == MAX_ROWS:
            raise _fault(path, line, f"more than {MAX_ROWS:,} rows", "split the corpus")
        entry = _entry(path, line, row)
        if entry.file in seen:
            raise _fault(
                path,
                line,
                f"{entry.name!r} was named on line {seen[entry.file]} already",
                "remove one of the rows",
            )
        seen[entry.file] = line
        if not _on_disk(entry.file):
            missing.append((line, entry.name))
        entries.append(entry)
    if missing:
        line, name = missing[0]
        others = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        what = f"{name!r} is not on disk{others}"
        raise _fault(path, line, what, "fetch the captures or remove their rows")
    if not entries:
        raise CorpusError("the manifest names no capture", where=path, hint="add a row for each")
    return entries


def write_manifest(path: str | Path, entries: Sequence[CaptureEntry]) -> None:
    """Write `entries` to `path`, whole or not at all.

    Columns beyond the contract are those of any entry, in the order of their first appearance.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # What nobody knows, or follows from the source, needs no column.
    optional = {
        "publisher": [e.publisher if e.publisher != owner(e.source_repo) else "" for e in entries],
        "setting": [entry.setting for entry in entries],
        "malicious_endpoints": [entry.malicious_endpoints for entry in entries],
    }
    known = [name for name in COLUMNS if any(optional.get(name, ["known"]))]
    extra = list(dict.fromkeys(name for entry in entries for name in entry.extra))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*known, *extra])
    for entry in entries:
        values = {
            **{name: str(getattr(entry, name)) for name in COLUMNS},
            "file": entry.name,
            "is_ransomware": str(int(entry.is_ransomware)),
        }
        more = (entry.extra.get(name, "") for name in extra)
        writer.writerow([*(values[name] for name in known), *more])
    write_text(Path(path), out.getvalue())


def owner(source_repo: str) -> str:
    """Return who owns a repository: the publisher of captures of which nothing else is said."""
    return source_repo.split("/")[0]


def _fault(path: Path, line: int, what: str, hint: str, column: str = "") -> CorpusError:
    place = f", column {column!r}" if column else ""
    return CorpusError(what, where=f"{path}, line {line}{place}", hint=hint)


def _on_disk(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name longer than any file's
        return False


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CorpusError(
            f"cannot read: {error.strerror or error}", where=path, hint="name the manifest file"
        ) from error
    if len(data) > MAX_BYTES:
        raise CorpusError(f"longer than {MAX_BYTES:,} bytes", where=path, hint="split the corpus")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _fault(path, line, "not UTF-8 text", "save the manifest as CSV in UTF-8") from error


def _bounded(path: Path, text: str) -> Iterator[str]:
    """Yield the lines, none of which is too long to be one of a manifest."""
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if len(line) > MAX_ROW_CHARS:
            what = f"a line of more than {MAX_ROW_CHARS:,} characters"
            raise _fault(path, number, what, "shorten it, or give each capture its own line")
        yield line


def _is_day(text: str) -> bool:
    """Whether a text begins with a day of ISO 8601, or is empty."""
    try:
        return not text or bool(date.fromisoformat(text[:10]))
    except ValueError:
        return False


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row that is not blank."""
    reader = csv.reader(_bounded(path, text), strict=True)
    before = 0  # last line of the row before: a quoted field may span lines
    try:
        header = next(reader, [])
        if len(header) > MAX_COLUMNS:
            what = f"{len(header):,} columns, and at most {MAX_COLUMNS:,} are read"
            raise _fault(path, 1, what, "leave out what is not needed")
        wanted = [column for column in NEEDED if column not in header]
        if wanted:
            hint = f"name it in the first line, as in {','.join(COLUMNS)}"
            raise _fault(path, 1, f"no column {', '.join(wanted)}", hint)
        twice = [column for column, count in Counter(header).items() if count > 1]
        if twice:
            raise _fault(path, 1, f"column {twice[0][:40]!r} appears twice", "rename one of them")
        before = reader.line_num
        for fields in reader:
            line, before = before + 1, reader.line_num
            if not fields:
                continue
            if len(fields) != len(header):
                raise _fault(
                    path,
                    line,
                    f"{len(fields)} fields where the first line names {len(header)}",
                    "quote fields that hold a comma",
                )
            yield line, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise _fault(path, before + 1, f"not CSV: {error}", "mend the quotes") from error


def _entry(path: Path, line: int, row: dict[str, str]) -> CaptureEntry:
    name, label = row["file"], row["label"]
    group = row.get("group", name)
    for column, value in (("file", name), ("group", group)):
        if not value.strip():
            raise _fault(path, line, f"column {column!r} is empty", "fill it in", column)
    if label not in _LABELS:
        what = f"unknown label {label[:40]!r}"
        raise _fault(path, line, what, "use malicious or benign", "label")
    said = row.get("is_ransomware", "").strip()
    ransomware = _TRUTH.get(said.lower())
    if ransomware is None:
        what = f"is_ransomware is {said[:40]!r}"
        raise _fault(path, line, what, "use 1 or 0", "is_ransomware")
    if ransomware and label == "benign":
        hint = "correct the label or is_ransomware"
        raise _fault(path, line, "benign ransomware", hint, "is_ransomware")
    if "\0" in name:
        raise _fault(path, line, "a path with a null byte", "write the path of the file", "file")
    start = row.get("capture_start", "").strip()
    if not _is_day(start):
        what = f"capture_start is {start[:40]!r}"
        raise _fault(path, line, what, "write 2026-06-01 or leave it empty", "capture_start")
    return CaptureEntry(
        file=path.parent / name,  # an absolute path stays as it is
        name=name,
        label=cast(Label, label),
        family=row.get("family", ""),
        is_ransomware=ransomware,
        group=group,
        source_repo=row.get("source_repo", ""),
        capture_start=start,
        publisher=row.get("publisher", "").strip(),
        setting=row.get("setting", "").strip(),
        malicious_endpoints=row.get("malicious_endpoints", "").strip(),
        extra={column: value for column, value in row.items() if column not in COLUMNS},
    )
