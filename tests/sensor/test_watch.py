"""The sensor as a whole: captures put into a folder, alerts in store and sinks, and faults."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.sensor.field import drop, lines, running, status, until, write_config
from veilwatch.schema.packets import RawBlock
from veilwatch.store import Store
from veilwatch.traffic.capture import PcapngWriter, PcapWriter, open_captures

pytestmark = pytest.mark.slow

STEPPED = """
import os, time
from pathlib import Path

def offset():
    return float(Path(os.environ["TEST_CLOCK"]).read_text() or 0)

now, now_ns = time.time, time.time_ns
time.time = lambda: now() + offset()
time.time_ns = lambda: now_ns() + int(offset() * 1e9)
"""


def config(place: Path, **more: str) -> Path:
    return write_config(
        place,
        source=f'folder = "{place / "drop"}"\nquiet_s = 1.0',
        flow="idle_timeout_s = 1.0",
        sinks=[f"jsonl+file://{place / 'out'}"],
        **more,
    )


def stored(place: Path) -> list[str]:
    """Ids of the events in the store."""
    try:
        with Store(str(place / "state" / "veilwatch.db"), create=False) as store:
            return sorted(item.event.event_id for item in store.events())
    except Exception:
        return []


def received(place: Path) -> list[str]:
    return [event["event_id"] for event in lines(place / "out")]


def packets(place: Path) -> int:
    return int(status(place).get("packets", 0))


def healthy(place: Path) -> bool:
    return bool(status(place).get("healthy"))


def kill(place: Path, child: str) -> None:
    os.kill(status(place)["children"][child]["pid"], signal.SIGKILL)


def test_what_is_put_into_the_folder_is_told(place: Path) -> None:
    with running(config(place)) as process:
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: received(place), why=str(status(place)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    assert sorted(set(received(place))) == stored(place) != []
    events = lines(place / "out")
    assert {event["sensor"] for event in events} == {"ward"}
    assert all(event["alert"]["emulated"] for event in events)
    assert {"flow", "incident"} <= {event["kind"] for event in events}
    with Store(str(place / "state" / "veilwatch.db"), create=False) as store:
        names = {name for _, _, name, _ in store.counters()}
        assert {"packets", "flows", "up_s", "alerts/flow", "gauge/rss/judge"} <= names
        incidents = store.incidents()
        assert incidents
    assert list((place / "state" / "flows").glob("*.parquet"))


@pytest.mark.parametrize("year_s", [4_291_747_200, 4_294_967_296], ids=["2106", "past 32 bits"])
def test_packets_of_the_year_2106_are_told_of(place: Path, year_s: int) -> None:
    """Last days of a pcap file's 32-bit seconds, and what comes after them in pcapng."""
    source = place / "corpus" / "malicious" / "5.pcapng"
    shift_ns = year_s * 10**9 - first_ns(source)
    late = shifted(source, place / "late.pcapng", shift_ns)
    with running(config(place)) as process:
        until(lambda: healthy(place))
        drop(late, place / "drop", late.name)
        until(partial(told_of, place, "10.0.5."))
        # Other hosts, because alerts of the same ones would be repeats whatever their stamps.
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "today.pcapng")
        until(partial(told_of, place, "10.0.1."))
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    kept = pl.concat(pl.read_parquet(f) for f in (place / "state" / "flows").glob("*.parquet"))
    told = [event["alert"] for event in lines(place / "out") if event["kind"] == "flow"]
    wanted = kept.filter("alert")
    assert {alert["host"] for alert in told} == set(wanted["src_ip"])
    late_hosts = {alert["host"] for alert in told if alert["first_ns"] >= year_s * 10**9}
    assert late_hosts == {host for host in wanted["src_ip"] if host.startswith("10.0.5.")} != set()


def first_ns(source: Path) -> int:
    with open_captures([source]) as stream:
        return int(next(iter(stream)).records["ts_ns"][0])


def shifted(source: Path, target: Path, by_ns: int) -> Path:
    """Copy a capture, its stamps moved."""
    with open_captures([source]) as stream:
        blocks = [RawBlock(b.buffer.copy(), b.records.copy()) for b in stream]
    with PcapngWriter(target, link=int(blocks[0].records["link"][0])) as writer:
        for block in blocks:
            for record in block.records:
                begin = int(record["offset"])
                frame = bytes(block.buffer[begin : begin + int(record["captured"])])
                writer.write(int(record["ts_ns"]) + by_ns, frame)
    return target


