"""The clock: alerts without the right time cannot be laid beside what others saw."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

EARLIEST_S: Final = 1_704_067_200
"""Beginning of 2024: this program did not exist before. A machine without a battery for its clock
starts in 1970 or at the time of its system's image."""

BACK_S: Final = 60.0
"""A clock that is so far behind what was written earlier was set back."""


def clock_cautions(files: Iterable[Path], now_s: float | None = None) -> Iterator[str]:
    """Yield what speaks against the clock.

    Parameters
    ----------
    files
        Written by earlier runs; those that are not there are passed over.
    now_s
        The time, seconds since the epoch; by default the clock's.
    """
    now_s = time.time() if now_s is None else now_s
    if now_s < EARLIEST_S:
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0.0, now_s)))
        yield f"the clock says {shown} UTC, which cannot be: alerts would have wrong times"
        return
    latest_s, latest = max(((_written_s(path), path.name) for path in files), default=(0.0, ""))
    if latest_s - now_s > BACK_S:
        yield (
            f"the clock is {_span(latest_s - now_s)} behind the last write of {latest}: it was "
            "wrong then or is wrong now"
        )


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _span(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
