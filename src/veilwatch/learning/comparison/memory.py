"""How much memory a process took at most, from a moment on."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # proc(5): resets the peak resident set size to the current one


class PeakMemory:
    """Measures the peak resident memory of this process since it was made.

    Where the system does not let a process forget its peak (it is Linux that does), the peak is
    that of its whole life.

    Examples
    --------
    >>> PeakMemory().peak() > 1_000_000
    True
    """

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)

    def peak(self) -> int:
        """Return the peak, bytes."""
        with suppress(OSError, StopIteration):
            lines = _STATUS.read_text().splitlines()
            line = next(line for line in lines if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
