"""Kafka: an event a record, keyed by its id, acknowledged by all replicas in sync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.address import CREDENTIALS, Address
from veilwatch.sinks.base import ANSWER_TIMEOUT_S, DeliveryLog, EncodedEvent, Sink
from veilwatch.sinks.wire import public_json

FLUSH_S: Final = ANSWER_TIMEOUT_S + 2.0
"""How long a batch is waited for: the library itself gives up at `ANSWER_TIMEOUT_S`."""

_TOO_LARGE: Final = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"})
_REFUSED: Final = _TOO_LARGE | {"INVALID_RECORD", "INVALID_MSG"}
_NEVER_LEFT: Final = frozenset({"_QUEUE_FULL", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART"})


class Kafka(Sink):
    """`kafka://host:9092,host:9092/topic`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = CREDENTIALS | {
        "security": "plaintext, tls, sasl or sasl-tls",
        "mechanism": "of SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        "ca": "file with the certificates that the brokers' must lead to",
    }
    UNSURE: ClassVar[bool] = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        topic = address.path.strip("/")
        if not address.host or not topic or "/" in topic:
            raise VeilwatchError(
                "the URL names brokers and a topic",
                where=address.shown,
                hint="kafka://broker:9092/veilwatch-alerts",
            )
        try:
            library = import_module("confluent_kafka")
        except ImportError as error:
            raise VeilwatchError(
                "Kafka needs confluent-kafka",
                where=address.shown,
                hint="pip install '.[kafka]'",
            ) from error
        self._topic = topic
        try:
            self._producer: Any = library.Producer(_settings(address))
        except library.KafkaException as error:
            raise VeilwatchError(
                f"settings refused: {error.args[0].str()}", where=address.shown
            ) from error

    def encode(self, event: Event) -> bytes:
        """Return everything that the event holds."""
        return public_json(event)

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Hand all to the library and wait for what it reports of each."""

        def report(name: str) -> Any:
            def answered(error: Any, _: Any) -> None:
                _note(log, name, error)

            return answered

        for item in encoded:
            name = item.event.event_id
            try:
                self._producer.produce(
                    self._topic, item.body, key=name.encode(), on_delivery=report(name)
                )
            except BufferError:
                log.again(name, "the queue of the library is full")
            except Exception as error:  # of the library's own kind: the record is too large
                _note(log, name, error.args[0] if error.args else error)
        self._producer.flush(FLUSH_S)
        for item in log.unresolved(encoded):
            log.again(item.event.event_id, "no broker answered in time", unsure=True)

    def close(self) -> None:
        """Drop what was not acknowledged: the spool has it."""
        self._producer.purge()
        self._producer.flush(0)


def _settings(address: Address) -> dict[str, Any]:
    security = address.choice("security", ("plaintext", "tls", "sasl", "sasl-tls"), "plaintext")
    protocol = {"tls": "ssl", "sasl": "sasl_plaintext", "sasl-tls": "sasl_ssl"}
    hosts = address.host if "," in address.host else f"{address.host}:{address.port or 9092}"
    settings: dict[str, Any] = {
        "bootstrap.servers": hosts,
        "security.protocol": protocol.get(security, "plaintext"),
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": int(1000 * ANSWER_TIMEOUT_S),
        "socket.timeout.ms": int(1000 * ANSWER_TIMEOUT_S),
        "linger.ms": 5,
        "log_level": 0,  # its own lines on standard error say nothing that receipts do not
    }
    if "ca" in address.parameters:
        settings["ssl.ca.location"] = address.parameters["ca"]
    if security.startswith("sasl"):
        settings["sasl.mechanism"] = address.choice(
            "mechanism", ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "PLAIN"
        )
        settings |= {"sasl.username": address.user, "sasl.password": address.password}
    return settings


def _note(log: DeliveryLog, name: str, error: Any) -> None:
    if error is None:
        log.delivered(name)
        return
    code = error.name() if hasattr(error, "name") else type(error).__name__
    if code in _REFUSED:
        log.refused(name, f"refused with {code}")
    else:
        log.again(name, f"Kafka says {code}", unsure=code not in _NEVER_LEFT)
