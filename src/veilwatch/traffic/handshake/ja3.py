"""JA3 and JA3S: fingerprints of a TLS client and of a server's answer (Althouse et al. 2017)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from veilwatch.traffic.handshake.tls import ClientHello, ServerHello, without_grease


def ja3(hello: ClientHello) -> str:
    """Return the MD5 of version, ciphers, extensions, groups and point formats without GREASE.

    Empty for a ClientHello that was cut: its fingerprint would be another client's.
    """
    if not hello.whole:
        return ""
    lists = (
        without_grease(hello.ciphers),
        without_grease(hello.extensions),
        without_grease(hello.groups),
        hello.point_formats,
    )
    return _md5(f"{hello.legacy_version},{','.join(map(_dashed, lists))}")


def ja3s(hello: ServerHello) -> str:
    """Return the MD5 of version, cipher suite and extensions of a ServerHello."""
    return _md5(f"{hello.legacy_version},{hello.cipher},{_dashed(hello.extensions)}")


def _dashed(values: Iterable[int]) -> str:
    return "-".join(map(str, values))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
