"""Truth by flow: responders that are known to be malicious.

A capture is labelled as a whole. Where its manifest names `malicious_endpoints`, flows to them are
malicious for sure, and of the others nobody knows: they are neither learned from nor counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

import polars as pl

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import CorpusError

ANY: Final = "*"
"""Stands for all addresses of a port, or all ports of an address."""

ANY_PORT: Final = (ANY, "0")
"""All ports, as an address without a port says too."""

MAX_PORT_DIGITS: Final = 5


def unknown_truth(flows: pl.DataFrame, entries: Sequence[CaptureEntry], place: str) -> pl.Series:
    """Return which flows, or channels, nobody knows the truth of; Boolean, shape (rows,).

    They go to none of the endpoints that the manifest names for their capture. A capture none of
    whose flows goes to its endpoints is taken as a whole: the names are of something else.

    Parameters
    ----------
    flows
        Has `dst_ip`, `dst_port` and `place`.
    entries
        The captures.
    place
        Column with the index of the capture; of rows that are in none of `entries` nothing is said.

    Raises
    ------
    CorpusError
        If an endpoint cannot be read.
    """
    named = [(k, *end) for k, entry in enumerate(entries) for end in _endpoints(entry)]
    ends = pl.DataFrame(
        named, {place: pl.Int64, "dst_ip": pl.String, "dst_port": pl.Int64}, orient="row"
    ).unique()
    rows = flows.lazy().select(
        pl.col(place).cast(pl.Int64), "dst_ip", pl.col("dst_port").cast(pl.Int64)
    )
    any_address, any_port = pl.col("dst_ip") == ANY, pl.col("dst_port") == 0
    hit = pl.lit(False)
    for k, (kept, keys) in enumerate(
        (
            (~any_address & ~any_port, ["dst_ip", "dst_port"]),
            (~any_address & any_port, ["dst_ip"]),
            (any_address & ~any_port, ["dst_port"]),
        )
    ):
        known = ends.lazy().filter(kept).select(place, *keys, pl.lit(True).alias(f"hit_{k}"))
        rows = rows.join(known, on=[place, *keys], how="left", maintain_order="left")
        hit |= pl.col(f"hit_{k}").fill_null(False)
    found = rows.select(place, hit=hit).select(
        (pl.col("hit").any().over(place) & ~pl.col("hit")).alias("unknown")
    )
    return found.collect()["unknown"]


def _endpoints(entry: CaptureEntry) -> list[tuple[str, int]]:
    out = []
    for end in filter(None, (part.strip() for part in entry.malicious_endpoints.split(";"))):
        address, _, port = end.rpartition(":")
        known = port in ANY_PORT or (port.isdecimal() and len(port) <= MAX_PORT_DIGITS)
        if not known or not _is_address(address.strip("[]")):
            if _is_address(end):
                out.append((end, 0))
                continue
            raise CorpusError(
                f"malicious_endpoints of {entry.name!r} holds {end[:60]!r}",
                hint="write address:port, with ; between several",
            )
        out.append((address.strip("[]"), 0 if port in ANY_PORT else int(port)))
    return out


def _is_address(text: str) -> bool:
    try:
        return text == ANY or bool(ip_address(text))
    except ValueError:
        return False
