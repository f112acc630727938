"""Captures as one stream of blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Final, Protocol

from veilwatch.closing import Closeable
from veilwatch.errors import CaptureError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.packets import RawBlock
from veilwatch.traffic.capture.clock import MIN_TIME_NS
from veilwatch.traffic.capture.inputs import Captures, Input, find_inputs
from veilwatch.traffic.capture.magic import PCAP, PCAPNG
from veilwatch.traffic.capture.merge import Waiting, merge
from veilwatch.traffic.capture.part import Part
from veilwatch.traffic.capture.pcap import read_pcap
from veilwatch.traffic.capture.pcapng import read_pcapng
from veilwatch.traffic.capture.sections import find_parts
from veilwatch.traffic.capture.times import opening_time


class BlockStream(Protocol):
    """What files and network interfaces have in common."""

    report: CaptureReport

    def __iter__(self) -> Iterator[RawBlock]: ...

    def close(self) -> None:
        """Let go of all inputs; harmless when done twice."""


PUT_IN_ORDER: Final = "section that begins before the one in front of it ends: put in order"

READERS: Final = {PCAP: read_pcap, PCAPNG: read_pcapng}


class CaptureStream(Closeable):
    """Blocks of one or more captures in time order; iterate over it once.

    Made by `open_captures`. A block is valid until the next one is asked for.

    Attributes
    ----------
    report
        What was read so far, complete after the last block. A file appears when its turn comes.
    """

    def __init__(self, inputs: list[Input], progress: Progress) -> None:
        self.report = CaptureReport()
        self._inputs = inputs
        self._progress = progress
        self._entered: list[Generator[RawBlock, None, None]] = []
        self._sources: dict[str, int] = {}  # of captures whose turn has come, by name
        self._blocks = self._read()

    def __iter__(self) -> Iterator[RawBlock]:
        return self._blocks

    def close(self) -> None:
        """Close all files; harmless when done twice."""
        self._blocks.close()
        for capture in self._inputs:
            capture.close()

    def _read(self) -> Generator[RawBlock, None, None]:
        sizes = [capture.size for capture in self._inputs]
        known = [size for size in sizes if size is not None]
        total = float(sum(known)) if len(known) == len(sizes) else None
        self._progress.start("Reading captures", total)
        try:
            parts = [(capture, part) for capture in self._inputs for part in find_parts(capture)]
            if len(parts) == 1:
                yield from self._enter(*parts[0])
            else:
                yield from merge([self._wait(capture, part) for capture, part in parts])
        finally:
            for blocks in self._entered:
                blocks.close()

    def _wait(self, capture: Input, part: Part) -> Waiting:
        """Learn when a capture begins; a file is closed again, a pipe cannot be."""
        if capture.size is None:
            blocks = self._enter(capture, part)
            first = next(blocks, None)
            return Waiting(_time(first), lambda: chain([first] if first else [], blocks))
        with closing(_read_capture(capture, part, FileReport(capture.name), 0, SILENT)) as trial:
            return Waiting(_time(next(trial, None)), partial(self._enter, capture, part))

    def _enter(self, capture: Input, part: Part) -> Generator[RawBlock, None, None]:
        """Begin to read a capture, or a part of one, for good."""
        source = self._sources.setdefault(capture.name, len(self.report.files))
        if source == len(self.report.files):
            self.report.files.append(FileReport(capture.name))
        report = self.report.files[source]
        if part.lane:
            report.add_odd(PUT_IN_ORDER)
        blocks = _read_capture(capture, part, report, source, self._progress)
        self._entered.append(blocks)
        return blocks


def _time(block: RawBlock | None) -> int:
    """Return when a capture begins; one without packets is dealt with first."""
    return MIN_TIME_NS if block is None else opening_time(block.records)


def _read_capture(
    capture: Input, part: Part, report: FileReport, source: int, progress: Progress
) -> Generator[RawBlock, None, None]:
    """Yield the blocks of one capture and say in `report` how far it could be read."""
    try:
        window, kind = capture.open(progress)
    except CaptureError as error:  # it was fine when checked, somebody changed it since
        report.fault = error.what
        return
    with closing(window):
        compression = window.source.compression
        report.format = f"{kind}+{compression}" if compression else kind
        fault = None
        if part.start == 0 or window.jump(part.start):
            fault = yield from READERS[kind](window, report, source, part)
        if window.source.fault or fault:
            report.fault = "; ".join(filter(None, [window.source.fault, str(fault or "")]))
            progress.note(f"{report.name}: {report.fault}")


def open_captures(inputs: Captures, *, progress: Progress = SILENT) -> CaptureStream:
    """Open captures as one stream in time order.

    Formats are told by the first bytes: pcap (either byte order, micro- and nanoseconds, the
    modified dialect) and pcapng, plain or compressed with gzip or zstd. What a damaged or cut
    capture holds before the damage is read; its `FileReport.fault` says where it ended.

    Parameters
    ----------
    inputs
        Files, patterns, folders (searched to any depth for files that are captures) and "-" for
        standard input, one or several. A file that is named twice is read once.
    progress
        Told the bytes taken from the files.

    Returns
    -------
    CaptureStream
        To be closed, or used in a `with` statement.

    Raises
    ------
    CaptureError
        Before anything is read: if an input is missing, empty or no capture, a folder holds
        none, or nothing is named.

    Examples
    --------
    >>> import tempfile
    >>> from veilwatch.traffic.capture import PcapWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with PcapWriter(f"{folder}/a.pcap") as writer:
    ...         writer.write(1_700_000_000_000_000_000, b"frame")
    ...     with open_captures([folder]) as stream:
    ...         [bytes(block.buffer[r["offset"]:][:r["captured"]])
    ...          for block in stream for r in block.records]
    [b'frame']
    """
    return CaptureStream(find_inputs(inputs, progress), progress)
