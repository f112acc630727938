"""Children that die, hang, do not end, reload, and a parent that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sensor.children import (
    busy,
    crasher,
    deaf,
    hanger,
    notes,
    orphan,
    short,
    worker,
    wrong,
)
from veilwatch.sensor.supervise import Child, ChildEvent, ChildEventKind, Supervisor


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def supervised(*children: Child) -> Iterator[tuple[Supervisor, list[tuple[float, ChildEvent]]]]:
    told: list[tuple[float, ChildEvent]] = []
    supervisor = Supervisor(children, lambda event: told.append((time.monotonic(), event)))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor, told
    finally:
        supervisor.stop()
        thread.join(60)
        assert not thread.is_alive()


def kinds(told: list[tuple[float, ChildEvent]], child: str) -> list[ChildEventKind]:
    return [event.what for _, event in told if event.child == child]


def test_a_killed_child_is_missed_within_a_second_and_started_again(tmp_path: Path) -> None:
    said = tmp_path / "said"
    child = Child("one", worker, (said, "one"), loses="{count} things and {nothing}")
    other = Child("other", worker, (said, "other"))
    with supervised(child, other) as (supervisor, told):
        until(lambda: supervisor.status["one"].get("count", 0) > 0)
        until(lambda: len(notes(said)) == 2)
        pid = supervisor.status["one"]["pid"]
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: ChildEventKind.DIED in kinds(told, "one"))
        at, event = next((at, e) for at, e in told if e.what is ChildEventKind.DIED)
        assert at - killed < 1.0
        assert (event.exit_code, event.pid) == (-signal.SIGKILL, pid)
        assert event.status["count"] > 0
        assert event.lost == f"{event.status['count']} things and 0"
        until(lambda: kinds(told, "one").count(ChildEventKind.STARTED) == 2)
        until(lambda: sum(note["name"] == "one" for note in notes(said)) == 2)
        assert supervisor.status["one"]["restarts"] == 1
        assert kinds(told, "other") == [ChildEventKind.STARTED]
    ends = [note["name"] for note in notes(said) if note["what"] == "ended"]
    assert ends == ["one", "other"]  # in the order in which they were named
    assert kinds(told, "one")[-1] is ChildEventKind.ENDED


def test_all_children_killed_at_once(tmp_path: Path) -> None:
    said = tmp_path / "said"
    names = ["a", "b", "c"]
    with supervised(*(Child(name, worker, (said, name)) for name in names)) as (supervisor, told):
        until(lambda: len(notes(said)) == 3)
        for name in names:
            os.kill(supervisor.status[name]["pid"], signal.SIGKILL)
        until(lambda: len([note for note in notes(said) if note["what"] == "began"]) == 6)
        assert all(kinds(told, name).count(ChildEventKind.DIED) == 1 for name in names)


def test_who_cannot_start_is_tried_less_and_less_often(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with supervised(Child("crasher", crasher, (said,))) as (_, told):
        until(lambda: len(notes(said)) >= 5)
    at = [at for at, event in told if event.what is ChildEventKind.DIED]
    starts = [at for at, event in told if event.what is ChildEventKind.STARTED]
    pauses = [start - died for died, start in zip(at, starts[1:], strict=False)]
    assert all(pause >= 0.09 * 2**k for k, pause in enumerate(pauses))
    assert all(event.exit_code == 3 for _, event in told if event.what is ChildEventKind.DIED)


def test_who_hangs_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with supervised(Child("hanger", hanger, (said,), hang_s=0.5)) as (_, told):
        until(lambda: kinds(told, "hanger").count(ChildEventKind.STARTED) == 2)
        assert ChildEventKind.HUNG in kinds(told, "hanger")


def test_who_is_busy_with_one_thing_is_not_taken_to_hang(tmp_path: Path) -> None:
    said = tmp_path / "said"
    child = Child("busy", busy, (said, 6.0), hang_s=3.0)
    with supervised(child) as (_, told):
        until(lambda: bool(notes(said)))
        until(lambda: kinds(told, "busy")[-1] is ChildEventKind.ENDED)
    assert ChildEventKind.HUNG not in kinds(told, "busy")


@pytest.mark.parametrize(
    ("target", "fault"),
    [(orphan, "thread helper died: KeyError: 'missing' (children.py:"), (wrong, "IndexError: out")],
)
def test_what_nobody_foresaw_ends_the_process_with_one_line(
    tmp_path: Path, target: Callable[..., None], fault: str
) -> None:
    child = Child("it", target, (tmp_path,))
    with supervised(child) as (_, told):
        until(
            lambda: kinds(told, "it").count(ChildEventKind.STARTED) == 2
        )  # and it is started again
    died = next(event for _, event in told if event.what is ChildEventKind.DIED)
    assert fault in died.status["error"] and "\n" not in died.status["error"]
    assert died.exit_code == 1


def test_who_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with supervised(Child("deaf", deaf, (said,), flush_s=0.5, loses="all")) as (_, told):
        until(lambda: bool(notes(said)))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert kinds(told, "deaf")[-1] is ChildEventKind.LATE
    assert told[-1][1].lost == "all"


def test_children_reload(tmp_path: Path) -> None:
    said = tmp_path / "said"
    children = [Child(name, worker, (said, name)) for name in "ab"]
    with supervised(*children) as (supervisor, _):
        until(lambda: len(notes(said)) == 2)
        supervisor.reload()
        until(lambda: {n["name"] for n in notes(said) if n["what"] == "reloaded"} == {"a", "b"})


def test_who_has_done_its_work_is_not_started_again(tmp_path: Path) -> None:
    told: list[ChildEvent] = []
    Supervisor([Child("short", short, (tmp_path,))], told.append).run()
    assert [event.what for event in told] == [ChildEventKind.STARTED, ChildEventKind.ENDED]
    assert told[-1].status == {"done": 7}


def test_names_are_different() -> None:
    with pytest.raises(ValueError, match="names"):
        Supervisor([Child("a", worker), Child("a", worker)])


PARENT = """
import sys
from pathlib import Path
from tests.sensor.children import worker
from veilwatch.sensor.supervise import Child, Supervisor
if __name__ == "__main__":
    said = Path(sys.argv[1])
    supervisor = Supervisor([Child(name, worker, (said, name)) for name in "ab"])
    supervisor.heed_signals()
    supervisor.run()
    print("done")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_parent(tmp_path: Path, number: int) -> None:
    said, script = tmp_path / "said", tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, script, said],
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(notes(said)) == 2)
        parent.send_signal(number)
        until(lambda: sum(note["what"] == "ended" for note in notes(said)) == 2)
        assert parent.communicate(timeout=30)[0] == ("done\n" if number == signal.SIGTERM else "")
    finally:
        parent.kill()
        parent.wait()
