"""A sliding view of a capture: the few bytes that a kernel walks now."""

from __future__ import annotations

from typing import Final

import numpy as np

from veilwatch.progress import SILENT, Progress
from veilwatch.traffic.capture.source import PlainSource, Source

WINDOW_BYTES: Final = 256 * 1024
"""First size of a window: small enough to stay in the second-level cache from the read to the
decoder, large enough that a system call and a kernel call cost nothing a packet."""


class Window:
    """A reusable buffer over a source; `buffer[start:end]` are the bytes not yet understood.

    Parameters
    ----------
    source
        Where the bytes come from. Closed as soon as it has no more.
    progress
        Told the bytes that the source took from its file.

    Attributes
    ----------
    buffer
        uint8 array. Blocks point into it until `more` or `discard` is called.
    start, end
        Bounds of the bytes at hand.
    open
        Whether the source may have more.
    """

    def __init__(self, source: Source, progress: Progress = SILENT) -> None:
        self.source = source
        self._progress = progress
        self.buffer = np.empty(WINDOW_BYTES, np.uint8)
        self.start = 0
        self.end = 0
        self.open = True
        self._told = 0
        self._base = 0  # offset of buffer[0] in the decompressed capture

    def tell(self, progress: Progress) -> None:
        """Tell `progress` from now on, what was read before included."""
        self._progress = progress
        progress.advance(self._told)

    @property
    def offset(self) -> int:
        """Offset of `start` in the decompressed capture."""
        return self._base + self.start

    def __len__(self) -> int:
        return self.end - self.start

    def peek(self, count: int) -> bytes:
        """Copy the next `count` bytes, fewer where the window holds fewer."""
        return self.buffer[self.start : min(self.start + count, self.end)].tobytes()

    def more(self) -> bool:
        """Read on, once; False at the end. The window grows when one record fills it.

        The kernels refuse records and blocks above their bounds first, so growth is bounded by
        those.
        """
        if not self.open:
            return False
        kept = len(self)
        target = self.buffer if kept < len(self.buffer) else np.empty(2 * kept, np.uint8)
        target[:kept] = self.buffer[self.start : self.end]
        self.buffer = target
        self._base += self.start
        self.start, self.end = 0, kept
        count = self.source.readinto(self.buffer[kept:].data)
        self.end += count
        self._progress.advance(self.source.consumed - self._told)
        self._told = self.source.consumed
        if not count:
            self.close()
        return count > 0

    def ensure(self, count: int) -> bool:
        """Read on until at least `count` bytes are at hand; False if the end comes first."""
        while len(self) < count:
            if not self.more():
                return False
        return True

    def discard(self, count: int) -> bool:
        """Leave out `count` bytes, however many; False if the end comes first."""
        while count > len(self):
            count -= len(self)
            self.start = self.end
            if not self.more():
                return False
        self.start += count
        return True

    def jump(self, offset: int) -> bool:
        """Go to a byte of the capture that lies ahead; False if the end comes first.

        Only in a plain file without reading what lies before it.
        """
        if not isinstance(self.source, PlainSource):
            return self.discard(offset - self.offset)
        self.source.seek(offset)
        self.start = self.end = 0
        self._base = offset
        return True

    def close(self) -> None:
        """Close the source; the bytes at hand stay."""
        self.open = False
        self.source.close()
