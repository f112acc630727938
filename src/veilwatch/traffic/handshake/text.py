"""Text that strangers wrote, made safe to print, to log and to put into a page."""

from __future__ import annotations

import re
from typing import Final

from veilwatch.schema.text import printable

MAX_NAME: Final = 255
"""Bytes kept of a name: no host name is longer (RFC 1035, section 2.3.4), and each byte may take
four characters of every table, alert and page that shows it."""

MAX_ALPN_NAME: Final = 64
"""Bytes kept of a protocol's name. RFC 7301 allows 255; names in use have fewer than 20."""

MAX_ALPN_NAMES: Final = 16
"""Protocols kept of a list: clients offer two or three."""

MAX_TEXT: Final = 256
"""Characters kept of other text, such as names in certificates: X.520 allows 64 in most."""

CUT: Final = "\\..."
"""What stands at the end of a name or list that was cut. `escape` writes three digits behind a
backslash, so that no whole name ends like this; a list has it as its last item."""

_ESCAPED: Final = re.compile(rb"\\(25[0-5]|2[0-4][0-9]|[01][0-9]{2})")
_PLAIN: Final = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("\\"))


def escape(raw: bytes, limit: int = MAX_NAME) -> str:
    r"""Return `raw` as ASCII; space, backslash, controls and bytes above 126 become `\DDD`.

    The decimal escape is the one of zone files (RFC 1035, section 5.1). More than `limit` bytes
    are cut, and end with `CUT`.

    Examples
    --------
    >>> escape(b"a b\xff")
    'a\\032b\\255'
    >>> escape(b"www.example.org", limit=5)
    'www.e\\...'
    """
    if len(raw) > limit:
        return escape(raw[:limit], limit) + CUT
    if not raw.translate(None, _PLAIN):  # nothing left without the plain bytes
        return raw.decode("ascii")
    return "".join([chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in raw])


def escape_protocols(names: tuple[bytes, ...]) -> list[str]:
    """Return a list of ALPN names, escaped and bounded; `CUT` is the last item of one that was."""
    shown = [escape(name, MAX_ALPN_NAME) for name in names[:MAX_ALPN_NAMES]]
    return [*shown, CUT] if len(names) > MAX_ALPN_NAMES else shown


def unescape(text: str) -> bytes:
    r"""Return the bytes that `escape` made `text` of; what is no escape stays.

    Examples
    --------
    >>> unescape('a\\032b\\255')
    b'a b\xff'
    """
    if "\\" not in text:
        return text.encode("utf-8", "surrogatepass")
    return _ESCAPED.sub(
        lambda found: bytes((int(found[1]),)), text.encode("utf-8", "surrogatepass")
    )


def bounded_text(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` without unprintable characters, at most `limit` of them and then `CUT`."""
    shown = printable(text[:limit], "?")
    return shown + CUT if len(text) > limit else shown
