"""The verbs on a network interface, in a namespace, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.cli.helpers import exchange, veilwatch
from tests.netns import Wire
from tests.traffic.capture.subscribers import WRAPPINGS, frames
from veilwatch.cli.main import command_line
from veilwatch.corpus.lab import field_capture
from veilwatch.errors import VeilwatchError
from veilwatch.schema.flows import EndReason
from veilwatch.traffic.capture import PcapWriter, open_captures
from veilwatch.traffic.pipeline.workers import FLOW_IDS

NOBODY = 65_534
PATIENCE_S = 120.0
MS = 1_000_000

OF_TIME = ("_ns", "gap", "pause", "duration", "start", "burst")
"""Words in the names of columns that hold times, or depend on which gap passed some bound."""

OF_RUN = "subscriber"
"""The column whose pseudonyms have a key of their own in every run."""


def write(path: Path, sent: list[bytes]) -> Path:
    with PcapWriter(path) as writer:
        for k, frame in enumerate(sent):
            writer.write(1_700_000_000_000_000_000 + k * MS, frame)
    return path


def closed(client: str, port: int) -> list[bytes]:
    """A TCP connection from SYN to FIN."""
    sent = exchange(client, port)
    ends = (client, "203.0.113.5"), ("203.0.113.5", client)
    for (src, dst), ports in zip(ends, ((port, 443), (443, port)), strict=True):
        segment = TCP(sport=ports[0], dport=ports[1], flags="FA", seq=122, ack=122)
        sent.append(bytes(Ether() / IP(src=src, dst=dst) / segment))
    return sent


@cache
def traffic() -> list[bytes]:
    """Connections and tunnelled datagrams of many subscribers; for reading."""
    sent = [frame for k in range(30) for frame in closed(f"10.1.0.{k}", 40_000 + k)]
    sent += [frame for name in WRAPPINGS for k in range(12) for frame in frames(name, k)]
    return sent


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read standard error up to a line with `text`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was never said: {lines}")


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a clean end."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out, err


def flows_of(path: Path, **options: Any) -> pl.DataFrame:
    """The flow table that the verb writes of a file."""
    out = path.with_suffix(".flows.parquet")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    result = veilwatch("flows", path, "-o", out, *words)
    assert result.returncode == 0, result.stderr
    return pl.read_parquet(out)


def timeless(frame: pl.DataFrame) -> pl.DataFrame:
    kept = [name for name in frame.columns if not any(word in name for word in (*OF_TIME, OF_RUN))]
    assert len(kept) > 130
    return frame.select(kept)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="veilwatch-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_live_replay_gives_the_flows_of_the_file(wire: Wire, tmp_path: Path) -> None:
    sent, out = write(tmp_path / "sent.pcap", traffic()), tmp_path / "live.parquet"
    process = wire.veilwatch("flows", "-i", wire.far, "-o", out)
    wait_for(process, f"Listening on {wire.far}")
    wire.replay(sent)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process)
    found, wanted = pl.read_parquet(out), flows_of(sent)
    assert found.height == 30 + len(WRAPPINGS) * 12
    assert found.schema == wanted.schema
    assert timeless(found.sort("flow_id")).equals(timeless(wanted.sort("flow_id")))
    assert f"{wire.far}: {len(traffic()):,} packets received, 0 dropped by the kernel" in err
    assert wire.transmitted() == 0


@pytest.mark.slow
def test_times_are_those_that_another_program_saw(wire: Wire, tmp_path: Path) -> None:
    """Every column, times to the nanosecond, of emulated traffic with flows that end live."""
    if shutil.which("dumpcap") is None:
        pytest.skip("needs dumpcap")
    field, out, seen = (tmp_path / name for name in ("a.pcapng", "live.parquet", "seen.pcapng"))
    field_capture(field, seed=3, scale=0.05)
    options = {"idle-timeout": 0.7}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = wire.veilwatch("flows", "-i", wire.far, "-o", out, *words)
    wait_for(process, "Listening on")
    other = wire.start("dumpcap", "-q", "-i", wire.far, "-w", seen)
    wait_for(other, "File:")
    time.sleep(0.1)
    # Cut off while flows are open, so that the file has some that only its end ends.
    wire.replay(field, "--multiplier", "150", "--limit", "40000")
    time.sleep(1.5)  # longer than the idle timeout: flows end by the clock
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=PATIENCE_S)
    process.send_signal(signal.SIGINT)
    finish(process)
    found, wanted = pl.read_parquet(out), flows_of(seen, **options)
    assert found.height > 500
    # Only how the last flows ended differs: the clock went on, the file did not.
    ended = {name: set(frame["end_reason"]) for name, frame in (("live", found), ("file", wanted))}
    assert ended["live"] == {EndReason.IDLE, EndReason.CLOSED} == ended["file"] - {EndReason.END}
    assert EndReason.END in ended["file"]
    keys = ["first_number", "src_ip", "src_port"]
    found, wanted = (frame.drop("end_reason", OF_RUN).sort(keys) for frame in (found, wanted))
    assert found.equals(wanted)


@pytest.mark.slow
def test_several_workers_give_the_flows_of_one(wire: Wire, tmp_path: Path) -> None:
    sent, out = write(tmp_path / "sent.pcap", traffic()), tmp_path / "live.parquet"
    process = wire.veilwatch("flows", "-i", wire.far, "-o", out, "--workers", "2")
    wait_for(process, "Listening on")
    wire.replay(sent)
    process.send_signal(signal.SIGINT)
    _, err = finish(process)
    found, wanted = pl.read_parquet(out), flows_of(sent)
    assert found["flow_id"].n_unique() == found.height == wanted.height
    for worker in (0, 1):
        mine = found.filter(pl.col("source") == worker)
        assert wanted.height * 0.2 < mine.height < wanted.height * 0.8
        assert mine["flow_id"].is_between(worker * FLOW_IDS, (worker + 1) * FLOW_IDS - 1).all()
        assert mine["parent_id"].equals(mine["flow_id"])
        assert f"{wire.far} ({worker + 1} of 2): " in err
    assert (found["flow_id"] < 2**53).all()
    keys = ["src_ip", "src_port", "dst_ip", "outer_src_ip", "protocol", "fwd_teid", "fwd_vlan"]
    assert set(keys) <= set(found.columns)
    own = ["flow_id", "parent_id", "source", "first_number"]
    found, wanted = (timeless(frame.sort(keys)).drop(own) for frame in (found, wanted))
    assert found.equals(wanted)


@pytest.mark.slow
def test_inspect_for_a_while(wire: Wire, tmp_path: Path) -> None:
    sent = write(tmp_path / "sent.pcap", traffic())
    words = ("inspect", "-i", wire.far, "--json", "--duration", "4", "--workers", "2")
    process = wire.veilwatch(*words, "--ring-mb", "4", "--snaplen", "2000")
    deadline = time.monotonic() + PATIENCE_S
    while "promiscuity 0" in wire.run("ip", "-d", "link", "show", wire.far):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    replays = 0
    while process.poll() is None:
        wire.replay(sent, "--topspeed")
        replays += 1
        time.sleep(0.3)
    out, _ = finish(process)
    result = json.loads(out)
    assert len(result["files"]) == 2
    received = 0
    for file in result["files"]:
        live = file["live"]
        assert live["dropped"] == live["freezes"] == live["interruptions"] == 0
        assert (live["ring_bytes"], live["snaplen"]) == (4 * 2**20, 2000)
        assert any("the first 2,000 are captured" in w for w in live["warnings"]) == (
            "(1 of 2)" in file["name"]
        )
        assert live["received"] == file["packets"] > 0
        received += live["received"]
    assert received == result["packets"] == result["balance"]["packets_read"]
    assert received <= replays * len(traffic())
    assert result["balance"]["OK"] == received


def test_inspect_shows_the_statistics(wire: Wire) -> None:
    process = wire.veilwatch("inspect", "-i", wire.far, "--duration", "0.2")
    out, _ = finish(process)
    assert f"{wire.far}: 0 packets received, 0 dropped" in " ".join(out.split())


def test_record(wire: Wire, tmp_path: Path) -> None:
    sent, out = write(tmp_path / "sent.pcap", traffic()), tmp_path / "seen.pcapng"
    process = wire.veilwatch("record", "-i", wire.far, "-o", out)
    wait_for(process, "Listening on")
    wire.replay(sent)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process)
    assert f"{len(traffic()):,} packets in" in err

    def read(path: Path) -> list[bytes]:
        with open_captures([path]) as stream:
            return [
                block.buffer[r["offset"] :][: r["captured"]].tobytes()
                for block in stream
                for r in block.records
            ]

    assert read(out) == traffic()
    if shutil.which("capinfos"):
        shown = subprocess.run(["capinfos", out], capture_output=True, text=True, check=True)
        assert f"Name = {wire.far}" in shown.stdout
        assert f"Number of packets = {len(traffic())}" in shown.stdout


def status(process: subprocess.Popen[str]) -> list[dict[str, str]]:
    """What the kernel says of each thread of a process and its children."""
    found = []
    pids = [str(process.pid)]
    for pid in pids:
        for task in Path("/proc", pid, "task").iterdir():
            lines = (task / "status").read_text().splitlines()
            found.append(dict(line.split(":", 1) for line in lines if ":" in line))
            pids += (task / "children").read_text().split()
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_privileges_are_dropped(wire: Wire, open_folder: Path, workers: int) -> None:
    out = open_folder / "live.parquet"
    process = wire.veilwatch(
        *("flows", "-i", wire.far, "-o", out, "--user", "nobody", "--workers", str(workers))
    )
    said = wait_for(process, "Listening on")
    assert not any("runs as root" in line for line in said)
    time.sleep(0.2)
    threads = [s for s in status(process) if "resource_tracker" not in s["Name"]]
    assert len({s["Tgid"] for s in threads}) >= workers
    trackers = {
        s["Tgid"]
        for s in threads
        if b"resource_tracker" in Path("/proc", s["Tgid"].strip(), "cmdline").read_bytes()
    }
    for thread in threads:
        if thread["Tgid"] not in trackers:
            assert set(thread["Uid"].split()) == set(thread["Gid"].split()) == {str(NOBODY)}
            for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                assert int(thread[name], 16) == 0, (thread["Name"], name)
    # A restriction of a thread and of what it starts; the first thread starts all.
    firsts = [t for t in threads if t["Pid"] == t["Tgid"] and t["Tgid"] not in trackers]
    assert {t["NoNewPrivs"].strip() for t in firsts} == {"1"}
    sent = write(open_folder / "sent.pcap", traffic())
    wire.replay(sent)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert out.stat().st_uid == NOBODY
    assert pl.read_parquet(out).height == flows_of(sent).height


def test_the_caller_of_sudo_is_who_it_runs_as(wire: Wire, open_folder: Path) -> None:
    process = wire.start(
        *("env", f"SUDO_UID={NOBODY}", sys.executable, "-m", "veilwatch", "record"),
        *("-i", wire.far, "-o", open_folder / "a.pcapng", "--duration", "0.1"),
    )
    finish(process)
    assert (open_folder / "a.pcapng").stat().st_uid == NOBODY


def test_root_that_stays_root_says_so(wire: Wire, tmp_path: Path) -> None:
    process = wire.veilwatch(
        *("record", "-i", wire.far, "-o", tmp_path / "a.pcapng", "--duration", "0.1")
    )
    _, err = finish(process)
    assert "runs as root: name another user with --user" in err


def test_without_permission(wire: Wire, tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    process = wire.start(
        *("setpriv", "--bounding-set", "-net_raw", sys.executable, "-m", "veilwatch", "record"),
        *("-i", wire.far, "-o", tmp_path / "a.pcapng", "--duration", "0.1"),
    )
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    (line,) = [text for text in err.splitlines() if "CAP_NET_RAW" in text]
    assert line.startswith(f"veilwatch: {wire.far}: capturing needs the capability CAP_NET_RAW")
    assert "setcap cap_net_raw+ep" in line and "AmbientCapabilities" in line
    assert not (tmp_path / "a.pcapng").exists()


def test_one_capability_is_enough(wire: Wire) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    readable = subprocess.run(
        [
            "setpriv",
            "--reuid",
            str(NOBODY),
            "--clear-groups",
            sys.executable,
            "-c",
            "import veilwatch",
        ],
        capture_output=True,
        check=False,
    )
    if readable.returncode:
        pytest.skip("another user cannot read this installation")
    alone = ["--reuid", str(NOBODY), "--clear-groups", "--inh-caps", "-all,+net_raw"]
    script = (
        "import pathlib, sys\n"
        "from veilwatch.traffic.capture.live import open_live\n"
        "from veilwatch.traffic.capture.live.privileges import drop_privileges\n"
        "with open_live(sys.argv[1], duration_s=0.1) as capture:\n"
        "    assert drop_privileges(None) == ''\n"
        "    print(pathlib.Path('/proc/self/status').read_text())\n"
        "    for block in capture: pass\n"
        "    print(capture.report)\n"
    )
    done = subprocess.run(
        wire.command(
            *("setpriv", *alone, "--ambient-caps", "-all,+net_raw", "--bounding-set"),
            *("-all,+net_raw", sys.executable, "-c", script, wire.far),
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ring_bytes=67108864" in done.stdout
    assert re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\t(\w+)$", done.stdout, re.M) == ["0" * 16] * 4
    assert "NoNewPrivs:\t1" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flows", "-o", "x.csv"], "nothing to read (name captures, or a network interface"),
        (["inspect"], "nothing to read"),
        (["inspect", "a.pcap", "-i", "lo"], "captures and a network interface at once"),
        (["flows", "a.pcap", "-o", "x.csv", "--duration", "3"], "are for an interface"),
        (["inspect", "a.pcap", "--workers", "2"], "are for an interface"),
        (["inspect", "-i", "nowhere0"], "nowhere0: no such network interface"),
        (["record", "-i", "nowhere0", "-o", "x.pcapng"], "no such network interface"),
        (["record", "-i", "lo", "-o", "x.pcap"], "recordings are pcapng"),
    ],
)
def test_one_line_says_what_is_wrong(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VeilwatchError) as error:
        command_line()(words, standalone_mode=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_such_user(wire: Wire, tmp_path: Path) -> None:
    process = wire.veilwatch(
        *("record", "-i", wire.far, "-o", tmp_path / "a.pcapng", "--user", "no-such-user")
    )
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "veilwatch: no-such-user: no such user" in err


def test_workers_end_when_their_parent_is_killed(wire: Wire, tmp_path: Path) -> None:
    process = wire.veilwatch(
        *("flows", "-i", wire.far, "-o", tmp_path / "a.parquet", "--workers", "2")
    )
    wait_for(process, "Listening on")
    children = Path("/proc", str(process.pid), "task", str(process.pid), "children")
    pids = [int(pid) for pid in children.read_text().split()]
    assert len(pids) >= 2
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path("/proc", str(pid), "stat").read_text().split(")")[1]
    except (ProcessLookupError, FileNotFoundError):
        return False
