"""Kafka, against librdkafka's own mock cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.sinks.events import many
from tests.sinks.rigs import kafka_cluster, kafka_records
from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks import kafka
from veilwatch.sinks.address import parse
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.wire import public_json


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with kafka_cluster() as place:
        yield place


def test_keys_are_ids_and_values_are_whole_events(cluster: str) -> None:
    events = many(6)
    with open_sink(f"kafka://{cluster}/keys") as sink:
        assert len(sink.send(events).delivered) == 6
    records = kafka_records(cluster, "keys", 6)
    assert {record.key().decode() for record in records} == {e.event_id for e in events}


def test_too_large_an_event_is_refused_and_the_rest_arrives(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = many(4)

    def swollen(event: Event) -> bytes:
        return b"x" * 2_000_000 if event.event_id == events[1].event_id else public_json(event)

    monkeypatch.setattr(kafka, "public_json", swollen)
    with open_sink(f"kafka://{cluster}/large") as sink:
        receipt = sink.send(events)
    assert [failure.event_id for failure in receipt.refused] == [events[1].event_id]
    assert "MSG_SIZE_TOO_LARGE" in receipt.refused[0].reason
    assert len(receipt.delivered) == 3


def test_settings_follow_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "s3cret")
    address = parse(
        "kafka://me@one:9092,two:9093/t?security=sasl-tls&mechanism=SCRAM-SHA-512"
        "&password-env=KAFKA_PASSWORD&ca=/ca.pem",
        kafka.Kafka.PARAMETERS,
    )
    settings = kafka._settings(address)
    assert settings["bootstrap.servers"] == "one:9092,two:9093"
    assert settings["security.protocol"] == "sasl_ssl" and settings["ssl.ca.location"] == "/ca.pem"
    assert (settings["sasl.username"], settings["sasl.password"]) == ("me", "s3cret")
    assert settings["acks"] == "all" and settings["enable.idempotence"] is True
    assert kafka._settings(parse("kafka://h/t"))["bootstrap.servers"] == "h:9092"


def test_without_the_library_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(VeilwatchError, match=r"pip install '\.\[kafka\]'"):
        open_sink("kafka://h:9092/t")


def test_settings_that_the_library_refuses_are_told(cluster: str) -> None:
    with pytest.raises(VeilwatchError, match="settings refused"):
        open_sink(f"kafka://{cluster}/t?security=tls&ca=/no/such/file")
