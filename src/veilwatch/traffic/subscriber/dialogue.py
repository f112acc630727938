"""Requests that wait for their response."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np

from veilwatch.schema.units import MINUTE_NS
from veilwatch.traffic.packet_time import PacketClock
from veilwatch.traffic.subscriber.messages import Message, Protocol

MAX_PENDING: Final = 65_536
"""Most waiting requests; beyond it the oldest is forgotten: far above what a core has under way."""

LIFETIME_NS: Final = MINUTE_NS
"""A request without a response for this long is given up: senders retransmit for 15 to 30 s
(T3 × N3 of TS 29.274 cl. 7.6, T1 × N1 of TS 29.244 cl. 6.4)."""


class _Key(NamedTuple):
    protocol: Protocol
    requester: int
    responder: int
    sequence: int


class Dialogues:
    """Pairs requests with responses by protocol, addresses and sequence number.

    Attributes
    ----------
    unanswered
        Requests that were given up or forgotten.
    """

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self._limit = limit
        self._waiting: OrderedDict[_Key, tuple[int, Message]] = OrderedDict()
        self._clock = PacketClock(LIFETIME_NS)
        self.unanswered = 0

    def ask(self, message: Message, src: int, dst: int, ts_ns: int) -> None:
        """Keep a request; a retransmission changes nothing.

        What else waits goes by the time that is believed: a wrong stamp gives up no other request.
        """
        now_ns = self._follow(ts_ns)
        key = _Key(message.protocol, src, dst, message.sequence)
        known = self._waiting.get(key)
        if known is not None:
            if known[1].kind == message.kind and ts_ns - known[0] <= LIFETIME_NS:
                return
            del self._waiting[key]
            self.unanswered += 1
        self._waiting[key] = ts_ns, message
        while self._waiting:
            oldest, (since, _) = next(iter(self._waiting.items()))
            if len(self._waiting) <= self._limit and now_ns - since <= LIFETIME_NS:
                break
            del self._waiting[oldest]
            self.unanswered += 1

    def answer(self, message: Message, src: int, dst: int, ts_ns: int) -> Message | None:
        """Return the request that a response belongs to, once; None if there is none."""
        self._follow(ts_ns)
        key = _Key(message.protocol, dst, src, message.sequence)
        since, request = self._waiting.get(key, (0, None))
        if request is None or request.kind != message.kind - 1:
            return None
        del self._waiting[key]
        if ts_ns - since > LIFETIME_NS:
            self.unanswered += 1
            return None
        return request

    def _follow(self, ts_ns: int) -> int:
        return self._clock.follow(np.array([ts_ns], np.int64))