def test_a_second_start_reads_nothing_twice(place: Path) -> None:
    path = config(place)
    with running(path):
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "3.pcapng", place / "drop", "one.pcapng")
        until(lambda: received(place))
    before = received(place)
    with running(path):
        until(lambda: healthy(place))
        drop(place / "corpus" / "benign" / "2.pcapng", place / "drop", "two.pcapng")
        until(lambda: packets(place) > 0)
    assert [event for event in received(place) if event in before] == before


@pytest.mark.parametrize("child", ["ingest-0", "judge", "deliver"])
def test_a_killed_process_loses_nothing_that_was_stored(place: Path, child: str) -> None:
    with running(config(place)):
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: stored(place))
        kill(place, child)
        until(lambda: status(place)["children"][child]["restarts"] == 1 and healthy(place))
        drop(place / "corpus" / "malicious" / "5.pcapng", place / "drop", "two.pcapng")
        until(lambda: told_of(place, "10.0.5."))
    assert sorted(set(received(place))) == stored(place)


def test_processes_that_a_stranger_tells_to_end_are_started_again(place: Path) -> None:
    with running(config(place)):
        until(lambda: status(place).get("ready"))
        pids = [said["pid"] for said in status(place)["children"].values()]
        for _ in range(300):  # amid whatever they do
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        until(lambda: all(one["restarts"] for one in status(place)["children"].values()), 30)
        until(lambda: status(place).get("ready"))
        drop(place / "corpus" / "malicious" / "5.pcapng", place / "drop", "one.pcapng")
        until(lambda: told_of(place, "10.0.5."))


def test_all_processes_killed_at_once(place: Path) -> None:
    path = config(place)
    with running(path) as process:
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: stored(place))
        pids = [said["pid"] for said in status(place)["children"].values()]
        for pid in (process.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    with running(path):
        until(lambda: set(received(place)) >= set(stored(place)) != set())
    assert sorted(set(received(place))) == stored(place)


def test_a_sink_that_is_down_gets_everything_when_it_is_back(place: Path) -> None:
    (place / "out").rmdir()
    (place / "out").write_text("a file where the folder should be\n")
    with running(config(place)):
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "7.pcapng", place / "drop", "one.pcapng")
        until(lambda: stored(place))
        until(lambda: status(place)["children"]["deliver"].get("pending_events"))
        (place / "out").unlink()
        (place / "out").mkdir()
        until(lambda: sorted(set(received(place))) == stored(place))


def test_a_damaged_model_and_a_bad_allow_list_do_not_stop_a_running_sensor(
    place: Path, field: Path
) -> None:
    (place / "model").unlink()
    (place / "model").mkdir()
    for file in (field / "model").rglob("*"):
        if file.is_file():
            target = place / "model" / file.relative_to(field / "model")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    allow = place / "allow.toml"
    allow.write_text("")
    path = config(place, alerts=f'allow_file = "{allow}"')
    with running(path) as process:
        until(lambda: healthy(place))
        manifest = (place / "model" / "model.json").read_text()
        (place / "model" / "model.json").write_text("{")
        process.send_signal(signal.SIGHUP)
        log = path.with_suffix(".log")
        until(lambda: "the model was not replaced" in log.read_text())
        (place / "model" / "model.json").write_text(manifest)
        allow.write_text("[[nonsense]]\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: log.read_text().count("not replaced") == 2)
        allow.write_text("")
        process.send_signal(signal.SIGHUP)
        until(lambda: status(place)["children"]["judge"]["replaced_models"] == 1)
        drop(place / "corpus" / "malicious" / "9.pcapng", place / "drop", "one.pcapng")
        until(lambda: received(place))


def test_probes_and_metrics(place: Path) -> None:
    path = config(place)
    with running(path):
        until(lambda: healthy(place))
        log = path.with_suffix(".log").read_text()
        port = log.split('"metrics": "port ')[1].split('"')[0]

        def get(name: str) -> Any:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{name}", timeout=10)

        assert get("/healthz").status == get("/readyz").status == 200
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: received(place))
        text = until(
            lambda: (
                found
                if "veilwatch_alerts_raised_total{" in (found := get("/metrics").read().decode())
                else ""
            )
        )
        for name in ("packets_total", "flows_scored_total", "live_flows", "sink_lag_seconds"):
            assert f"veilwatch_{name}" in text
        assert "10.0.1." not in text  # nobody's address
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10)


