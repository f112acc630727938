"""The one family of errors that a user may see.

Every message says what went wrong, where, and what to do about it, on one line. The command
line prints it and exits with code 2; nothing else in the project prints an error or exits.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

EXIT_BAD_INPUT = 2
"""Exit code of every error in this family."""

MAX_FAULT: Final = 300
"""Characters kept of what an exception says."""


class VeilwatchError(Exception):
    """Something the user can mend.

    Parameters
    ----------
    what
        The fault, in a few words, without a full stop.
    where
        File, offset, line or column it was found at; empty when it has no place.
    hint
        What to do about it; empty when that is obvious.

    Examples
    --------
    >>> print(VeilwatchError("not a capture", where="a.txt", hint="give a pcap or pcapng file"))
    a.txt: not a capture (give a pcap or pcapng file)
    """

    def __init__(self, what: str, *, where: object = "", hint: str = "") -> None:
        self.what = what
        self.where = str(where)
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{advice}".replace("\n", " ")


class CaptureError(VeilwatchError):
    """An input that cannot be read as a capture."""


class CorpusError(VeilwatchError):
    """A manifest, or a capture that it names, that cannot be used."""


class ModelError(VeilwatchError):
    """A model folder that is missing, damaged or trained on another feature schema."""


class TrainingError(VeilwatchError):
    """Data that no honest model can be trained or evaluated on."""


class PluginError(VeilwatchError):
    """An installed plugin that cannot be loaded, or does not keep its contract."""


class MissingExtraError(VeilwatchError):
    """Work that needs a package of an extra that was not installed."""


class OutputError(VeilwatchError):
    """A place that cannot be written to."""


class StoreError(VeilwatchError):
    """A store that cannot be opened, read or written to."""


class StoreDamagedError(StoreError):
    """A store whose contents cannot be made sense of."""


class StoreFullError(StoreError):
    """A store whose disk is full: nothing of what was asked for was written."""


class UnexpectedStoreError(StoreError):
    """The store failed in a way that nobody foresaw: what was asked is not done."""


def described(error: BaseException | None) -> str:
    """Return in one line what an exception is, what it says and where it was raised."""
    if error is None:
        return "no exception"
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    said = " ".join(str(error).split())[:MAX_FAULT]
    return f"{type(error).__name__}: {said} ({places})"


class VeilwatchWarning(UserWarning):
    """Something to know of a result that was computed all the same, such as a capture that was cut.

    The functions of `veilwatch.api` warn with it unless they are given a `Progress` to tell it to.
    """
