"""What every sink promises, over every sink."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.sinks.events import HOSTILE, make, many, poison
from tests.sinks.rigs import DOWN, REFUSING, RIGS, SLOW, WELL
from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import EventKind
from veilwatch.sinks import base, channel, esm_socket, http, kafka, syslog
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import SCHEMES, Receipt, open_sink, sink_class

EVERY = pytest.mark.parametrize("scheme", RIGS)


@contextmanager
def impatience() -> Iterator[None]:
    """Shorten every wait: that it has an end is tested, not how long it is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (http, syslog, kafka):
            patch.setattr(module, "ANSWER_TIMEOUT_S", 1.0)
        for module in (channel, syslog):
            patch.setattr(module, "CONNECT_TIMEOUT_S", 1.0)
        patch.setattr(kafka, "FLUSH_S", 2.0)
        patch.setattr(esm_socket, "FULL_WAIT_S", 0.3)
        yield


def eventually(read: Callable[[], list[str]], count: int) -> list[str]:
    """Wait for what a receiver's thread has still to read."""
    until = time.monotonic() + 5
    while len(found := read()) < count and time.monotonic() < until:
        time.sleep(0.02)
    return found


def accounted(receipt: Receipt) -> list[str]:
    """Return every id of a receipt, sorted."""
    failures = (*receipt.again, *receipt.refused)
    return sorted([*receipt.delivered, *(failure.event_id for failure in failures)])


def test_there_is_a_rig_for_every_scheme() -> None:
    assert {s.replace("https", "http") for s in SCHEMES} == set(RIGS)


@EVERY
def test_events_arrive_once_each(scheme: str, tmp_path: Path) -> None:
    events = many(25)
    with RIGS[scheme](tmp_path, WELL) as rig, open_sink(rig.url) as sink:
        receipt = sink.send(events)
        assert receipt == Receipt(tuple(event.event_id for event in events))
        found = eventually(rig.ids, len(events))
        assert Counter(found) == Counter(event.event_id for event in events)


@EVERY
@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_of_event_has_a_form(scheme: str, kind: EventKind, tmp_path: Path) -> None:
    full = make(1, kind)
    bare = replace(full, event_id="0" * 32, flow=None, incident=None, sensor="", interface="")
    with RIGS[scheme](tmp_path, WELL) as rig, open_sink(rig.url) as sink:
        receipt = sink.send([full, bare])
        assert receipt.delivered == (full.event_id, bare.event_id)


@EVERY
@pytest.mark.parametrize("mode", [DOWN, SLOW, REFUSING])
def test_a_peer_that_is_not_well_loses_nothing(scheme: str, mode: str, tmp_path: Path) -> None:
    events = many(40)
    with impatience(), RIGS[scheme](tmp_path, mode) as rig, open_sink(rig.url) as sink:
        started = time.monotonic()
        receipt = sink.send(events)
        assert time.monotonic() - started < 8
        assert accounted(receipt) == sorted(event.event_id for event in events)
        assert receipt.again and not receipt.refused
        assert all(failure.reason for failure in receipt.again)
        if mode != SLOW:
            assert not receipt.delivered


