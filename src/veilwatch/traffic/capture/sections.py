"""Sections of one pcapng that overlap in time, as `cat a b` makes them: read like several files."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from veilwatch.errors import CaptureError
from veilwatch.schema.captures import FileReport
from veilwatch.traffic.capture.inputs import Input
from veilwatch.traffic.capture.magic import PCAPNG
from veilwatch.traffic.capture.part import WHOLE, Part
from veilwatch.traffic.capture.pcapng import BYTE_ORDER_MAGIC, SECTION, read_pcapng
from veilwatch.traffic.capture.times import TimeWatch

MAX_PARTS: Final = 64
"""Most parts of one file that are read side by side: each keeps the file open once more. A file of
which more overlap is read as it comes, and that is said."""

MAX_SEARCHED: Final = 16 << 30
"""Largest file that is searched for a second section, bytes: it is read once more for that, and
what is larger does not come from the page cache the second time."""

_CHUNK: Final = 1 << 20
_MAGIC: Final = SECTION.to_bytes(4, "big")
_ORDERS: Final = tuple(BYTE_ORDER_MAGIC.to_bytes(4, order) for order in ("big", "little"))
_HEAD: Final = 12  # bytes by which a section header is known


@dataclass(slots=True)
class _Section:
    """Where a section begins, the packets before it, and its earliest and latest time."""

    start: int
    number: int
    first_ns: int | None = None
    last_ns: int = 0


def find_parts(capture: Input) -> list[Part]:
    """Return the parts of a capture that overlap in time; one part where none do.

    Only of a plain file: what is compressed or piped can be read from its beginning alone.
    """
    try:
        if capture.size is None or not _has_another_section(capture.name, capture.size):
            return [WHOLE]
        sections = _survey(capture)
    except (CaptureError, OSError):  # said when the file is read for good
        return [WHOLE]
    parts = [WHOLE]
    latest = None
    for section in sections:
        if section.first_ns is None:
            continue
        if latest is not None and section.first_ns < latest:
            parts[-1] = replace(parts[-1], end=section.start)
            parts.append(Part(section.start, None, section.number, len(parts)))
            latest = section.last_ns
        else:
            latest = max(section.last_ns, latest or 0)
    return parts if len(parts) <= MAX_PARTS else [WHOLE]


def _has_another_section(name: str, size: int) -> bool:
    """Whether a plain pcapng may have a second section; packets may hold what looks like one."""
    if size > MAX_SEARCHED:
        return False
    with Path(name).open("rb") as file:
        held = file.read(_HEAD)
        if held[:4] != _MAGIC:
            return False
        held = b""
        file.seek(_HEAD)
        while chunk := file.read(_CHUNK):
            held += chunk
            at = -1
            while (at := held.find(_MAGIC, at + 1)) >= 0:
                if held[at + 8 : at + _HEAD] in _ORDERS:
                    return True
            held = held[-_HEAD + 1 :]
    return False


def _survey(capture: Input) -> list[_Section]:
    """Read a pcapng for its sections and their times."""
    sections: list[_Section] = []
    watch = TimeWatch()
    window, kind = capture.open()
    with closing(window):
        if kind != PCAPNG or window.source.compression:
            return []
        whole = Part(note=lambda start, number: sections.append(_Section(start, number)))
        seen = 0
        for block in read_pcapng(window, FileReport(capture.name), 0, whole):
            if len(sections) != seen:
                seen, watch = len(sections), TimeWatch()
            clocks = watch.take(block.records)
            section = sections[-1]
            if section.first_ns is None:
                section.first_ns = int(clocks[0])
            section.last_ns = max(section.last_ns, int(clocks[-1]))
    return sections
