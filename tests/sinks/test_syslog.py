"""Syslog: frames as the RFCs have them, and a real rsyslog at the other end."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sinks import receivers as r
from tests.sinks.events import HOSTILE, make, many
from veilwatch.schema.events import EventKind
from veilwatch.sinks import syslog
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.cef import cef

RSYSLOG = shutil.which("rsyslogd") or next(
    (p for p in ("/usr/sbin/rsyslogd", "/sbin/rsyslogd") if Path(p).is_file()), None
)
MODULES = [Path(p) for p in ("/usr/lib/x86_64-linux-gnu/rsyslog", "/usr/lib/rsyslog",
                             "/usr/lib/aarch64-linux-gnu/rsyslog")]  # fmt: skip


def test_the_header_is_that_of_rfc_5424() -> None:
    sink = open_sink("syslog+udp://h?facility=local0")
    event = make(1)
    match = r.RFC5424.fullmatch(sink.encode(event))
    assert match
    assert int(match["priority"]) == 16 * 8 + {1: 2, 2: 4, 3: 5}[event.alert.severity]
    assert match["app"] == b"veilwatch" and match["host"] == b"edge-1"
    assert match["kind"] == b"incident"
    test = r.RFC5424.fullmatch(sink.encode(make(1, EventKind.TEST)))
    assert test and int(test["priority"]) % 8 == 6
    odd = r.RFC5424.fullmatch(sink.encode(replace(event, sensor="病 院\n")))
    assert odd and odd["host"] == b"?_?_"


def test_cef_keeps_its_fields_apart() -> None:
    text = cef(replace(make(1, name=HOSTILE["cef"]), again=True)).decode()
    head, extension = text.split("|", 7)[:7], text.split("|", 7)[7]
    assert head[0] == "CEF:0" and head[4] == "41730013" and head[6].isdigit()
    fields = dict(re.findall(r"(?:^| )(\w+)=((?:[^\\=]|\\.)*?)(?= \w+=|$)", extension))
    assert fields["dhost"] == r"a\=b|c\\d src\=1.2.3.4"
    assert fields["src"] == make(1).alert.src_ip
    assert fields["cs5"] == "possible" and fields["cs5Label"] == "resend"
    six = replace(make(1).alert, src_ip="2001:db8::1", dst_ip="2001:db8::2")
    text = cef(replace(make(1), alert=six)).decode()
    assert "c6a2=2001:db8::1" in text and " src=" not in text


def test_a_receiver_that_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "ANSWER_TIMEOUT_S", 0.3)
    with r.Syslog("tcp", reading=False) as server:
        with open_sink(f"syslog+tcp://127.0.0.1:{server.port}") as sink:
            (failure,) = sink.send([make(1)]).again
            assert failure.unsure and "no answer in time" in failure.reason
        with open_sink(f"syslog+tcp://127.0.0.1:{server.port}?confirm=no") as sink:
            assert sink.send([make(1)]).delivered


def test_a_certificate_that_leads_nowhere(tmp_path: Path) -> None:
    cert, key = r.certificate(tmp_path)
    with (
        r.Syslog("tls", r.server_context(cert, key)) as server,
        open_sink(f"syslog+tls://localhost:{server.port}") as sink,
    ):
        (failure,) = sink.send([make(1)]).again
        assert "certificate" in failure.reason.lower() and not failure.unsure


CONFIG = """
global(workDirectory="{folder}" maxMessageSize="8k"
       DefaultNetstreamDriverCAFile="{cert}"
       DefaultNetstreamDriverCertFile="{cert}"
       DefaultNetstreamDriverKeyFile="{key}")
module(load="imudp")
module(load="imtcp"{driver})
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="keep")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="keep")
template(name="line" type="list") {{
  property(name="app-name") constant(value=" ") property(name="msgid")
  constant(value=" ") property(name="hostname")
  constant(value=" ") property(name="msg") constant(value="\\n")
}}
ruleset(name="keep") {{ action(type="omfile" file="{out}" template="line") }}
"""


@contextmanager
def rsyslog(folder: Path, *, tls: bool) -> Iterator[tuple[int, Path, Path]]:
    """Run rsyslog of its own; give its port, its output and its certificate."""
    if RSYSLOG is None:
        pytest.skip("no rsyslogd (Debian: rsyslog)")
    if tls and not any((path / "lmnsd_gtls.so").is_file() for path in MODULES):
        pytest.skip("rsyslog has no TLS (Debian: rsyslog-gnutls)")
    cert, key = r.certificate(folder)
    out, config, port = folder / "out.log", folder / "rsyslog.conf", r.closed_port()
    driver = ' StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
    config.write_text(
        CONFIG.format(
            folder=folder, cert=cert, key=key, port=port, out=out, driver=driver if tls else ""
        )
    )
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [RSYSLOG, "-n", "-f", str(config), "-i", str(folder / "pid")], stderr=errors
        )
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "errors").read_text()
                time.sleep(0.05)
        yield port, out, cert
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("body", ["json", "cef"])
def test_a_real_rsyslog_keeps_every_message(kind: str, body: str, tmp_path: Path) -> None:
    events = [*many(30), *(make(2, name=name) for name in HOSTILE.values())]
    with rsyslog(tmp_path, tls=kind == "tls") as (port, out, cert):
        query = f"body={body}" + (f"&ca={cert}" if kind == "tls" else "")
        with open_sink(f"syslog+{kind}://localhost:{port}?{query}") as sink:
            receipt = sink.send(events)
            assert len(receipt.delivered) == len(events), receipt
        until = time.monotonic() + 10
        while time.monotonic() < until:
            lines = out.read_text("utf-8").split("\n")[:-1] if out.exists() else []
            if len(lines) >= len(events):
                break
            time.sleep(0.05)
    assert len(lines) == len(events)
    for line, event in zip(lines, events, strict=True):
        assert line.startswith(f"veilwatch {event.kind} ")
        assert event.event_id in line
        if body == "json":
            r.strict_json(line[line.index('{"timestamp"') :].encode())
