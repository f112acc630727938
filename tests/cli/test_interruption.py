"""What was asked of a verb is done, also where a library swallowed it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from veilwatch.cli import interruption
from veilwatch.cli.interruption import Heeding, Terminated
from veilwatch.progress import SILENT

SWALLOWS = """
import os, signal, sys
from contextlib import suppress
from veilwatch.cli.interruption import Heeding, end_like_ctrl_c
from veilwatch.progress import SILENT
end_like_ctrl_c()
with suppress(BaseException):
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(10**9):
        pass
progress = Heeding(SILENT)
try:
    progress.advance()
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")]
)
def test_progress_heeds_what_a_library_swallowed(number: int, name: str) -> None:
    words = [sys.executable, "-c", SWALLOWS, str(int(number))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr


def test_what_nobody_asked_for_is_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_asked", [])
    progress = Heeding(SILENT)
    progress.start("reading", 3.0)
    progress.advance()
    with suppress(KeyboardInterrupt):
        interruption._ask(Terminated())
    with pytest.raises(Terminated):
        progress.start("training")
    progress.note("a line is shown all the same")
