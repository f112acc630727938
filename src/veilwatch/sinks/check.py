"""Whether SecBuzzer ESM gets what is sent to it: a test event, and what can be seen of it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, EventKind
from veilwatch.sinks.base import Sink, open_sink
from veilwatch.sinks.esm_elastic import EsmElastic, index_of
from veilwatch.sinks.esm_file import EsmFile
from veilwatch.sinks.esm_socket import EsmSocket
from veilwatch.sinks.eve import SIGNATURES, TAIPEI, timestamp

MAX_CLOCK_OFF_S: Final = 5.0
"""Difference of two clocks that is told: the Date header counts whole seconds, and an alert that
is more than this off stands in the wrong place of a timeline."""

EXPECTED_MODE: Final = 0o644
"""Mode of the socket as DetectionEdge makes it."""

EXPECTED_MAJOR: Final = 7
"""Version of Elasticsearch that ESM brings."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what
        In words.
    wrong
        Whether it keeps events from arriving, or from being found.
    hint
        What to do about it.
    """

    what: str
    wrong: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class EsmCheck:
    """What a check found.

    Attributes
    ----------
    event_id
        Of the test event.
    signature_id
        To look for in ESM.
    index, timestamp
        Where ESM files the event, and the `@timestamp` that it gets there.
    findings
        In the order in which they were made.
    """

    event_id: str
    signature_id: int
    index: str
    timestamp: str
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> Finding | None:
        """The first finding that is wrong."""
        return next((finding for finding in self.findings if finding.wrong), None)


def event_of_test(now_ns: int, sensor: str = "") -> Event:
    """Return an event that says that nothing was found, between addresses kept for examples.

    Parameters
    ----------
    now_ns
        Its time, ns since the epoch.
    sensor
        Name of the sensor.
    """
    alert = Alert(
        kind="flow",
        flow_id=1,
        first_ns=now_ns,
        last_ns=now_ns,
        src_ip="192.0.2.1",
        src_port=49152,
        dst_ip="198.51.100.1",
        dst_port=443,
        protocol=6,
        host="192.0.2.1",
        score=0.0,
        threshold=1.0,
        severity=3,
    )
    return Event(uuid4().hex, EventKind.TEST, now_ns, alert, sensor=sensor)


def check_esm(url: str, sensor: str = "") -> EsmCheck:
    """Send a test event to ESM and tell what can be seen of it.

    Parameters
    ----------
    url
        Of one of the three routes.
    sensor
        Name of the sensor.

    Raises
    ------
    VeilwatchError
        If the URL names no such route. What is wrong with the route is told in the result.
    """
    now_ns = time.time_ns()
    event = event_of_test(now_ns, sensor)
    with open_sink(url) as sink:
        if isinstance(sink, EsmSocket):
            before, after = _socket(sink.path), _nothing_more()
            index = f"suricata-{timestamp(now_ns)[:7]}"
        elif isinstance(sink, EsmFile):
            before, after = _folder(sink.path), _line(sink, event)
            index = f"suricata-{timestamp(now_ns)[:7]}"
        elif isinstance(sink, EsmElastic):
            before, after = _elastic(sink), _document(sink, event)
            index = index_of(event)
        else:
            raise VeilwatchError(
                "not a route to SecBuzzer ESM",
                where=sink.address.shown,
                hint="secbuzzer+unix://, secbuzzer+file:// or secbuzzer+http://",
            )
        findings = list(before)
        if not any(finding.wrong for finding in findings):
            findings += _sent(sink, event)
            if not any(finding.wrong for finding in findings):
                findings += after
    time_text = timestamp(now_ns, TAIPEI)
    return EsmCheck(
        event.event_id,
        SIGNATURES[EventKind.TEST.value, False][0],
        index,
        f"{time_text[:-2]}:{time_text[-2:]}",
        tuple(findings),
    )


def _sent(sink: Sink, event: Event) -> Iterator[Finding]:
    receipt = sink.send([event])
    for failure in (*receipt.again, *receipt.refused):
        yield Finding(f"the test event was not taken: {failure.reason}", True)
    if receipt.delivered:
        yield Finding("the test event was taken")


def _socket(path: Path) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError as error:
        yield Finding(
            f"{path}: {error.strerror}",
            True,
            "start DetectionEdge, or give the path below SURICATA_LOG_PATH",
        )
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(f"{path} is no socket", True, "remove it and restart Fluent Bit")
        return
    mode = stat.S_IMODE(found.st_mode)
    kept = f"the socket has mode {mode:04o} and belongs to user {found.st_uid}"
    if not os.access(path, os.W_OK):
        yield Finding(
            f"{kept}, and this user may not write to it",
            True,
            "run as its owner, or set Unix_Perm in ESM's fluent-bit.conf",
        )
    elif mode != EXPECTED_MODE or found.st_uid != 0:
        yield Finding(f"{kept}; ESM makes it 0644 and root's")
    else:
        yield Finding(kept)


def _nothing_more() -> Iterator[Finding]:
    yield Finding(
        "it is in the reader's queue; whether it was stored only ESM can tell "
        "(look for the signature id)"
    )


def _folder(path: Path) -> Iterator[Finding]:
    if not path.is_dir():
        yield Finding(
            f"{path} is no folder", True, "give the folder that ESM calls SURICATA_LOG_PATH"
        )
    elif not os.access(path, os.W_OK | os.X_OK):
        yield Finding(f"this user may not write to {path}", True, "let its owner or mode allow it")
    else:
        others = any(path.glob("eve*.json"))
        yield Finding(
            f"{path} can be written to"
            + ("" if others else "; Suricata has written nothing here: is it the right folder?")
        )


def _line(sink: EsmFile, event: Event) -> Iterator[Finding]:
    file = sink.file()
    lines = file.read_bytes().splitlines()
    if any(event.event_id.encode() in line for line in lines[-100:]):
        mode = stat.S_IMODE(file.stat().st_mode)
        readable = bool(mode & 0o004)
        yield Finding(
            f"the line is in {file}, mode {mode:04o}",
            not readable,
            "" if readable else "Fluentd cannot read it: set umask 022",
        )
    else:
        yield Finding(f"the line is not in {file}", True, "something else changes the file")


def _elastic(sink: EsmElastic) -> Iterator[Finding]:
    try:
        answer = sink.client.request("GET", f"{sink.prefix}/")
    except OSError as error:
        yield Finding(
            f"no answer from {sink.address.shown}: {error.strerror or error}",
            True,
            "is ESM's Elasticsearch running, and may this machine reach it?",
        )
        return
    if answer.status != 200:
        hint = "give user and password in the URL" if answer.status in (401, 403) else ""
        yield Finding(f"{sink.address.shown} answers {answer.status}", True, hint)
        return
    try:
        version = str(json.loads(answer.body)["version"]["number"])
    except (ValueError, TypeError, KeyError):
        yield Finding(
            f"{sink.address.shown} is no Elasticsearch", True, "ESM shows it on port 19200"
        )
        return
    if version.partition(".")[0] == str(EXPECTED_MAJOR):
        yield Finding(f"Elasticsearch {version}")
    else:
        yield Finding(f"Elasticsearch {version}; ESM brings {EXPECTED_MAJOR}.x")
    if answer.date:
        yield from _clock(answer.date)


def _clock(date: str) -> Iterator[Finding]:
    try:
        off = time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return
    if abs(off) > MAX_CLOCK_OFF_S:
        way = "ahead of" if off > 0 else "behind"
        yield Finding(
            f"this machine's clock is {abs(off):,.0f} s {way} ESM's",
            True,
            "let both follow the same NTP server",
        )
    else:
        yield Finding("the clocks agree")


def _document(sink: EsmElastic, event: Event) -> Iterator[Finding]:
    try:
        missing = sink.missing([event])
    except OSError as error:
        yield Finding(f"cannot read the test event back: {error}", True)
        return
    if missing:
        yield Finding("the test event is not there", True, "something removes it on the way")
    else:
        yield Finding("the test event was read back")
