"""Counted things in sentences: 0 flows, 1 flow, 2 flows."""

from __future__ import annotations

from typing import Final

_IRREGULAR: Final = {"address": "addresses", "family": "families", "query": "queries"}
"""Nouns that take more than an s, by their last word."""


def plural(noun: str, count: int) -> str:
    """Return a noun as it stands behind a count.

    Examples
    --------
    >>> plural("flow", 1), plural("flow", 0), plural("malware family", 2)
    ('flow', 'flows', 'malware families')
    """
    if count == 1:
        return noun
    before, space, last = noun.rpartition(" ")
    return f"{before}{space}{_IRREGULAR.get(last, f'{last}s')}"


def counted(count: int, noun: str) -> str:
    """Return a count and its noun.

    Examples
    --------
    >>> counted(1, "flow"), counted(1200, "benign capture"), counted(0, "host")
    ('1 flow', '1,200 benign captures', '0 hosts')
    """
    return f"{count:,} {plural(noun, count)}"