def test_a_store_that_is_locked_for_a_while_loses_nothing(place: Path) -> None:
    with running(config(place)):
        until(lambda: healthy(place))
        database = sqlite3.connect(place / "state" / "veilwatch.db", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        drop(place / "corpus" / "malicious" / "11.pcapng", place / "drop", "one.pcapng")
        until(lambda: packets(place))
        # The sinks are told meanwhile, and nothing is taken to hang.
        until(lambda: received(place) and status(place)["children"]["judge"].get("backlog"))
        time.sleep(12)
        assert {said["restarts"] for said in status(place)["children"].values()} == {0}
        assert not stored(place)
        database.execute("ROLLBACK")
        database.close()
        until(lambda: stored(place) and sorted(set(received(place))) == stored(place))


def test_bad_starts_say_one_line(place: Path) -> None:
    bad = {
        "No such file": ["watch", "--config", str(place / "none.toml")],
        "no such folder": [
            "watch", "--config", str(config(place)), "--set", f"capture.folder={place / 'gone'}"
        ],
        "model": ["watch", "--config", str(config(place)), "--set", f"model.path={place / 'gone'}"],
        "unknown kind of sink": [
            "watch", "--config", str(config(place)), "--set", 'sinks.urls=["smoke://x"]'
        ],
    }  # fmt: skip
    for what, words in bad.items():
        done = subprocess.run(
            [sys.executable, "-m", "veilwatch", *words], capture_output=True, text=True, check=False
        )
        said = done.stderr
        assert done.returncode == 2 and what in said
        assert "Traceback" not in said and said.count("\n") <= 2, (what, said)


def test_a_second_sensor_on_the_same_state_is_refused(place: Path) -> None:
    path = config(place)
    with running(path) as process:
        until(lambda: healthy(place))
        assert (place / "state").stat().st_mode & 0o777 == 0o700
        words = [sys.executable, "-m", "veilwatch", "watch", "--config", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"another sensor works on it (process {process.pid})" in done.stderr
        assert done.stderr.count("\n") <= 2
        assert healthy(place)


def test_a_parent_that_is_killed_takes_its_children_along_and_the_next_one_waits_for_them(
    place: Path,
) -> None:
    path = config(place)
    with running(path) as process:
        until(lambda: status(place).get("ready"))
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: packets(place) > 0)
        pids = [said["pid"] for said in status(place)["children"].values()]
        process.kill()
        process.wait()
    with running(path):
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        until(lambda: status(place).get("ready") and packets(place) == 0)
        until(lambda: sorted(set(received(place))) == stored(place) != [])


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGTERM, 3)]
)
def test_told_to_end_while_it_starts(place: Path, number: int, times: int) -> None:
    path = config(place)
    with running(path) as process:
        until(lambda: '"started"' in path.with_suffix(".log").read_text())
        for _ in range(times):
            process.send_signal(number)
        assert process.wait(80) == 0
    assert "Traceback" not in path.with_suffix(".log").read_text()


