"""How hosts that share a queue divide a limit: each has a share of the rate, and of the attempts at once, for a moment.

A host says twice a second what it uses and whether it wants more, and takes a share of what the others have left over.
All shares that are valid together are never more than the limit: a host takes only what is free, and gives up before it
says so. A host that is dead says nothing, and its share is free when it runs out. Within a host, children take tokens
and places from its share as if there were no other host (throttle.py), so an attempt costs no round trip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glassq.worker.bucket import UNLIMITED, Limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from glassq.worker.bucket import Demand

# A host that wants no more keeps so many times what it uses of the rate, and at least this part of the whole, so that
# it can begin at once.
HEADROOM, LEAST = 1.25, 0.02


@dataclass(frozen=True, slots=True)
class HostShare:
    """What a host has of one tube's limit: tokens per second, and attempts at once.

    `used_rate` and `used_slots` are what it uses of them, `hungry` says whether it could use more.
    """

    host: str
    rate: float = 0.0
    slots: int = 0
    used_rate: float = 0.0
    used_slots: int = 0
    hungry: bool = False


def next_share(limit: Limit, own: HostShare, others: Sequence[HostShare]) -> HostShare:
    """What the host takes now of the limit of all hosts. `others` are the shares that are valid."""
    return replace(own, rate=_rate(limit.rate, own, others), slots=_slots(limit.max_running, own, others))


def local_limit(limit: Limit, share: HostShare) -> Limit:
    """The limit within a host that has this share of it."""
    if limit.rate >= UNLIMITED:
        rate, bucket = limit.rate, limit.bucket
    else:
        rate = share.rate
        bucket = max(1, int(limit.bucket * share.rate / limit.rate)) if limit.rate else 1
    return replace(limit, rate=rate, bucket=bucket, max_running=None if limit.max_running is None else share.slots)


def with_demand(share: HostShare, demand: Demand, before: Demand | None, passed: float) -> HostShare:
    """The share with what is used of it. `before` is the demand of so many seconds ago."""
    begun = demand.consumed - before.consumed if before is not None else 0
    rate = begun / passed if passed > 0 else 0.0
    return replace(share, used_rate=rate, used_slots=demand.in_use, hungry=demand.hungry)


def _rate(total: float, own: HostShare, others: Sequence[HostShare]) -> float:
    if total >= UNLIMITED:
        return total
    if own.hungry:
        content = sum(min(other.rate, _kept(total, other)) for other in others if not other.hungry)
        wanted = (total - content) / (1 + sum(other.hungry for other in others))
    elif any(other.hungry for other in others):
        wanted = _kept(total, own)
    else:
        wanted = total / (1 + len(others))
    return max(0.0, min(wanted, total - sum(other.rate for other in others)))


def _kept(total: float, share: HostShare) -> float:
    return max(share.used_rate * HEADROOM, total * LEAST)


def _slots(total: int | None, own: HostShare, others: Sequence[HostShare]) -> int:
    if total is None:
        return 0
    hungry = [other for other in others if other.hungry]
    if own.hungry:
        content = sum(other.used_slots for other in others if not other.hungry)
        wanted = _part(total - content, own, hungry)
    elif hungry:
        wanted = own.used_slots
    else:
        wanted = max(own.used_slots, _part(total, own, others))
    return max(0, min(wanted, total - sum(other.slots for other in others)))


def _part(total: int, own: HostShare, others: Iterable[HostShare]) -> int:
    """An equal part in whole numbers; the first hosts by name have one more where it does not come out even."""
    hosts = sorted([own.host, *(other.host for other in others)])
    each, more = divmod(max(0, total), len(hosts))
    return each + (hosts.index(own.host) < more)
