"""Scores: what a detector says of flows, hosts and captures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

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


@dataclass(frozen=True, slots=True)
class ScoreFrame:
    """Scores of flows and of the hosts they belong to.

    Attributes
    ----------
    flows
        One row a flow: the flow table's columns and `score` (Float32, 0…1) and `alert` (Boolean).
    hosts
        One row a host: `host`, `subscriber` ('' unknown), `flows`, `alerts`,
        `first_ns`, `last_ns`, `score` (Float32), `flow_score` (Float32, what its flows say alone),
        `window_score` (Float32, what its windows say alone, null where the model has none),
        `alert` (Boolean), `family` ('' where the host
        is not alerted or the model names no families, else a name or `UNKNOWN_FAMILY`),
        `family_probability` (Float32, of the likeliest family against the next; 0 where
        `family` is ''), `probability` (Float32, of an infection at the prior that the model
        was told: what the score means where one host in a thousand is infected).
    flow_threshold, host_threshold
        A score at or above it is an alert.
    reasons
        For each alerted flow, by `flow_id`, what decided, strongest first.
    window_reasons
        For each alerted host, by `host` and `subscriber`, what decided in the window
        that speaks most against it; empty where the model has no windows.
    hosts_without_windows
        Hosts that were judged by their flows alone because there were too many.
    """

    flows: pl.DataFrame
    hosts: pl.DataFrame
    flow_threshold: float
    host_threshold: float
    reasons: dict[int, list[Reason]] = field(default_factory=dict)
    window_reasons: dict[tuple[str, str], list[Reason]] = field(default_factory=dict)
    hosts_without_windows: int = 0
