"""What a verb says of the captures that it read, and what that means for its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import typer

from veilwatch.cli.terminal import warn, warn_of_faults
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.packets import Status

INCOMPLETE: Final = 1
"""Exit code where something was read, but not all of what the captures hold."""

SHOWN: Final = 20
"""Files of which notes are printed; `inspect --json` has them all."""


def nothing_decoded(captures: CaptureReport, balance: Mapping[str, int]) -> str:
    """Say why no packet of those read became part of a flow; empty where one did.

    Parameters
    ----------
    captures
        What was read.
    balance
        What became of the packets, see `veilwatch.traffic.decode.Decoder.balance`.
    """
    read, lost = balance["packets_read"], captures.packets
    if balance[Status.OK.name] or balance[Status.LATER_FRAGMENT.name] or not (read or lost):
        return ""
    causes = [
        f"{count:,} {name.lower().replace('_', ' ')}"
        for name, count in balance.items()
        if name.isupper() and count
    ]
    links = sorted({link for file in captures.files for link in file.interfaces})
    kinds = ""
    if balance[Status.UNSUPPORTED_LINK.name]:
        kinds = f" (link type {', '.join(map(str, links[:5]))})"
    return f"none of {read:,} packets could be decoded: {', '.join(causes)}{kinds}"


def say(captures: CaptureReport, balance: Mapping[str, int], *, quiet: bool) -> None:
    """Print what is odd unless `quiet`, and in any case what is missing."""
    if not quiet:
        for file in [file for file in captures.files if file.notes][:SHOWN]:
            for note in file.notes:
                warn(f"{file.name}: {note}")
    warn_of_faults(captures, quiet=quiet)
    if why := nothing_decoded(captures, balance):
        warn(why)


def settle(captures: CaptureReport, balance: Mapping[str, int] | None = None) -> None:
    """End with `INCOMPLETE` where a file was not read to its end, or nothing could be decoded.

    An interface that went away is no such file: it is said, and what came of it is whole.
    """
    if any(file.live is None for file in captures.faults) or (
        balance is not None and nothing_decoded(captures, balance)
    ):
        raise typer.Exit(INCOMPLETE)
