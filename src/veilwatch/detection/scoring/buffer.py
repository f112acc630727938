"""Flows kept for the host windows that they make, while traffic goes on.

A window is judged once it is over and the flows that began in it have mostly ended; what ends later
still counts, and its window is judged again. A flow that is alive counts as far as its latest
report goes: a share that is being encrypted may be one connection for half an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from veilwatch.detection.scoring.bounds import fair_share
from veilwatch.learning.features.window_pairs import CONTEXT_WINDOWS
from veilwatch.learning.features.windows import BEGAN, HOST, READ_COLUMNS, WINDOW_NS
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.scores import HostKey
from veilwatch.schema.units import SECOND_NS

KEPT_NS: Final = (CONTEXT_WINDOWS + 2) * WINDOW_NS
"""How long a flow is kept after its first packet, and a window's length more at most: the hour that
a window's features look at ends with the window, and it may be judged one window later."""

GRACE_NS: Final = 150 * SECOND_NS
"""How long after its end a window is judged: a flow that fell silent at the end of it is ended by
the idle timeout of 120 s and handed out."""

MAX_WINDOW_FLOWS: Final = 1 << 19
"""Most flows kept, some 160 MiB: 125 a second over the time that they are kept."""

TIDY_FLOWS: Final = 1 << 14
"""Flows that come before the older ones are looked through."""


@dataclass(frozen=True, slots=True)
class DueWindows:
    """Windows to be judged, and the flows that tell of them.

    Attributes
    ----------
    flows
        All flows kept of the hosts concerned: `READ_COLUMNS` and `BEGAN`, as `host_windows` and
        `compute_features` take them.
    windows
        `HOST` and `window` of those that are due.
    """

    flows: pl.DataFrame
    windows: pl.DataFrame

    def select(self, features: FeatureFrame) -> FeatureFrame:
        """Return the due ones among the windows that `flows` make."""
        rows = (
            features.keys.select(*HOST, pl.col("window").cast(pl.Int64))
            .with_row_index("row")
            .join(self.windows, on=[*HOST, "window"], how="semi", maintain_order="left")["row"]
        )
        return features.take(rows.to_numpy().astype(np.intp))


