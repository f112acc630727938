"""A line of CSV for each alert, appended to one file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from veilwatch import Address, DeliveryLog, EncodedEvent, Event, Sink, VeilwatchError

FORMULA: tuple[str, ...] = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that spreadsheets would run: a name from the network may have them."""


class CsvFile(Sink):
    """`csv+file:///path/alerts.csv`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {"separator": "between columns: comma or semicolon"}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.path = Path(address.path)
        if address.host or not self.path.is_absolute() or self.path.suffix != ".csv":
            raise VeilwatchError(
                "names no CSV file", where=address.shown, hint="csv+file:///var/log/alerts.csv"
            )
        word = address.choice("separator", ("comma", "semicolon"), "comma")
        self._separator = {"comma": ",", "semicolon": ";"}[word]

    def encode(self, event: Event) -> bytes:
        """Return the event's line. An exception here refuses the event for good."""
        alert = event.alert
        time = datetime.fromtimestamp(alert.last_ns // 10**9, UTC).isoformat()
        words = [event.kind.value, alert.host, alert.family]
        cells = [event.event_id, time, *words, f"{alert.score:.4f}"]
        text = io.StringIO()
        csv.writer(text, delimiter=self._separator, lineterminator="\n").writerow(
            f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells
        )
        return text.getvalue().encode()

    def deliver(self, letters: Sequence[EncodedEvent], tally: DeliveryLog) -> None:
        """Append the lines. An exception here leaves what is not delivered to be sent again."""
        with self.path.open("ab") as file:
            for letter in letters:
                file.write(letter.body)
        for letter in letters:
            tally.delivered(letter.event.event_id)
