"""The evaluation document: one typed result that JSON, console and page render."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.evaluation.calibration import supported_rate
from veilwatch.evaluation.labelled import Labels
from veilwatch.evaluation.metrics import Scores, measure


def evaluate_scores(
    score: Scores,
    captures: Scores,
    labels: Labels,
    entries: Sequence[CaptureEntry],
    *,
    flow_threshold: Scores | float,
    capture_threshold: Scores | float,
) -> dict[str, Any]:
    """Return the figures of scored flows on every level and for every family.

    Parameters
    ----------
    score
        Flow scores in 0…1, shape (flows,); NaN for flows that were set aside.
    captures
        Score of each capture, shape (captures,); NaN for a capture without flows or set aside.
    labels
        Truth of the same flows and captures.
    entries
        The captures.
    flow_threshold, capture_threshold
        The model's own thresholds; one for each flow and capture where several models scored.

    Returns
    -------
    dict
        `flow`, `flow_tls`, `capture` (see `veilwatch.evaluation.metrics.measure`), `families`
        and `supported_false_positive_rate` by level.
    """
    used = ~np.isnan(score)
    flow_limit = np.broadcast_to(flow_threshold, score.shape)
    capture_limit = np.broadcast_to(capture_threshold, len(entries))
    seen = ~np.isnan(captures)
    tls = used & labels.encrypted
    levels = {
        "flow": measure(score[used], labels.malicious[used], flow_limit[used]),
        "flow_tls": measure(score[tls], labels.malicious[tls], flow_limit[tls]),
        "capture": measure(captures[seen], labels.capture_malicious[seen], capture_limit[seen]),
    }
    return {
        **levels,
        "families": _families(
            used, score >= flow_limit, captures, captures >= capture_limit, labels, entries
        ),
        "supported_false_positive_rate": {
            name: supported_rate(level["n_negative"]) for name, level in levels.items()
        },
    }


def _families(
    used: npt.NDArray[np.bool_],
    flow_alert: npt.NDArray[np.bool_],
    captures: Scores,
    capture_alert: npt.NDArray[np.bool_],
    labels: Labels,
    entries: Sequence[CaptureEntry],
) -> dict[str, dict[str, Any]]:
    """Return for each malicious family how many captures (and flows) were found."""
    names = np.array([entry.family or "unnamed" for entry in entries])
    seen = labels.capture_malicious & ~np.isnan(captures)
    out = {}
    for family in sorted(set(names[seen].tolist())):
        mine = seen & (names == family)
        flows = used & mine[labels.capture]
        out[family] = {
            "n": int(mine.sum()),
            "detection_rate": float(np.mean(capture_alert[mine])),
            "n_flows": int(flows.sum()),
            "flow_detection_rate": float(np.mean(flow_alert[flows])),
            "is_ransomware": any(entries[int(i)].is_ransomware for i in np.flatnonzero(mine)),
        }
    return out
