"""Channels and host windows: their scores, what they say of hosts, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.scoring.explain import reasons
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.learning.features.host_evidence import (
    Evidence,
    part_evidence,
)
from veilwatch.learning.features.windows import HOST, WINDOW_NS
from veilwatch.learning.models import Model, PartCard
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.names import protocol_name
from veilwatch.schema.scores import HostKey, Reason

MAX_WINDOWS: Final = 1 << 17
"""Most host windows of one run that are judged, some 15 s of work, or one for every
`FLOWS_A_WINDOW` flows where that is more: a million hosts of one packet each would take minutes,
and the window of one packet says no more than its flow. Hosts with most flows come first."""

FLOWS_A_WINDOW: Final = 8
"""With so many flows a window costs less than the flows in it."""

FLOWS_AT_ONCE: Final = 1 << 17
"""Flows whose windows and channels are made together, some 250 MiB; a host with more is taken
alone."""

MAX_CHANNELS: Final = 1 << 17
"""Most channels of hosts that are taken together: of a sweep of a million destinations those that
began first say what all say."""

KEPT_FEATURES: Final = 1 << 13
"""Most hosts of which the features of their strongest window and channel are kept, 12 MiB: those
with the highest-scoring ones."""

MAX_EXPLAINED_HOSTS: Final = 1024
"""Most hosts whose channel and window are explained, the best-scored: an explanation costs about a
millisecond."""

CHANNEL_REASONS: Final = 3
"""Reasons of the channel that stand before those of the window: what an analyst can check."""


@dataclass(frozen=True, slots=True)
class ScoredUnits:
    """Host windows, or channels, with their scores.

    Attributes
    ----------
    hosts
        `veilwatch.learning.features.windows.HOST` of each.
    odds
        Log-odds, shape (units,).
    flow_class
        Number of each channel's class, 0 of windows, shape (units,).
    strongest
        The strongest of each host, of at most `KEPT_FEATURES` hosts.
    strength
        How strong these are, shape (len(strongest),).
    """

    hosts: pl.DataFrame
    odds: npt.NDArray[np.float64]
    flow_class: npt.NDArray[np.int64]
    strongest: FeatureFrame
    strength: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        features: FeatureFrame,
        score: npt.NDArray[np.float64],
        ordinary: npt.NDArray[np.float64] | None = None,
    ) -> ScoredUnits:
        """Keep what is needed of units.

        Parameters
        ----------
        ordinary
            Log-odds that benign hosts reach by their strongest unit of each class, shape
            (classes,), for units that have one: strength is what lies above.
        """
        odds = log_odds(score)
        if ordinary is None:
            flow_class, strength = np.zeros(len(features), np.int64), odds
        else:
            flow_class = features.keys["flow_class"].to_numpy().astype(np.int64)
            strength = odds - ordinary[flow_class]
        rows = _strongest(features.keys, strength)
        return cls(
            features.keys.select(HOST), odds, flow_class, features.take(rows), strength[rows]
        )

    def join(self, other: ScoredUnits) -> ScoredUnits:
        """Return the units of both; no host is in both."""
        kept = FeatureFrame(
            self.strongest.schema,
            np.concatenate([self.strongest.values, other.strongest.values]),
            pl.concat([self.strongest.keys, other.strongest.keys]),
        )
        strength = np.concatenate([self.strength, other.strength])
        rows = _strongest(kept.keys, strength)
        return ScoredUnits(
            pl.concat([self.hosts, other.hosts]),
            np.concatenate([self.odds, other.odds]),
            np.concatenate([self.flow_class, other.flow_class]),
            kept.take(rows),
            strength[rows],
        )

    def evidence(self, hosts: pl.DataFrame) -> Evidence:
        """Return what the units say, by the `host_index` of hosts; those of others are left out."""
        index = host_index(self.hosts, hosts)
        known = index >= 0
        return Evidence(index[known], self.odds[known], self.flow_class[known])


@dataclass(frozen=True, slots=True)
class HostParts:
    """What is heard of hosts beside their flows.

    Attributes
    ----------
    channels, windows
        Scored.
    hosts_left_out
        Hosts that were judged by their flows alone, because there were too many.
    """

    channels: ScoredUnits
    windows: ScoredUnits
    hosts_left_out: int = 0

    def evidence(self, hosts: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Return the part of `host_evidence` that channels and windows make, shape (hosts, …).

        Parameters
        ----------
        hosts
            Has `HOST` and `host_index` 0, 1, ….

        Returns
        -------
        ndarray
            Rows of NaN for hosts of which nothing was judged.
        """
        count = hosts.height
        channels, windows = self.channels.evidence(hosts), self.windows.evidence(hosts)
        out = part_evidence(count, channels, windows)
        unseen = np.bincount(channels.host, minlength=count) == 0
        out[unseen] = np.nan
        return out


