"""Captures that Veilwatch writes: nanosecond pcapng and pcap, whole or not at all."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from veilwatch.closing import Output
from veilwatch.errors import OutputError
from veilwatch.files import PendingFile, output_error
from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture.blocks import (
    MAX_U16,
    MAX_U32,
    Direction,
    Interface,
    enhanced_packet,
    interface_description,
    interface_statistics,
    section_header,
)
from veilwatch.traffic.capture.clock import MAX_TIME_NS, MIN_TIME_NS, NS
from veilwatch.traffic.capture.pcap import NANO_MAGIC

APPLICATION: Final = "Veilwatch"
"""Program named in the section header."""

_LATEST_PCAP_NS: Final = (MAX_U32 + 1) * NS - 1


class _Borrowed:
    """A stream that somebody else opened and will close."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.path = Path(str(getattr(stream, "name", "output stream")))
        self._stream = stream

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise output_error(self.path, error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise output_error(self.path, error) from error

    def suspend(self) -> None:
        """It stays open."""

    def commit(self) -> None:
        """It is where it is."""

    def abandon(self) -> None:
        """What was written is written."""


class CaptureWriter(Output):
    """What both formats share: where the bytes go, and that they arrive whole or not at all.

    Use it in a `with` statement: the file appears at its end, and not at all after an error.

    Parameters
    ----------
    target
        Path, which appears complete or not at all, or a binary stream, which stays open.

    Attributes
    ----------
    path
        Where the capture is to appear.
    packets, size
        Packets and bytes written so far.
    """

    def __init__(self, target: str | Path | IO[bytes]) -> None:
        self._target: PendingFile | _Borrowed
        if isinstance(target, str | Path):
            self._target = PendingFile(Path(target))
        else:
            self._target = _Borrowed(target)
        self.path = self._target.path
        self.packets = 0
        self.size = 0

    @abstractmethod
    def write(
        self,
        ts_ns: int,
        frame: bytes | memoryview,
        length: int | None = None,
        comment: str = "",
        *,
        interface: Interface | None = None,
        direction: Direction = Direction.UNKNOWN,
    ) -> None:
        """Write one packet.

        Parameters
        ----------
        ts_ns
            Packet time, ns since the epoch.
        frame
            Captured bytes.
        length
            Bytes on the wire; None for as many as were captured.
        comment
            Of this packet; a pcap has no room for it.
        interface
            Where it was captured; None for the interface that the writer was made with.
        direction
            Which way it went through that interface; a pcap has no room for it.

        Raises
        ------
        OutputError
            If it cannot be written; the file is given up.
        ValueError
            If a value does not fit into its field.
        """

    @abstractmethod
    def statistics(self, interface: Interface | None, *, received: int, dropped: int) -> None:
        """Say what an interface counted; written at the end of the file, a pcap has no room for it.

        Parameters
        ----------
        interface
            None for the interface that the writer was made with.
        received, dropped
            Packets that reached it, and how many of them are missing for want of resources.
        """

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._target.flush()

    def suspend(self) -> None:
        """Release the file's descriptor until the next write."""
        self._target.suspend()

    def close(self) -> None:
        """Put the file in its place.

        Raises
        ------
        OutputError
            If it cannot be written; what stood there before is unharmed.
        """
        self._target.commit()

    def abandon(self) -> None:
        """Remove what was written; harmless after `close`."""
        self._target.abandon()

    def _begin(self, header: bytes) -> None:
        """Write the header of the file; nobody else knows yet that it has to be removed."""
        try:
            self._put(header)
        except BaseException:
            self.abandon()
            raise

    def _put(self, data: bytes) -> None:
        self._target.write(data)
        self.size += len(data)


def _check(ts_ns: int, frame: bytes | memoryview, length: int) -> None:
    """Refuse a packet that could not be read again."""
    if not MIN_TIME_NS <= ts_ns <= MAX_TIME_NS:
        raise ValueError(f"packet time {ts_ns} ns is out of range")
    if len(frame) > MAX_CAPTURED:
        raise ValueError(f"a frame of {len(frame)} bytes is longer than {MAX_CAPTURED}")
    if not 0 <= length <= MAX_U32:
        raise ValueError(f"length on the wire {length} is out of range")


class PcapngWriter(CaptureWriter):
    """Write a pcapng of one section, little-endian, in nanoseconds.

    An interface is described when its first packet is written.

    Parameters
    ----------
    target
        As for `CaptureWriter`.
    link, interface_name
        Of the interface of packets that name none.
    comment
        Of the section, or several: says that a capture is emulated or its wrapping synthetic,
        how it was made, what it holds.
    application
        Program named in the section header.

    Raises
    ------
    OutputError
        If the file cannot be written, here or later.
    ValueError
        If a value does not fit into its field.
    """

    def __init__(
        self,
        target: str | Path | IO[bytes],
        *,
        link: int = 1,
        comment: str | Sequence[str] = "",
        interface_name: str = "",
        application: str = APPLICATION,
    ) -> None:
        self._default = Interface(link, interface_name)
        comments = [comment] if isinstance(comment, str) else comment
        section = section_header(comments, application)
        self._numbers: dict[Interface, int] = {}
        self._counted: dict[Interface, tuple[int, int]] = {}
        self._first_ns, self._last_ns = MAX_TIME_NS, MIN_TIME_NS
        super().__init__(target)
        self._begin(section)

    def write(
        self,
        ts_ns: int,
        frame: bytes | memoryview,
        length: int | None = None,
        comment: str = "",
        *,
        interface: Interface | None = None,
        direction: Direction = Direction.UNKNOWN,
    ) -> None:
        """Write one packet; see `CaptureWriter.write`."""
        length = len(frame) if length is None else length
        _check(ts_ns, frame, length)
        number = self._number(interface or self._default)
        self._put(enhanced_packet(number, ts_ns, frame, length, comment, direction))
        self.packets += 1
        self._first_ns = min(self._first_ns, ts_ns)
        self._last_ns = max(self._last_ns, ts_ns)

    def statistics(self, interface: Interface | None, *, received: int, dropped: int) -> None:
        """Say what an interface counted; see `CaptureWriter.statistics`."""
        if not (0 <= received < 2**64 and 0 <= dropped < 2**64):
            raise ValueError(f"counters {received} and {dropped} are out of range")
        self._counted[interface or self._default] = received, dropped

    def close(self) -> None:
        """Write the statistics and put the file in its place; see `CaptureWriter.close`."""
        counted, self._counted = self._counted, {}
        first_ns = min(self._first_ns, self._last_ns)
        for interface, (received, dropped) in counted.items():
            number = self._number(interface)
            self._put(interface_statistics(number, first_ns, self._last_ns, received, dropped))
        super().close()

    def _number(self, interface: Interface) -> int:
        """Return the number of an interface, which is described if it is new."""
        number = self._numbers.get(interface)
        if number is None:
            number = len(self._numbers)
            if number == MAX_U16:
                raise OutputError(
                    f"more than {MAX_U16:,} interfaces in one file",
                    where=self.path,
                    hint="split fewer captures at once",
                )
            self._put(interface_description(interface))
            self._numbers[interface] = number
        return number


class PcapWriter(CaptureWriter):
    """Write a nanosecond pcap, little-endian.

    Parameters
    ----------
    target, link
        As for `PcapngWriter`.

    Raises
    ------
    OutputError, ValueError
        As for `PcapngWriter`.
    """

    def __init__(self, target: str | Path | IO[bytes], *, link: int = 1) -> None:
        self._link = Interface(link).link
        super().__init__(target)
        self._begin(struct.pack("<IHHiIII", NANO_MAGIC, 2, 4, 0, 0, MAX_CAPTURED, link))

    def write(
        self,
        ts_ns: int,
        frame: bytes | memoryview,
        length: int | None = None,
        comment: str = "",
        *,
        interface: Interface | None = None,
        direction: Direction = Direction.UNKNOWN,
    ) -> None:
        """Write one packet; see `CaptureWriter.write`.

        Raises
        ------
        OutputError
            Also if the packet comes from an interface of another link type, or its time does not
            fit into 32 bits of seconds.
        """
        if interface is not None and interface.link != self._link:
            raise OutputError(
                f"a pcap holds one link type: {interface.link} does not go with {self._link}",
                where=self.path,
                hint="write pcapng",
            )
        length = len(frame) if length is None else length
        _check(ts_ns, frame, length)
        if ts_ns > _LATEST_PCAP_NS:
            raise OutputError(
                "a pcap cannot say a time after the year 2106", where=self.path, hint="write pcapng"
            )
        seconds, rest = divmod(ts_ns, NS)
        head = struct.pack("<IIII", seconds, rest, len(frame), length)
        self._put(b"".join((head, frame)))
        self.packets += 1

    def statistics(self, interface: Interface | None, *, received: int, dropped: int) -> None:
        """Leave it out: a pcap has no room for it."""
