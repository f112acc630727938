"""The PROXY headers that load balancers put before a client's first byte.

HAProxy, "The PROXY protocol", versions 1 and 2. What they say of addresses is not read.
"""

from __future__ import annotations

from typing import Final

from veilwatch.schema.flows import MAX_PROXY_HEADERS

_TEXT: Final = b"PROXY "
_TEXT_BYTES: Final = 107  # the longest, with its line end (section 2.1)
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_BINARY_HEADER: Final = 16


def without_proxy_headers(stream: bytes) -> bytes:
    """Return what is behind the PROXY headers of a stream; all of it where there are none."""
    for _ in range(MAX_PROXY_HEADERS):
        stream = _without_one(stream)
    return stream


def _without_one(stream: bytes) -> bytes:
    if stream.startswith(_TEXT):
        return stream[stream.find(b"\n", 0, _TEXT_BYTES) + 1 :]
    if stream.startswith(_SIGNATURE) and len(stream) >= _BINARY_HEADER:
        return stream[_BINARY_HEADER + int.from_bytes(stream[14:16], "big") :]
    return stream
