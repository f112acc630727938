"""Everything that an event holds, as JSON lines: for tools that want more than EVE carries."""

from __future__ import annotations

from typing import ClassVar

from veilwatch.schema.events import Event
from veilwatch.sinks.lines import LineSink
from veilwatch.sinks.wire import public_json


class JsonLines(LineSink):
    """`jsonl+file:///folder` or `jsonl+file:///path/events.jsonl`."""

    PREFIX: ClassVar[str] = "veilwatch-"
    SUFFIX: ClassVar[str] = ".jsonl"

    def encode(self, event: Event) -> bytes:
        """Return the event's fields; a number that does not apply is null."""
        return public_json(event)
