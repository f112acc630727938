"""Every counter that is read is written, and every one that is written is registered."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.learning.training.factory import make_model
from tests.report import field_factory
from tests.report.factory import flow_frame
from tests.sensor.stubs import StubHeart, make_config, stand_in
from veilwatch.detection.alerting.gate import Disposition
from veilwatch.learning.models import save_model
from veilwatch.report.field import counts as field_counts
from veilwatch.schema import counters as known
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.counters import REGISTRY, Kind, Process, counted_by
from veilwatch.schema.packets import Status
from veilwatch.sensor import deliver, ingest, supervise, watch
from veilwatch.sensor.counter_recorder import CounterRecorder
from veilwatch.sensor.flow_counts import BINS
from veilwatch.sensor.judge import JudgeJob, JudgeWork
from veilwatch.sensor.link import Inbox, Outbox, Sender
from veilwatch.sensor.link import Kind as RowKind
from veilwatch.sensor.metrics import SensorCollector
from veilwatch.sensor.serve import serve
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store
from veilwatch.traffic.flow import FlowMeter

NOT_COUNTED = {"notes", "sinks"}
"""Entries of a status that are no counters; `name` and `trouble` are those of a sink."""

ENTRIES: dict[known.CounterSpec, Any] = {
    known.DROPPED: dict.fromkeys(("early", "ended", "archive", "refused"), 1),
    known.REFUSED: {status.name: 1 for status in Status if status is not Status.OK},
    known.DISPOSITIONS: {one.value: 1 for one in Disposition},
    known.ALERTS: {"flow": 1, "host": 1},
    known.SERVICE: {"tls": 1},
    known.FAULTS: {"store": 1, "events_lost": 1},
    known.SCORE: [1] * BINS,
}
"""Tables of counts, with the entries that their enumerations have."""


def written_by(part: Any) -> set[str]:
    """Return the keys of the tables that a piece of code writes out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    return {
        key.value
        for table in ast.walk(tree)
        if isinstance(table, ast.Dict)
        for key in table.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def ingest_status(folder: Path) -> dict[str, Any]:
    """What a capturing process says that has seen nothing yet."""
    meter = FlowMeter()
    reader = SimpleNamespace(
        captures=CaptureReport(),
        balance=dict.fromkeys((status.name for status in Status), 0),
        meter=meter,
        metering=meter.counters,
    )
    outbox = Outbox(1)
    rows = {RowKind.EARLY: 0, RowKind.ENDED: 0}
    return ingest._status(stand_in(reader), outbox, Sender(outbox, folder / "none", 1), rows)


def judge_status(folder: Path) -> dict[str, Any]:
    """What a scoring process says that is told to end at once, but for one table of flows."""
    save_model(folder / "model", make_model(folder)[0])
    config = make_config(folder)
    store = StoreProxy(lambda: Store(config.store_url))
    heart = StubHeart(beats=1)
    with Spool(folder / "spool.db") as spool, Inbox(folder / "socket") as inbox:
        work = JudgeWork(JudgeJob(config, "run"), store, spool)
        work._flow_counts.add(flow_frame(1).with_columns(score=0.5))
        serve(stand_in(heart), inbox, work.scorer, work.hand_over, status=work.status)
        work.close()
    store.close()
    return heart.said


def deliver_status(folder: Path) -> dict[str, Any]:
    """What a delivering process says that is told to end at once."""
    heart = StubHeart(beats=1)
    config = make_config(folder, f'[sinks]\nurls = ["jsonl+file://{folder}/out.jsonl"]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver, "drop_privileges", lambda user: "")
        deliver.deliver(stand_in(heart), config, "run")
    return heart.said


@pytest.fixture(scope="module")
def statuses(tmp_path_factory: pytest.TempPathFactory) -> dict[Process, dict[str, Any]]:
    """What each kind of process says."""
    made = {
        Process.INGEST: ingest_status,
        Process.JUDGE: judge_status,
        Process.DELIVER: deliver_status,
    }
    return {kind: say(tmp_path_factory.mktemp(kind)) for kind, say in made.items()}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """A status of a sensor in which every counter has a value."""

    def values(kind: Process) -> dict[str, Any]:
        return {spec.name: ENTRIES.get(spec, 1) for spec in counted_by(kind)}

    each = {"pid": 7} | values(Process.EACH)
    children = {
        "ingest-0": values(Process.INGEST) | each,
        "judge": values(Process.JUDGE) | each,
        "deliver": values(Process.DELIVER)
        | each
        | {"sinks": [{"name": "a"} | values(Process.SINK)]},
    }
    return values(Process.PARENT) | {"children": children}


@pytest.fixture(scope="module")
def stored(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the store after a minute of that sensor."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "status.json").write_text(json.dumps(document))
    with Store(str(folder / "store.db")) as store:
        CounterRecorder(store, folder / "status.json", "ward", "run").tick(final=True)
        return {name for _, _, name, _ in store.counters()}


@pytest.mark.parametrize("kind", [Process.INGEST, Process.JUDGE, Process.DELIVER])
def test_a_process_counts_what_is_registered_and_nothing_else(
    statuses: dict[Process, dict[str, Any]], kind: Process
) -> None:
    assert statuses[kind].keys() - NOT_COUNTED == {spec.name for spec in counted_by(kind)}


def test_so_does_each_sink(statuses: dict[Process, dict[str, Any]]) -> None:
    (sink,) = statuses[Process.DELIVER]["sinks"]
    assert sink.keys() - {"name", "trouble"} == {spec.name for spec in counted_by(Process.SINK)}


def test_and_the_parent() -> None:
    getter = inspect.getattr_static(supervise.Supervisor, "status")
    assert {spec.name for spec in counted_by(Process.EACH)} == {
        *written_by(watch.usage),
        *(written_by(getter.fget) & {"restarts"}),
    }
    said = written_by(watch.Sensor.status)
    # How many processors there are is asked for when a minute is stored.
    assert {spec.name for spec in counted_by(Process.PARENT)} - {"cores"} <= said


def test_a_counter_has_one_value_or_a_table_as_it_is_registered(
    statuses: dict[Process, dict[str, Any]],
) -> None:
    for kind, said in statuses.items():
        for spec in counted_by(kind):
            assert isinstance(said[spec.name], dict | list) == bool(spec.label), spec


def test_no_two_counters_have_one_name() -> None:
    for values in (
        [(spec.process, spec.name) for spec in REGISTRY],
        [spec.metric for spec in REGISTRY if spec.metric],
        [spec.key for spec in REGISTRY if spec.key],
    ):
        assert len(values) == len(set(values))


def test_what_is_registered_to_be_stored_is_stored_and_nothing_else(stored: set[str]) -> None:
    expected: set[str] = set()
    for spec in REGISTRY:
        if not spec.stored:
            continue
        entries = ENTRIES.get(spec, {})
        if spec.process is Process.EACH:
            entries = ["ingest-0", "judge", "deliver"]
        elif spec.process is Process.SINK:
            entries = [0]
        elif isinstance(entries, list):
            entries = range(len(entries))
        expected |= {spec.entry(entry) for entry in entries} or {spec.key}
    assert stored == expected


def test_what_is_registered_as_a_metric_is_one_and_nothing_else(document: dict[str, Any]) -> None:
    families = {family.name: family for family in SensorCollector(lambda: document).collect()}
    assert families.keys() == {f"veilwatch_{spec.metric}" for spec in REGISTRY if spec.metric}
    for spec in REGISTRY:
        if spec.metric:
            family = families[f"veilwatch_{spec.metric}"]
            assert family.samples and family.documentation == spec.help
            assert family.type == ("counter" if spec.kind is Kind.COUNTER else "gauge")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """Names, and beginnings of names, that the report asks for."""
    names: set[str] = set()
    beginnings: set[str] = set()

    class Listening(field_counts.Counts):
        def _of(self, name: str) -> Any:
            names.add(name)
            return super()._of(name)

        def keys(self, prefix: str) -> Any:
            beginnings.add(prefix)
            return super().keys(prefix)

        def steps(self, sensor: str, name: str) -> Any:
            names.add(name)
            return super().steps(sensor, name)

    monkeypatch.setattr(field_counts, "Counts", Listening)
    field_factory.past(days=1, every=120).document()
    return names, beginnings


def test_every_counter_that_the_report_reads_is_stored(
    stored: set[str], read: tuple[set[str], set[str]]
) -> None:
    names, beginnings = read
    assert len(names) > 30
    # The factory makes up entries of tables that name services, reasons and processes.
    made_up = tuple(
        spec.prefix for spec in (known.SERVICE, known.REFUSED, known.CPU, known.RESIDENT)
    )
    assert {name for name in names - stored if not name.startswith(made_up)} == set()
    for prefix in beginnings:
        assert any(name.startswith(prefix) for name in stored), prefix


def test_every_counter_that_is_stored_is_read_by_the_report(
    stored: set[str], read: tuple[set[str], set[str]]
) -> None:
    names, beginnings = read
    # What the receiver refused is told apart on the way to it only: it is part of no balance.
    left = {known.DROPPED.entry("refused")}
    assert {n for n in stored - names if not n.startswith(tuple(beginnings))} == left


def test_the_factory_makes_up_no_counter(stored: set[str]) -> None:
    made = {row[3] for row in field_factory.past(days=1, every=120).counters}
    open_ended = tuple(
        spec.prefix for spec in (known.SERVICE, known.RESIDENT, known.CPU, known.RESTARTS)
    )
    assert {name for name in made if not name.startswith(open_ended)} <= stored
