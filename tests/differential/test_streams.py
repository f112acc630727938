"""TCP's retransmissions, keep-alives, closed windows and holes, capture by capture, with tshark."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.differential import streams as s
from tests.differential.bundles import join, manifest

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

FULL: Final = os.environ.get("VEILWATCH_DIFFERENTIAL") == "full"
"""Set by `make differential`."""

STRIDE: Final = 1 if FULL else 12
"""One capture in so many: each needs a tshark of its own, for it numbers and times the streams."""

Table = dict[str, dict[tuple[str, str], int]]

SAMPLE: Final[Table] = {
    "gtp": {
        ("keep-alives", s.AGREES): 10,
        ("old bytes", s.COPIES): 1,
        ("old bytes", s.AGREES): 8,
        ("old bytes", s.LONGER): 1,
        ("past a hole", s.AGREES): 9,
        ("past a hole", s.LONGER): 1,
        ("zero windows", s.AGREES): 10,
    },
    "benign": {
        ("keep-alives", s.AGREES): 81,
        ("old bytes", s.COPIES): 1,
        ("old bytes", s.AGREES): 76,
        ("old bytes", s.SPURIOUS): 2,
        ("old bytes", s.BARE): 2,  # one is past an acknowledgement's number: only data move ours
        ("past a hole", s.AGREES): 81,
        ("zero windows", s.AGREES): 81,
    },
    "malicious": {
        ("keep-alives", s.AGREES): 46,
        ("old bytes", s.COPIES): 1,
        ("old bytes", s.AGREES): 43,
        ("old bytes", s.SPURIOUS): 1,
        ("old bytes", s.BARE): 1,
        ("past a hole", s.AGREES): 45,
        ("past a hole", s.LONGER): 1,
        ("zero windows", s.AGREES): 46,
    },
}

WHOLE: Final[Table] = {
    "gtp": {
        ("keep-alives", s.AGREES): 110,
        ("keep-alives", s.BARE): 1,
        ("old bytes", s.COPIES): 2,
        ("old bytes", s.AGREES): 106,
        ("old bytes", s.LONGER): 1,
        ("old bytes", s.SPURIOUS): 2,
        ("past a hole", s.AGREES): 108,
        ("past a hole", s.LONGER): 3,
        ("zero windows", s.AGREES): 111,
    },
    "benign": {
        ("keep-alives", s.AGREES): 518,
        ("keep-alives", s.BARE): 5,
        ("keep-alives", s.PROBES): 1,
        ("old bytes", s.COPIES): 15,
        ("old bytes", s.PARTLY_NEW): 2,
        ("old bytes", s.AGREES): 480,
        ("old bytes", s.LONGER): 1,
        ("old bytes", s.SPURIOUS): 23,
        ("old bytes", s.BARE): 3,
        ("past a hole", s.AGREES): 524,
        ("zero windows", s.AGREES): 524,
    },
    "malicious": {
        ("keep-alives", s.AGREES): 491,
        ("keep-alives", s.BARE): 2,
        ("keep-alives", s.PROBES): 6,
        ("old bytes", s.COPIES): 9,
        ("old bytes", s.PARTLY_NEW): 1,
        ("old bytes", s.AGREES): 482,
        ("old bytes", s.SPURIOUS): 3,
        ("old bytes", s.BARE): 4,
        ("past a hole", s.AGREES): 497,
        ("past a hole", s.LONGER): 2,
        ("zero windows", s.COPIES): 1,
        ("zero windows", s.AGREES): 498,
    },
}

EXPECTED: Final = WHOLE if FULL else SAMPLE
"""By folder: captures for each measure and what became of its comparison (tshark 4.0.17)."""


@pytest.mark.parametrize("folder", EXPECTED)
def test_tcp_agrees_with_tshark(folder: str, corpus_path: Path, tmp_path: Path) -> None:
    # Arrange
    reasons: Counter[tuple[str, str]] = Counter()
    unexplained = []

    # Act
    for name in manifest(corpus_path, folder)[::STRIDE]:
        joined = tmp_path / "joined.pcapng"
        join(corpus_path, [name], joined)
        for measure, reason, detail in s.compare(joined):
            if reason:
                reasons[measure, reason] += 1
            else:
                unexplained.append(f"{name}: {measure}: {detail}")

    # Assert
    assert not unexplained, "\n".join(unexplained[:20])
    assert reasons == EXPECTED[folder]
