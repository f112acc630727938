"""What answered requests do to the sessions."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from veilwatch.subscriber import gtpv1, gtpv2, pfcp
from veilwatch.subscriber.dialogue import Dialogues
from veilwatch.subscriber.messages import End, Message, Procedure, Protocol, Tunnel
from veilwatch.subscriber.store import Context, Store

MAX_NODES: Final = 65_536
"""Most nodes whose restart counter is kept; the one heard of longest ago is forgotten."""


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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dialogues = Dialogues()
        self._recoveries: OrderedDict[tuple[Protocol, int], int] = OrderedDict()
        self.counts: Counter[str] = Counter()

    @property
    def unanswered(self) -> int:
        """Requests that were given up."""
        return self._dialogues.unanswered

    def take(self, message: Message, src: int, dst: int, ts_ns: int) -> None:
        """Apply one message that `src` sent to `dst`."""
        if message.recovery is not None and self._is_restarted(message, src):
            self.counts["restarts"] += 1
            for context in self._store.contexts_of_node(message.protocol, src):
                self._store.end(context, ts_ns, "restart")
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

    def _is_restarted(self, message: Message, node: int) -> bool:
        """Compare restart counters (TS 23.007 cl. 18, 19A); a step back is a late message."""
        key, new = (message.protocol, node), message.recovery or 0
        old = self._recoveries.get(key)
        if old is None or new == old:
            restarted = False
        elif message.protocol is Protocol.PFCP:
            restarted = new > old
        else:
            restarted = (new - old) % 256 < 128
        if old is None or restarted:
            self._recoveries[key] = new
        self._recoveries.move_to_end(key)
        if len(self._recoveries) > MAX_NODES:
            self._recoveries.popitem(last=False)
        return restarted

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
        contexts = self._chosen(request, response, asked)
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
                # The name may be shared by the PDN connections of one subscriber only.
                if old.linked == request.linked or (
                    old.token and request.token and old.token != request.token
                ):
                    store.end(old, ts_ns, "replaced")
        context = store.create(protocol, asker, asked, ts_ns)
        for name in (*_names(request, asker), *names):
            store.name(context, name, ts_ns)
        store.identify(context, request.token, request.linked, ts_ns)
        store.learn(context, request, ts_ns)
        store.learn(context, response, ts_ns)
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
        tunnels = _joined(context, request, response, asker)
        if shared:
            own = context.bearers | {context.linked}
            tunnels = [tunnel for tunnel in tunnels if tunnel.leg.bearer in own]
        store.set_tunnels(context, tunnels, ts_ns)

    def _chosen(self, request: Message, response: Message, asked: int) -> list[Context]:
        """Return the contexts that a request is about, of those that share its TEID or SEID."""
        found = self._store.contexts(request.protocol, asked, request.context)
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
