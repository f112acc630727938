"""Compiling the kernels ahead of time.

The first run of a version compiles its kernels, which takes tens of seconds; later runs load
them from the cache. A marker in the kernel cache says that this has been done.
"""

from __future__ import annotations

import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from veilwatch.jit import cache_fault, installation_hash, kernel_cache, leave_cache
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.packets import PACKET_DTYPE, PacketBatch
from veilwatch.traffic.capture import PcapngWriter, PcapWriter
from veilwatch.traffic.capture.live.privileges import drop_privileges
from veilwatch.traffic.capture.live.ring import load_kernel
from veilwatch.traffic.flow import FlowMeter, InterimPoints
from veilwatch.traffic.flow.meter import FIRST_CAPACITY, LOOK_NS
from veilwatch.traffic.packet_time import PacketClock
from veilwatch.traffic.pipeline.extract import FlowReader
from veilwatch.traffic.pipeline.preload import load_modules, unreadable_for

_MARKER: Final = "ready-"

_FRAME: Final = bytes(12) + struct.pack(
    ">H BBHHHBBH 4s4s HHHH",
    *(0x0800, 0x45, 0, 28, 0, 0, 64, 17, 0, bytes(4), bytes(4), 1, 2, 8, 0),
)
"""An Ethernet frame with an empty UDP datagram."""


def is_warm() -> bool:
    """Whether the kernels of this version have been compiled and kept, by this installation."""
    try:
        return not cache_fault() and _marker().is_file()
    except PermissionError:  # another user's cache, which is not used
        return False


def warm(progress: Progress = SILENT) -> None:
    """Compile every kernel now, if that has not been done."""
    if is_warm():
        return
    fault = cache_fault()
    often = "in each run" if fault else "first run of this version only"
    progress.start(f"compiling kernels ({often}, about a minute)")
    if fault:
        progress.note(f"compiled kernels are not kept: {fault} (VEILWATCH_CACHE moves them)")
    load_kernels()
    if fault:
        return
    # Without a cache to keep them in, the next process compiles again; nothing else is lost.
    with suppress(OSError):
        _marker().touch()


def _marker() -> Path:
    return kernel_cache() / (_MARKER + installation_hash())


def load_kernels() -> None:
    """Have every kernel in this process, from the cache or compiled.

    Runs two tiny captures, one of each format, through the whole pipeline.
    """
    with tempfile.TemporaryDirectory(prefix="veilwatch-") as folder:
        pcap, pcapng = Path(folder) / "a.pcap", Path(folder) / "b.pcapng"
        with PcapWriter(pcap) as old, PcapngWriter(pcapng) as new:
            old.write(0, _FRAME)
            new.write(0, _FRAME)
        for path in (pcap, pcapng):
            with FlowReader([path]) as reader:
                reader.read_all()
    load_kernel()
    PacketClock(0).follow(np.zeros(1, np.int64))
    meter = FlowMeter(early=InterimPoints())
    # As many packets as make the table grow; all of them are of one flow.
    packets = np.zeros(FIRST_CAPACITY + 1, PACKET_DTYPE)
    meter.add(PacketBatch(np.zeros(0, np.uint8), packets))
    meter.advance(0)
    meter.report_silent(LOOK_NS)


def prepare(user: str | None) -> None:
    """Load what could not be loaded any more after becoming a user; before an interface is opened.

    Does nothing where that user can read this installation.
    """
    if unreadable_for(user) is not None:
        load_modules()
        _compile_something()


def _compile_something() -> None:
    """Have the compiler itself loaded: kernels from the cache do without it."""
    numba.njit(boundscheck=True)(_total)(np.zeros(1, np.int64))


def _total(values: npt.NDArray[np.int64]) -> int:
    total = 0
    for k in range(len(values)):
        total += values[k]
    return total


def settle(user: str | None) -> str:
    """Give up privileges before the first packet is looked at; see `drop_privileges`.

    The kernels are loaded first: another user cannot read the cache that they come from, and may
    not be able to read this installation.
    """
    if user is not None:
        prepare(user)
        load_kernels()
        leave_cache()
    return drop_privileges(user)
