"""Values that every receiver can read, and the one form of JSON in which they go out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias, TypeVar

from veilwatch.schema.text import encodable

T = TypeVar("T")

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | JsonObject | None"
"""What JSON has a form for."""

JsonObject: TypeAlias = Mapping[str, Json]
"""A document that leaves us: an object of JSON."""


def clean(value: T) -> T:
    """Return `value` with every text in it made encodable; the rest as it was.

    A name from the wire may hold half a surrogate pair, which no UTF-8 has: strict JSON readers
    refuse the whole line then. It becomes U+FFFD.

    Parameters
    ----------
    value
        Text, or a dataclass, mapping, list or tuple of such.
    """
    return _clean(value)  # type: ignore[no-any-return]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_clean, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _clean(getattr(value, f.name)) for f in fields(value)})
    return value


def compact_json(document: Json) -> bytes:
    """Return a document as one ASCII line of JSON.

    ASCII only: a name may hold U+2028 or U+0085, which some readers take for line ends.

    Raises
    ------
    ValueError
        If it holds a number that JSON has no form for (NaN, infinity).
    """
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
