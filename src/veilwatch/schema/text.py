"""Text that strangers chose, made fit for where it goes: one function for each place.

What a name on the wire may be made of is settled where it is read
(`veilwatch.traffic.handshake.text`), markup is escaped by whoever writes markup.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_SHOWN_NAME: Final = 96
"""Characters shown of a name: enough for every sane server name, short enough for a line."""

MAX_SHOWN_SENTENCE: Final = 400
"""Characters shown of a sentence that holds such a name."""

MAX_CELL: Final = 1024
"""Characters shown of a name in a table: the longest server name, each byte of it an escape."""

_ACTING: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a screen acts on or shows as nothing: controls, format characters
(among them the bidirectional overrides), surrogates, private, unassigned, line ends."""


def visible(text: str, limit: int = MAX_SHOWN_NAME) -> str:
    r"""Return `text` for a screen or page: one line, acting characters as escapes, bounded.

    Examples
    --------
    >>> visible("a\nb\u202egnp.exe")
    'a\\nb\\u202egnp.exe'
    """
    shown = "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ACTING else char
        for char in text[:limit]
    )
    if len(text) > limit or len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


def printable(text: str, instead: str) -> str:
    r"""Return `text` with `instead` for every character that is not printable.

    Examples
    --------
    >>> printable("a\nb\u202ec", "?")
    'a?b?c'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else instead for char in text)


def one_line(text: str) -> str:
    """Return `text` for a log: everything that some reader takes for an end of line is a space."""
    return printable(text, " ")


def ascii_escaped(text: str, limit: int) -> str:
    r"""Return `text` as printable ASCII, all else as escapes, at most `limit` long.

    Examples
    --------
    >>> ascii_escaped("a\n\u202egnp.exe", 80)
    'a\\n\\u202egnp.exe'
    """
    return text[:limit].encode("unicode_escape").decode("ascii")[:limit]


def file_name(name: str) -> str:
    r"""Return a file's name for people and logs: what is no text, or not printable, is escaped.

    Examples
    --------
    >>> print(file_name("a\udcff\tb.pcap"))
    a\xff\tb.pcap
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def encodable(text: str) -> str:
    r"""Return `text` as UTF-8 can write it: half a surrogate pair becomes U+FFFD.

    Examples
    --------
    >>> encodable("a\ud83e") == "a\ufffd"
    True
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
