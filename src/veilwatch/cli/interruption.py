"""Ctrl-C and SIGTERM end a verb, also where a library swallows the exception that says so."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from veilwatch.progress import Progress

if TYPE_CHECKING:
    from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM; whatever heeds Ctrl-C heeds it as well, and leaves no half file."""


_asked: list[KeyboardInterrupt] = []
"""What this process was told; the first stays until it ends."""


def end_like_ctrl_c() -> None:
    """Have SIGTERM end a verb as Ctrl-C does, unless the verb takes it for itself.

    Ctrl-C reaches every process of a terminal; SIGTERM reaches this one, which tells its workers.
    A second SIGTERM changes nothing: `timeout` sends two.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "multiprocessing" in sys.modules:
            for worker in sys.modules["multiprocessing"].active_children():
                worker.terminate()
        _ask(Terminated())

    def interrupt(number: int, frame: FrameType | None) -> None:
        _ask(KeyboardInterrupt())

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def _ask(to_end: KeyboardInterrupt) -> None:
    _asked.append(to_end)
    raise to_end


class Heeding:
    """Progress that raises once more what was asked for and is not heeded yet.

    An exception that is raised while a library calls back from machine code (Polars does) may end
    in a message of its own and be gone.

    Parameters
    ----------
    listener
        What shows the progress.
    """

    def __init__(self, listener: Progress) -> None:
        self._listener = listener

    def start(self, task: str, total: float | None = None) -> None:
        """Begin `task`."""
        _heed()
        self._listener.start(task, total)

    def advance(self, amount: float = 1.0) -> None:
        """Report `amount` more work done."""
        _heed()
        self._listener.advance(amount)

    def note(self, message: str) -> None:
        """Show one line that stays."""
        self._listener.note(message)


def _heed() -> None:
    if _asked:
        raise _asked[0]
