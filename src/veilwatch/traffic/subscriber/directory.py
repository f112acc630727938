"""The way in: control traffic in; sessions, bindings and flows with their subscriber out."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.schema.packets import PacketBatch
from veilwatch.schema.sessions import Session, SubscriberReport, TunnelEnd
from veilwatch.traffic.subscriber.attribute import (
    CONTROL,
    LEARNED,
    Attributor,
    address_text,
    ue_text,
)
from veilwatch.traffic.subscriber.control import MessageReader, control_rows, datagram
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.learn import Learned, Learner
from veilwatch.traffic.subscriber.procedures import Procedures
from veilwatch.traffic.subscriber.pseudonym import KeyRing
from veilwatch.traffic.subscriber.session_store import MAX_SESSIONS, OPEN, Record, SessionStore
from veilwatch.traffic.subscriber.values import load

INSTALL: Final = "pip install '.[mobile]'"


class Directory:
    """Directory of the sessions that a capture shows.

    Parameters
    ----------
    keys
        Makes pseudonyms; None draws a key that lasts as long as the directory.
    max_sessions
        Most sessions kept; see `veilwatch.traffic.subscriber.session_store.MAX_SESSIONS`.

    Examples
    --------
    >>> directory = Directory()
    >>> len(directory.bindings()), directory.version, directory.note
    (0, 0, '')
    """

    def __init__(self, keys: KeyRing | None = None, *, max_sessions: int = MAX_SESSIONS) -> None:
        self._keys = keys or KeyRing()
        self._store = SessionStore(max_sessions)
        self._procedures = Procedures(self._store)
        self._reader = MessageReader(Identifier(self._keys))
        self._learner = Learner()
        self._attributor = Attributor(self._store, self._learner, self._keys)
        self._unread = 0
        self._from_subscribers = 0

    def observe(self, batch: PacketBatch) -> None:
        """Read the control messages among the packets of a block.

        Messages inside GTP-U, and those from or to an address that the directory knows as a
        subscriber's, are counted and not believed: every subscriber can send them.
        """
        for row in control_rows(batch):
            if batch.packets["gtp_depth"][row]:
                self._from_subscribers += 1
                continue
            if load() is None:
                self._unread += 1
                continue
            message = datagram(batch, int(row))
            if self._store.holds_address(message.src) or self._store.holds_address(message.dst):
                self._from_subscribers += 1
                continue
            for part in self._reader.read(message):
                self._procedures.take(part, message.src, message.dst, message.ts_ns)

    def bindings(self) -> npt.NDArray[np.void]:
        """Return the F-TEIDs that are valid now: array of `SESSION_DTYPE`, in no order."""
        return self._store.bindings.rows()

    @property
    def version(self) -> int:
        """A number that grows whenever `bindings` changes."""
        return self._store.bindings.version

    @property
    def note(self) -> str:
        """What the user should know, on one line; '' if nothing."""
        if not self._unread:
            return ""
        return (
            f"{self._unread:,} packets of GTP-C or PFCP were seen but not read: {INSTALL} "
            "to learn subscribers from them"
        )

    def annotate(self, frame: pl.DataFrame, *, early: bool = False) -> pl.DataFrame:
        """Give flows their subscriber.

        A flow's session is known by its number (`session`, where the meter gives one), else by
        the F-TEIDs that its packets were sent to, else, outside tunnels, by an inner address
        that exactly one session held. Flows in tunnels that no session claims are attributed by
        learning.

        Parameters
        ----------
        frame
            A flow table; its columns `subscriber`, `subscriber_by`, `apn` and `location` are
            replaced.
        early
            Whether these are reports of live flows, whose records are still to come: they are told
            what is known, but neither counted nor learned from, lest one flow speak for several.

        Returns
        -------
        polars.DataFrame
            `subscriber_by` is `control`, `learned` or '' where `subscriber` is ''.
        """
        return self._attributor.annotate(frame, early=early)

    def sessions(self) -> list[Session]:
        """Return the sessions known from control traffic, then the learned ones."""
        known = [self._session(record) for record in self._store.records()]
        return known + [self._learned(learned) for learned in self._learner.learned()]

    def report(self) -> SubscriberReport:
        """Return all of this for people."""
        return SubscriberReport(tuple(self.sessions()), self.counters, self.note)

    @property
    def counters(self) -> dict[str, Any]:
        """What was read, refused and given up.

        `messages` by protocol and type; `refused` what could not be read or applied, by reason;
        `flows` by how they were attributed; `unattributed` flows in tunnels by their pair of end
        points, most first.
        """
        store = self._store
        refused = self._reader.refused + self._procedures.counts
        restarts = refused.pop("restarts", 0)
        refused.update(
            {
                "sent by or to subscribers": self._from_subscribers,
                "packets without pycrate": self._unread,
                "requests without response": self._procedures.unanswered,
                "F-TEIDs beyond the bound": store.ends_refused,
            }
        )
        return {
            "messages": dict(self._reader.messages.most_common()),
            "refused": {reason: count for reason, count in refused.most_common() if count},
            "restarts": restarts,
            "reused_fteids": store.ends_reused,
            "sessions_evicted": store.evicted,
            "learned_forgotten": self._learner.forgotten,
            "flows": dict(self._attributor.counts),
            "unattributed": [
                {"end_points": list(pair), "flows": count}
                for pair, count in self._attributor.unattributed.most_common()
            ],
        }

    def _session(self, record: Record) -> Session:
        return Session(
            number=record.number,
            subscriber=self._keys.pseudonym(self._attributor.token(record), record.created_ns),
            subscriber_by=CONTROL,
            protocols=tuple(sorted(record.protocols)),
            apn=record.apn,
            addresses=tuple(map(ue_text, record.addresses)),
            tunnels=tuple(
                TunnelEnd(
                    address_text(span.end.address),
                    span.end.teid,
                    span.role,
                    span.first_ns,
                    None if span.last_ns == OPEN else span.last_ns,
                )
                for span in record.spans
            ),
            location=record.location(OPEN),
            rat=record.rat,
            created_ns=record.created_ns,
            ended_ns=None if record.ended_ns == OPEN else record.ended_ns,
            end_reason=record.reason,
            handovers=record.handovers,
            flows=record.flows,
        )

    def _learned(self, learned: Learned) -> Session:
        return Session(
            number=0,
            subscriber=self._attributor.learned_name(learned, learned.first_ns),
            subscriber_by=LEARNED,
            protocols=(),
            apn="",
            addresses=(ue_text(learned.ue),),
            tunnels=tuple(
                TunnelEnd(
                    address_text(node.end.address), node.end.teid, role, learned.first_ns, None
                )
                for node, role in learned.nodes.items()
            ),
            location="",
            rat="",
            created_ns=learned.first_ns,
            ended_ns=learned.last_ns,
            end_reason="",
            handovers=learned.handovers,
            flows=learned.flows,
        )
