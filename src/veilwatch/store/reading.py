"""What people read, each within a transaction of the caller's."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Table, and_, or_, select

from veilwatch.errors import StoreError
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store.query import EventFilter, StoredEvent
from veilwatch.store.rows import event_from_row
from veilwatch.store.tables import events, verdicts

MIN_PREFIX: Final = 4
"""Shortest beginning of an id that is taken for it."""


def event_page(
    connection: Connection,
    wanted: EventFilter,
    after: tuple[int, str] | None,
    size: int,
    newest_first: bool,
) -> list[tuple[tuple[int, str], StoredEvent]]:
    """Return the next events that are asked for, each with its place in the order.

    Parameters
    ----------
    wanted
        Which events.
    after
        Place of the last one before them, None at the beginning.
    size
        At most this many.
    newest_first
        Which way they come.
    """
    at, name = events.c.at_ns, events.c.event_id
    asked = select(events).where(wanted.clause()).limit(size)
    asked = asked.order_by(*((at.desc(), name.desc()) if newest_first else (at, name)))
    if after:
        beyond = at < after[0] if newest_first else at > after[0]
        tie = name < after[1] if newest_first else name > after[1]
        asked = asked.where(or_(beyond, and_(at == after[0], tie)))
    rows = connection.execute(asked).all()
    said = verdicts_of(connection, [row.event_id for row in rows])
    return [
        ((row.at_ns, row.event_id), StoredEvent(event_from_row(row), said.get(row.event_id, ())))
        for row in rows
    ]


def verdicts_of(connection: Connection, event_ids: list[str]) -> dict[str, tuple[Verdict, ...]]:
    """Return the verdicts on some events, the latest first."""
    asked = (
        select(verdicts)
        .where(verdicts.c.event_id.in_(event_ids))
        .order_by(verdicts.c.at_ns.desc(), verdicts.c.who)
    )
    out: dict[str, tuple[Verdict, ...]] = {}
    for row in connection.execute(asked):
        said = Verdict(row.event_id, VerdictKind(row.kind), row.who, row.at_ns, row.note)
        out[row.event_id] = (*out.get(row.event_id, ()), said)
    return out


def full_id(connection: Connection, table: Table, column: str, given: str, what: str) -> str:
    """Return the one id that begins with `given`."""
    if len(given) < MIN_PREFIX or not given.isalnum() or not given.isascii():
        raise StoreError(
            f"{given[:64]!r} is no id of an {what}",
            hint=f"give at least its first {MIN_PREFIX} characters",
        )
    ids = table.c[column]
    found = connection.execute(
        # A range and not LIKE: it is answered from the index. Ids are hexadecimal, and "g"
        # comes after them in every collation.
        select(ids).where(ids >= given, ids < given + "g").order_by(ids).limit(2)
    ).scalars()
    names = list(found)
    if given in names:
        return given
    if len(names) != 1:
        raise StoreError(
            f"{'several ids begin' if names else f'no {what} has an id that begins'} "
            f"with {given[:64]}",
        )
    return str(names[0])
