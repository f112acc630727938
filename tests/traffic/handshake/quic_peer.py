"""Both ends of a QUIC handshake as far as Initial packets go: what the reader has to undo.

Keys come from the HKDF of `cryptography`, so that nothing is shared with the code under test.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PING, PADDING = b"\x01", b"\x00"
DCID, SCID = bytes.fromhex("8394c8f03e515708"), bytes.fromhex("f067a5502a4262b5")


@dataclass(frozen=True)
class Version:
    number: int
    salt: str
    prefix: str = "quic"
    initial: int = 0

    def kind(self, kind: int) -> int:
        """The bits of a packet type: 0 Initial, 1 0-RTT, 2 Handshake, 3 Retry."""
        return (kind + self.initial) % 4


SALT_V1 = "38762cf7f55934b34d179ae6a4c80cadccbb7f0a"
V1 = Version(1, SALT_V1)
V2 = Version(0x6B3343CF, "0dede3def700a6db819381be6e269dcbf9bd2ed9", "quicv2", 1)
DRAFT_29 = Version(0xFF00001D, "afbfec289993d24c9e9786f19c6111e04390a899")
DRAFT_34 = Version(0xFF000022, SALT_V1)
VERSIONS = (V1, V2, DRAFT_29, DRAFT_34)


@dataclass(frozen=True)
class Keys:
    secret: bytes
    key: bytes
    iv: bytes
    hp: bytes


def expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1)."""
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


def keys(version: Version, dcid: bytes, side: str) -> Keys:
    """The Initial keys of "client" or "server" (RFC 9001, section 5.2)."""
    initial = hmac.new(bytes.fromhex(version.salt), dcid, "sha256").digest()
    secret = expand(initial, f"{side} in", 32)
    sizes = {"key": 16, "iv": 12, "hp": 16}
    return Keys(secret, *(expand(secret, f"{version.prefix} {k}", n) for k, n in sizes.items()))


def protect(header: bytes, frames: bytes, by: Keys) -> bytes:
    """Seal a packet whose header ends with its packet number (RFC 9001, section 5.4)."""
    size = (header[0] & 3) + 1
    number = int.from_bytes(header[-size:], "big")
    nonce = (int.from_bytes(by.iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(by.key).encrypt(nonce, frames, header)
    sample = sealed[4 - size : 20 - size]
    mask = Cipher(algorithms.AES(by.hp), modes.ECB()).encryptor().update(sample)
    hidden = bytes(a ^ b for a, b in zip(header[-size:], mask[1:], strict=False))
    return bytes([header[0] ^ mask[0] & 0x0F]) + header[1:-size] + hidden + sealed


def integer(value: int, width: int = 0) -> bytes:
    """A variable-length integer, of the shortest of its widths unless one is asked for."""
    bits = next(b for b in range(4) if width in (0, 1 << b) and value < 1 << (8 << b) - 2)
    return (value | bits << (8 << bits) - 2).to_bytes(1 << bits, "big")


def crypto(offset: int, content: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\x06" + integer(offset) + integer(len(content)) + content


def long_header(version: Version, kind: int, dcid: bytes, scid: bytes) -> bytes:
    first = 0xC0 | version.kind(kind) << 4
    ids = bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    return bytes([first]) + version.number.to_bytes(4, "big") + ids


def initial(
    frames: bytes,
    version: Version = V1,
    *,
    side: str = "client",
    dcid: bytes = DCID,
    scid: bytes = b"",
    keyed: bytes = DCID,
    token: bytes = b"",
    number: int = 0,
    number_bytes: int = 1,
    pad: int = 0,
    fixed_bit: int = 0x40,
) -> bytes:
    """An Initial packet under the keys of the connection id `keyed`, padded to `pad` bytes."""
    header = bytearray(long_header(version, 0, dcid, scid))
    header[0] = header[0] & 0xB0 | fixed_bit | number_bytes - 1
    header += integer(len(token)) + token
    frames = frames.ljust(max(pad - len(header) - 2 - number_bytes - 16, 4), PADDING)
    header += integer(number_bytes + len(frames) + 16, 2) + number.to_bytes(number_bytes, "big")
    return protect(bytes(header), frames, keys(version, keyed, side))


def closed(kind: int, version: Version = V1, dcid: bytes = DCID, scid: bytes = b"") -> bytes:
    """A 0-RTT (1) or Handshake (2) packet, which nobody without the secrets can open."""
    return long_header(version, kind, dcid, scid) + integer(60) + bytes(range(60))


def retry(version: Version = V1, dcid: bytes = b"", scid: bytes = SCID) -> bytes:
    return long_header(version, 3, dcid, scid) + b"a token" + bytes(16)


def negotiation(versions: list[int], dcid: bytes = b"", scid: bytes = DCID) -> bytes:
    ids = bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    return b"\x80" + bytes(4) + ids + b"".join(v.to_bytes(4, "big") for v in versions)
