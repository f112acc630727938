"""Elasticsearch's `_bulk`, so that every document arrives exactly once or is accounted for.

A document's id is the event's id and its index follows from the event alone, so that sending it
again makes no second one. It is created and never overwritten: what an analyst has changed in it
since stays.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from veilwatch.export.clean import JsonObject, compact_json
from veilwatch.schema.events import Event
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import BATCH_S, DeliveryLog, EncodedEvent, Sink
from veilwatch.sinks.http import Answer, Client

MAX_BULK_BYTES: Final = 4 << 20
"""Longest request: Elasticsearch advises 5 to 15 MB and takes 100, but proxies before it often
take less; one that refuses even this (413) gets halves."""

_NDJSON: Final = {"Content-Type": "application/x-ndjson"}
_CREATED: Final = frozenset({200, 201, 409})  # 409: a document with this id is there already
_POISON: Final = frozenset({400, 413})


def action(index: str, event_id: str, document: JsonObject) -> bytes:
    """Return the two lines of a bulk that create a document."""
    head = compact_json({"create": {"_index": index, "_id": event_id}})
    return head + b"\n" + compact_json(document) + b"\n"


class BulkSink(Sink):
    """A sink that creates a document of each event, in an index that follows from the event."""

    UNSURE: ClassVar[bool] = True
    PORT: ClassVar[int]
    """Where the peer listens unless the address says so."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.client = Client(address, self.PORT)
        self.prefix = address.path.rstrip("/")

    @abstractmethod
    def index_of(self, event: Event) -> str:
        """Return the index that the event's document is in, always the same."""

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Create the documents."""
        create(self.client, self.prefix, encoded, log)

    def missing(self, events: Sequence[Event]) -> set[str]:
        """Return the ids of events that the peer does not have.

        Raises
        ------
        OSError
            If the peer does not say.
        """
        places = {event.event_id: self.index_of(event) for event in events}
        return missing(self.client, self.prefix, places)


def create(client: Client, prefix: str, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
    """Create the documents of `encoded`; their bodies are made by `action`.

    Parameters
    ----------
    client
        The peer.
    prefix
        Path that Elasticsearch lies under, '' none.
    encoded
        What to create.
    log
        Where to note what became of each.

    Raises
    ------
    OSError
        If the peer is down or silent; what was noted until then stays.
    """
    waiting = list(_parts(encoded))
    until = time.monotonic() + BATCH_S
    while waiting:
        if time.monotonic() > until:
            raise TimeoutError
        part = waiting.pop(0)
        answer = client.request(
            "POST", f"{prefix}/_bulk", b"".join(item.body for item in part), _NDJSON
        )
        if answer.status == 200:
            _note(answer, part, log)
        elif answer.status in _POISON and len(part) > 1:
            # One document may be what the peer cannot take: halves find it.
            half = len(part) // 2
            waiting[:0] = [part[:half], part[half:]]
        elif answer.status in _POISON:
            log.refused(part[0].event.event_id, f"refused with {_what(answer)}")
        else:
            log.wait_s = max(log.wait_s, answer.wait_s)
            for item in (*part, *(item for later in waiting for item in later)):
                log.again(item.event.event_id, f"the peer answered {_what(answer)}")
            return


def missing(client: Client, prefix: str, places: Mapping[str, str]) -> set[str]:
    """Return the ids of documents that are not there.

    Parameters
    ----------
    client
        The peer.
    prefix
        Path that Elasticsearch lies under, '' none.
    places
        Index by id.

    Raises
    ------
    OSError
        If the peer does not say.
    """
    if not places:
        return set()
    wanted = {"docs": [{"_index": index, "_id": name} for name, index in places.items()]}
    answer = client.request("POST", f"{prefix}/_mget?_source=false", compact_json(wanted))
    if answer.status != 200:
        raise ConnectionError(f"the peer answered {_what(answer)}")
    found = set()
    for item in _items(answer, "docs"):
        error = item.get("error")
        if error and _type(error) != "index_not_found_exception":
            raise ConnectionError(f"the peer answered {_type(error)}")
        if item.get("found") is True:
            found.add(item.get("_id"))
    return {name for name in places if name not in found}


def _parts(encoded: Sequence[EncodedEvent]) -> Iterator[list[EncodedEvent]]:
    part: list[EncodedEvent] = []
    size = 0
    for item in encoded:
        if part and size + len(item.body) > MAX_BULK_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.body)
    if part:
        yield part


def _note(answer: Answer, part: Sequence[EncodedEvent], log: DeliveryLog) -> None:
    """Note what became of each item; items that the answer leaves out are sent again."""
    sent = {item.event.event_id for item in part}
    for item in _items(answer, "items"):
        result = item.get("create")
        if not isinstance(result, dict) or result.get("_id") not in sent:
            continue
        name, status = result["_id"], result.get("status")
        error = result.get("error", {})
        if status in _CREATED:
            log.delivered(name)
        elif status in _POISON:
            log.refused(name, f"{_type(error)}: {_cause(error)}")
        else:
            log.again(name, f"{status} {_type(error)}")
    for left in log.unresolved(part):
        log.again(left.event.event_id, "the answer does not tell of it", unsure=True)


def _items(answer: Answer, name: str) -> list[dict[str, Any]]:
    try:
        items = json.loads(answer.body)[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConnectionError("the answer is not one of Elasticsearch") from error
    if not isinstance(items, list):
        raise ConnectionError("the answer is not one of Elasticsearch")
    return [item for item in items if isinstance(item, dict)]


def _type(error: Any) -> str:
    return str(error.get("type", "error")) if isinstance(error, dict) else "error"


def _cause(error: Any) -> str:
    if not isinstance(error, dict):
        return ""
    inner = error.get("caused_by")
    cause = f" ({inner.get('reason')})" if isinstance(inner, dict) else ""
    return f"{error.get('reason', '')}{cause}"


def _what(answer: Answer) -> str:
    words = {401: "credentials refused", 403: "not allowed", 404: "not found"}
    told = words.get(answer.status, "")
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        told = told or _type(json.loads(answer.body)["error"])
    return f"{answer.status} {told}".strip()
