"""Bytes of one input: plain, gzip or zstd, from a file or a pipe, in bounded memory."""

from __future__ import annotations

import sys
import zlib
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final, Protocol, cast

import zstandard

from veilwatch.errors import CaptureError

STDIN: Final = "-"
"""Name of standard input."""

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

HEAD_BYTES: Final = 4
"""Bytes that tell the compression."""

_GZIP_WBITS: Final = 31
"""Tells zlib to expect the header and the checksum of gzip."""

_GZIP_CHUNK: Final = 16 * 1024
"""Compressed bytes handed to zlib at a time. Small, because each further member of the stream
copies what is left of its chunk."""

_ZSTD_CHUNK: Final = 16 * 1024
"""Most compressed bytes handed to zstd at a time."""

_ZSTD_LEAST: Final = 16
"""Least of them. A block of 4 bytes may expand to 128 KiB and the decoder returns all it makes, so
this bounds the first step to 512 KiB; each later one is sized by what the one before made."""

_ZSTD_STEP: Final = 256 * 1024
"""Decompressed bytes that a step is sized for."""

_ZSTD_HEADER: Final = 18
"""Most bytes of a frame's header (RFC 8878 cl. 3.1.1.1), by which its window is known."""

_ZSTD_WINDOW: Final = 128 * 1024 * 1024
"""Largest window a zstd frame may ask for, as in the zstd program without --long."""

ZSTD_MEMORY: Final = 384 * 1024 * 1024
"""Bytes of the windows of all zstd frames that are open at one time: 48 of 8 MiB, the largest that
zstd makes up to level 19, or 192 of level 3's 2 MiB. A frame's header says how much it takes."""


class Stream(Protocol):
    """The part of a binary file object that is used."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read at most `len(buffer)` bytes."""

    def close(self) -> None:
        """Release the file."""


class Source(Protocol):
    """Bytes of a capture, decompressed.

    Attributes
    ----------
    compression
        "", "gzip" or "zstd".
    fault
        Why the bytes ended early; empty while they come, and after a proper end.
    """

    compression: str
    fault: str

    @property
    def consumed(self) -> int:
        """Bytes taken from the file itself."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; 0 at the end. May return less than there is."""

    def close(self) -> None:
        """Close the file; harmless when done twice."""


class PlainSource:
    """Bytes as they lie in the file."""

    compression = ""

    def __init__(self, stream: Stream) -> None:
        self.fault = ""
        self.consumed = 0
        self._head = b""
        self._stream: Stream | None = stream
        # A pipe hands over what it has; readinto would wait until the whole buffer is full.
        self._read = getattr(stream, "readinto1", stream.readinto)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; 0 at the end or on a fault of the device."""
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
        elif self._stream is None:
            return 0
        else:
            try:
                count = self._read(buffer) or 0
            except OSError as error:
                self.fault = f"cannot read on: {error.strerror or error}"
                return 0
        self.consumed += count
        return count

    def seek(self, offset: int) -> None:
        """Go on at a byte of the file, which has to be a regular one."""
        cast(BinaryIO, self._stream).seek(offset)
        self._head = b""

    def put_back(self, head: bytes) -> None:
        """Undo the reading of `head`, the first bytes of the file."""
        self._head = head
        self.consumed -= len(head)

    def close(self) -> None:
        """Close the file. Standard input stays open: it is not ours."""
        if self._stream is not None and self._stream is not _stdin():
            self._stream.close()
        self._stream = None


class _DecompressedSource(ABC):
    """What gzip and zstd have in common: chunks go in, output waits until it is fetched."""

    compression: str
    chunk_bytes: int

    def __init__(self, plain: PlainSource) -> None:
        self.fault = ""
        self._plain = plain
        self._chunk = memoryview(bytearray(self.chunk_bytes))
        self._rest = b""  # compressed bytes not yet used
        self._ready = b""  # decompressed bytes not yet handed over, from `_handed` on
        self._handed = 0

    @property
    def consumed(self) -> int:
        """Compressed bytes taken from the file."""
        return self._plain.consumed

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; 0 at the end, `fault` says whether that was early."""
        while self._handed == len(self._ready):
            self._ready, self._handed = b"", 0
            if self.fault or not self._step(len(buffer)):
                return 0
        start = self._handed
        self._handed = min(start + len(buffer), len(self._ready))
        count = self._handed - start
        buffer[:count] = memoryview(self._ready)[start : self._handed]
        return count

    def close(self) -> None:
        """Close the file."""
        self._plain.close()

    def _fetch(self) -> bool:
        """Have compressed bytes in `_rest`; False at the end of the file."""
        if not self._rest:
            self._rest = bytes(self._chunk[: self._plain.readinto(self._chunk)])
        return bool(self._rest)

    def _cut(self) -> str:
        return self._plain.fault or f"{self.compression} data cut after {self.consumed:,} bytes"

    def _damaged(self, error: Exception) -> str:
        return f"{self.compression} data damaged near byte {self.consumed:,}: {error}"

    @abstractmethod
    def _step(self, room: int) -> bool:
        """Take one step towards `_ready`, at most `room` bytes if that can be chosen.

        Returns False at the end.
        """


