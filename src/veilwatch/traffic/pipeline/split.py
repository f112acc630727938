"""From captures to captures: the packets of chosen flows, parted into files.

What a flow is (its service, its server name, whose it is) is known at its end, when its packets
have gone by. So the captures are read twice: once to make flow tables, once to write.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch import __version__
from veilwatch.errors import CaptureError, OutputError
from veilwatch.files import make_folder, write_text
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.packets import PacketBatch, RawBlock
from veilwatch.schema.text import ascii_escaped
from veilwatch.traffic.capture import Captures, Direction, Interface, Rotation, as_names, can_reopen
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline.extract import FlowReader
from veilwatch.traffic.pipeline.groupfiles import Format, GroupFiles, SplitFile
from veilwatch.traffic.pipeline.grouping import MAX_VALUE, UNWANTED, Group, GroupBy, Grouping
from veilwatch.traffic.pipeline.selection import Selection

DEFAULT_FILES: Final = 1024
"""Files of a split unless the caller asks for more: what a person looks through."""

MAX_FILES: Final = 1_000_000
"""Most files of a split: beyond that file systems and people give up."""

MAX_INTERFACES: Final = 1024
"""Interfaces that are told apart in the files; the packets of further ones are marked with their
link type only, so that a capture of many interfaces does not fill each file with descriptions."""

INDEX: Final = "index.csv"
"""File that says what each capture holds."""

LINKTYPE_RAW: Final = 101
"""IPv4 or IPv6 without a link layer."""

_INNER: Final = Interface(
    LINKTYPE_RAW, "innermost", "innermost IP packets; outbound is uplink, sent by the subscriber"
)
_DIRECTIONS: Final = {0: Direction.INBOUND, 1: Direction.OUTBOUND}
"""What the PDU types of a session container say of a subscriber (TS 38.415, 5.5.3.1)."""


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """What is written, and into which files.

    Attributes
    ----------
    by
        What has a file of its own.
    selection
        Flows wanted.
    decapsulate
        Write the innermost IP packet instead of the whole frame.
    form
        Form of the files.
    rotation
        When the next file of a group begins.
    max_files
        Most groups that have files of their own; the rest go into one, `other`.
    """

    by: GroupBy = GroupBy.ALL
    selection: Selection = field(default_factory=Selection)
    decapsulate: bool = False
    form: Format = Format.PCAPNG
    rotation: Rotation = field(default_factory=Rotation)
    max_files: int = DEFAULT_FILES

    @property
    def needs_flows(self) -> bool:
        """Whether a packet's file depends on what its flow turns out to be."""
        return self.by is not GroupBy.ALL or bool(self.selection)

    def __str__(self) -> str:
        how = (
            "decapsulated to the innermost IP packet" if self.decapsulate else "as seen on the wire"
        )
        what = ascii_escaped(str(self.selection), MAX_VALUE)
        return f"Packets {how}, taken out by Veilwatch {__version__}: {what}"


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What a split read and wrote.

    Attributes
    ----------
    files
        Captures that were written and are still there.
    captures
        What was read.
    written
        Packets written, also into files that `Rotation.keep` has removed since.
    without_flow
        Packets that are part of no flow, written to `no-flow` or not.
    unwanted
        Packets of flows that were not selected.
    balance
        What became of the packets read, see `veilwatch.traffic.decode.Decoder.balance`.
    """

    files: list[SplitFile]
    captures: CaptureReport
    written: int
    without_flow: int
    unwanted: int
    balance: dict[str, int]


def split(
    inputs: Captures,
    folder: Path,
    config: SplitConfig,
    *,
    meter: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
    gtp_ports: Sequence[int] = (),
    progress: Progress = SILENT,
) -> SplitResult:
    """Write the packets of chosen flows into files by what they have in common.

    Without a selection each packet is in exactly one file: those that are part of no flow (ARP,
    later fragments, what was refused) are in `no-flow`, unless the files are decapsulated.
    Times, lengths on the wire and link types are kept, or are those of the innermost IP packet.
    `index.csv` says what each file holds. Files appear whole; after an error only those remain
    that a rotation had finished.

    Parameters
    ----------
    inputs
        As for `FlowReader`; read twice unless every packet goes into one file.
    folder
        A folder that is empty or does not exist yet.
    config
        What is written, and into which files.
    meter, gtp_ports
        As for `FlowReader`: the flow ids of a selection are those of a run with equal settings.

    Raises
    ------
    CaptureError
        If an input cannot be read twice, or has changed in between.
    OutputError
        If the folder holds files already or cannot be written to.
    VeilwatchError
        If a selection cannot be used.

    Examples
    --------
    >>> config = SplitConfig(GroupBy.HOST, Selection(services=("tls",)), decapsulate=True)
    >>> str(config).partition(": ")[2]
    'service tls'
    """
    _check_folder(folder)

    def reader() -> FlowReader:
        return FlowReader(inputs, config=meter, gtp_ports=gtp_ports, progress=progress)

    groups, group_of, packets = [Group("all", "all")], None, None
    if config.needs_flows:
        _check_inputs(inputs)
        grouping = Grouping(config.by, config.selection, config.max_files)
        with reader() as flows:
            for table in flows:
                grouping.add(table.frame)
        group_of, groups, packets = grouping.finish(), grouping.groups, flows.captures.packets
    no_flow = UNWANTED
    if not (config.selection or config.decapsulate):
        no_flow = len(groups)
        groups = [*groups, Group("no-flow", "packets of no flow")]

    files = GroupFiles(folder, groups, config.form, config.rotation, str(config))
    written = without_flow = unwanted = 0
    try:
        with reader() as second:
            make_folder(folder)  # after the inputs were found, which may be around it
            cut = _Cutter(second.captures, config.decapsulate)
            for block, batch in second.packets():
                ids = batch.packets["flow_id"]
                chosen = _choose(ids, group_of, no_flow)
                without_flow += int(np.count_nonzero(ids == 0))
                unwanted += int(np.count_nonzero((chosen == UNWANTED) & (ids != 0)))
                written += int(np.count_nonzero(chosen != UNWANTED))
                for group, packet in cut(block, batch, chosen):
                    files.write(group, *packet)
        if packets is not None and second.captures.packets != packets:
            raise _changed()
        done = files.close()
        write_text(folder / INDEX, _index(done))
    finally:
        files.abandon()
    return SplitResult(done, second.captures, written, without_flow, unwanted, second.balance)


def _choose(
    ids: npt.NDArray[np.int64], group_of: npt.NDArray[np.int32] | None, no_flow: int
) -> npt.NDArray[np.int64]:
    """Return the group of each packet by its flow."""
    if group_of is None:
        found = np.zeros(len(ids), np.int64)
    else:
        if ids.max(initial=0) >= len(group_of):
            raise _changed()
        found = group_of[ids].astype(np.int64)
    return np.where(ids == 0, no_flow, found)


class _Cutter:
    """Cut what is written of each packet out of its block."""

    def __init__(self, captures: CaptureReport, decapsulate: bool) -> None:
        self._captures = captures
        self._decapsulate = decapsulate
        self._interfaces: dict[tuple[int, int, int], Interface] = {}

    def __call__(
        self, block: RawBlock, batch: PacketBatch, chosen: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, tuple[int, memoryview, int, Interface, Direction]]]:
        """Yield group, and what `GroupFiles.write` takes, of each packet that has a group."""
        rows = np.flatnonzero(chosen != UNWANTED)
        # Group by group, each in its own order: a file is opened again once a block at most.
        rows = rows[np.argsort(chosen[rows], kind="stable")]
        groups = chosen[rows].tolist()
        buffer = block.buffer.data
        records, packets = block.records[rows], batch.packets[rows]
        times, starts = records["ts_ns"].tolist(), records["offset"]
        ends = starts + records["captured"]
        if self._decapsulate:
            lengths = packets["ip_length"].astype(np.int64)
            starts = packets["ip_offset"]
            ends = np.maximum(np.minimum(ends, starts + lengths), starts)
            places: Any = (_INNER for _ in groups)
            ways = [_DIRECTIONS.get(kind, Direction.UNKNOWN) for kind in packets["gtp_pdu_type"]]
        else:
            lengths = records["length"]
            places = map(
                self._interface,
                *(records[name].tolist() for name in ("source", "interface", "link")),
            )
            ways = [Direction.UNKNOWN] * len(groups)
        columns = zip(
            groups, times, starts.tolist(), ends.tolist(), lengths.tolist(), places, ways,
            strict=True,
        )  # fmt: skip
        for group, time, start, end, length, place, way in columns:
            yield group, (time, buffer[start:end], length, place, way)

    def _interface(self, source: int, number: int, link: int) -> Interface:
        """Return an interface that names the capture that a packet comes from."""
        key = source, number, link
        found = self._interfaces.get(key)
        if found is None:
            if len(self._interfaces) == MAX_INTERFACES:
                return Interface(link)
            name = ascii_escaped(Path(self._captures.files[source].name).name, MAX_VALUE)
            found = self._interfaces[key] = Interface(link, f"{name}:{number}")
        return found


def _check_inputs(inputs: Captures) -> None:
    """Refuse what gives its packets only once."""
    for name in as_names(inputs):
        path = Path(name)
        if name == "-" or (path.exists() and not path.is_dir() and not can_reopen(name)):
            raise CaptureError(
                "cannot be read twice, as this split needs",
                where="standard input" if name == "-" else name,
                hint="save it to a file first, or split by all without a selection",
            )


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which new files would lie among old ones."""
    try:
        used = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise OutputError(f"cannot look into it: {error.strerror}", where=folder) from error
    if used:
        raise OutputError("the folder is not empty", where=folder, hint="name a new one")


def _changed() -> CaptureError:
    return CaptureError(
        "the captures have changed between the two times they were read",
        hint="split a copy of a capture that is still being written",
    )


def _index(files: Sequence[SplitFile]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "holds", "packets"))
    rows.writerows((file.path.name, file.label, file.packets) for file in files)
    return text.getvalue()
