"""Pseudonyms of subscribers: keyed hashes that rotate and that nobody can turn back.

An identity (IMSI, MSISDN, IMEI) is hashed as soon as it is read into a *token* that never
leaves memory; tokens tell whether two identities are the same. What is shown is the token's hash
under the key of a period, so that pseudonyms of two periods have nothing in common for those who
do not hold the master key. Keys are derived as in HKDF (RFC 5869), hashes are keyed BLAKE2b
(RFC 7693).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.units import DAY_NS, DAY_S

KEY_BYTES: Final = 32
"""Fewest bytes of a key: identities are guessable (an IMSI has about 10^10 values in one
network), so all of the secrecy lies in the key."""

MAX_KEY_BYTES: Final = 4096
"""Most bytes of a key file: more is a wrong file given by mistake."""

TOKEN_BYTES: Final = 16
PSEUDONYM_BYTES: Final = 8

CACHED: Final = 65_536
"""Pseudonyms and names of days kept at hand; both can be made anew at any time."""


class Rotation(StrEnum):
    """How long a subscriber keeps one pseudonym, in packet time (UTC)."""

    NONE = "none"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


_NAMES: Final = {
    Rotation.NONE: "always",
    Rotation.DAILY: "%Y-%m-%d",
    Rotation.WEEKLY: "%G-W%V",
    Rotation.MONTHLY: "%Y-%m",
}


@lru_cache(maxsize=1024)
def _name(rotation: Rotation, day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime(_NAMES[rotation])


class KeyRing:
    """Turns identities into tokens and tokens into pseudonyms.

    Parameters
    ----------
    master
        At least `KEY_BYTES` secret bytes; None draws them, so that pseudonyms last one run.
    rotation
        When pseudonyms change.

    Examples
    --------
    >>> ring = KeyRing(bytes(32), Rotation.MONTHLY)
    >>> token = ring.token("imsi", b"001010123456789")
    >>> january = ring.pseudonym(token, 1_704_067_200 * 10**9)
    >>> january == ring.pseudonym(token, 1_706_000_000 * 10**9)
    True
    >>> january == ring.pseudonym(token, 1_707_000_000 * 10**9)
    False
    >>> len(january), january[:2]
    (18, 's-')
    """

    def __init__(self, master: bytes | None = None, rotation: Rotation = Rotation.NONE) -> None:
        if master is None:
            master = secrets.token_bytes(KEY_BYTES)
        if len(master) < KEY_BYTES:
            raise ValueError(f"a key of {len(master)} bytes is shorter than {KEY_BYTES}")
        self.rotation = rotation
        self._given = master
        self._master = hmac.digest(b"veilwatch subscriber", master, "sha256")  # HKDF-Extract
        self._tokens = self._derive(b"token")
        self._shown = lru_cache(maxsize=CACHED)(self._show)
        self._period_key = lru_cache(maxsize=1024)(self._derive)

    def __reduce__(self) -> tuple[type[KeyRing], tuple[bytes, Rotation]]:
        """Let worker processes make the same pseudonyms."""
        return KeyRing, (self._given, self.rotation)

    def token(self, kind: str, value: bytes) -> bytes:
        """Hash an identity; equal for equal identities of one kind in all periods."""
        text = kind.encode() + b"\0" + value
        return hashlib.blake2b(text, key=self._tokens, digest_size=TOKEN_BYTES).digest()

    def period(self, ts_ns: int) -> str:
        """Name the period that a time belongs to: `2026-03-09`, `2026-W11`, `2026-03`."""
        return _name(self.rotation, ts_ns // DAY_NS)

    def pseudonym(self, token: bytes, ts_ns: int) -> str:
        """Return what stands for a subscriber at a time: `s-` and 16 hexadecimal digits."""
        return self._shown(token, self.period(ts_ns))

    def _show(self, token: bytes, period: str) -> str:
        key = self._period_key(b"period " + period.encode())
        return "s-" + hashlib.blake2b(token, key=key, digest_size=PSEUDONYM_BYTES).hexdigest()

    def _derive(self, purpose: bytes) -> bytes:
        return hmac.digest(self._master, purpose + b"\x01", "sha256")  # HKDF-Expand, one block


def read_key_file(path: Path) -> bytes:
    """Read a master key; its file must be readable by its owner only.

    Raises
    ------
    VeilwatchError
        If the file cannot be read, is open to others, or is too short or too long.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise VeilwatchError(
            f"the subscriber key cannot be read: {error.strerror}", where=path
        ) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise VeilwatchError("the subscriber key is not a regular file", where=path)
        if mode & 0o077:
            raise VeilwatchError(
                f"the subscriber key is open to others (mode {stat.S_IMODE(mode):04o})",
                where=path,
                hint="chmod 600 it, or make a new one if others may have read it",
            )
        key = os.read(descriptor, MAX_KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if not KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise VeilwatchError(
            f"a subscriber key has {KEY_BYTES} to {MAX_KEY_BYTES} bytes",
            where=path,
            hint="make one: (umask 077; head -c 32 /dev/urandom > FILE)",
        )
    return key
