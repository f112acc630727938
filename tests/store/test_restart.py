"""Alert gate and store together: killed anywhere and restarted, nothing is lost or sent twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.detection.alerting.gate import AlertGate, Policy
from veilwatch.detection.alerting.limits import Limits
from veilwatch.store import Store

ALERTS = 300


def work(path: str, *, say: bool = False) -> None:
    """Take every alert that is not done yet: what a sensor does with its store."""
    limits = Limits(host_burst=50, host_per_hour=1, burst=10**6, summary_s=600)
    gate = AlertGate("s1", Policy(limits=limits, dedup_s=30, quiet_close_s=300))
    with Store(path) as store:
        saved = store.load_state("sensor")
        begin = 0
        if saved:
            begin = saved["next"]
            gate.restore(saved["desk"])
        for n in range(begin, ALERTS):
            # Hosts take turns in bursts, so that incidents open, rise and close.
            at_s = n * 7 + 400 * (n // 60)
            alert = make_alert(
                at_s, host=f"10.0.0.{n % 5}", src_port=n, dst_port=n % 7, severity=1 + n % 3
            )
            time_passes = gate.tick(now_ns=alert.last_ns, made_ns=alert.last_ns)
            decision = gate.decide(alert, make_row(), now_ns=alert.last_ns, made_ns=alert.last_ns)
            store.record(
                [*time_passes.events, *decision.events],
                [*time_passes.incidents, *decision.incidents],
                state={"sensor": {"next": n + 1, "desk": gate.state()}},
            )
            if say:
                print(n, flush=True)
        end = gate.tick(now_ns=START_NS + 10**6 * SECOND, made_ns=0, final=True)
        store.record(end.events, end.incidents)


@pytest.mark.slow
def test_killed_anywhere_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    straight, broken = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    work(straight)
    draw = random.Random(7)
    for _ in range(5):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from tests.store.test_restart import *; work(sys.argv[1], say=True)",
                broken,
            ],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(draw.randrange(1, 40)):
            process.stdout.readline()
        time.sleep(draw.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    work(broken)
    with Store(straight) as one, Store(broken) as two:
        assert list(one.events()) == list(two.events())
        assert one.incidents() == two.incidents()
        assert len(list(one.events())) > 50 and len(one.incidents()) >= 5
        assert sum(i.incident.alerts for i in one.incidents()) == ALERTS
        assert {i.incident.status for i in one.incidents()} == {"closed"}