class GzipSource(_DecompressedSource):
    """One or more gzip members (RFC 1952); zero padding after a member is allowed."""

    compression = "gzip"
    chunk_bytes = _GZIP_CHUNK

    def __init__(self, plain: PlainSource) -> None:
        super().__init__(plain)
        self._engine = zlib.decompressobj(wbits=_GZIP_WBITS)

    def _step(self, room: int) -> bool:
        fetched = self._fetch()
        if self._engine.eof:
            self._rest = self._rest.lstrip(b"\0")
            if not self._rest:
                self.fault = self._plain.fault
                return fetched
            self._engine = zlib.decompressobj(wbits=_GZIP_WBITS)
        # A damaged byte loses all output of its call; the copy lets us save what came before.
        spare = self._engine.copy()
        try:
            self._ready = self._engine.decompress(self._rest, room)
        except zlib.error as error:
            self._ready = _salvage(spare, self._rest)
            self.fault = self._damaged(error)
            return True
        self._rest = self._engine.unused_data or self._engine.unconsumed_tail
        if not (fetched or self._ready or self._engine.eof):
            self.fault = self._cut()
        return True


def _salvage(engine: Any, data: bytes) -> bytes:
    """Decompress byte by byte what comes before the damage."""
    saved = bytearray()
    with suppress(zlib.error):
        for at in range(len(data)):
            saved += engine.decompress(data[at : at + 1])
    return bytes(saved)


class MemoryBudget:
    """Bytes that several users share; what one has taken it gives back.

    Parameters
    ----------
    size
        Bytes there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._lock = Lock()

    def take(self, count: int) -> bool:
        """Take bytes; False where there are not as many."""
        with self._lock:
            if self.taken + count > self.size:
                return False
            self.taken += count
            return True

    def give_back(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.taken -= count


zstd_memory = MemoryBudget(ZSTD_MEMORY)
"""Shared by all captures of the process."""


class ZstdSource(_DecompressedSource):
    """One or more zstd frames (RFC 8878), skippable frames among them."""

    compression = "zstd"
    chunk_bytes = _ZSTD_CHUNK

    def __init__(self, plain: PlainSource) -> None:
        super().__init__(plain)
        self._decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._engine: Any = None  # of the frame at hand
        self._window = 0  # its share of the memory
        self._step_bytes = _ZSTD_LEAST

    def close(self) -> None:
        """Close the file."""
        self._end_frame()
        super().close()

    def _step(self, room: int) -> bool:
        if not self._fetch():
            self.fault = self._plain.fault if self._engine is None else self._cut()
            return False
        if self._engine is None and not self._begin_frame():
            return False
        part, self._rest = self._rest[: self._step_bytes], self._rest[self._step_bytes :]
        try:
            self._ready = self._engine.decompress(part)
        except zstandard.ZstdError as error:
            self.fault = self._damaged(error)
            self._end_frame()
            return True
        # As many bytes next time as this time would have made a whole step.
        wanted = len(part) * _ZSTD_STEP // max(len(self._ready), 1)
        self._step_bytes = min(max(wanted, _ZSTD_LEAST), 2 * self._step_bytes, _ZSTD_CHUNK)
        if self._engine.eof:
            self._rest = self._engine.unused_data + self._rest
            self._end_frame()
        return True

    def _begin_frame(self) -> bool:
        """Have a decoder for the frame that begins in `_rest`; False without memory for it."""
        while len(self._rest) < _ZSTD_HEADER:
            more = bytes(self._chunk[: self._plain.readinto(self._chunk)])
            if not more:
                break
            self._rest += more
        try:
            window = zstandard.get_frame_parameters(self._rest).window_size
        except zstandard.ZstdError:  # cut or damaged: the decoder says it better
            window = 0
        if window <= _ZSTD_WINDOW:
            if not zstd_memory.take(window):
                self.fault = (
                    f"zstd window of {window >> 20} MiB does not fit beside those of the other "
                    f"captures ({ZSTD_MEMORY >> 20} MiB together): compress with a lower level, or "
                    "read fewer at once"
                )
                return False
            self._window = window
        self._engine = self._decoder.decompressobj()
        return True

    def _end_frame(self) -> None:
        """Let go of the decoder and its window."""
        self._engine = None
        zstd_memory.give_back(self._window)
        self._window = 0


def _stdin() -> Any:
    return getattr(sys.stdin, "buffer", None)


def can_reopen(name: str) -> bool:
    """Whether `name` is a regular file, which can be closed and opened again."""
    return name != STDIN and Path(name).is_file()


def open_source(name: str) -> Source:
    """Open an input and undo its compression, which is told by its first bytes.

    Raises
    ------
    CaptureError
        If it does not exist, may not be read, or is a terminal.
    """
    plain = PlainSource(_open(name))
    head = bytearray(HEAD_BYTES)
    have = 0
    view = memoryview(head)
    while have < HEAD_BYTES and (count := plain.readinto(view[have:])):
        have += count
    plain.put_back(bytes(view[:have]))
    if head.startswith(GZIP_MAGIC):
        return GzipSource(plain)
    if head.startswith(ZSTD_MAGIC):
        return ZstdSource(plain)
    return plain


def _open(name: str) -> Stream:
    if name == STDIN:
        stream = _stdin()
        if stream is None or stream.isatty():
            raise CaptureError(
                "nothing is piped in", where="standard input", hint="pipe a capture into it"
            )
        return cast(Stream, stream)
    try:
        return cast(Stream, Path(name).open("rb", buffering=0))
    except OSError as error:
        raise CaptureError(
            f"cannot open: {error.strerror or error}", where=name, hint="check the name and rights"
        ) from error