@EVERY
def test_the_peer_comes_back(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    with impatience(), RIGS[scheme](tmp_path / "before", DOWN) as rig, open_sink(rig.url) as sink:
        assert sink.send(many(3)).again
    with RIGS[scheme](tmp_path / "after", WELL) as rig, open_sink(rig.url) as sink:
        assert len(sink.send(many(3)).delivered) == 3


@EVERY
def test_poison_is_set_aside_and_its_neighbours_arrive(scheme: str, tmp_path: Path) -> None:
    events = [*many(3), poison(7), *many(3, 10)]
    with RIGS[scheme](tmp_path, WELL) as rig, open_sink(rig.url) as sink:
        receipt = sink.send(events)
        assert [failure.event_id for failure in receipt.refused] == [events[3].event_id]
        assert "cannot be written" in receipt.refused[0].reason
        assert len(receipt.delivered) == 6 and not receipt.again
        assert len(eventually(rig.ids, 6)) == 6


@EVERY
def test_the_same_ids_again(scheme: str, tmp_path: Path) -> None:
    events = many(4)
    with RIGS[scheme](tmp_path, WELL) as rig, open_sink(rig.url) as sink:
        first = sink.send(events)
        second = sink.send([replace(event, again=True) for event in events])
        assert first.delivered == second.delivered
        found = Counter(eventually(rig.ids, 4))
        assert set(found) == {event.event_id for event in events}
        if "http" in scheme and "webhook" not in scheme:
            assert set(found.values()) == {1}


@EVERY
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_harm_nobody(scheme: str, name: str, tmp_path: Path) -> None:
    hostile = make(3, name=HOSTILE[name])
    events = [make(1), hostile, make(2)]
    with RIGS[scheme](tmp_path, WELL) as rig, open_sink(rig.url) as sink:
        receipt = sink.send(events)
        assert receipt.delivered == tuple(event.event_id for event in events)
        found = eventually(rig.ids, 3)
        assert sorted(found) == sorted(event.event_id for event in events)


@EVERY
def test_nothing_to_send(scheme: str, tmp_path: Path) -> None:
    with RIGS[scheme](tmp_path, DOWN) as rig, open_sink(rig.url) as sink:
        assert sink.send([]) == Receipt()
        sink.close()


@EVERY
def test_an_unknown_parameter_names_the_nearest(scheme: str, tmp_path: Path) -> None:
    with RIGS[scheme](tmp_path, DOWN) as rig:
        url = rig.url.partition("?")[0]
        with pytest.raises(VeilwatchError, match="unknown parameter 'colour'"):
            open_sink(f"{url}?colour=red")
        for known in sink_class(scheme).PARAMETERS:
            with pytest.raises(VeilwatchError, match=f"did you mean {known}"):
                open_sink(f"{url}?{known}x=1")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_credentials_are_never_shown(scheme: str, tmp_path: Path) -> None:
    secret = "hunter2/&@"
    url = f"{scheme}://someone:{quote(secret, safe='')}@127.0.0.1:{9}/alerts?nonsense=1"
    with pytest.raises(VeilwatchError) as caught:
        open_sink(url)
    assert "hunter2" not in str(caught.value)
    address = Address(scheme, "h", 1, "/", "someone", secret)
    assert "hunter2" not in repr(address) and "hunter2" not in address.shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("eve+flie:///tmp/x", "did you mean eve[+]file"),
        ("secbuzer+unix:///x", "did you mean secbuzzer[+]unix"),
        ("nothing://x", "known: secbuzzer[+]unix, secbuzzer[+]file"),
        ("/var/log/eve.json", "named by a URL"),
        ("syslog+udp://host:99999", "not a URL"),
        ("syslog+udp://host:pass%word", "not a URL"),
        ("syslog+udp://", "names no host"),
        ("syslog+udp://host?body=xml", "one of cef, json"),
        ("syslog+udp://host?facility=local44", "did you mean local4"),
        ("eve+file://relative/path", "three slashes"),
        ("eve+file:///x?keep-days=0", "whole number"),
        ("eve+file:///x?keep-days=1&keep-days=2", "twice"),
        ("eve+file:///x#y", "after #"),
        ("secbuzzer+unix://" + "/x" * 60, "at most 107 bytes"),
        ("secbuzzer+file:///opt/eve.json", "takes a folder"),
        ("elastic+http://h/UPPER", "no name of an index"),
        ("elastic+http://h/a?password-file=/no/such/file", "cannot read the secret"),
        ("elastic+http://h/a?password-env=NO_SUCH_VARIABLE", "is not set"),
        ("elastic+https://h/a?ca=/no/such/file", "certificates"),
        ("kafka://h:9092", "brokers and a topic"),
        ("elastic+http://user:12/hunter2@host/a", "an @ behind the host"),
        ("elastic+http://user:12?hunter2@host/a", "an @ behind the host"),
        ("elastic+http://user:12#hunter2@host/a", "an @ behind the host"),
    ],
)  # fmt: skip
def test_a_bad_url_is_told_plainly(url: str, told: str) -> None:
    with pytest.raises(VeilwatchError, match=told) as caught:
        open_sink(url)
    assert "hunter2" not in str(caught.value)


def test_a_sink_that_breaks_loses_nothing() -> None:
    class Broken(base.Sink):
        def encode(self, event: object) -> bytes:
            return b""

        def deliver(self, encoded: object, log: object) -> None:
            raise ZeroDivisionError("a fault in the code")

    receipt = Broken(Address("x")).send(many(2))
    assert [t.reason for t in receipt.again] == ["ZeroDivisionError: a fault in the code"] * 2
