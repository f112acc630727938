"""Scores: what a detector says of flows, hosts and captures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import polars as pl

UNKNOWN_FAMILY: Final = "unknown malware"
"""What an alerted host is called that looks like no family that the model can name."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature that moved a score, in words an analyst can check.

    Attributes
    ----------
    feature
        Name in the feature schema.
    value
        The flow's value, NaN where it does not apply.
    contribution
        Log-odds that this feature added (positive: towards malicious).
    text
        The whole sentence, with value, unit and the usual benign range.
    """

    feature: str
    value: float
    contribution: float
    text: str


HostKey = tuple[str, str]
"""Address and subscriber ('' unknown): what tells one host from another."""


class Claim(NamedTuple):
    """A host that had no subscriber turned out to have one.

    Attributes
    ----------
    host
        Its address.
    subscriber
        Whose all of it is.
    """

    host: str
    subscriber: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the evidence of one host adds up to: a row of `ScoreFrame.hosts`.

    Attributes
    ----------
    host, subscriber
        Its address, and whose it is ('' unknown).
    flows, alerts
        How many of its flows were seen, and alerted; of a sensor in the last hour.
    first_ns, last_ns
        Span of its flows; of a sensor of those that are kept one by one.
    score
        0…1, of flows, channels and windows together (Float32, as all that follow).
    flow_score
        What its flows say alone.
    channel_score, window_score
        What its strongest channel and its strongest window say alone, None where the model has none
        or none was judged.
    alert
        Whether the score passes the threshold of hosts.
    family
        '' where the host is not alerted or the model names no families, else a name or
        `UNKNOWN_FAMILY`.
    family_probability
        Of the likeliest family against the next; 0 where `family` is ''.
    probability
        Of an infection, at the prior that the model was told: what the score means where one host
        in a thousand is infected.
    """

    host: str
    subscriber: str
    flows: int
    alerts: int
    first_ns: int
    last_ns: int
    score: float
    flow_score: float
    channel_score: float | None
    window_score: float | None
    alert: bool
    family: str
    family_probability: float
    probability: float

    @property
    def key(self) -> HostKey:
        """What tells it from other hosts."""
        return self.host, self.subscriber


@dataclass(frozen=True, slots=True)
class ScoreFrame:
    """Scores of flows and of the hosts they belong to: of a whole run, or of one table of a sensor.

    Attributes
    ----------
    flows
        One row a flow, with at least the columns `veilwatch.schema.flow_facts.SCORED_COLUMNS`,
        among them `score` (Float32, 0…1) and `alert` (Boolean). Of a sensor's table all of its
        columns and `early` (Boolean): an early row's flow comes again, with the same `flow_id`.
    hosts
        One row a host, with the fields of `HostFacts` as columns; of a sensor's table each host
        whose evidence changed.
    flow_threshold, host_threshold
        A score at or above it is an alert.
    reasons
        For alerted flows and the worst ones of alerted hosts, by `flow_id`, what decided, strongest
        first; of a bounded number of flows.
    host_reasons
        For each alerted host what decided in the channel and in the window that speak most against
        it, where they were judged; the channel first, by address and port.
    hosts_without_windows
        Hosts that were judged by their flows alone because there were too many.
    claims
        Hosts whose subscriber became known with a sensor's table: what was reported of them
        without one is theirs.
    """

    flows: pl.DataFrame
    hosts: pl.DataFrame
    flow_threshold: float
    host_threshold: float
    reasons: dict[int, list[Reason]] = field(default_factory=dict)
    host_reasons: dict[HostKey, list[Reason]] = field(default_factory=dict)
    hosts_without_windows: int = 0
    claims: tuple[Claim, ...] = ()