def test_systemd_hears_of_a_life(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(place / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        said: list[str] = []

        def hear(what: str) -> None:
            while what not in said:
                said.extend(manager.recv(4096).decode().split("\n"))

        with running(config(place)) as process:
            hear("READY=1")
            until(lambda: status(place).get("ready"))  # written within a second
            before = said.count("WATCHDOG=1")
            hear("STATUS=watching: 0 packets, 0 open incidents")
            # A child that is gone does not starve the watchdog: its parent sees to it.
            kill(place, "judge")
            hear("STATUS=waiting for judge")
            process.send_signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert process.wait(80) == 0
    assert said.count("WATCHDOG=1") > before


def test_sighup_reads_the_file_anew(place: Path) -> None:
    path = config(place)
    good = path.read_text()
    with running(path) as process:
        until(lambda: status(place).get("ready"))
        log = path.with_suffix(".log")
        path.write_text(good + "[alerts]\nnonsense = 1\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: "unknown name alerts.nonsense" in log.read_text())
        window = '[[alerts.maintenance]]\nreason = "test"\nends = 2100-01-01\n'
        path.write_text(good.replace("idle_timeout_s = 1.0", "idle_timeout_s = 2.0") + window)
        process.send_signal(signal.SIGHUP)
        until(lambda: "from the next start on: flow.idle_timeout_s" in log.read_text())
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        fate = until(lambda: status(place)["children"]["judge"].get("fate"))
        until(lambda: sum(status(place)["children"]["judge"]["fate"].values()) >= 1)
        assert stored(place) == [], fate


def test_memory_pressure_takes_the_archive_and_no_alert(place: Path) -> None:
    # More than any machine has: it is short from the start.
    with running(config(place, sensor="spare_memory_mb = 1048576")):
        until(lambda: healthy(place))
        drop(place / "corpus" / "malicious" / "1.pcapng", place / "drop", "one.pcapng")
        until(lambda: received(place))
        until(lambda: status(place)["children"]["judge"].get("memory", 0) >= 1)
        until(lambda: status(place)["children"]["judge"]["archive_lost"] > 0)
    assert not list((place / "state" / "flows").glob("*.parquet"))
    assert "memory is short" in (place / "sensor.log").read_text()


def test_a_start_that_cannot_work_is_refused(place: Path) -> None:
    words = ["watch", "--config", str(config(place)), "--set", "capture.user=nobody-at-all"]
    done = subprocess.run(
        [sys.executable, "-m", "veilwatch", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "cannot become nobody-at-all" in done.stderr


def test_a_clock_that_is_set_forward_and_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock at 2100 and packets stamped so: buckets refill after them, and nothing is deleted."""
    clock = place / "clock"
    clock.write_text("0")
    (place / "python").mkdir()
    (place / "python" / "sitecustomize.py").write_text(STEPPED)
    monkeypatch.setenv("TEST_CLOCK", str(clock))
    monkeypatch.setenv("PYTHONPATH", f"{place / 'python'}:{os.environ.get('PYTHONPATH', '')}")
    # A token a second: what refills by another time than ours tells of two hosts and no more.
    path = config(place, alerts="burst = 1\nper_hour = 3600\nhost_burst = 1")
    log = path.with_suffix(".log")
    far_s = 74 * 365 * 86_400
    steps = ((0, 1), (far_s, 5), (-3600, 9), (0, 13), (0, 17))
    with running(path):
        until(lambda: healthy(place))
        for offset, capture in steps:
            before = float(clock.read_text())
            set_before = log.read_text().count("the clock was set")
            (place / "clock.new").write_text(str(offset))
            (place / "clock.new").replace(clock)
            if offset != before:
                until(partial(logged, log, "the clock was set", set_before + 1))
            source = place / "corpus" / "malicious" / f"{capture}.pcapng"
            if offset == far_s:
                source = with_a_late_stamp(source, place / "late.pcap")
            drop(source, place / "drop", f"{capture}{source.suffix}")
            until(partial(told_of, place, f"10.0.{capture}."), why=f"for capture {capture}")
        assert {said["restarts"] for said in status(place)["children"].values()} == {0}
        until(lambda: sorted(set(received(place))) == stored(place))
    said = log.read_text().split('"by_s": ')[1:]
    found = [round(float(part.split(",")[0]), -2) for part in said]
    assert found == [far_s, -far_s - 3600, 3600]
    # Of the archive as well: a pass while it was 2100 took nothing of what was written before.
    kept = [pl.read_parquet(file) for file in (place / "state" / "flows").glob("*.parquet")]
    networks = set(pl.concat(kept)["src_ip"].str.extract(r"^(10\.0\.\d+)\.", 1).unique())
    assert {f"10.0.{capture}" for _, capture in steps} <= networks


def with_a_late_stamp(source: Path, target: Path) -> Path:
    """Copy a capture, its last packet once more with a stamp of the year 2100."""
    with open_captures([source]) as stream:
        blocks = [RawBlock(b.buffer.copy(), b.records.copy()) for b in stream]
    with PcapWriter(target, link=int(blocks[0].records["link"][0])) as writer:
        for block in blocks:
            for record in block.records:
                begin = int(record["offset"])
                frame = bytes(block.buffer[begin : begin + int(record["captured"])])
                writer.write(int(record["ts_ns"]), frame)
        writer.write(4_102_444_800 * 10**9, frame)
    return target


def logged(log: Path, what: str, times: int) -> bool:
    return log.read_text().count(what) == times


def told_of(place: Path, network: str) -> bool:
    return any(event["alert"]["host"].startswith(network) for event in lines(place / "out"))
