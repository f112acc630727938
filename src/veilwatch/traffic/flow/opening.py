"""Whether bytes begin a TLS handshake, perhaps behind PROXY headers, as far as they go.

A load balancer puts a PROXY header before the client's first byte to tell the server whose
connection it is (HAProxy, "The PROXY protocol", versions 1 and 2), and one behind another puts its
own before that; the handshake follows in the same segment or in a later one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import MAX_PROXY_HEADERS

NO: Final = 0
MAYBE: Final = 1  # so far
YES: Final = 2

TLS_BYTES: Final = 6
"""Bytes that tell a ClientHello or ServerHello from anything else: a record's header and the type
of the message in it (RFC 8446 cl. 4, 5.1)."""

TEXT_HEADER: Final = 107
"""Longest PROXY header in text, with its line end (section 2.1 of the specification)."""

MAX_PROXY_BYTES: Final = 2048
"""Longest binary PROXY header that is looked behind. Its length may say 65,535; addresses take at
most 216 bytes, and what clouds and TLS terminators add (names, certificates' subjects) less than
the rest."""

_TEXT: Final = np.frombuffer(b"PROXY ", np.uint8)
_SIGNATURE: Final = np.frombuffer(b"\r\n\r\n\0\r\nQUIT\n", np.uint8)
_BINARY_HEADER: Final = 16


@inner_kernel
def begins_with(buffer: Any, offset: Any, length: Any, literal: Any) -> Any:
    """Whether bytes agree with `literal` as far as both go."""
    for i in range(min(length, len(literal))):  # noqa: SIM110 (a generator costs a kernel more)
        if buffer[offset + i] != literal[i]:
            return False
    return True


@inner_kernel
def tls_opening(buffer: Any, offset: Any, length: Any) -> Any:
    """Whether bytes begin a TLS record with a ClientHello or ServerHello (RFC 8446 cl. 5.1)."""
    if length > 0 and buffer[offset] != 0x16:
        return NO
    if length > 1 and buffer[offset + 1] != 0x03:
        return NO
    if length > 2 and buffer[offset + 2] > 4:
        return NO
    if length < TLS_BYTES:
        return MAYBE
    return YES if buffer[offset + 5] == 1 or buffer[offset + 5] == 2 else NO


@inner_kernel
def is_other_record(buffer: Any, offset: Any, length: Any) -> Any:
    """Whether bytes begin a TLS record that is no handshake's: the connection is past that."""
    if length < 3 or buffer[offset + 1] != 0x03 or buffer[offset + 2] > 4:
        return False
    return buffer[offset] >= 0x14 and buffer[offset] <= 0x17 and buffer[offset] != 0x16


@inner_kernel
def proxy_headers(buffer: Any, offset: Any, length: Any) -> Any:
    """Return the length of all PROXY headers that bytes begin with, as `one_proxy_header` does."""
    skip = np.int64(0)
    for _ in range(MAX_PROXY_HEADERS):
        size = one_proxy_header(buffer, offset + skip, length - skip)
        if size <= 0:
            return skip if size == 0 else size
        skip += size
        if skip >= length:  # what follows has not come
            break
    return skip


@inner_kernel
def one_proxy_header(buffer: Any, offset: Any, length: Any) -> Any:
    """Return the length of the PROXY header that bytes begin with, 0 for none, -1 not known yet."""
    if begins_with(buffer, offset, length, _TEXT):
        for i in range(min(length, TEXT_HEADER)):
            if buffer[offset + i] == 0x0A:
                return i + 1
        return -1 if length < TEXT_HEADER else 0
    if begins_with(buffer, offset, length, _SIGNATURE):
        if length < _BINARY_HEADER:
            return -1
        size = np.int64(buffer[offset + 14]) << 8 | np.int64(buffer[offset + 15])
        known = buffer[offset + 12] & 0xF0 == 0x20
        return _BINARY_HEADER + size if known and size <= MAX_PROXY_BYTES else 0
    return 0


@inner_kernel
def opening(buffer: Any, offset: Any, length: Any, at_start: Any) -> Any:
    """Whether bytes begin a handshake; `at_start` tells that PROXY headers may precede it."""
    skip = proxy_headers(buffer, offset, length) if at_start else 0
    if skip < 0 or skip > length:
        return MAYBE
    return tls_opening(buffer, offset + skip, length - skip)
