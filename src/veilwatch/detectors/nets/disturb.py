"""Flows as another network path might have shown them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def without_packets(
    shape: tuple[int, ...], rng: np.random.Generator, strength: float
) -> npt.NDArray[np.bool_]:
    """Return a mask of packets to leave out: some lost here and there, some flows cut short.

    So that a network does not learn one path's loss, or the length to which one laboratory
    recorded. `strength` is the share of packets lost and of flows cut. A flow's first packet stays.

    Parameters
    ----------
    shape
        Flows first, packets last; what lies between is cut alike.
    """
    flows, packets = shape[0], shape[-1]
    lost = rng.random(shape) < strength
    # Half of the cuts come within the first packets, where most flows end.
    most = np.where(rng.random(flows) < 0.5, 8, packets)
    end = 1 + (rng.random(flows) * most).astype(np.int64)
    end = np.where(rng.random(flows) < strength, end, packets)
    past = np.arange(packets) >= end[:, None]
    lost |= past.reshape(flows, *[1] * (len(shape) - 2), packets)
    lost[..., 0] = False
    return np.asarray(lost)
