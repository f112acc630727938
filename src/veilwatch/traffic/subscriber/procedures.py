"""What answered requests do to the sessions."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from veilwatch.traffic.subscriber import gtpv1, gtpv2, pfcp
from veilwatch.traffic.subscriber.dialogue import Dialogues
from veilwatch.traffic.subscriber.messages import End, Message, Procedure, Protocol, Tunnel
from veilwatch.traffic.subscriber.session_store import MAX_ROLES, Context, SessionStore

MAX_NODES: Final = 65_536
"""Most nodes whose restart counter is kept; the one heard of longest ago is forgotten."""


@dataclass(slots=True)
class _Recovery:
    """What a node says of its last restart.

    A restart is believed when the node sets up its association anew, or repeats the new value
    in another message: there are SMFs that write the present time into every Heartbeat Request.
    """

    value: int
    told: int | None = None  # a newer value, said once
    sequence: int = 0
    since_ns: int = 0

    def restarted(self, message: Message, value: int, ts_ns: int) -> int | None:
        """Return since when the node is a new one; None if it is not, or not yet for sure."""
        if message.protocol is Protocol.PFCP:
            newer = value > self.value
            sure = message.kind in pfcp.ASSOCIATION_SETUP
        else:
            newer = 0 < (value - self.value) % 256 < 128
            sure = False
        if not newer:
            if value == self.value:
                self.told = None
            return None
        if self.told != value:
            self.told, self.sequence, self.since_ns = value, message.sequence, ts_ns
        elif self.sequence != message.sequence:
            sure = True
        if not sure:
            return None
        self.value, self.told = value, None
        return self.since_ns


class Procedures:
    """Applies control messages to a store.

    Only what the receiver accepted is applied, when its response is seen.

    Parameters
    ----------
    store
        The sessions.

    Attributes
    ----------
    counts
        What could not be applied, by its reason.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._dialogues = Dialogues()
        self._recoveries: OrderedDict[tuple[Protocol, int], _Recovery] = OrderedDict()
        self.counts: Counter[str] = Counter()

    @property
    def unanswered(self) -> int:
        """Requests that were given up."""
        return self._dialogues.unanswered

    def take(self, message: Message, src: int, dst: int, ts_ns: int) -> None:
        """Apply one message that `src` sent to `dst`."""
        if message.recovery is not None:
            self._watch_restart(message, message.recovery, src, ts_ns)
        if message.procedure is Procedure.OTHER:
            return
        if message.request:
            self._dialogues.ask(message, src, dst, ts_ns)
            return
        request = self._dialogues.answer(message, src, dst, ts_ns)
        if request is None:
            self.counts["responses without request"] += 1
        elif message.accepted or (message.not_found and request.procedure is not Procedure.CREATE):
            self._apply(request, message, dst, src, ts_ns)
        else:
            self.counts["refused by their receiver"] += 1

    def _watch_restart(self, message: Message, value: int, node: int, ts_ns: int) -> None:
        """Compare restart counters (TS 23.007 cl. 18, 19A); a step back is a late message."""
        key = (message.protocol, node)
        known = self._recoveries.get(key)
        if known is None:
            known = self._recoveries[key] = _Recovery(value)
        self._recoveries.move_to_end(key)
        if len(self._recoveries) > MAX_NODES:
            self._recoveries.popitem(last=False)
        since = known.restarted(message, value, ts_ns)
        if since is None:
            return
        self.counts["restarts"] += 1
        for context in self._store.contexts_of_node(message.protocol, node):
            if context.created_ns < since:
                self._store.end(context, since, "restart")

    def _apply(
        self, request: Message, response: Message, asker: int, asked: int, ts_ns: int
    ) -> None:
        store, procedure = self._store, request.procedure
        if procedure is Procedure.CREATE:
            self._create(request, response, asker, asked, ts_ns)
            return
        if procedure is Procedure.RELEASE_ASSOCIATION:
            for context in store.contexts_of_node(request.protocol, asked):
                if asker in (context.requester, context.responder):
                    store.end(context, ts_ns, "association")
            return
        contexts = self._chosen(request, response, asker, asked)
        if not contexts:
            self.counts["about unknown sessions"] += 1
        for context in contexts:
            if procedure is Procedure.DELETE or response.not_found:
                store.end(context, ts_ns, "released")
            elif procedure is Procedure.DELETE_BEARERS:
                store.drop_bearers(context, request.bearers - response.failed, ts_ns)
            elif procedure is Procedure.RELEASE_ACCESS:
                store.release_access(context, ts_ns)
            else:
                self._modify(context, request, response, asker, asked, ts_ns, len(contexts) > 1)

    def _create(
        self, request: Message, response: Message, asker: int, asked: int, ts_ns: int
    ) -> None:
        store, protocol = self._store, request.protocol
        names = _names(response, asked)
        for name in names:
            for old in store.contexts(protocol, name.address, name.teid):
                # Towards one node, only PDN connections of one subscriber share a name.
                if {asker, asked} == {old.requester, old.responder} and (
                    old.linked == request.linked
                    or (old.token and request.token and old.token != request.token)
                ):
                    store.end(old, ts_ns, "replaced")
        context = store.create(protocol, asker, asked, ts_ns)
        for name in (*_names(request, asker), *names):
            store.name(context, name, ts_ns)
        store.identify(context, request.token, request.linked, ts_ns)
        store.learn(context, request, ts_ns)
        store.learn(context, response, ts_ns)
        context.roles.update(request.roles)
        store.set_tunnels(context, _joined(context, request, response, asker), ts_ns)
        if request.linked:
            context.bearers.add(request.linked)

    def _modify(
        self,
        context: Context,
        request: Message,
        response: Message,
        asker: int,
        asked: int,
        ts_ns: int,
        shared: bool,
    ) -> None:
        store = self._store
        for name in (*_names(request, asker), *_names(response, asked)):
            store.name(context, name, ts_ns)
        store.learn(context, request, ts_ns)
        store.learn(context, response, ts_ns)
        if len(context.roles) < MAX_ROLES:
            context.roles.update(request.roles)
        tunnels = _joined(context, request, response, asker)
        if shared:
            own = context.bearers | {context.linked}
            tunnels = [tunnel for tunnel in tunnels if tunnel.leg.bearer in own]
        store.set_tunnels(context, tunnels, ts_ns)

    def _chosen(self, request: Message, response: Message, asker: int, asked: int) -> list[Context]:
        """Return the contexts that a request is about, of those that share its TEID or SEID.

        Some nodes give one TEID out twice, on two interfaces: the asker decides, unless it is
        new (an MME that took over a subscriber).
        """
        known = self._store.contexts(request.protocol, asked, request.context)
        found = [c for c in known if asker in (c.requester, c.responder)] or known
        if len(found) <= 1 or request.procedure is Procedure.RELEASE_ACCESS:
            return found
        linked = [context for context in found if context.linked == request.linked]
        if linked:
            return linked
        bearers = request.bearers | response.bearers
        return [context for context in found if context.bearers & bearers] if bearers else found


def _names(message: Message, sender: int) -> list[End]:
    """Return the names that a sender gives to a session, also with the address it sends from."""
    named = dict.fromkeys(end for end in message.control if end.teid)
    return [*named, *(End(sender, end.teid) for end in named if end.address != sender)]


def _joined(context: Context, request: Message, response: Message, asker: int) -> list[Tunnel]:
    if request.protocol is Protocol.PFCP:
        return pfcp.joined(request, response)
    if request.protocol is Protocol.GTPV2:
        return gtpv2.joined(request, response)
    return gtpv1.joined(request, response, by_sgsn=asker == context.requester)
