"""How the status of a process goes through a pipe: in messages that are whole or not there.

A pipe takes up to PIPE_BUF bytes at once (4,096, pipe(7)) and more of them in pieces, between which
a full pipe would leave half a message. A status that is longer goes in several messages: each has
some of its entries, and a list or table that is too long for one comes slice by slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_MESSAGE: Final = 3500
"""Most bytes of a message."""

MAX_MESSAGES: Final = 12
"""Most messages of a status: together they fit into a pipe (64 KiB) that nobody has read for a
while. What is beyond is left out and counted; single values go first, lists last."""

MAX_TEXT: Final = 1000
"""Most bytes of a text: a message has room for more than one."""

SLICE: Final = "+"
"""Entry of a message that holds a slice: key, place of its first item, length of the whole, items;
of a table the entries in their stead."""

LEFT_OUT: Final = "left_out"
"""Entry that counts what was left out."""


def shorten(text: str, most: int = MAX_TEXT) -> str:
    """Return a text that takes at most so many bytes as JSON; of a longer one its beginning.

    Examples
    --------
    >>> shorten("abcdefghij" * 9, 40)
    'abcdefghijabcdefghijabcd… (66 more)'
    """
    if len(json.dumps(text)) - 2 <= most:
        return text
    kept = min(len(text), most)
    while kept:
        more = f"… ({len(text) - kept} more)"
        over = len(json.dumps(text[:kept] + more)) - 2 - most
        if over <= 0:
            return text[:kept] + more
        kept -= max(1, over // 6)
    return ""


def split_status(status: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the messages that make up a status; an empty one is a message too."""
    messages = list(_packed(_entries(status)))
    yield from messages[:MAX_MESSAGES]
    left = len(messages) - MAX_MESSAGES
    if left > 0:
        yield _bytes({LEFT_OUT: left})


def join_status(status: dict[str, Any], message: Mapping[str, Any]) -> None:
    """Bring what a message says into a status."""
    for key, value in message.items():
        if key != SLICE:
            status[key] = value
            continue
        name, start, length, items = value
        if isinstance(items, dict):
            old = status.get(name)
            status[name] = (old if start and isinstance(old, dict) else {}) | items
            continue
        known = status.get(name)
        whole = list(known[:length]) if isinstance(known, list) else []
        # What is not there yet comes with the next slice, or with the next status.
        whole[start : start + len(items)] = items
        status[name] = whole


def _entries(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a status in parts that fit into a message each, lists and tables that do not last."""
    long: list[tuple[str, Any]] = []
    for key, value in status.items():
        value = _bounded(value)
        if len(_bytes({key: value})) <= MAX_MESSAGE:
            yield {key: value}
        elif isinstance(value, list | dict):
            long.append((key, value))
        else:
            yield {LEFT_OUT: 1}
    for key, value in long:
        yield from _slices(key, value)


def _slices(key: str, value: list[Any] | dict[str, Any]) -> Iterator[dict[str, Any]]:
    entries: list[Any] = list(value.items()) if isinstance(value, dict) else value
    start = 0
    while start < len(entries):
        count = len(entries) - start
        while True:
            items: Any = entries[start : start + count]
            if isinstance(value, dict):
                items = dict(items)
            part = {SLICE: [key, start, len(entries), items]}
            if len(_bytes(part)) <= MAX_MESSAGE or count == 1:
                break
            count = max(1, count // 2)
        if len(_bytes(part)) <= MAX_MESSAGE:
            yield part
        start += count


def _packed(parts: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Join parts to messages as full as can be; no two slices share one."""
    message: dict[str, Any] = {}
    for part in parts:
        together = message | part
        if SLICE in message or len(_bytes(together)) > MAX_MESSAGE:
            yield _bytes(message)
            message = part
        else:
            message = together
    yield _bytes(message)


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, Mapping):
        return {str(key): _bounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value]
    return value


def _bytes(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()
