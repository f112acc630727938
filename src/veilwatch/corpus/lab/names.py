"""Names of hosts under `.example` (RFC 2606), which belong to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from veilwatch.corpus.lab.draw import Draw

_CONSONANTS: Final = "bcdfghklmnprstvz"
_VOWELS: Final = "aeio"
_SYLLABLES: Final = [
    *(first + vowel for first in _CONSONANTS for vowel in _VOWELS),
    *(first + vowel + last for first in _CONSONANTS for vowel in _VOWELS for last in "dklmnrst"),
    *(
        pair + vowel + "n"
        for pair in ("br", "cl", "gr", "pl", "sk", "st", "tr")
        for vowel in _VOWELS
    ),
    *("cdn", "s3", "v2", "ws", "ssl", "img", "srv", "x4", "db", "tv", "js"),
]
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def make_label(draw: Draw, length: int, *, random_letters: bool) -> str:
    """Return a host name label of about `length` letters."""
    if random_letters:
        return "".join(draw.one(_LETTERS) for _ in range(length))
    label = ""
    while len(label) < length:
        label += draw.one(_SYLLABLES)
    return label


def make_name(draw: Draw, *, random_letters: bool = False, prefixes: Sequence[str] = ()) -> str:
    """Return a name under `.example`."""
    base = make_label(draw, draw.count((4, 12)), random_letters=random_letters)
    usual = ["", "", "www.", "api.", "cdn.", "s3.", f"n{draw.randrange(100)}.", "ssl.static."]
    return f"{draw.one(prefixes or usual)}{base}.example"
