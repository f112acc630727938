"""The PROXY header that a load balancer puts before a client's first byte.

HAProxy, "The PROXY protocol", versions 1 and 2. What it says of addresses is not read.
"""

from __future__ import annotations

from typing import Final

_TEXT: Final = b"PROXY "
_TEXT_BYTES: Final = 107  # the longest, with its line end (section 2.1)
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_BINARY_HEADER: Final = 16


def without_proxy_header(stream: bytes) -> bytes:
    """Return what is behind the PROXY header of a stream; all of it where there is none."""
    if stream.startswith(_TEXT):
        return stream[stream.find(b"\n", 0, _TEXT_BYTES) + 1 :]
    if stream.startswith(_SIGNATURE) and len(stream) >= _BINARY_HEADER:
        return stream[_BINARY_HEADER + int.from_bytes(stream[14:16], "big") :]
    return stream
