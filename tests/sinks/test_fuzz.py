"""What strangers control: URLs mistyped, names on the wire, answers of a peer."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.sinks import receivers as r
from tests.sinks.events import make, many
from veilwatch.errors import VeilwatchError
from veilwatch.export.clean import clean
from veilwatch.sinks import eve
from veilwatch.sinks.address import parse
from veilwatch.sinks.base import SCHEMES, open_sink
from veilwatch.sinks.cef import cef
from veilwatch.sinks.http import Answer, Client
from veilwatch.sinks.syslog import MAX_MESSAGE_BYTES
from veilwatch.sinks.wire import public_json

schemes = st.sampled_from([*SCHEMES, "x", ""])
words = st.text(st.characters(), max_size=30)
SECRET = "hunter2"


@given(schemes, words, words)
@examples(300)
def test_any_url_gives_a_sink_or_a_plain_error(scheme: str, before: str, after: str) -> None:
    url = f"{scheme}://{before}:{SECRET}@{after}"
    try:
        address = parse(url)
    except VeilwatchError as error:
        assert SECRET not in str(error) and "\n" not in str(error)
    else:
        assert SECRET not in repr(address) and SECRET not in address.shown


names = st.text(st.characters(), max_size=400)


@given(names)
@examples(60)
def test_any_name_fits_every_form(name: str) -> None:
    event = clean(make(2, name=name or "x"))
    record = r.esm_record(eve.event_text(event, zone=eve.TAIPEI))
    assert record["alert"]["metadata"]["event_id"] == [event.event_id]
    assert len(eve.event_text(event, limit=8_000)) < 8_000
    assert cef(event).decode().isprintable()
    assert len(cef(event)) <= MAX_MESSAGE_BYTES - 192
    r.strict_json(public_json(event))


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["create", "_id", "status", "error", "type", "reason", "caused_by"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.integers(0, 599), st.dictionaries(st.sampled_from(["items", "error"]), anything), st.data()
)
@examples(150)
def test_any_answer_leaves_every_event_accounted(
    status: int, document: dict[str, Any], data: st.DataObject
) -> None:
    events = many(4)
    if data.draw(st.booleans()):
        error = dict(document)
        document["items"] = [
            {"create": {"_id": e.event_id, "status": data.draw(anything), "error": error}}
            for e in events
        ]
    answer = Answer(status if data.draw(st.booleans()) else 200, json.dumps(document).encode())
    with (
        mock.patch.object(Client, "request", return_value=answer),
        open_sink("secbuzzer+http://127.0.0.1:9") as sink,
    ):
        receipt = sink.send(events)
    failures = [failure.event_id for failure in (*receipt.again, *receipt.refused)]
    assert sorted([*receipt.delivered, *failures]) == sorted(e.event_id for e in events)
    assert all("\n" not in t.reason for t in (*receipt.again, *receipt.refused))
