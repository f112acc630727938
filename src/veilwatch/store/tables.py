"""The tables as the newest version has them; `veilwatch.store.migrations` makes them.

Every event and incident is kept whole as a JSON document; the other columns are what is asked
for. JSON is ASCII and other text is cleaned: PostgreSQL takes neither NUL nor lone surrogates.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

metadata: Final = MetaData()

version: Final = Table("vw_version", metadata, Column("version", Integer, nullable=False))

events: Final = Table(
    "vw_events",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("sensor", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("subscriber", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("score", Double, nullable=False),
    Column("incident_id", Text, nullable=False),
    Column("document", Text, nullable=False),
)
"""`at_ns` is the time of the latest evidence, packet time; `made_ns` when the sensor told of it, by
which age goes."""

incidents: Final = Table(
    "vw_incidents",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("subscriber", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("opened_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("alerts", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("closed_by", Text, nullable=False, server_default=""),
    Column("closed_note", Text, nullable=False, server_default=""),
    Column("closed_alerts", BigInteger, nullable=False, server_default="0"),
    Column("recorded_ns", BigInteger, nullable=False, server_default="0"),
)
"""`closed_alerts` is how many alerts it had when a person closed it: more evidence opens it.
`opened_ns` and `last_ns` are packet times, `recorded_ns` is when it was last written: age goes by
it, as captures may be read years after their packets."""

verdicts: Final = Table(
    "vw_verdicts",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("who", Text, primary_key=True),
    Column("at_ns", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("note", Text, nullable=False),
)

counters: Final = Table(
    "vw_counters",
    metadata,
    Column("minute", BigInteger, primary_key=True),
    Column("sensor", Text, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
)
"""`minute` counts from the epoch. `run` tells starts of the sensor apart, so that two within one
minute do not overwrite each other; their values add up."""

state: Final = Table(
    "vw_state",
    metadata,
    Column("name", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("saved_ns", BigInteger, nullable=False),
)
