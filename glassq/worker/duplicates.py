"""Finds duplicates: deliveries that need no work because an equal one was worked instead.

A route can ask for two rules. Neither is a bare time window:

coalesce        The handler of an identical ping started after this one was received, and succeeded. So it has seen the
                change that this ping reports. Only the start counts: a handler that started earlier may have read the
                old state.
dedupe_window   The same event of the source (its id is in the label `event_id`) was done within this time. This does
                not apply to a delivery that an operator replays, because the operator asks for the work.

Both rules rely on the ledger. If the ledger is late or cannot be read, the handler runs.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.ledger import Ledger
    from glassq.settings import Route

# The label with the source's own id of an event.
EVENT = "event_id"
# The label of a replayed delivery: the id of the delivery that it repeats.
REPLAY_OF = "replay_of"


def fingerprint(delivery: Delivery, route: Route) -> str:
    """A hash that is the same for identical pings, in hex; "" if the route does not coalesce."""
    # the handler is part of it: another handler's work does not count for this one
    if not route.coalesce:
        return ""
    # bodies of one size are stored in one way, so identical pings have the same text here
    rest = delivery.stored.sha256.encode() if delivery.stored else delivery.body
    return _digest(route.work, delivery.source, rest)


def event(delivery: Delivery, route: Route) -> str:
    """A hash that is the same for pings of one event, in hex; "" without an event id, or without `dedupe_window`."""
    if route.dedupe_window is None:
        return ""
    name = delivery.labels.get(EVENT)
    return _digest(route.work, delivery.source, name.encode()) if name else ""


def replaced_by(delivery: Delivery, route: Route, ledger: Ledger, skew: float) -> str:
    """Why the delivery is a duplicate; "" if it must be worked. `skew` between clocks is in seconds."""
    if route.coalesce:
        after = delivery.received + timedelta(seconds=skew)
        if other := ledger.done_since(fingerprint(delivery, route), after, but=delivery.id):
            return f"duplicate: {other} is the same ping, and was worked after this one came"
    if REPLAY_OF not in delivery.labels and (key := event(delivery, route)):
        since = datetime.now(UTC) - timedelta(seconds=route.dedupe_window or 0.0)
        if other := ledger.event_done(key, since, but=delivery.id):
            return f"duplicate: {other} was the same event, and is done"
    return ""


def _digest(handler: str, source: str, rest: bytes) -> str:
    # names contain no NUL, so the parts cannot be confused
    return hashlib.sha256(b"\0".join((handler.encode(), source.encode(), rest))).hexdigest()
