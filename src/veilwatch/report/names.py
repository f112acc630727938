"""Names that strangers chose, made safe to show."""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_NAME: Final = 96
"""Characters shown of a name: enough for every sane server name, short enough for a line."""

MAX_SENTENCE: Final = 400
"""Characters shown of a sentence that holds such a name."""

_ACTING: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a screen acts on or shows as nothing: controls, format characters
(among them the bidirectional overrides), surrogates, private, unassigned, line ends."""


def visible(text: str, limit: int = MAX_NAME) -> str:
    r"""Return `text` on one line, with acting characters as escapes, at most `limit` long.

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
