"""What a detection found of the infections that the lab put on a link."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

_ENDS: Final = ("src_ip", "src_port", "dst_ip", "dst_port")


class Infected(NamedTuple):
    """One infected subscriber.

    Attributes
    ----------
    subscriber, variant
        Who, and of what.
    flows, others
        Flows of the infection, and of the person at the same host.
    alerted, others_alerted
        How many of either were alerted.
    found
        Whether the host was.
    """

    subscriber: str
    variant: str
    flows: int
    others: int
    alerted: int
    others_alerted: int
    found: bool


class Found(NamedTuple):
    """Verdicts held against the truth.

    Attributes
    ----------
    infected
        The infected subscribers.
    healthy, healthy_alerted
        How many others there are, and how many of them were alerted.
    strangers
        Alerted hosts that are no subscriber's.
    auc
        Probability that a flow of an infection scores above another one; NaN if there is none.
    """

    infected: list[Infected]
    healthy: int
    healthy_alerted: int
    strangers: int
    auc: float


def hold_against_truth(flows: pl.DataFrame, alerted: set[str], field: Path) -> Found:
    """Compare what was said of a field capture with what is known of it.

    Parameters
    ----------
    flows
        Judged flows with `score` and `alert`.
    alerted
        Hosts that were alerted.
    field
        The capture, beside which the lab wrote its truth.
    """
    # As all that is trained, the demo needs what an installation that only detects has not.
    from sklearn.metrics import roc_auc_score

    people = pl.read_csv(field.with_suffix(".truth.csv"), infer_schema_length=0)
    known = pl.read_csv(field.with_suffix(".flows.csv"), infer_schema_length=0)
    judged = flows.select(*(pl.col(name).cast(pl.String) for name in _ENDS), "score", "alert")
    # A flow that was cut in two, or a port that was used again, has several rows on one side.
    joined = judged.join(
        known.select(*_ENDS, bad=pl.col("label") == "malicious").unique(_ENDS), on=list(_ENDS)
    )
    counted = {
        row.pop("src_ip"): row
        for row in joined.group_by("src_ip")
        .agg(
            flows=pl.col("bad").sum(),
            others=(~pl.col("bad")).sum(),
            alerted=(pl.col("alert") & pl.col("bad")).sum(),
            others_alerted=(pl.col("alert") & ~pl.col("bad")).sum(),
        )
        .iter_rows(named=True)
    }
    infected = []
    for row in people.filter(pl.col("label") == "malicious").iter_rows(named=True):
        name = row["subscriber"]
        count = Counter(counted.get(name, {}))
        infected.append(
            Infected(
                subscriber=name,
                variant=row["variant"],
                flows=count["flows"],
                others=count["others"],
                alerted=count["alerted"],
                others_alerted=count["others_alerted"],
                found=name in alerted,
            )
        )
    healthy = set(people.filter(pl.col("label") == "benign")["subscriber"])
    both = joined["bad"].n_unique() > 1
    auc = float(roc_auc_score(joined["bad"], joined["score"])) if both else float("nan")
    strangers = len(alerted - set(people["subscriber"]))
    return Found(infected, len(healthy), len(healthy & alerted), strangers, auc)
