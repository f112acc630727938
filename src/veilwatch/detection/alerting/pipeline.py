"""The alert pipeline of a sensor: scores in; events and incidents spooled and stored.

It opens nothing and reads no clock of its own: store, spool and time are handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from veilwatch.detection.alerting.backlog import EventBacklog
from veilwatch.detection.alerting.faults import FaultLog
from veilwatch.detection.alerting.gate import GATE_STATE, AlertGate, Decision, Policy
from veilwatch.detection.alerting.guard import StoreGuard
from veilwatch.detection.alerting.live import LiveAlerts
from veilwatch.detection.alerting.ports import Clock, EventSpool, EventStore, Note
from veilwatch.errors import VeilwatchError
from veilwatch.schema import counters as known
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.scores import ScoreFrame

SAVE_S: Final = 30.0
"""How often state is saved that no event has saved yet."""


class AlertPipeline:
    """Raise alerts from scores, pass them through the gate, and keep what comes out.

    The state of the gate is restored from the store when the pipeline is made.

    Parameters
    ----------
    sensor
        Name of the sensor.
    policy
        What is reported and how often.
    inputs
        What the column `source` counts: interfaces, or the folder of captures.
    emulated
        Whether the traffic comes from a laboratory.
    sinks
        Names of the sinks that get events.
    store, spool
        Where events go.
    clock
        The time.
    note
        Takes what people should read.
    reported
        Called with events when they are handed to the spool.

    Raises
    ------
    StoreError
        If the store does not give the state of the gate.
    """

    def __init__(
        self,
        sensor: str,
        policy: Policy,
        *,
        inputs: Sequence[str],
        emulated: bool,
        sinks: Collection[str],
        store: EventStore,
        spool: EventSpool,
        clock: Clock,
        note: Note,
        reported: Callable[[Sequence[Event]], None] = lambda events: None,
    ) -> None:
        self._store, self._clock, self._note, self._reported = store, clock, note, reported
        self._gate = AlertGate(sensor, policy, interface=", ".join(inputs))
        self._restore()
        self._live = LiveAlerts(inputs, emulated=emulated)
        self._raised: Counter[str] = Counter()
        self._faults = FaultLog(clock, note)
        self._guard = StoreGuard(clock, self._faults)
        self._backlog = EventBacklog(
            store,
            spool,
            sinks,
            guard=self._guard,
            clock=clock,
            faults=self._faults,
            state=self._state,
        )

    def take(
        self,
        scores: ScoreFrame,
        *,
        ransomware: Collection[str] = (),
    ) -> None:
        """Decide on what one table, or one look at the windows, brought.

        Parameters
        ----------
        scores
            What it brought.
        ransomware
            Families known as ransomware.
        """
        raised = self._live.raise_alerts(scores, ransomware=ransomware)
        events: list[Event] = []
        incidents: list[Incident] = []
        for alert, flow in raised:
            self._raised[alert.kind] += 1
            decision = self._gate.decide(
                alert,
                flow,
                now_ns=self._clock.now_ns(),
                made_ns=self._clock.wall_ns(),
                interface=alert.capture,
            )
            events += decision.events
            incidents += decision.incidents
        self._keep(events, incidents)

    def tick(self) -> None:
        """Let time pass: for what waits, for incidents and limits, and for state to be saved."""
        self._backlog.write()
        self._pass_time()
        now_s = self._clock.monotonic_s()
        if not len(self._backlog) and now_s - self._backlog.saved_s >= SAVE_S:
            self._backlog.saved_s = now_s
            self._guard.attempt_later(self._heed_people)
            self._guard.attempt_later(self._save)

    def replace_policy(self, policy: Policy) -> None:
        """Go on under another policy."""
        self._gate.replace_policy(policy)

    def status(self) -> dict[str, Any]:
        """Return what was counted."""
        dispositions = self._gate.dispositions.items()
        return known.to_status(
            {
                known.ALERTS: dict(self._raised),
                known.DISPOSITIONS: {one.value: count for one, count in dispositions},
                known.INCIDENTS: len(self._gate.book),
                known.BACKLOG: len(self._backlog),
                known.FAULTS: dict(self._faults.counts),
                known.HOSTS_WITHOUT_FLOW: self._live.without_flow,
            }
        )

    def close(self) -> None:
        """Report what was held back, and save everything; no pause after a fault holds now."""
        self._pass_time(final=True)
        self._guard.end_pause()
        self._backlog.write()
        self._guard.attempt_later(self._save)

    def _pass_time(self, *, final: bool = False) -> None:
        self._keep_decision(
            self._gate.tick(now_ns=self._clock.now_ns(), made_ns=self._clock.wall_ns(), final=final)
        )

    def _keep_decision(self, decision: Decision) -> None:
        self._keep(list(decision.events), list(decision.incidents))

    def _keep(self, events: list[Event], incidents: list[Incident]) -> None:
        if events or incidents:
            self._reported(events)
            self._backlog.add(events, incidents)
            self._backlog.write()

    def _heed_people(self) -> None:
        """Close what people have closed in the store."""
        open_ids = [incident.incident_id for incident in self._gate.book.open_incidents()]
        for name, who in self._store.closed_by_people(open_ids).items():
            self._keep_decision(
                self._gate.close(name, f"closed by {who}", made_ns=self._clock.wall_ns())
            )

    def _restore(self) -> None:
        state = self._store.load_state(GATE_STATE)
        if isinstance(state, Mapping):
            try:
                self._gate.restore(state)
            except VeilwatchError as error:
                self._note(f"open incidents were not taken over: {error}")

    def _state(self) -> dict[str, Any]:
        return {GATE_STATE: self._gate.state()}

    def _save(self) -> None:
        self._store.save_state(self._state())