def ordinary_channels(model: Model) -> npt.NDArray[np.float64]:
    """Return the log-odds that benign hosts reach by their strongest channel of each class."""
    ranges = model.host_card.benign_ranges
    names = [f"channel_{name}_top" for name in FLOW_CLASSES]
    return np.array([ranges[name].high if name in ranges else 0.0 for name in names])


def judge_parts(model: Model, channels: FeatureFrame, windows: FeatureFrame) -> HostParts:
    """Score channels and windows."""
    return HostParts(
        ScoredUnits.of(channels, model.score_channels(channels), ordinary_channels(model)),
        ScoredUnits.of(windows, model.score_windows(windows)),
    )


def score_parts(model: Model, flows: FlowTable) -> HostParts:
    """Score the channels and host windows of all flows of the inputs.

    Time and memory are bounded: see `MAX_WINDOWS`, `MAX_CHANNELS` and `FLOWS_AT_ONCE`. A host is
    judged whole or not at all.
    """
    most = max(MAX_WINDOWS, flows.frame.height // FLOWS_A_WINDOW)
    left_out = 0
    found: HostParts | None = None
    if len(flows) > min(most, FLOWS_AT_ONCE):
        parts, left_out = _parts(flows.frame, most)
    else:
        parts = iter([flows.frame])
    for part in parts:
        judged = judge_parts(
            model,
            model.channel_features(FlowTable(_bounded(part))),
            model.window_features(FlowTable(part)),
        )
        if found is not None:
            judged = HostParts(
                found.channels.join(judged.channels), found.windows.join(judged.windows)
            )
        found = judged
    assert found is not None
    return replace(found, hosts_left_out=left_out)


def _bounded(flows: pl.DataFrame) -> pl.DataFrame:
    """Return the flows of at most `MAX_CHANNELS` channels, those that began first."""
    if flows.height <= MAX_CHANNELS:
        return flows
    service = (*HOST, "dst_ip", "dst_port", "protocol")
    kept = (
        flows.lazy()
        .group_by(service)
        .agg(pl.col("first_ns").min())
        # A host with many gives up its latest ones before another gives up any.
        .with_columns(rank=pl.col("first_ns").rank("ordinal").over(HOST))
        .sort("rank", "first_ns", *service)
        .head(MAX_CHANNELS)
    )
    return flows.lazy().join(kept.select(service), on=service, how="semi").collect()


def _strongest(keys: pl.DataFrame, strength: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the row of the strongest unit of each host, the strongest first."""
    return (
        keys.select(HOST)
        .with_row_index("row")
        .with_columns(pl.Series("strength", strength))
        .sort("strength", "row", descending=[True, False])
        .unique(HOST, keep="first", maintain_order=True)
        .head(KEPT_FEATURES)["row"]
        .to_numpy()
        .astype(np.intp)
    )


def _parts(flows: pl.DataFrame, most: int) -> tuple[Iterator[pl.DataFrame], int]:
    """Cut flows into parts of whole hosts, as far as their windows are no more than `most`.

    Returns
    -------
    iterator of polars.DataFrame
        Each of about `FLOWS_AT_ONCE` flows.
    int
        Hosts that are in none, those with fewest flows.
    """
    began = pl.col("first_ns").min().over(HOST)
    hosts = (
        flows.lazy()
        .select(*HOST, window=(pl.col("first_ns") - began) // WINDOW_NS)
        .group_by(HOST)
        .agg(flows=pl.len(), windows=pl.col("window").n_unique())
        .filter(pl.col("windows") <= most)
        .sort("flows", *HOST, descending=[True, False, False])
        .filter(pl.col("windows").cum_sum() <= most)
        .select(*HOST, part=(pl.col("flows").cum_sum() - pl.col("flows")) // FLOWS_AT_ONCE)
        .collect()
    )
    every = flows.select(HOST).n_unique()
    part = flows.select(HOST).join(hosts, on=HOST, how="left", maintain_order="left")["part"]
    wanted = hosts["part"].unique().sort().to_list()
    if not wanted:  # one host with more windows than all may have
        return iter([flows.clear()]), every
    return (flows.filter(part == number) for number in wanted), every - hosts.height


def host_index(rows: pl.DataFrame, hosts: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return the `host_index` of each row's host, -1 where it is none of them, shape (rows,)."""
    keys = hosts.select(*HOST, "host_index")
    found = rows.select(HOST).join(keys, on=HOST, how="left", maintain_order="left")
    return found["host_index"].cast(pl.Int64).fill_null(-1).to_numpy()


def host_reasons(
    model: Model, parts: HostParts, hosts: pl.DataFrame
) -> dict[HostKey, list[Reason]]:
    """Say what decided in the channel and the window that speak most against each alerted host.

    Parameters
    ----------
    hosts
        Rows of `veilwatch.schema.scores.ScoreFrame.hosts`.

    Returns
    -------
    dict
        By host and subscriber, of at most `MAX_EXPLAINED_HOSTS`, the best-scored ones; what is
        said of the channel first.
    """
    card = model.host_card
    alerted = hosts.filter("alert").select("score", src_ip="host", subscriber="subscriber")
    out: dict[HostKey, list[Reason]] = {}
    for units, explain, of, word in (
        (parts.channels, model.explain_channels, card.channels, "channels"),
        (parts.windows, model.explain_windows, card.windows, "windows"),
    ):
        told = _alerted(units, alerted)
        if told.is_empty():
            continue
        chosen = units.strongest.take(told["row"].to_numpy().astype(np.intp))
        said = _reasons(chosen, explain(chosen), of, word)
        for host, lines in zip(told.select(HOST).iter_rows(), said, strict=True):
            out.setdefault((host[0], host[1]), []).extend(lines)
    return out


def _alerted(units: ScoredUnits, alerted: pl.DataFrame) -> pl.DataFrame:
    return (
        units.strongest.keys.select(HOST)
        .with_row_index("row")
        .join(alerted, on=HOST, how="inner")
        .sort("score", "row", descending=[True, False])
        .head(MAX_EXPLAINED_HOSTS)
    )


def _reasons(
    chosen: FeatureFrame, contributions: npt.NDArray[np.float64], card: PartCard, word: str
) -> list[list[Reason]]:
    found = reasons(chosen, contributions, card.benign_ranges, units=word)
    if word == "windows":
        return [[_under("Host", reason) for reason in said] for said in found]
    titles = channel_names(chosen.keys)
    # What speaks against a channel, not for it: the channel is what an analyst goes to see.
    return [
        [_under(title, one) for one in said if one.contribution > 0][:CHANNEL_REASONS]
        for title, said in zip(titles, found, strict=True)
    ]


def _under(title: str, reason: Reason) -> Reason:
    return replace(reason, text=f"{title}: {reason.text}")


def channel_names(keys: pl.DataFrame) -> list[str]:
    """Return what channels are called: "203.0.113.7:443/TCP"."""
    return [
        f"{f'[{address}]' if ':' in address else address}:{port}/{protocol_name(protocol)}"
        for address, port, protocol in keys.select("dst_ip", "dst_port", "protocol").iter_rows()
    ]
