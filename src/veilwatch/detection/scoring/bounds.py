"""Sharing bounded room fairly: who has most gives up first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fair_share(sizes: npt.NDArray[np.int64], room: int) -> int:
    """Return the largest share with which all together keep within the room.

    Parameters
    ----------
    sizes
        Rows of each one, shape (n,).
    room
        Rows that all may have together.

    Returns
    -------
    int
        Most rows that one may keep, so that small ones keep all of theirs; 0 where there is less
        room than ones that have rows.

    Examples
    --------
    >>> fair_share(np.array([100, 3, 50]), 60)
    28
    >>> fair_share(np.array([1, 2]), 60)
    2
    """
    if sizes.sum() <= room:
        return int(sizes.max(initial=0))
    ordered = np.sort(sizes)
    before = np.concatenate([[0], np.cumsum(ordered)[:-1]])
    # With ordered[k] as the first that is cut, all from there on share what the others leave.
    share = (room - before) // np.arange(len(ordered), 0, -1)
    return int(share[np.flatnonzero(share < ordered)[0]]) if (share < ordered).any() else 0
