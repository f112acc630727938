"""Captures that Veilwatch writes: nanosecond pcapng and pcap, whole or not at all."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from veilwatch.capture.clock import MAX_TIME_NS, MIN_TIME_NS, NS
from veilwatch.capture.pcap import NANO_MAGIC
from veilwatch.capture.pcapng import (
    BYTE_ORDER_MAGIC,
    ENHANCED_PACKET,
    INTERFACE_DESCRIPTION,
    OPTION_COMMENT,
    OPTION_END,
    OPTION_RESOLUTION,
    SECTION,
)
from veilwatch.files import output_error, replacing
from veilwatch.schema.packets import MAX_CAPTURED

_OPTION_INTERFACE_NAME: Final = 2
_OPTION_APPLICATION: Final = 4
_NANOSECONDS: Final = b"\x09"
_SECTION_LENGTH_UNKNOWN: Final = -1
_MAX_U16: Final = 0xFFFF
_MAX_U32: Final = 0xFFFF_FFFF
_LATEST_PCAP_NS: Final = (_MAX_U32 + 1) * NS - 1


class _Writer:
    """Where the bytes go, and that they arrive whole or not at all.

    A path is replaced when the writer closes without an error; a stream is written to as it
    comes and stays open.
    """

    def __init__(self, target: str | Path | IO[bytes], link: int) -> None:
        if not 0 <= link <= _MAX_U16:
            raise ValueError(f"link type {link} is out of range")
        self._files = ExitStack()
        if isinstance(target, str | Path):
            self._place = Path(target)
            self._stream = self._files.enter_context(replacing(self._place))
        else:
            self._place = Path(str(getattr(target, "name", "output stream")))
            self._stream = target

    def close(self) -> None:
        """Put the file in its place.

        Raises
        ------
        OutputError
            If it cannot be written; what stood there before is unharmed.
        """
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def _put(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            # Drop the half file now: a later close() must not put it in place.
            self._files.__exit__(type(error), error, error.__traceback__)
            raise output_error(self._place, error) from error


def _check(ts_ns: int, latest_ns: int, frame: bytes, length: int) -> None:
    """Refuse a packet that could not be read again."""
    if not MIN_TIME_NS <= ts_ns <= latest_ns:
        raise ValueError(f"packet time {ts_ns} ns is out of range")
    if len(frame) > MAX_CAPTURED:
        raise ValueError(f"a frame of {len(frame)} bytes is longer than {MAX_CAPTURED}")
    if not 0 <= length <= _MAX_U32:
        raise ValueError(f"length on the wire {length} is out of range")


def _option(code: int, value: bytes) -> bytes:
    if not value:
        return b""
    if len(value) > _MAX_U16:
        raise ValueError(f"an option of {len(value)} bytes is longer than {_MAX_U16}")
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    if options:
        options += struct.pack("<HH", OPTION_END, 0)
    total = struct.pack("<I", 12 + len(body) + len(options))
    return struct.pack("<I", kind) + total + body + options + total


class PcapngWriter(_Writer):
    """Write a pcapng of one section and one interface, little-endian, in nanoseconds.

    Parameters
    ----------
    target
        Path, which appears complete or not at all, or a binary stream, which stays open.
    link
        LINKTYPE_ value, 1 for Ethernet.
    comment
        Of the section: says that a capture is emulated or its wrapping synthetic.
    interface_name
        Name of the interface, left out where empty.
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
        comment: str = "",
        interface_name: str = "",
        application: str = "Veilwatch",
    ) -> None:
        section = _option(OPTION_COMMENT, comment.encode()) + _option(
            _OPTION_APPLICATION, application.encode()
        )
        interface = _option(_OPTION_INTERFACE_NAME, interface_name.encode()) + _option(
            OPTION_RESOLUTION, _NANOSECONDS
        )
        super().__init__(target, link)
        header = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, _SECTION_LENGTH_UNKNOWN)
        self._put(_block(SECTION, header, section))
        self._put(
            _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link, 0, MAX_CAPTURED), interface)
        )

    def write(self, ts_ns: int, frame: bytes, length: int | None = None, comment: str = "") -> None:
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
            Of this packet.
        """
        length = len(frame) if length is None else length
        _check(ts_ns, MAX_TIME_NS, frame, length)
        fields = struct.pack("<IIIII", 0, ts_ns >> 32, ts_ns & _MAX_U32, len(frame), length)
        body = fields + frame + b"\0" * (-len(frame) % 4)
        self._put(_block(ENHANCED_PACKET, body, _option(OPTION_COMMENT, comment.encode())))


class PcapWriter(_Writer):
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
        super().__init__(target, link)
        self._put(struct.pack("<IHHiIII", NANO_MAGIC, 2, 4, 0, 0, MAX_CAPTURED, link))

    def write(self, ts_ns: int, frame: bytes, length: int | None = None) -> None:
        """Write one packet; the parameters are those of `PcapngWriter.write`."""
        length = len(frame) if length is None else length
        _check(ts_ns, _LATEST_PCAP_NS, frame, length)
        seconds, rest = divmod(ts_ns, NS)
        self._put(struct.pack("<IIII", seconds, rest, len(frame), length) + frame)
