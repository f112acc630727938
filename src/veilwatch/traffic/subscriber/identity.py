"""From what a message calls a subscriber to a token, at once and irreversibly."""

from __future__ import annotations

from typing import Final

from veilwatch.traffic.subscriber.messages import Message, Rank
from veilwatch.traffic.subscriber.pseudonym import KeyRing

IMEI_DIGITS: Final = 14
"""Digits of an IMEI and an IMEISV that name the device: a check digit or a software version
follows (TS 23.003 cl. 6.2)."""

_RANKS: Final = {"imsi": Rank.IMSI, "msisdn": Rank.MSISDN, "imei": Rank.IMEI}


class Identifier:
    """Puts the token of the best identity into a message; the identity itself is let go.

    Parameters
    ----------
    keys
        Makes tokens.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def __call__(self, message: Message, name: str, digits: bytes | None) -> None:
        """Take an identity: `name` is `imsi`, `msisdn` or `imei`; without digits nothing is."""
        rank = _RANKS[name]
        if not digits or rank.value <= message.rank.value:
            return
        value = digits[:IMEI_DIGITS] if rank is Rank.IMEI else digits
        message.token, message.rank = self._keys.token(name, value), rank
