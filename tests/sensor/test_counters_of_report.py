"""Every counter that the field report reads is one that the sensor writes."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from typing import Any

import polars as pl
import pytest

from tests.report import field_factory
from tests.report.factory import flow_frame
from veilwatch.detection.alerting.desk import Fate
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.report.field import build as field_build
from veilwatch.report.field import counts as field_counts
from veilwatch.schema.packets import Status
from veilwatch.sensor import deliver, ingest, judge, scorebook, supervise, tally, watch
from veilwatch.sensor.bookkeeping import Bookkeeper
from veilwatch.sensor.tally import FlowTally
from veilwatch.store import Store

ENTRIES: dict[str, Any] = {
    "dropped": dict.fromkeys(("early", "ended", "archive"), 1),
    "refused": {status.name: 1 for status in Status if status is not Status.OK},
    "fate": {fate.value: 1 for fate in Fate},
    "alerts": {"flow": 1, "host": 1},
    "service": {"tls": 1},
    "faults": {"store": 1, "events_lost": 1},
    "score": [1] * tally.BINS,
    "sinks": [{"name": "a", "pending": 1}],
}
"""Tables within a status, with the entries that their enumerations have."""


def said_by(part: Any) -> set[str]:
    """Return the keys of the tables that a piece of code writes out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    return {
        key.value
        for table in ast.walk(tree)
        if isinstance(table, ast.Dict)
        for key in table.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the store after a minute of a sensor whose processes say all that they say."""
    folder = tmp_path_factory.mktemp("store")
    scorer = inspect.getattr_static(LiveScorer, "counters").fget
    kinds = {
        "ingest-0": said_by(ingest._status),
        "judge": said_by(judge.Bench.status) | said_by(scorer) | FlowTally().status().keys(),
        "deliver": said_by(deliver._Status.now),
    }
    sums = {"flows", "bytes", "flows_gtp", "flows_encrypted", "bytes_encrypted", "flows_attributed"}
    assert sums <= set(tallied())
    kinds["judge"] |= sums
    usage = {"pid": 7, "cpu_s": 1.0, "rss": 1.0, "restarts": 1}
    children = {
        child: {name: ENTRIES.get(name, 1) for name in keys} | usage
        for child, keys in kinds.items()
    }
    for name in ("notes", "trouble"):
        for said in children.values():
            said.pop(name, None)
    path = folder / "status.json"
    path.write_text(json.dumps({"up_s": 1.0, "children": children}))
    with Store(str(folder / "store.db")) as store:
        Bookkeeper(store, path, "ward", "run").tick(final=True)
        return {name for _, _, name, _ in store.counters()}


def tallied() -> dict[str, Any]:
    flows = flow_frame(3, src_ip=["a", "b", "b"]).with_columns(
        subscriber=pl.Series(["", "s", "s"]), score=pl.Series([0.1, 0.5, 0.9])
    )
    found = FlowTally()
    found.add(flows)
    return found.status()


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

    monkeypatch.setattr(field_build.field_counts, "Counts", Listening)
    field_factory.past(days=1, every=120).document()
    return names, beginnings


def test_every_counter_that_is_read_is_written(
    written: set[str], read: tuple[set[str], set[str]]
) -> None:
    names, beginnings = read
    assert len(names) > 30
    # The factory makes up entries of tables that name services, reasons and processes.
    made_up = ("service/", "refused/", "cpu_s/", "gauge/rss/")
    assert {name for name in names - written if not name.startswith(made_up)} == set()
    for prefix in beginnings:
        assert any(name.startswith(prefix) for name in written), prefix


def test_the_factory_makes_up_no_counter(written: set[str]) -> None:
    made = {row[3] for row in field_factory.past(days=1, every=120).counters}
    open_ended = ("service/", "gauge/rss/", "cpu_s/", "restarts/")
    assert {name for name in made if not name.startswith(open_ended)} <= written


def test_hosts_and_subscribers_are_those_of_the_last_whole_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [6000.0]
    monkeypatch.setattr(tally.time, "time", lambda: now[0])
    found = FlowTally()

    def add(*hosts: tuple[str, str]) -> None:
        columns = {"src_ip": [host for host, _ in hosts]}
        frame = flow_frame(len(hosts), **columns).with_columns(
            subscriber=pl.Series([name for _, name in hosts]), score=pl.Series([0.5] * len(hosts))
        )
        found.add(frame)

    def seen() -> tuple[int, int]:
        said = found.status()
        return said["hosts_seen"], said["subscribers_seen"]

    add(("10.0.0.1", "a"), ("10.0.0.1", "b"), ("10.0.0.2", ""))
    add(("10.0.0.1", "a"))
    assert seen() == (0, 0)  # the minute is not over
    now[0] += 60
    add(("10.0.0.9", "z"))
    assert seen() == (3, 2)  # two subscribers may hold one address
    now[0] += 60
    assert seen() == (1, 1)
    now[0] += 60
    assert seen() == (0, 0)
    add(("10.0.0.9", "z"))
    now[0] += 600
    assert seen() == (0, 0)  # that was long ago
    monkeypatch.setattr(tally, "MAX_SEEN", 2)
    add(*((f"10.0.1.{k}", str(k)) for k in range(9)))
    now[0] += 60
    assert seen() == (2, 2)


def test_drift_waits_for_enough_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def load_state(self, name: str) -> None: ...
        def save_state(self, states: Any) -> None: ...

    book = scorebook.ScoreBook(Nothing(), "ward")  # type: ignore[arg-type]
    hosts = pl.DataFrame(
        schema={
            "host": pl.String,
            "subscriber": pl.String,
            "source": pl.Int64,
            "last_ns": pl.Int64,
            "score": pl.Float64,
        }
    )

    def add(score: float, flows: int, hour: int) -> float | None:
        frame = pl.DataFrame({"score": [score] * flows, "last_ns": [hour] * flows})
        book.add(frame, hosts, hour * scorebook.HOUR_NS + 1)
        return book.drift

    assert add(0.1, 1000, 5) is None  # nothing before it
    assert add(0.9, 999, 6) is None
    drift = add(0.9, 1, 6)
    assert drift is not None and drift > 1
    assert add(0.1, 999, 7) == drift  # one flow more, and it is told anew
    assert add(0.1, 1, 7) != drift


def test_the_parent_adds_the_load_of_its_processes() -> None:
    assert {"cpu_s", "rss"} <= said_by(watch.usage)
    assert {"pid", "restarts"} <= said_by(supervise.Supervisor.status.fget)
    assert {"up_s", "children"} <= said_by(watch)
