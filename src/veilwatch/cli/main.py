"""The command `veilwatch`."""

from __future__ import annotations

import codecs
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from veilwatch.cli.interruption import Terminated, end_like_ctrl_c
from veilwatch.errors import EXIT_BAD_INPUT, VeilwatchError

if TYPE_CHECKING:
    import typer

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells expect it."""

EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Exit code after SIGTERM, likewise."""

_PLAIN: Final = {
    "…": "...",
    "·": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "↔": "<->",
    "×": "x",
    "−": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "≥": ">=",
    "≤": "<=",
    "µ": "u",
    "█": "#",
}
"""What typographic characters become on a screen that has none."""


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """Return the command line: every verb, or the one that `words` begin with.

    What all verbs import together takes half a second longer than what `inspect` needs.
    """
    from veilwatch.cli.root import build

    return build(words)


def run() -> None:
    """Run the command line; errors become one line and exit code 2, never a traceback.

    Where a reader of our output goes away (`veilwatch flows … | head`), so do we, and all is well.
    """
    try:
        _write_what_can_be_written()
        end_like_ctrl_c()
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        _no_more_output()
        code = 0
    except KeyboardInterrupt as error:  # while modules load, or a second time
        code = _said_why(error, "nothing was written")
    sys.exit(code)


def _run(words: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        command_line(words)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except VeilwatchError as error:
        _say(str(error))
        return EXIT_BAD_INPUT
    except MemoryError:
        _say("out of memory (read fewer captures at a time, or lower --max-flows)")
        return EXIT_BAD_INPUT
    except ImportError as error:
        # Such as after becoming a user who cannot read this installation; else a broken one.
        _say(
            f"cannot load a part of itself: {error} (let user {os.geteuid()} read the folders of "
            "this installation, or install it anew)"
        )
        return EXIT_BAD_INPUT
    except Exception as error:
        from veilwatch.cli.root import InterruptedVerb, ReaderGone

        if isinstance(error, ReaderGone):
            raise BrokenPipeError from error
        if isinstance(error, InterruptedVerb):
            return _said_why(error.__cause__, str(error))
        raise
    return 0


def _said_why(error: BaseException | None, left: str) -> int:
    """Say that the run was broken off and what it left; return its exit code."""
    if isinstance(error, Terminated):
        _say(f"ended by SIGTERM; {left}")
        return EXIT_TERMINATED
    _say(f"interrupted; {left}")
    return EXIT_INTERRUPTED


def _say(text: str) -> None:
    print(f"veilwatch: {text}", file=sys.stderr)


def _no_more_output() -> None:
    """Keep Python from writing what is still buffered when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def _write_what_can_be_written() -> None:
    """Let no name and no sign of ours end in an error where the terminal cannot show it."""
    codecs.register_error("veilwatch", _replacement)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="veilwatch")


def _replacement(error: UnicodeError) -> tuple[str, int]:
    r"""Return what stands for characters that an encoding has not: `...` for …, `\u044f` for я.

    Examples
    --------
    >>> _replacement(UnicodeEncodeError("ascii", "a … я", 2, 5, ""))
    ('... \\u044f', 5)
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(
        _PLAIN.get(char) or (char if char.isascii() else _escape(char))
        for char in error.object[error.start : error.end]
    ), error.end


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file's name that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("ascii", "backslashreplace").decode()
