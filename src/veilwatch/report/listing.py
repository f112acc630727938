"""Rows of values for a terminal or a file, of which nothing is ever cut.

As wide as they need where there is room: in a file and a pipe always. On a narrow terminal names
and sentences are folded; where numbers, ids and addresses alone do not fit, each row becomes a few
lines of its own, a value a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

LEAST: Final = 16
"""Cells that a column of text keeps at least: narrower, a name is broken every few letters."""

GAP: Final = 2
"""Cells between two columns."""


class Kind(Enum):
    """What may happen to the values of a column."""

    WHOLE = "whole"  # an id, address, time, TEID, name of an option: never broken
    NUMBER = "number"  # never broken, and aligned at its end
    TEXT = "text"  # folded where it must be


class Column(NamedTuple):
    """Name and kind of a column."""

    name: str
    kind: Kind = Kind.WHOLE


def whole(*names: str) -> list[Column]:
    """Return columns of ids, addresses and other words that are never broken."""
    return [Column(name) for name in names]


def numbers(*names: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(name, Kind.NUMBER) for name in names]


def texts(*names: str) -> list[Column]:
    """Return columns of names and sentences."""
    return [Column(name, Kind.TEXT) for name in names]


class Listing:
    """Rows under a header that fit the width they are printed at.

    Parameters
    ----------
    columns
        Without names there is no header.
    title
        Line above.

    Examples
    --------
    >>> listing = Listing([*whole("host"), *numbers("flows")])
    >>> listing.add("10.45.0.2", "1,024,000")
    >>> Console(width=40).print(listing)
    host           flows
    10.45.0.2  1,024,000
    >>> Console(width=16).print(listing)
    host   10.45.0.2
    flows  1,024,000
    """

    def __init__(self, columns: Sequence[Column], *, title: str = "") -> None:
        self.columns = list(columns)
        self.title = title
        self._rows: list[list[Text]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, *cells: str | Text) -> None:
        """Append a row; a cell may have several lines. A string is taken as it is, no markup."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def widths(self, room: int) -> list[int] | None:
        """Return the width of each column, None where they do not fit into `room`."""
        cells = [
            max((_width(row[k]) for row in self._rows), default=0) for k in range(len(self.columns))
        ]
        found = [max(cell_len(c.name), width) for c, width in zip(self.columns, cells, strict=True)]
        # Names of columns are broken between words, texts anywhere, all else nowhere.
        least = [
            max(_longest(Text(c.name)), min(width, LEAST) if c.kind is Kind.TEXT else width)
            for c, width in zip(self.columns, cells, strict=True)
        ]
        room -= GAP * (len(found) - 1)
        if sum(least) > room:
            return None
        while sum(found) > room:
            # The widest gives first, so that those beside it stay readable.
            _, k = max((width, k) for k, width in enumerate(found) if width > least[k])
            found[k] -= 1
        return found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        widths = self.widths(options.max_width)
        if widths is None:
            yield from self._records(console, options.max_width)
            return
        if any(column.name for column in self.columns):
            header = [Text(column.name, style="bold") for column in self.columns]
            yield from self._row(console, header, widths)
        for row in self._rows:
            yield from self._row(console, row, widths)

    def _row(self, console: Console, cells: list[Text], widths: list[int]) -> RenderResult:
        folded = [_folded(console, cell, width) for cell, width in zip(cells, widths, strict=True)]
        for k in range(max(map(len, folded))):
            line = Text(no_wrap=True, overflow="ignore")
            for column, width, parts in zip(self.columns, widths, folded, strict=True):
                part = parts[k] if k < len(parts) else Text()
                fill = " " * (width - part.cell_len)
                line.append(fill if column.kind is Kind.NUMBER else "").append_text(part)
                line.append((fill if column.kind is not Kind.NUMBER else "") + " " * GAP)
            line.rstrip()
            yield line

    def _records(self, console: Console, room: int) -> RenderResult:
        """Each row as lines of its own, a value a line beside its name, or below it."""
        beside = max(cell_len(column.name) for column in self.columns) + GAP
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            for column, cell in zip(self.columns, row, strict=True):
                if not cell.plain:
                    continue
                fits = beside + _longest(cell) <= room
                label = Text(column.name, style="bold")
                if fits:
                    label.append(" " * (beside - label.cell_len))
                elif column.name:
                    yield label
                    label = Text()
                for part in _folded(console, cell, room - label.cell_len):
                    yield Text(no_wrap=True, overflow="ignore").append_text(label).append_text(part)
                    label = Text(" " * label.cell_len)


def _folded(console: Console, cell: Text, width: int) -> list[Text]:
    """Return the lines of a cell, at most so wide."""
    lines = [
        part
        for line in cell.split("\n", allow_blank=True)
        for part in line.wrap(console, max(width, 1), overflow="fold")
    ]
    for line in lines:
        line.rstrip()
    return lines or [Text()]


def _width(cell: Text) -> int:
    return max((line.cell_len for line in cell.split("\n")), default=0)


def _longest(cell: Text) -> int:
    """Return the width of the longest word."""
    return max((cell_len(word) for word in cell.plain.split()), default=0)
