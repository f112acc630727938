"""SecBuzzer ESM by files that its Fluentd tails (V2.3, V0.2), beside Suricata's own.

Fluentd follows `eve*.json`. ESM deletes only Suricata's files, so ours are deleted here.
"""

from __future__ import annotations

from datetime import timezone
from typing import ClassVar

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.address import Address
from veilwatch.sinks.eve import TAIPEI, event_text
from veilwatch.sinks.lines import LineSink


class EsmFile(LineSink):
    """`secbuzzer+file:///folder`."""

    PREFIX: ClassVar[str] = "eve-veilwatch-"
    SUFFIX: ClassVar[str] = ".json"
    ZONE: ClassVar[timezone] = TAIPEI
    KEEP: ClassVar[int] = 7  # as ESM keeps Suricata's
    CREATE: ClassVar[bool] = False  # a folder that ESM has not made is one that it does not read

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if self.path.suffix == self.SUFFIX:
            raise VeilwatchError(
                "this route takes a folder, in which it has files of its own",
                where=address.shown,
                hint="secbuzzer+file:///opt/Logs/Suricata",
            )

    def encode(self, event: Event) -> bytes:
        """Return the EVE line with its time in ESM's zone."""
        return event_text(event, zone=TAIPEI)
