"""Rehearse the field: infections in a mobile core's traffic, the sensor on its mirror, ESM behind.

    make rehearsal
    python -m rehearsal.run --rate 50000 --seconds 60 --infections 8 --out rehearsal-output
    python -m rehearsal.run --lab --rate 5000        # emulated traffic, without a corpus

Captures come from the folder that VEILWATCH_CORPUS names, else from the lab. Unless `--model`
names one, a model is trained first on what is not played. Needs root, iproute2 and tcpreplay.
Ends with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from rehearsal import outcome as figures
from rehearsal.checks import check_all
from rehearsal.esm import Esm
from rehearsal.model import train_without
from rehearsal.network import SPAN, Network
from rehearsal.outcome import Outcome, total
from rehearsal.replay import Replay, start
from rehearsal.sensor import Sensor
from rehearsal.table import tables
from rehearsal.traffic import Traffic, make_traffic
from veilwatch.cli.terminal import working
from veilwatch.corpus.lab import build_lab
from veilwatch.corpus.manifest import CaptureEntry, read_manifest
from veilwatch.errors import VeilwatchError
from veilwatch.learning.models import load_model
from veilwatch.progress import Progress

NEEDED: Final = {
    "ip": "iproute2",
    "tc": "iproute2",
    "tcpreplay": "tcpreplay",
    "tcpprep": "tcpreplay",
}

OUTAGE: Final = (0.4, 0.6)
"""Shares of the run between which the receivers of A and C are away."""

KILL: Final = 0.5
"""Share of the run after which a process is killed: while events wait."""

SETTLE_S: Final = 90.0
"""How long what waits may take to arrive: after an outage a sink pauses up to 60 s."""

TAIL_S: Final = 15.0
"""How long after the run a replay may go on: on a busy machine it falls behind its times."""

CHILDREN: Final = ("ingest-0", "judge", "deliver")


@dataclass
class Run:
    """What happened while traffic was sent."""

    replays: dict[str, Replay] = field(default_factory=dict)
    outage_ns: tuple[int, int] = (0, 0)
    end_ns: int = 0
    killed: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse, print the tables, and return the exit code."""
    args = _arguments(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if missing := _missing():
        print(f"rehearsal: {missing}", file=sys.stderr)
        return 2
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        outcome = rehearse(args, console)
    except KeyboardInterrupt:
        print("rehearsal: interrupted; everything was ended and removed", file=sys.stderr)
        return 130
    except (OSError, VeilwatchError, subprocess.SubprocessError) as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 2
    for table in tables(outcome):
        console.print(table)
    failed = [check.name for check in outcome.checks if not check.good]
    console.print(f"Kept in {args.out}", soft_wrap=True)
    if failed:
        print(f"rehearsal: failed: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def rehearse(args: argparse.Namespace, console: Console) -> Outcome:
    """Prepare, play, and judge."""
    out = args.out.resolve()
    if out.exists() and any(out.iterdir()) and not (out / "rehearsal.json").exists():
        raise VeilwatchError("not empty, and not of a rehearsal", where=args.out)
    shutil.rmtree(out, ignore_errors=True)
    (out / "traffic").mkdir(parents=True)
    (out / "rehearsal.json").write_text("{}\n")
    with working(args.quiet) as progress:
        entries, manifest = _corpus(args, out, progress)
        progress.start("Wrapping captures")
        traffic = make_traffic(
            entries, out / "traffic", seed=args.seed, seconds=args.seconds,
            infections=args.infections, rate=args.rate,
        )  # fmt: skip
        model, said = _model(args, entries, manifest, traffic, out, progress)
    load, began = os.getloadavg()[0], datetime.now(UTC)
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        esm = stack.enter_context(Esm(network, out))
        sensor = stack.enter_context(
            Sensor(network, out, model=model, urls=esm.urls, emulated=traffic.emulated)
        )
        console.print(f"The sensor watches; {args.seconds:.0f} s of traffic.")
        run = _play(args, network, traffic, sensor, esm)
        _settle(sensor)
        sensor.sample(args.seconds + 1)
        sensor.__exit__()
        sensor.samples.append((args.seconds + 2, sensor.status()))
        stages = _stages(network, sensor, run)
    settings = {
        "traffic": "emulated" if traffic.emulated else "real captures",
        "model": said,
        "seed": args.seed,
        "seconds": args.seconds,
        "rate": f"{args.rate:,}/s asked, {stages['sent'] / args.seconds:,.0f}/s sent",
        "bytes a packet": traffic.bytes_a_packet,
        "killed": run.killed or "nothing",
        "cores": os.cpu_count(),
        "load of the machine before": round(load, 1),
    }
    outcome = _judge(args, settings, traffic, sensor, esm, run, stages)
    (out / "rehearsal.json").write_text(json.dumps(outcome.to_json(), indent=1) + "\n")
    _report(out, sensor, began)
    return outcome


def _corpus(
    args: argparse.Namespace, out: Path, progress: Progress
) -> tuple[list[CaptureEntry], Path]:
    folder = os.environ.get("VEILWATCH_CORPUS")
    if args.lab or not folder:
        manifest = build_lab(out / "lab", seed=args.seed, scale=args.lab_scale, progress=progress)
    else:
        manifest = Path(folder, "MANIFEST.csv")
    return read_manifest(manifest), manifest


def _model(
    args: argparse.Namespace,
    entries: Sequence[CaptureEntry],
    manifest: Path,
    traffic: Traffic,
    out: Path,
    progress: Progress,
) -> tuple[Path, str]:
    if args.model is not None:
        played = {entry.name for entry in entries if entry.group in traffic.held_out}
        known = len(played & load_model(args.model).manifest.corpus.captures.keys())
        return args.model, f"{args.model.name}, which learned {known} of {len(played)} held out"
    learned = train_without(
        entries, manifest, traffic.held_out, out / "model", rounds=args.rounds, progress=progress
    )
    return out / "model", f"trained on {learned:,} captures, without those played"


def _play(
    args: argparse.Namespace, network: Network, traffic: Traffic, sensor: Sensor, esm: Esm
) -> Run:
    """Send everything, with the outage and the crash in the middle."""
    run = Run()
    own_pace = traffic.background_packets / args.seconds
    due: list[tuple[float, Callable[[], Any]]] = []

    def at(share: float, action: Callable[[], Any]) -> None:
        due.append((share * args.seconds, action))

    def play(name: str, file: Path, **more: Any) -> None:
        run.replays[name] = start(network, file, **more)

    def leave() -> None:
        run.outage_ns = time.time_ns(), 0
        esm.go_away()

    def come_back() -> None:
        esm.come_back()
        run.outage_ns = run.outage_ns[0], time.time_ns()

    def kill() -> None:
        if sensor.kill(args.kill):
            run.killed = args.kill

    at(0, lambda: play("background", traffic.background))
    if args.rate > own_pace:
        rate = round(args.rate - own_pace)
        at(0, lambda: play("load", traffic.load, rate=rate, seconds=args.seconds))
    for number, item in enumerate(traffic.infections):
        share = item.begins_s / args.seconds
        at(share, partial(play, f"infection {number}", item.file))
    at(OUTAGE[0], leave)
    at(OUTAGE[1], come_back)
    if args.kill != "none":
        at(KILL, kill)
    due.sort(key=lambda item: item[0])
    began_s = time.monotonic()
    try:
        while (now_s := time.monotonic() - began_s) < args.seconds or due:
            while due and due[0][0] <= now_s:
                due.pop(0)[1]()
            sensor.sample(now_s)
            time.sleep(0.05)
        deadline = time.monotonic() + TAIL_S
        while any(one.running for one in run.replays.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for replay in run.replays.values():
            replay.end()
    run.end_ns = time.time_ns()
    return run


def _settle(sensor: Sensor) -> None:
    """Wait until what was sent is scored and what is to be told has arrived."""
    deadline = time.monotonic() + SETTLE_S
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        time.sleep(1.5)
        children = sensor.status().get("children", {})
        waiting = children.get("ingest-0", {}).get("waiting_rows", 1)
        pending = children.get("deliver", {}).get("pending_events", 1)
        quiet = quiet + 1 if not waiting and not pending else 0


def _stages(network: Network, sensor: Sensor, run: Run) -> dict[str, int]:
    """Count at each stage."""
    samples = sensor.samples
    gnb, upf = (network.counters("mirror", name) for name in ("gnb0", "upf0"))
    span, own = network.counters("mirror", "span0"), network.counters("sensor", SPAN)
    dropped = figures.table_total(samples, "ingest-0", "dropped")
    sinks = samples[-1][1].get("children", {}).get("deliver", {}).get("sinks", [])
    return {
        "sent": sum(replay.sent for replay in run.replays.values()),
        "not sent, tcpreplay failed": sum(replay.failed for replay in run.replays.values()),
        "uplink": network.counters("gnb", "n3")["sent"],
        "from the gNB": gnb["received"],
        "switched": gnb["received"] + upf["received"],
        "mirrored": span["sent"],
        "arrived": own["received"],
        "dropped by interfaces": sum(item["dropped"] for item in (gnb, upf, span, own)),
        "kernel drops": int(total(samples, "ingest-0", "kernel_dropped")),
        "read": int(total(samples, "ingest-0", "packets")),
        "decoded": int(total(samples, "ingest-0", "decoded")),
        "refused": sum(figures.table_total(samples, "ingest-0", "refused").values()),
        "flows evicted": int(total(samples, "ingest-0", "evicted_flows")),
        "early reports made": int(total(samples, "ingest-0", "rows_early")),
        "early reports dropped": dropped.get("early", 0),
        "early reports scored": int(total(samples, "judge", "early_rows")),
        "records made": int(total(samples, "ingest-0", "rows_ended")),
        "records dropped": dropped.get("ended", 0),
        "records unsent": int(total(samples, "ingest-0", "unsent_rows")),
        "records scored": int(total(samples, "judge", "ended_rows")),
        "records kept from the archive": dropped.get("archive", 0),
        "alerts before the policy": sum(figures.table_total(samples, "judge", "alerts").values()),
        **{
            f"alerts {fate}": count
            for fate, count in figures.table_total(samples, "judge", "fate").items()
        },
        "events set aside": sum(int(sink["set_aside"]) for sink in sinks),
        "events dropped": sum(int(sink["dropped"]) for sink in sinks),
    }


def _judge(
    args: argparse.Namespace,
    settings: dict[str, Any],
    traffic: Traffic,
    sensor: Sensor,
    esm: Esm,
    run: Run,
    stages: dict[str, int],
) -> Outcome:
    events, incidents = figures.read_events(sensor.state)
    found = []
    for number, item in enumerate(traffic.infections):
        replay = run.replays[f"infection {number}"]
        first_ns = figures.first_packets(sensor.state, item.hosts) or replay.began_ns
        found.append(
            figures.judge_infection(
                item, events, incidents, esm, first_ns=first_ns, end_ns=run.end_ns
            )
        )
    delivery = figures.delivery_figures(events, esm)
    return Outcome(
        settings,
        found,
        figures.host_figures(traffic, events, incidents),
        stages | {"events stored": len(events)},
        delivery,
        figures.delay_figures(
            events,
            esm,
            outage_ns=run.outage_ns,
            end_ns=run.end_ns,
        ),
        figures.process_figures(sensor.samples, args.seconds),
        check_all(
            stages,
            delivery,
            faults=esm.faults,
            documents=esm.documents,
            exit_code=sensor.exit_code,
            killed=run.killed,
        ),
    )


def _report(out: Path, sensor: Sensor, began: datetime) -> None:
    """Have the sensor's own field report made of the run."""
    words = [
        sys.executable,
        "-m",
        "veilwatch",
        "report",
        "field",
        "--since",
        f"{began:%Y-%m-%dT%H:%M}",
    ]
    words += ["--store", str(sensor.state / "veilwatch.db"), "--title", "Field rehearsal"]
    subprocess.run([*words, "-o", str(out / "field-report.html")], check=True, capture_output=True)


def _missing() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    names = sorted({package for tool, package in NEEDED.items() if shutil.which(tool) is None})
    return f"install {' and '.join(names)}" if names else ""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rate", type=int, default=20_000, help="packets a second in all")
    parser.add_argument("--seconds", type=float, default=75.0, help="of traffic")
    parser.add_argument("--seed", type=int, default=7, help="of what is played and when")
    parser.add_argument("--infections", type=int, default=6)
    parser.add_argument("--model", type=Path, help="instead of training one")
    parser.add_argument("--out", type=Path, default=Path("rehearsal-output"), metavar="DIR")
    parser.add_argument("--kill", choices=(*CHILDREN, "none"), default="deliver")
    parser.add_argument("--lab", action="store_true", help="emulated traffic in any case")
    parser.add_argument("--lab-scale", type=float, default=0.5, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help="of boosting, for a quick model")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    args = parser.parse_args(arguments)
    if args.seconds < 10 or args.infections < 1 or args.rate < 1:
        parser.error("at least 10 seconds, one infection and one packet a second")
    return args


if __name__ == "__main__":
    sys.exit(main())
