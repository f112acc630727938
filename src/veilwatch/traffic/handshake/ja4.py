"""JA4: a TLS client's fingerprint that survives shuffled extensions (FoxIO 2023, BSD licence).

Written from the public technical description. Only JA4 itself is here; its relatives are under
a licence that does not suit this project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from struct import pack
from typing import Final

from veilwatch.traffic.handshake.tls import ALPN, SERVER_NAME, ClientHello, without_grease

TCP: Final = "t"
QUIC: Final = "q"
DTLS: Final = "d"

_VERSIONS: Final = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}
_NOTHING: Final = "000000000000"


def ja4(hello: ClientHello, transport: str = TCP) -> str:
    """Return the JA4 of a ClientHello, empty for one that was cut.

    Parameters
    ----------
    transport
        `TCP`, `QUIC` or `DTLS`.
    """
    if not hello.whole:
        return ""
    ciphers = without_grease(hello.ciphers)
    extensions = without_grease(hello.extensions)
    destination = "d" if SERVER_NAME in extensions else "i"
    counts = f"{min(len(ciphers), 99):02d}{min(len(extensions), 99):02d}"
    version = _VERSIONS.get(hello.version, "00")
    hashed = _hexes(sorted(e for e in extensions if e not in (SERVER_NAME, ALPN)))
    if hashed and hello.signature_algorithms:
        hashed += "_" + _hexes(without_grease(hello.signature_algorithms))
    head = f"{transport}{version}{destination}{counts}{_alpn_ends(hello.alpn)}"
    return f"{head}_{_hash(_hexes(sorted(ciphers)))}_{_hash(hashed)}"


def _alpn_ends(names: tuple[bytes, ...]) -> str:
    """Return first and last character of the first protocol, of its hex form if not ASCII."""
    if not names or not names[0]:
        return "00"
    name = names[0]
    ends = bytes((name[0], name[-1]))
    if ends.isalnum():  # of bytes: ASCII letters and digits only
        return ends.decode("ascii")
    digits = name.hex()
    return digits[0] + digits[-1]


def _hexes(values: Iterable[int]) -> str:
    numbers = tuple(values)
    return pack(f">{len(numbers)}H", *numbers).hex(",", 2)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else _NOTHING
