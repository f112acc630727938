"""Whether the memory of live scoring stays flat over millions of flows, and what a flow costs.

Random scores of ever new flows by hosts that come and go, at a rate that overfills every bound, go
through what keeps evidence of hosts and flows of host windows; the model itself keeps nothing::

    python benchmarks/flat.py --flows 10000000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from veilwatch.detection.scoring.buffer import WindowBuffer
from veilwatch.detection.scoring.hosts import HostEvidence
from veilwatch.learning.features.windows import READ_COLUMNS
from veilwatch.schema.flows import FLOW_COLUMNS

TABLE: Final = 16_384
START_NS: Final = 1_700_000_000 * 10**9
HOSTS: Final = 200_000
"""Three times as many as are remembered."""


def resident_mb() -> float:
    """Return the memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def empty_flows(rows: int) -> pl.DataFrame:
    """Return flows of which windows can be made, all alike."""
    columns = {}
    for column in FLOW_COLUMNS:
        if column.name in READ_COLUMNS:
            value: Any = [] if column.dtype.is_nested() else "" if column.dtype == pl.String else 0
            value = False if column.dtype == pl.Boolean else value
            columns[column.name] = pl.Series([value] * rows, dtype=column.dtype)
    return pl.DataFrame(columns).select(READ_COLUMNS)


def main() -> None:
    """Feed flows and print memory as it goes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument(
        "--rate", type=float, default=2_000.0, help="flows a second of traffic time"
    )
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    evidence, buffer = HostEvidence(), WindowBuffer()
    frame = empty_flows(TABLE)
    spent = {"evidence": 0.0, "windows": 0.0}
    closed = 0
    print(
        f"{'flows':>12}{'RSS MiB':>10}{'hosts':>10}{'kept':>10}{'for windows':>13}{'µs a flow':>20}"
    )
    for done in range(0, args.flows, TABLE):
        now = START_NS + int(done / args.rate * 1e9)
        # Some hosts have most flows, and which ones are there changes by the hour.
        drawn = (rng.pareto(0.7, TABLE).astype(np.int64) + done // 40) % HOSTS
        hosts = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in drawn.tolist()]
        ids = np.arange(done, done + TABLE)
        last = np.full(TABLE, now)
        began = time.process_time()
        for early in (True, False):
            host = evidence.number([(name, "") for name in hosts], now)
            others = evidence.add(
                *(host, ids, rng.beta(1, 20, TABLE), np.zeros(TABLE, bool)),
                *(np.zeros(TABLE, np.uint8), last, last),
                early=early,
                now_ns=now,
            )
            evidence.sums(np.union1d(np.unique(host), others), 0.25, now)
        spent["evidence"] += time.process_time() - began
        began = time.process_time()
        flows = frame.with_columns(
            pl.Series("src_ip", hosts),
            pl.Series("flow_id", ids),
            first_ns=pl.lit(now),
            last_ns=pl.lit(now),
        )
        buffer.add(flows, now)
        due = buffer.closed(now)
        closed += 0 if due is None else due.windows.height
        spent["windows"] += time.process_time() - began
        if done // TABLE % max(1, args.flows // TABLE // 20) == 0:
            cost = [f"{seconds / (done + TABLE) * 1e6:.1f}" for seconds in spent.values()]
            print(
                f"{done + TABLE:12,}{resident_mb():10,.0f}{evidence.hosts:10,}{evidence.flows:10,}"
                f"{len(buffer):13,}{' + '.join(cost):>20}",
                flush=True,
            )
    print(
        f"{evidence.evicted_hosts:,} hosts evicted, {evidence.summed_flows:,} flows summed up, "
        f"{buffer.dropped_flows:,} flows dropped from windows, {closed:,} windows closed"
    )


if __name__ == "__main__":
    main()
