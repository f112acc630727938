"""Events as bytes and back, without loss: how the spool keeps them.

The form is JSON. Two things go beyond strict JSON, since they are read by this module only:
numbers may be NaN (a reason's value that does not apply), and text may hold half surrogates, as
names from the wire do.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from veilwatch.errors import VeilwatchError
from veilwatch.export.clean import Json, compact_json
from veilwatch.schema.convert import event_from_plain, event_to_plain
from veilwatch.schema.events import Event

VERSION: Final = 1
"""Of the form; an event of another version is refused rather than misread."""

MAX_TEXT: Final = 500
"""Characters of a text that others are given, and with `MAX_ITEMS` the bound that keeps an event
below the 1 MB that Kafka takes, even where JSON needs twelve bytes a character."""

MAX_ITEMS: Final = 50
"""Items of a list that others are given; a timeline's first ones."""


def to_document(event: Event) -> dict[str, Any]:
    """Return an event as plain dictionaries, lists, numbers and text."""
    return {"version": VERSION, **event_to_plain(event, exact=True)}


def to_bytes(event: Event) -> bytes:
    """Return an event as bytes.

    Raises
    ------
    TypeError
        If it holds what JSON has no form for.
    """
    text = json.dumps(to_document(event), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> Event:
    """Return the event that `to_bytes` wrote.

    Raises
    ------
    VeilwatchError
        If these are not such bytes.
    """
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
        if document["version"] != VERSION:
            raise ValueError("another version")
        return event_from_plain(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VeilwatchError(f"not a stored event: {error}") from error


def public_json(event: Event) -> bytes:
    """Return everything that an event holds as strict JSON, for readers elsewhere.

    A number that does not apply is null; texts and lists end at `MAX_TEXT` and `MAX_ITEMS`.

    Raises
    ------
    TypeError
        As `to_bytes`.
    """
    return compact_json(_bounded(to_document(event)))


def _bounded(value: Json) -> Json:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value[:MAX_ITEMS]]
    return value
