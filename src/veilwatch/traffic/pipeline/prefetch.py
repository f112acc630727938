"""Reading and decoding in a thread of their own, a few blocks ahead of the meter.

File access and kernels release the interpreter's lock, so both threads have a core of their own for
most of the time. Nothing else changes: the same blocks in the same order.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import numpy as np

from veilwatch.schema.packets import (
    BLOCK_RECORDS,
    PACKET_DTYPE,
    RECORD_DTYPE,
    PacketBatch,
    RawBlock,
)
from veilwatch.traffic.decode import Decoder

WAITING: Final = 2
"""Blocks that wait for the meter at most: enough to bridge its pauses for a table, few enough to
stay in the last-level cache."""

BLOCKS: Final = WAITING + 3
"""Blocks in memory: those that wait, one being filled, one being metered, and the one before it."""

Pair = tuple[RawBlock, PacketBatch]


class _Copy:
    """Memory for one block, its records and its packets."""

    def __init__(self) -> None:
        self.buffer = np.empty(0, np.uint8)
        self.records = np.empty(BLOCK_RECORDS, RECORD_DTYPE)
        self.packets = np.empty(BLOCK_RECORDS, PACKET_DTYPE)

    def take(self, block: RawBlock) -> RawBlock:
        """Copy what a block points to; readers reuse their buffers."""
        if not len(block):
            return block
        records = self.records[: len(block)]
        records.view(np.uint8)[:] = np.ascontiguousarray(block.records).view(np.uint8)
        start = int(records["offset"].min())
        end = int((records["offset"] + records["captured"]).max())
        if end - start > len(self.buffer):
            self.buffer = np.empty(2 * (end - start), np.uint8)
        self.buffer[: end - start] = block.buffer[start:end]
        records["offset"] -= start
        return RawBlock(self.buffer, records, block.now_ns)


class Prefetch:
    """Iterate over blocks and their packets that another thread reads and decodes.

    A pair is valid until the next one is asked for. An error of the other thread is raised here
    when its turn comes; closing the iterator ends the thread.

    Parameters
    ----------
    blocks
        Where they come from; used by the other thread alone.
    decoder
        Its `balance` runs ahead of the pairs that were handed out.
    """

    def __init__(self, blocks: Iterable[RawBlock], decoder: Decoder) -> None:
        self._blocks = blocks
        self._decoder = decoder
        self._ready: queue.Queue[Pair | BaseException | None] = queue.Queue(WAITING)
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Pair]:
        thread = threading.Thread(target=self._work, name="veilwatch-read", daemon=True)
        thread.start()
        try:
            while (item := self._ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stop.set()
            while thread.is_alive():
                with suppress(queue.Empty):
                    self._ready.get(timeout=0.01)
            thread.join()

    def _work(self) -> None:
        copies = [_Copy() for _ in range(BLOCKS)]
        last: BaseException | None = None
        try:
            for number, block in enumerate(self._blocks):
                if self._stop.is_set():
                    break
                copy = copies[number % BLOCKS]
                held = copy.take(block)
                self._ready.put((held, self._decoder.decode(held, copy.packets)))
        except BaseException as error:  # raised again in the thread that iterates
            last = error
        self._ready.put(last)
