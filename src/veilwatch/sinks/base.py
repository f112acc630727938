"""The contract of a sink: events in, a receipt out, never an exception for a peer's fault."""

from __future__ import annotations

import socket
import ssl
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Final, NamedTuple

from veilwatch import plugins
from veilwatch.closing import Closeable
from veilwatch.errors import PluginError, VeilwatchError
from veilwatch.export.clean import clean
from veilwatch.schema.events import Event
from veilwatch.schema.text import one_line
from veilwatch.sinks.address import Address, nearest_scheme, parse, scheme_of

CONNECT_TIMEOUT_S: Final = 5.0
"""A peer on the same site answers within milliseconds; one SYN that was lost is repeated after 1
and 3 s."""

ANSWER_TIMEOUT_S: Final = 15.0
"""Longest wait for all of a peer's answer to one request: Elasticsearch under load takes seconds,
and what takes longer is tried again rather than waited for."""

BATCH_S: Final = 30.0
"""How long the requests of one batch may take together: what is left then is sent in the next, and
a sensor that is told to stop waits no longer than this and one answer."""

MAX_REASON: Final = 300
"""Characters kept of what a peer said: enough for one line, and a hostile peer cannot fill logs."""


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """Why one event was not delivered.

    Attributes
    ----------
    event_id
        Of the event.
    reason
        One line, without credentials.
    unsure
        Whether it may have arrived all the same.
    """

    event_id: str
    reason: str
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the events of one `Sink.send`; each is in exactly one place.

    Attributes
    ----------
    delivered
        Ids of events that the peer has.
    again
        Events to send again later.
    refused
        Events that the peer, or the form it takes, will never accept.
    wait_s
        Seconds for which the peer asked to be left alone, 0 none.
    """

    delivered: tuple[str, ...] = ()
    again: tuple[DeliveryFailure, ...] = ()
    refused: tuple[DeliveryFailure, ...] = ()
    wait_s: float = 0.0


class EncodedEvent(NamedTuple):
    """An event in the form that goes out."""

    event: Event
    body: bytes


class DeliveryLog:
    """What became of the events so far; what is said last of an event counts."""

    def __init__(self) -> None:
        self._delivered: dict[str, None] = {}
        self._again: dict[str, DeliveryFailure] = {}
        self._refused: dict[str, DeliveryFailure] = {}
        self.wait_s = 0.0

    def delivered(self, event_id: str) -> None:
        """Note that the peer has it."""
        self._forget(event_id)
        self._delivered[event_id] = None

    def again(self, event_id: str, reason: str, *, unsure: bool = False) -> None:
        """Note that it is to be sent again."""
        self._forget(event_id)
        self._again[event_id] = DeliveryFailure(event_id, _short(reason), unsure)

    def refused(self, event_id: str, reason: str) -> None:
        """Note that it will never be accepted."""
        self._forget(event_id)
        self._refused[event_id] = DeliveryFailure(event_id, _short(reason))

    def unresolved(self, encoded: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        """Return the events of which nothing has been noted."""
        known = self._delivered.keys() | self._again.keys() | self._refused.keys()
        return [item for item in encoded if item.event.event_id not in known]

    def receipt(self, ids: Sequence[str]) -> Receipt:
        """Return what was noted, in the order of `ids`."""
        return Receipt(
            tuple(name for name in ids if name in self._delivered),
            tuple(self._again[name] for name in ids if name in self._again),
            tuple(self._refused[name] for name in ids if name in self._refused),
            self.wait_s,
        )

    def _forget(self, event_id: str) -> None:
        self._delivered.pop(event_id, None)
        self._again.pop(event_id, None)
        self._refused.pop(event_id, None)


class Sink(Closeable):
    """A destination of events. A subclass says how an event looks and how bytes get there.

    Parameters
    ----------
    address
        Where to; its parameters are among `PARAMETERS`.

    Raises
    ------
    VeilwatchError
        If the address is not complete. Whether the peer is there shows in receipts only.
    """

    PARAMETERS: ClassVar[Mapping[str, str]] = {}
    """What may stand after `?`, and what it does."""

    UNSURE: ClassVar[bool] = False
    """Whether an event may have arrived when the peer fell silent after it was sent."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def send(self, events: Sequence[Event]) -> Receipt:
        """Send events, in order as far as the peer keeps it.

        Takes a bounded time and never raises for a peer that is down, slow or refusing.

        Parameters
        ----------
        events
            What to send; one id stands there once.

        Returns
        -------
        Receipt
            Where each event is.
        """
        log = DeliveryLog()
        encoded = []
        for event in events:
            try:
                encoded.append(EncodedEvent(event, self.encode(clean(event))))
            except Exception as error:  # one event that no code here can write must not stop all
                log.refused(event.event_id, f"cannot be written: {_told(error)}")
        if encoded:
            try:
                self.deliver(encoded, log)
                reason, unsure = "the sink did not say what became of it", True
            except Exception as error:  # a fault here must not end a sensor that runs for months
                reason, unsure = _told(error), self.UNSURE and not _never_left(error)
            for item in log.unresolved(encoded):
                log.again(item.event.event_id, reason, unsure=unsure)
        return log.receipt([event.event_id for event in events])

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """Return the event in the peer's form; any exception refuses it for good."""

    @abstractmethod
    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Send and note what became of each; an exception leaves the rest to be sent again."""

    def close(self) -> None:
        """Let go of what is held; harmless when done twice."""


class Scheme(NamedTuple):
    """A kind of sink: the class, `module:name` in this room, and what to tell of it."""

    place: str
    what: str
    example: str


_ESM_SOCKET = "/opt/cyfoundry/logs/suricata/eve.socket"

SCHEMES: Final = {
    "secbuzzer+unix": Scheme(
        "esm_socket:EsmSocket",
        "SecBuzzer ESM, DetectionEdge V2.4: Fluent Bit's socket",
        f"secbuzzer+unix://{_ESM_SOCKET}",
    ),
    "secbuzzer+file": Scheme(
        "esm_file:EsmFile",
        "SecBuzzer ESM, V2.3 and V0.2: daily files that Fluentd tails",
        "secbuzzer+file:///opt/Logs/Suricata",
    ),
    "secbuzzer+http": Scheme(
        "esm_elastic:EsmElastic",
        "SecBuzzer ESM: its Elasticsearch, as an AI module of V2.3",
        "secbuzzer+http://esm.example:19200",
    ),
    "secbuzzer+https": Scheme(
        "esm_elastic:EsmElastic",
        "the same over TLS",
        "secbuzzer+https://esm.example:19200?ca=/etc/veilwatch/esm-ca.pem",
    ),
    "eve+file": Scheme(
        "eve_file:EveFile", "EVE JSON lines in a file", "eve+file:///var/log/veilwatch"
    ),
    "jsonl+file": Scheme(
        "jsonl:JsonLines",
        "everything an event holds, a JSON line each",
        "jsonl+file:///var/log/veilwatch",
    ),
    "syslog+udp": Scheme(
        "syslog:SyslogUdp", "syslog (RFC 5424) over UDP", "syslog+udp://siem.example:514?body=cef"
    ),
    "syslog+tcp": Scheme(
        "syslog:SyslogTcp", "syslog over TCP, octet counting", "syslog+tcp://siem.example:601"
    ),
    "syslog+tls": Scheme(
        "syslog:SyslogTcp",
        "syslog over TLS",
        "syslog+tls://siem.example:6514?ca=/etc/veilwatch/siem-ca.pem",
    ),
    "elastic+http": Scheme(
        "elastic:Elastic",
        "Elasticsearch or OpenSearch, ECS fields",
        "elastic+http://search.example:9200/veilwatch-alerts",
    ),
    "elastic+https": Scheme(
        "elastic:Elastic",
        "the same over TLS",
        "elastic+https://veilwatch@search.example:9200?password-file=/etc/veilwatch/search.key",
    ),
    "kafka": Scheme(
        "kafka:Kafka",
        "Kafka (needs the extra `kafka`)",
        "kafka://one.example:9092,two.example:9092/veilwatch-alerts",
    ),
    "webhook+http": Scheme(
        "webhook:Webhook", "a POST for each event", "webhook+http://127.0.0.1:8080/alerts"
    ),
    "webhook+https": Scheme(
        "webhook:Webhook",
        "the same over TLS",
        "webhook+https://chat.example/hooks/soc?secret-file=/etc/veilwatch/hook.key",
    ),
    "stix+file": Scheme(
        "stix:StixFile",
        "a STIX 2.1 bundle for each state of an incident",
        "stix+file:///var/lib/veilwatch/stix",
    ),
}
"""Every kind of sink by the scheme of its URL."""


def known_schemes() -> dict[str, Scheme]:
    """Return every kind of sink by its scheme: our own, and those that other packages bring.

    Raises
    ------
    PluginError
        If two packages give one scheme.
    """
    others = {
        name: Scheme(entry.value, f"from the package {plugins.package_of(entry)}", f"{name}://…")
        for name, entry in plugins.plugins(plugins.SINKS).items()
        if name not in SCHEMES
    }
    return {**SCHEMES, **others}


def sink_class(scheme: str) -> type[Sink]:
    """Return the class of a scheme, imported when it is asked for.

    Raises
    ------
    VeilwatchError
        If there is no such scheme, or its plugin cannot be loaded.
    """
    if scheme in SCHEMES:
        module, _, name = SCHEMES[scheme].place.partition(":")
        found = getattr(import_module(f"veilwatch.sinks.{module}"), name)
        assert isinstance(found, type) and issubclass(found, Sink)
        return found
    others = plugins.plugins(plugins.SINKS)
    if scheme not in others:
        hint = nearest_scheme(scheme, known_schemes())
        raise VeilwatchError(f"unknown kind of sink {scheme[:40]!r}", hint=hint)
    kind = plugins.load(others[scheme])
    if not (isinstance(kind, type) and issubclass(kind, Sink)):
        raise PluginError(
            f"{others[scheme].value} is no sink", hint="derive it from veilwatch.Sink"
        )
    return kind


def open_sink(url: str) -> Sink:
    """Return the sink that a URL names; nothing is sent yet.

    Raises
    ------
    VeilwatchError
        If the scheme or a parameter is unknown (the nearest known name is told), or something
        that the sink needs is missing.

    Examples
    --------
    >>> open_sink("eve+flie:///tmp/eve")
    Traceback (most recent call last):
        ...
    veilwatch.errors.VeilwatchError: unknown kind of sink 'eve+flie' (did you mean eve+file?)
    """
    kind = sink_class(scheme_of(url))
    return kind(parse(url, kind.PARAMETERS))


def _never_left(error: Exception) -> bool:
    return isinstance(
        error,
        ConnectionRefusedError | FileNotFoundError | socket.gaierror | ssl.SSLCertVerificationError,
    )


def _told(error: Exception) -> str:
    if isinstance(error, VeilwatchError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _short(reason: str) -> str:
    return one_line(" ".join(reason[: 4 * MAX_REASON].split()))[:MAX_REASON]
