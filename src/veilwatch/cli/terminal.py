"""What the verbs share: consoles, progress on standard error, quiet mode."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import pyarrow
import typer
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from veilwatch.cli.interruption import Heeding
from veilwatch.imports import hidden
from veilwatch.jit import load_numba
from veilwatch.progress import SILENT
from veilwatch.progress import Progress as Listener
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.text import visible
from veilwatch.traffic.pipeline import warm

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Results and errors only: no progress and no remarks."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

MAX_LINE: Final = 1000
"""Most characters of a remark, names of files in it."""

UNBOUNDED: Final = 10_000
"""Columns of what goes into a file or a pipe: nothing that is searched there is broken or cut."""


class Screen(Console):
    """A console as wide as its terminal, and without an end where there is none."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; `COLUMNS` wins, as for other programs."""
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and 0 < int(columns[:6]) < UNBOUNDED:
            return ConsoleDimensions(int(columns), 25)
        return super().size if self.is_terminal else ConsoleDimensions(UNBOUNDED, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        raise AttributeError("a screen is as large as it is")

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends in silence when nobody reads on."""
        raise BrokenPipeError


console = Screen()
"""Standard output: results."""

errors = Screen(stderr=True)
"""Standard error: progress and notes."""


def this_command() -> str:
    """Return the command line of this process, as pages and documents name it."""
    return shlex.join(["veilwatch", *sys.argv[1:]])


def remark(text: str, *, quiet: bool) -> None:
    """Say on standard error how a run went, unless only results are wanted."""
    if not quiet:
        errors.print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Say on standard error what is wrong with an input or a result; quiet mode says it too."""
    errors.print(Text(visible(text, MAX_LINE), style="yellow"), soft_wrap=True)


def warn_of_faults(captures: CaptureReport, *, quiet: bool) -> None:
    """Say which captures could not be read to their end; their progress has, unless quiet."""
    for report in captures.faults if quiet else ():
        warn(f"{report.name}: {report.fault}")


class _Bars:
    """Draw one bar for each task; a new task ends the one before."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, task: str, total: float | None = None) -> None:
        self._finish()
        self._task = self._bars.add_task(task, total=total)

    def advance(self, amount: float = 1.0) -> None:
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def note(self, message: str) -> None:
        self._bars.console.print(Text(visible(message, MAX_LINE), style="yellow"))

    def _finish(self) -> None:
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        if task.total is None:
            self._bars.update(self._task, total=max(task.completed, 1))
        self._bars.update(self._task, completed=self._bars.tasks[-1].total)


@contextmanager
def progress(quiet: bool) -> Iterator[Listener]:
    """Show progress on standard error while the block runs; lines only where it is no terminal."""
    if quiet:
        yield Heeding(SILENT)
        return
    if not errors.is_terminal:
        yield Heeding(_Lines())
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=False,
    ) as bars:
        listener = _Bars(bars)
        yield Heeding(listener)
        listener._finish()


class _Lines:
    """One line a task: what a log file or a CI run can show."""

    def start(self, task: str, total: float | None = None) -> None:
        print(f"{task} …", file=sys.stderr, flush=True)

    def advance(self, amount: float = 1.0) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        print(visible(message, MAX_LINE), file=sys.stderr, flush=True)


@contextmanager
def working(quiet: bool) -> Iterator[Listener]:
    """Show progress, with the kernels compiled first."""
    load_numba()
    with hidden("pandas"):
        pyarrow.array([])  # looks for it once, to know its types
    with progress(quiet) as listener:
        warm(listener)
        yield listener
