"""Text that strangers wrote, made safe to print, to log and to put into a page."""

from __future__ import annotations

from typing import Final

_PLAIN: Final = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("\\"))


def escape(raw: bytes) -> str:
    r"""Return `raw` as ASCII; space, backslash, controls and bytes above 126 become `\DDD`.

    The decimal escape is the one of zone files (RFC 1035, section 5.1).

    Examples
    --------
    >>> escape(b"a b\xff")
    'a\\032b\\255'
    """
    if not raw.translate(None, _PLAIN):  # nothing left without the plain bytes
        return raw.decode("ascii")
    return "".join([chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in raw])


def clean(text: str, limit: int = 256) -> str:
    """Return `text` without unprintable characters, at most `limit` characters long."""
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
