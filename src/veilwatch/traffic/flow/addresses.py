"""Addresses as people write them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.schema.addresses import address_text

MAPPED: Final = np.uint64(0xFFFF_0000_0000)
"""Upper part of the low half of an IPv4-mapped address ::ffff:0:0/96 (RFC 4291 cl. 2.5.5.2)."""


def format_addresses(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> pl.Series:
    """Format addresses, IPv4-mapped ones as dotted quads.

    Parameters
    ----------
    high, low
        Halves of the 128-bit addresses in host byte order, shape (n,).
    """
    pairs = np.empty(len(high), np.dtype([("high", ">u8"), ("low", ">u8")]))
    pairs["high"], pairs["low"] = high, low
    unique, inverse = np.unique(pairs.view("V16"), return_inverse=True)
    texts = [address_text(bytes(item)) for item in unique]
    return pl.Series(texts, dtype=pl.String).gather(inverse.ravel().astype(np.uint32))