class WindowBuffer:
    """Keep flows as long as the windows of their hosts need them.

    A host's windows begin with its first flow, as in `veilwatch.learning.features.windows`. What
    differs from a capture that is there as a whole: a host that was silent for `KEPT_NS` begins
    anew, and a destination is new that was not met within that time.

    Parameters
    ----------
    max_flows
        Most flows kept; see `MAX_WINDOW_FLOWS`. Beyond it the hosts that have most give up those
        that began first, so that a scanner costs others nothing.

    Attributes
    ----------
    dropped_flows
        Flows given up before their time because there were too many.
    """

    def __init__(self, max_flows: int = MAX_WINDOW_FLOWS) -> None:
        self._max_flows = max_flows
        self._rows: pl.DataFrame | None = None
        self._new: list[pl.DataFrame] = []
        self._new_flows = 0
        self._began: pl.DataFrame | None = None
        self._pruned_ns = self._height = 0
        self.dropped_flows = 0

    def __len__(self) -> int:
        return (0 if self._rows is None else self._rows.height) + self._new_flows

    def add(self, frame: pl.DataFrame, now_ns: int, *, early: bool = False) -> None:
        """Keep flows that have ended, or what is known of live ones until more is.

        Parameters
        ----------
        frame
            A flow table, or at least `READ_COLUMNS` of one.
        now_ns
            Time of the traffic, ns since the epoch.
        early
            Whether the flows are still alive; a later report or record takes the place of each.
        """
        if frame.is_empty():
            return
        flags = {"fresh": pl.lit(not early), "alive": pl.lit(early)}
        self._new.append(frame.select(*READ_COLUMNS, **flags))
        self._new_flows += frame.height
        if self._new_flows >= TIDY_FLOWS or len(self) > self._max_flows:
            self._tidy(now_ns)

    def rename(self, old: HostKey, new: HostKey) -> None:
        """Count the flows of one host to another from now on: they turned out to be the same."""
        self._new = [_renamed(part, old, new) for part in self._new]
        if self._rows is None or self._began is None:
            return
        self._rows = _renamed(self._rows, old, new)
        self._began = (
            _renamed(self._began, old, new)
            .group_by(HOST)
            .agg(pl.col(BEGAN).min(), pl.col("settled").any())
        )

    def closed(self, now_ns: int) -> DueWindows | None:
        """Return the windows that are over and have flows that were in none returned before.

        None where there are none. Each call looks through all flows that are kept: some
        milliseconds for a hundred thousand, so ask every few seconds.
        """
        self._tidy(now_ns)
        if self._rows is None or self._began is None:
            return None
        over = pl.col(BEGAN) + (pl.col("window") + 1) * WINDOW_NS + GRACE_NS <= now_ns
        told = self._windows(self._rows.with_row_index("row").filter("fresh")).filter(over)
        if told.is_empty():
            return None
        due = told.select(*HOST, "window").unique()
        fresh = self._rows["fresh"].to_numpy().copy()
        fresh[told["row"].to_numpy()] = False
        self._rows = self._rows.with_columns(pl.Series("fresh", fresh))
        # From now on the host's windows stay where they are.
        self._began = self._began.join(
            due.select(HOST).unique().with_columns(now_settled=True), on=HOST, how="left"
        ).select(*HOST, BEGAN, pl.col("settled") | pl.col("now_settled").fill_null(False))
        return self._due(due)

    def current(self, now_ns: int, hosts: pl.DataFrame | None = None) -> DueWindows | None:
        """Return the latest window of each host, as far as its flows have got.

        Parameters
        ----------
        hosts
            `HOST` of those that are asked about; None for all.
        """
        self._tidy(now_ns)
        if self._rows is None:
            return None
        rows = self._rows
        if hosts is not None:
            rows = rows.join(hosts.select(HOST), on=HOST, how="semi")
        windows = self._windows(rows.with_row_index("row"))
        latest = windows.group_by(HOST).agg(pl.col("window").max())
        return None if latest.is_empty() else self._due(latest)

    def _due(self, windows: pl.DataFrame) -> DueWindows:
        assert self._rows is not None and self._began is not None
        flows = (
            self._rows.join(windows.select(HOST).unique(), on=HOST, how="semi")
            .drop("fresh", "alive")
            .join(self._began.select(*HOST, BEGAN), on=HOST, how="left")
        )
        return DueWindows(flows, windows)

    def _windows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return `row`, `HOST`, `BEGAN` and `window` of flows."""
        assert self._began is not None
        window = (pl.col("first_ns") - pl.col(BEGAN)) // WINDOW_NS
        return (
            rows.select("row", *HOST, "first_ns")
            .join(self._began, on=HOST, how="left", maintain_order="left")
            .select("row", *HOST, BEGAN, window=window)
        )

    def _tidy(self, now_ns: int) -> None:
        """Take in what has come, forget what is over, and keep within the bound."""
        if not self._new and self._rows is None:
            return
        new = pl.concat(self._new) if self._new else None
        self._new, self._new_flows = [], 0
        old = self._rows
        # Copying what is kept costs a second for a million flows: once a window is enough.
        if old is not None and abs(now_ns - self._pruned_ns) >= WINDOW_NS:
            old = old.filter((pl.col("first_ns") - now_ns).abs() <= KEPT_NS)
            self._pruned_ns = now_ns
        if new is not None:
            new = new.unique("flow_id", keep="last", maintain_order=True)
            if old is not None:
                gone = old.filter("alive").select("flow_id").join(new, on="flow_id", how="semi")
                old = old.join(gone, on="flow_id", how="anti") if gone.height else old
        parts = [rows for rows in (old, new) if rows is not None]
        rows = pl.concat(parts)
        if rows.height > self._max_flows:
            rows = self._cut(rows)
        self._rows = rows.rechunk() if rows.n_chunks() > 64 else rows
        if new is None and old is not None and old.height == self._height:
            return  # nobody came and nobody went
        self._height = rows.height
        first = rows.group_by(HOST).agg(pl.col("first_ns").min().alias(BEGAN))
        if self._began is None or old is None:
            self._began = first.with_columns(settled=pl.lit(False))
            return
        # A host of which nothing was left before the new flows came begins anew.
        before = self._began.rename({BEGAN: "before"}).join(old, on=HOST, how="semi")
        began = pl.when("settled").then("before").otherwise(pl.min_horizontal("before", BEGAN))
        self._began = (
            first.join(before, on=HOST, how="left")
            .with_columns(pl.col("settled").fill_null(False))
            .select(*HOST, began.alias(BEGAN), "settled")
        )

    def _cut(self, rows: pl.DataFrame) -> pl.DataFrame:
        sizes = rows.group_by(HOST).len()["len"].to_numpy().astype(np.int64)
        # A quarter less, so that this is not done again for the next flow.
        share = fair_share(sizes, self._max_flows * 3 // 4)
        rank = pl.col("first_ns").rank("ordinal", descending=True).over(HOST)
        kept = rows.filter(rank <= share) if share else rows.tail(self._max_flows * 3 // 4)
        self.dropped_flows += rows.height - kept.height
        return kept


def _renamed(rows: pl.DataFrame, old: HostKey, new: HostKey) -> pl.DataFrame:
    is_old = (pl.col(HOST[0]) == old[0]) & (pl.col(HOST[1]) == old[1])
    return rows.with_columns(
        pl.when(is_old).then(pl.lit(to)).otherwise(name).alias(name)
        for name, to in zip(HOST, new, strict=True)
    )
