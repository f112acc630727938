"""From header values to words: which fields speak, and what of a value is said.

A word is a field with a value, an integer of at least 0; `NO_WORD` where the packet lacks the
field. Buckets drop what tells one place, system or moment from another: exact lengths, windows and
times become powers, a TTL becomes the value that it began with, a port becomes its service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from veilwatch.errors import TrainingError
from veilwatch.schema.features import FeatureFrame, FeatureSchema
from veilwatch.schema.headers import WIRE_FIELDS

NO_WORD: Final = -1

MAX_VALUE: Final = 2.0**53
"""Values end here: above it a float64 no longer tells integers apart, and no field has more."""

Values = npt.NDArray[np.float64]
Words = npt.NDArray[np.int64]

SERVICES: Final = (
    *(22, 25, 53, 67, 68, 80, 88, 110, 123, 135, 137, 138, 139, 143, 389, 443, 445, 587, 993),
    *(1900, 3389, 5353, 5355, 8080),
)
"""Ports whose service every network knows; all others are told apart by their range."""

RELATION: Final = {"same": 0, "new": 1, "earlier": 2}
"""Words of the field `flow`: what the flow of a packet is to those before it."""


def _power(values: Values) -> Values:
    """0 for 0, else one more than the floor of the logarithm to base 2."""
    return np.asarray(np.where(values < 1, 0, 1 + np.floor(np.log2(np.maximum(values, 1)))))


def _decade(seconds: Values) -> Values:
    """0 below a millisecond, then a bucket for each decade up to 100 s."""
    return np.asarray(np.clip(4 + np.floor(np.log10(np.maximum(seconds, 1e-6))), 0, 6))


def _initial_ttl(values: Values) -> Values:
    return np.searchsorted([32.0, 64.0, 128.0], values).astype(np.float64)


def _service(ports: Values) -> Values:
    """The port if it is a known service's, else 1, 2, 3 for system, user, dynamic (RFC 6335)."""
    other = 1.0 + np.searchsorted([1024.0, 49152.0], ports, side="right")
    return np.where(np.isin(ports, SERVICES), ports, other)


def _relation(flow: Values) -> Values:
    """Say of each packet whether its flow is new, that of the packet before, or an earlier one."""
    known = np.where(np.isnan(flow), -1, flow)
    latest = np.maximum.accumulate(known, axis=1)
    before = np.concatenate([np.full((len(flow), 1), -2.0), known[:, :-1]], axis=1)
    newest = np.concatenate([np.full((len(flow), 1), -1.0), latest[:, :-1]], axis=1)
    said = np.where(flow > newest, RELATION["new"], RELATION["earlier"])
    return np.where(known == before, RELATION["same"], said)


BUCKETS: Final[dict[str, Callable[[Values], Values]]] = {
    "ip_protocol": lambda values: values,
    "direction": lambda values: values,
    "control": lambda values: values,
    "payload": _power,
    "gap": _decade,
    "flow": _relation,
    "icmp_type": lambda values: values,
    "ip_ttl": _initial_ttl,
    "ip_length": _power,
    "tcp_offset": lambda values: values,
    "tcp_window": _power,
    "tcp_src_port": _service,
    "tcp_dst_port": _service,
    "udp_src_port": _service,
    "udp_dst_port": _service,
}
"""What is said of a value, by field. Fields that only name one host or connection are not here."""

RAW: Final = tuple(field.name for field in WIRE_FIELDS)
"""Fields of the published setting: what stands in the headers."""


def speaking_fields(
    schema: FeatureSchema, values: Literal["bucketed", "raw"], chosen: Sequence[str]
) -> tuple[str, ...]:
    """Return the fields of a schema that make words.

    Parameters
    ----------
    chosen
        Those that are wanted; empty for all.

    Raises
    ------
    TrainingError
        If one of them does not exist here, or none is left.
    """
    known = set(schema.names)
    fields = tuple(
        name for name in (BUCKETS if values == "bucketed" else RAW) if f"{name}_0" in known
    )
    unknown = [name for name in chosen if name not in fields]
    if unknown or not fields:
        raise TrainingError(
            f"no field {unknown[0]!r}" if unknown else "the features hold no header fields",
            hint=f"known here: {', '.join(fields)}; shortcuts have more",
        )
    return tuple(name for name in fields if name in chosen) if chosen else fields


def columns_of(schema: FeatureSchema, fields: Sequence[str], packets: int) -> npt.NDArray[np.intp]:
    """Return the column of each field of each packet, shape (packets, fields).

    Raises
    ------
    KeyError
        If the schema lacks one.
    """
    place = {name: k for k, name in enumerate(schema.names)}
    return np.array([[place[f"{field}_{k}"] for field in fields] for k in range(packets)], np.intp)


def words_of(features: FeatureFrame, fields: Sequence[str], packets: int, values: str) -> Words:
    """Return the words of captures, shape (captures, packets, fields)."""
    columns = columns_of(features.schema, fields, packets)
    found = np.asarray(features.values, np.float64)[:, columns]
    found = np.clip(found, 0, MAX_VALUE)
    out = np.full(found.shape, NO_WORD, np.int64)
    for k, field in enumerate(fields):
        column = found[:, :, k]
        said: Any = BUCKETS[field](column) if values == "bucketed" else column
        present = ~np.isnan(column)
        out[:, :, k][present] = said[present].astype(np.int64)
    return out
