"""The files of a split: many at a time, few of them open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from veilwatch.traffic.capture import (
    CaptureWriter,
    Direction,
    Interface,
    PcapngWriter,
    PcapWriter,
    RotatingWriter,
    Rotation,
)
from veilwatch.traffic.pipeline.grouping import Group

MAX_OPEN: Final = 256
"""Most files open at one time: with the captures that are read, below the usual limit of 1024."""


class Format(StrEnum):
    """Form of the files."""

    PCAPNG = "pcapng"
    PCAP = "pcap"


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A capture that was written.

    Attributes
    ----------
    path
        Where it lies.
    label
        What it holds, for people.
    packets
        How many.
    """

    path: Path
    label: str
    packets: int


class GroupFiles:
    """Write packets into the files of their groups.

    A file begins with the first packet of its group. No more than `MAX_OPEN` are open at a
    time: the one that was not written to for longest is closed and goes on later. A pcap takes
    one link type, so a group has a pcap for each.

    Parameters
    ----------
    folder
        Where the files appear, whole, with `close`.
    groups
        What may be written.
    form
        Form of all files.
    rotation
        When the next file of a group begins.
    comment
        How the files were made.
    """

    def __init__(
        self, folder: Path, groups: Sequence[Group], form: Format, rotation: Rotation, comment: str
    ) -> None:
        self._folder = folder
        self._groups = groups
        self._form = form
        self._rotation = rotation
        self._comment = comment
        self._writers: dict[tuple[int, int], CaptureWriter | RotatingWriter] = {}
        self._open: OrderedDict[tuple[int, int], CaptureWriter | RotatingWriter] = OrderedDict()
        self._links: dict[int, int] = {}

    def write(
        self,
        group: int,
        ts_ns: int,
        frame: memoryview,
        length: int,
        interface: Interface,
        direction: Direction,
    ) -> None:
        """Write one packet of a group; see `CaptureWriter.write`."""
        key = group, interface.link if self._form is Format.PCAP else 0
        writer = self._writers.get(key)
        if writer is None:
            writer = self._writers[key] = self._begin(group, interface.link)
        self._open[key] = writer
        self._open.move_to_end(key)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].suspend()
        writer.write(ts_ns, frame, length, interface=interface, direction=direction)

    def close(self) -> list[SplitFile]:
        """Put all files in their places and return them in the order in which they began."""
        files = []
        for (group, _), writer in self._writers.items():
            writer.close()
            label = self._groups[group].label
            if isinstance(writer, RotatingWriter):
                files += [SplitFile(path, label, packets) for path, packets in writer.finished]
            else:
                files.append(SplitFile(writer.path, label, writer.packets))
        return files

    def abandon(self) -> None:
        """Remove what is not finished; harmless after `close`."""
        for writer in self._writers.values():
            writer.abandon()

    def _begin(self, group: int, link: int) -> CaptureWriter | RotatingWriter:
        first = self._links.setdefault(group, link)
        name = self._groups[group].name
        if self._form is Format.PCAP and link != first:
            name += f"-linktype{link}"
        path = self._folder / f"{name}.{self._form}"

        def start(path: Path) -> CaptureWriter:
            if self._form is Format.PCAP:
                return PcapWriter(path, link=link)
            return PcapngWriter(path, comment=[self._comment, self._groups[group].label])

        return RotatingWriter(path, start, self._rotation) if self._rotation else start(path)
