"""Opening QUIC Initial packets, whose keys everybody can compute (RFC 9001, section 5.2).

They follow from a salt of the version and the destination connection id of the client's first
Initial; after a Retry, from the id that the server chose in it. This protects against nobody who
sees that packet, only against those who do not.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import ECB

from veilwatch.traffic.handshake.quic import (
    MIN_PROTECTED,
    MVFST,
    T050,
    T051,
    V1,
    V2,
    V2_DRAFT,
    LongPacket,
    is_reserved,
)

_SALT_V1: Final = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # and drafts 33, 34
_SALT_V2: Final = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")  # RFC 9369
_SALT_V2_DRAFT: Final = bytes.fromhex("a707c203a59b47184a1d62ca570406ea7ae3e5d3")
_SALT_DRAFT_29: Final = bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899")  # to draft 32
_SALT_DRAFT_23: Final = bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502")  # to draft 28
_SALT_DRAFT_22: Final = bytes.fromhex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a")
_SALT_T050: Final = bytes.fromhex("7ff579e5acd072915580304c43a2367c60488310")
_SALT_T051: Final = bytes.fromhex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d")

SALTS: Final[dict[int, bytes]] = {
    V1: _SALT_V1,
    V2: _SALT_V2,
    V2_DRAFT: _SALT_V2_DRAFT,
    **dict.fromkeys(range(0xFF000021, 0xFF000023), _SALT_V1),
    **dict.fromkeys(range(0xFF00001D, 0xFF000021), _SALT_DRAFT_29),
    **dict.fromkeys(range(0xFF000017, 0xFF00001D), _SALT_DRAFT_23),
    0xFF000016: _SALT_DRAFT_22,
    T050: _SALT_T050,
    T051: _SALT_T051,
}
"""Salts of the versions that can be opened."""

RESERVED_SALTS: Final = (_SALT_V1, _SALT_DRAFT_29)
"""What clients take for a version that only forces negotiation, and so has no salt."""


MVFST_SALTS: Final[dict[int, tuple[bytes, ...]]] = {
    0xFACEB001: (_SALT_DRAFT_22, _SALT_DRAFT_23),  # followed the drafts, 22 to 24
    0xFACEB002: (_SALT_DRAFT_23,),
    0xFACEB003: (_SALT_V1,),  # an alias of version 1
}
"""Salts of mvfst's versions, by its sources (quic/QuicConstants.h, FizzCryptoFactory.cpp)."""

OTHER_MVFST_SALTS: Final = (_SALT_DRAFT_23, _SALT_V1, _SALT_DRAFT_29)
"""What mvfst's further aliases may stand for: it falls back to the salt of draft 23, and newer
aliases follow newer versions."""


def salts(version: int) -> tuple[bytes, ...]:
    """Return the salts that packets of `version` may have been protected with."""
    salt = SALTS.get(version)
    if salt is not None:
        return (salt,)
    if version in MVFST:
        return MVFST_SALTS.get(version, OTHER_MVFST_SALTS)
    return RESERVED_SALTS if is_reserved(version) else ()


def _label(name: str, length: int) -> bytes:
    """Return what HKDF-Expand hashes for one block of a label (RFC 8446, 7.1; RFC 5869, 2.3)."""
    text = b"tls13 " + name.encode()
    return bytes((0, length, len(text))) + text + b"\x00\x01"


_CLIENT: Final = _label("client in", 32)
_SERVER: Final = _label("server in", 32)
_LABELS_V1: Final = (_label("quic key", 16), _label("quic iv", 12), _label("quic hp", 16))
_LABELS_V2: Final = (_label("quicv2 key", 16), _label("quicv2 iv", 12), _label("quicv2 hp", 16))


class InitialKeys:
    """The keys of one direction's Initial packets.

    Parameters
    ----------
    version
        QUIC version of the packets.
    salt
        One of `salts(version)`.
    dcid
        Destination connection id of the client's first Initial.
    server
        Whether the server's packets are to be opened, or else the client's.
    """

    def __init__(self, version: int, salt: bytes, dcid: bytes, *, server: bool = False) -> None:
        labels = _LABELS_V2 if version in (V2, V2_DRAFT) else _LABELS_V1
        # Everything that is expanded here fits one block of SHA-256.
        initial = hmac.digest(salt, dcid, "sha256")
        secret = hmac.digest(initial, _SERVER if server else _CLIENT, "sha256")
        key, iv, hp = [hmac.digest(secret, label, "sha256") for label in labels]
        self._aead = AESGCM(key[:16])
        self._iv = int.from_bytes(iv[:12], "big")
        # One block at a time, as RFC 9001, section 5.4.3, has it.
        self._mask = Cipher(AES128(hp[:16]), ECB()).encryptor()  # noqa: S305

    def open(self, packet: LongPacket) -> bytes | None:
        """Return the frames of an Initial packet, None if these are not its keys.

        Only whole packets can be told from noise: the tag is at the end.
        """
        content, at = packet.content, packet.number_at
        if not packet.whole or len(content) < at + MIN_PROTECTED:
            return None
        mask = self._mask.update(content[at + 4 : at + 20])
        first = content[0] ^ (mask[0] & 0x0F)
        body = at + 1 + (first & 3)
        # No Initial comes so late that its number would be more than what is written.
        number = int.from_bytes(content[at:body], "big") ^ int.from_bytes(
            mask[1 : 1 + body - at], "big"
        )
        header = bytes((first,)) + content[1:at] + number.to_bytes(body - at, "big")
        nonce = (self._iv ^ number).to_bytes(12, "big")
        try:
            return self._aead.decrypt(nonce, content[body:], header)
        except InvalidTag:
            return None
