"""Whether a delivery needs to be worked at all: on a route that says so, not when an equal one was worked instead.

Two rules, and never a bare time window:

coalesce        an identical ping's handler started after this one was received, and succeeded. It has seen whatever
                this ping tells of. Only the start counts: a handler that began earlier may have read the old state.
dedupe_window   the same event of the source (its id is in the label `event_id`) was done less than that ago. Not where
                an operator had the delivery replayed: that is asked for explicitly.

Both believe only what the ledger has written; where that is behind or cannot be read, the handler runs.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.ledger import Ledger
    from glassq.settings import Route

# The label in which a source gives its own id of an event.
EVENT = "event_id"
# The label of a delivery that was put again from the ledger: the id of the one it repeats.
REPLAY_OF = "replay_of"


def fingerprint(delivery: Delivery, route: Route) -> str:
    """What identical pings have in common, in hex; "" on a route that does not coalesce."""
    # a route is part of it: what another handler has seen is nothing to this one
    return _digest(route.handler, delivery.source, delivery.body) if route.coalesce else ""


def event(delivery: Delivery, route: Route) -> str:
    """What pings of one event have in common, in hex; "" where the source names none, or the route does not ask."""
    name = delivery.labels.get(EVENT)
    return _digest(route.handler, delivery.source, name.encode()) if name and route.dedupe_window is not None else ""


def replaced_by(delivery: Delivery, route: Route, ledger: Ledger, skew: float) -> str:
    """Why the delivery need not be worked, in words; "" where it must be. `skew` between clocks is in seconds."""
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
    # neither name holds a NUL, so no two of them run into each other
    return hashlib.sha256(b"\0".join((handler.encode(), source.encode(), rest))).hexdigest()
