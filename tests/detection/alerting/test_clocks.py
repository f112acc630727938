"""One wrong time, of a packet or of the clock, neither silences alerts nor deletes or counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.detection.alerting.allow import parse_allow
from veilwatch.detection.alerting.events import alert_id, evidence_id
from veilwatch.detection.alerting.gate import AlertGate, Disposition, Policy
from veilwatch.detection.alerting.limits import Limits
from veilwatch.detection.alerting.maintenance import MaintenanceWindow

HOUR_NS = 3600 * SECOND
YEAR_2100_NS = 4_102_444_800 * SECOND


def take(gate: AlertGate, at_s: float, now_s: float, **alert: Any) -> Disposition:
    now_ns = START_NS + int(now_s * SECOND)
    decision = gate.decide(make_alert(at_s, **alert), make_row(), now_ns=now_ns, made_ns=now_ns)
    assert decision.disposition is not None
    return decision.disposition


def test_an_alert_stamped_2100_spends_one_token_and_no_more() -> None:
    gate = AlertGate("s1", Policy(limits=Limits(burst=2, per_hour=3600, host_burst=99), dedup_s=60))
    assert take(gate, 0, 0) is Disposition.REPORTED
    far = {"first_ns": YEAR_2100_NS, "last_ns": YEAR_2100_NS, "dst_port": 1}
    assert take(gate, 0, 0, **far) is Disposition.REPORTED
    # The buckets of old and new hosts are empty; a token comes each second all the same.
    dispositions = [take(gate, n, n, dst_port=1000 + n) for n in range(1, 30)]
    assert dispositions == [Disposition.REPORTED] * 29


def test_an_incident_with_a_wrong_stamp_ends_when_it_is_quiet() -> None:
    gate = AlertGate("s1", Policy(quiet_close_s=3600))
    take(gate, 0, 0, first_ns=YEAR_2100_NS, last_ns=YEAR_2100_NS)
    take(gate, 0, 1, host="10.0.0.9")
    assert len(gate.book) == 2
    gate.tick(now_ns=START_NS + 3500 * SECOND, made_ns=1)
    assert len(gate.book) == 2
    restored = AlertGate("s1", Policy(quiet_close_s=3600))
    restored.restore(json.loads(json.dumps(gate.state())))
    for one in (gate, restored):
        closed = one.tick(now_ns=START_NS + 3601 * SECOND, made_ns=1)
        assert len(closed.incidents) == 2 and len(one.book) == 0


def test_what_is_quiet_of_old_captures_goes_by_when_they_are_read() -> None:
    # A capture of years ago: its incident is open for as long as one of today would be.
    gate = AlertGate("s1", Policy(quiet_close_s=3600))
    take(gate, -9 * 365 * 86_400, 0)
    gate.tick(now_ns=START_NS + SECOND, made_ns=1)
    assert len(gate.book) == 1


def test_an_allow_list_ends_by_the_calendar_and_maintenance_by_the_traffic() -> None:
    allow = parse_allow('[[allow]]\nreason="backup"\nuntil=2026-12-31\nport=22')
    window = MaintenanceWindow("patches", START_NS, START_NS + HOUR_NS)
    gate = AlertGate("s1", Policy(allow=allow, maintenance=(window,)))
    ended_s = 3 * 365 * 86_400
    # Traffic of when the entry held, looked at when it holds no more, and the other way round.
    assert take(gate, -7200, ended_s, dst_port=22) is Disposition.REPORTED
    far = {"first_ns": YEAR_2100_NS, "last_ns": YEAR_2100_NS}
    assert take(gate, 0, 0, dst_port=22, **far) is Disposition.ALLOWED
    # The traffic of the patches, read an hour after them.
    assert take(gate, 1800, 7200, dst_port=5) is Disposition.MAINTENANCE
    assert take(gate, 7200, 1800, dst_port=6) is Disposition.REPORTED


@pytest.mark.parametrize("restarts", [False, True])
def test_a_beacon_of_three_hours_is_a_few_pieces_of_evidence(restarts: bool) -> None:
    """A host's flow a minute, of which the last hour speaks: the first of them slides along."""
    gate = AlertGate("s1", Policy())
    ids = set()
    for minute in range(180):
        at_s = minute * 60.0
        first_ns = START_NS + int(max(0.0, at_s - 3600) * SECOND)
        if restarts and minute % 50 == 49:  # evidence of hosts does not outlive the process
            first_ns = START_NS + int(at_s * SECOND)
        alert = replace(make_alert(at_s, kind="host"), first_ns=first_ns)
        ids.add(alert_id(alert, "s1"))
        now_ns = START_NS + int(at_s * SECOND)
        for _ in range(2):  # every table comes once more
            gate.decide(alert, make_row(), now_ns=now_ns, made_ns=now_ns)
        if restarts and minute % 50 == 49:
            state = json.loads(json.dumps(gate.state()))
            gate = AlertGate("s1", Policy())
            gate.restore(state)
    (incident,) = gate.book.open_incidents()
    assert incident.alerts == len(ids) <= 4
    assert gate.dispositions[Disposition.REPORTED] <= 4


def test_hosts_and_hours_are_evidence_of_their_own() -> None:
    one = make_alert(0, kind="host")
    hour = (one.last_ns // HOUR_NS + 1) * HOUR_NS
    assert evidence_id(replace(one, last_ns=hour), "s1") != evidence_id(one, "s1")
    assert evidence_id(replace(one, subscriber="s-1"), "s1") != evidence_id(one, "s1")
    assert evidence_id(replace(one, first_ns=5, score=0.5), "s1") == evidence_id(one, "s1")
