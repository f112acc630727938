"""What a verb says of the captures that it read, and what that means for its exit code."""

from __future__ import annotations

from typing import Final

import typer

from veilwatch.cli.terminal import warn, warn_of_faults
from veilwatch.pipeline import FlowReader, ParallelReader
from veilwatch.schema.packets import Status

INCOMPLETE: Final = 1
"""Exit code where something was read, but not all of what the captures hold."""

SHOWN: Final = 20
"""Files of which notes are printed; `inspect --json` has them all."""


def nothing_decoded(reader: FlowReader | ParallelReader) -> str:
    """Say why no packet of those read became part of a flow; empty where one did."""
    balance = reader.balance
    read, lost = balance["packets_read"], reader.captures.packets
    if balance[Status.OK.name] or balance[Status.LATER_FRAGMENT.name] or not (read or lost):
        return ""
    causes = [
        f"{count:,} {name.lower().replace('_', ' ')}"
        for name, count in balance.items()
        if name.isupper() and count
    ]
    links = sorted({link for file in reader.captures.files for link in file.interfaces})
    kinds = ""
    if balance[Status.UNSUPPORTED_LINK.name]:
        kinds = f" (link type {', '.join(map(str, links[:5]))})"
    return f"none of {read:,} packets could be decoded: {', '.join(causes)}{kinds}"


def say(reader: FlowReader | ParallelReader, *, quiet: bool) -> None:
    """Print what is odd unless `quiet`, and in any case what is missing."""
    captures = reader.captures
    if not quiet:
        for file in [file for file in captures.files if file.notes][:SHOWN]:
            for note in file.notes:
                warn(f"{file.name}: {note}")
    warn_of_faults(captures, quiet=quiet)
    if why := nothing_decoded(reader):
        warn(why)


def settle(reader: FlowReader | ParallelReader) -> None:
    """End with `INCOMPLETE` where a file was not read to its end, or nothing could be decoded."""
    if any(file.live is None for file in reader.captures.faults) or nothing_decoded(reader):
        raise typer.Exit(INCOMPLETE)
