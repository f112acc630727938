"""False alarms by kind of benign traffic: what looks odd to a model, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry

UNNAMED: Final = "unnamed"
"""Kind of what nobody gave one."""


class KindCount(NamedTuple):
    """How many benign captures of a kind were judged, and how many of these were an alert."""

    captures: int
    alerted: int


def benign_kind(entry: CaptureEntry) -> str:
    """Return the kind of a benign capture: its setting, else its first folder below `benign`.

    Examples
    --------
    >>> from pathlib import Path
    >>> name = "benign/home/tv-1.pcap"
    >>> row = CaptureEntry(Path(name), name, "benign", "", False, name, "", "")
    >>> benign_kind(row)
    'home'
    """
    if entry.setting:
        return entry.setting
    folders = PurePath(entry.name).parts[:-1]
    below = folders[folders.index("benign") + 1 :] if "benign" in folders else ()
    return below[0] if below else UNNAMED


def count_kinds(
    entries: Sequence[CaptureEntry],
    judged: npt.NDArray[np.bool_],
    alert: npt.NDArray[np.bool_],
) -> dict[str, KindCount]:
    """Return the counts of each kind in the order of names.

    Parameters
    ----------
    judged, alert
        Whether each capture was judged, and was an alert, shape (captures,); malicious ones do not
        count.
    """
    counts: dict[str, KindCount] = {}
    for entry, seen, alerted in zip(entries, judged.tolist(), alert.tolist(), strict=True):
        if seen and entry.label == "benign":
            kind = benign_kind(entry)
            before = counts.get(kind, KindCount(0, 0))
            counts[kind] = KindCount(before.captures + 1, before.alerted + alerted)
    return dict(sorted(counts.items()))
