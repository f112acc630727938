r"""Text from the network as Zeek writes it into its logs.

Zeek keeps the bytes, and its writers print them: valid UTF-8 as it is (`LogAscii::enable_utf_8`, on
by default), everything else as `\xHH` (src/Desc.cc, src/util.cc). Our tables hold the same bytes
with the escapes of zone files, which are undone first: a text must not be escaped twice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from veilwatch.traffic.handshake.text import unescape

UNSET: Final = "-"
EMPTY: Final = "(empty)"

_SPLIT_AT: Final = re.compile(rb"([\\\t])")
"""What Zeek's tab-separated logs escape in any case: backslash and separator."""

_HIDDEN: Final = frozenset({"Cc", "Co"})
"""Control characters and private use: Zeek does not print them though they are UTF-8, nor what
Unicode calls specials."""

_MISLEADING: Final = frozenset({"Cf", "Zl", "Zp"})
"""Format characters (which turn the direction of a line) and ends of lines: Zeek prints them, but a
log of lines is safer without."""

_SPECIALS: Final = range(0xFFF0, 0x10000)
_JSON_CONTROLS: Final = frozenset("\b\f\n\r\t")
"""Control characters that JSON has escapes for."""


def tab_text(text: str | None) -> str | None:
    """Return text for a tab-separated log, None where it is unset.

    A text that is the sign for an unset or empty field has its first character escaped.
    """
    if not text:
        return None
    if text in (UNSET, EMPTY):
        return f"\\x{ord(text[0]):02x}{text[1:]}"
    parts = _SPLIT_AT.split(unescape(text))
    return "".join(
        f"\\x{ord(part):02x}" if part in (b"\\", b"\t") else _printed(part, _is_line_unsafe)
        for part in parts
    )


def json_text(text: str) -> str:
    """Return text for a JSON log, whose encoder escapes what JSON has escapes for."""
    return _printed(unescape(text), _is_hidden)


def _printed(raw: bytes, unwanted: Callable[[str], bool]) -> str:
    """Return bytes as they are if all of them are UTF-8 that is printed.

    Else what is not printable ASCII is escaped, also characters that were valid: so does Zeek.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        pass
    else:
        if not any(map(unwanted, text)):
            return text
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)


def _is_hidden(char: str) -> bool:
    hidden = unicodedata.category(char) in _HIDDEN or ord(char) in _SPECIALS
    return hidden and char not in _JSON_CONTROLS


def _is_line_unsafe(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN | _MISLEADING or ord(char) in _SPECIALS
