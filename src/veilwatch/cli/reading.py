"""What a verb says of the captures that it read, and what that means for its exit code."""

from __future__ import annotations

from typing import Final

import typer

from veilwatch.cli.terminal import errors
from veilwatch.pipeline import FlowReader, ParallelReader
from veilwatch.report.names import visible
from veilwatch.schema.packets import Status

INCOMPLETE: Final = 1
"""Exit code where something was read, but not all of what the captures hold."""

MAX_LINE: Final = 1000
"""Most characters of a line about a file, its name among them."""

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
                errors.print(
                    visible(f"{file.name}: {note}", MAX_LINE), style="yellow", markup=False
                )
    for file in captures.faults:
        errors.print(visible(f"{file.name}: {file.fault}", MAX_LINE), style="yellow", markup=False)
    if why := nothing_decoded(reader):
        errors.print(why, style="yellow", markup=False)


def settle(reader: FlowReader | ParallelReader) -> None:
    """End with `INCOMPLETE` where a file was not read to its end, or nothing could be decoded."""
    if any(file.live is None for file in reader.captures.faults) or nothing_decoded(reader):
        raise typer.Exit(INCOMPLETE)
