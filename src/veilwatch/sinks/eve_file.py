"""EVE JSON lines in a file, as Suricata writes them."""

from __future__ import annotations

from typing import ClassVar

from veilwatch.schema.events import Event
from veilwatch.sinks.eve import event_text
from veilwatch.sinks.lines import LineSink


class EveFile(LineSink):
    """`eve+file:///folder` or `eve+file:///path/eve.json`."""

    PREFIX: ClassVar[str] = "eve-"
    SUFFIX: ClassVar[str] = ".json"

    def encode(self, event: Event) -> bytes:
        """Return the EVE line."""
        return event_text(event)
