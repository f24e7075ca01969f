"""Takes this host's share of the limits that hold over all hosts, in a process beside the pool's children."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from glassq import host
from glassq.errors import QueueError
from glassq.log import fields, logger
from glassq.worker import sidecar
from glassq.worker.host_shares import HostShare, local_limit, next_share, with_demand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.database.shares import Row, ShareTable
    from glassq.settings import Settings
    from glassq.worker.bucket import Demand, Limit
    from glassq.worker.throttle import Throttle

log = logger("glassq.worker")

# How often a share is taken anew, in seconds; and how long ours is used after that, less than it is valid for others.
EVERY, OURS = 0.5, 2.0
# How long the database may take for an answer, in seconds.
TIMEOUT = 1.0


def main_of(settings: Settings, limits: Sequence[Limit]) -> Callable[[Throttle], int] | None:
    """The main function of the process, which the calling process forks; None where no limit holds over all hosts."""
    shared = [limit for limit in limits if limit.shared]
    if not shared:
        return None
    # whoever follows a process that died goes on with its share
    parent, name = os.getpid(), host.run_name()
    return lambda throttle: run(settings, shared, throttle, parent, name)


def run(settings: Settings, limits: Sequence[Limit], throttle: Throttle, parent: int, name: str) -> int:
    """Takes shares until `parent` has died; SIGTERM ends it before. `name` is that of the pool's run."""
    # imported here: only a pool on PostgreSQL has the library
    from glassq.database.postgres import PostgresSession
    from glassq.database.shares import ShareTable

    sidecar.begin("limits")
    session = PostgresSession(settings.queue.url, name="glassq limits", connect_timeout=TIMEOUT, timeout=TIMEOUT)
    sharing = Sharing(ShareTable(session, name), limits, throttle, name)
    return sidecar.repeat(sharing.step, parent)


class Sharing:
    """Takes this host's shares; call `step` again and again."""

    def __init__(self, table: ShareTable, limits: Sequence[Limit], throttle: Throttle, name: str) -> None:
        """`limits` are those of all hosts together, `name` is this host's."""
        self._table = table
        self._limits = {limit.tube: limit for limit in limits}
        self._throttle = throttle
        self._shares = {tube: HostShare(name) for tube in self._limits}
        self._before: dict[str, Demand] = {}
        # when the shares were taken last, and until when they are ours, on time.monotonic()
        self._at = self._until = 0.0
        self._failing = False

    def step(self) -> float:
        """Takes the shares anew. Returns after how many seconds it wants to be called again."""
        began = time.monotonic()
        try:
            self._table.exchange(list(self._limits), self._take)
        except QueueError as error:
            if not self._failing:
                todo = "tubes with a limit are not worked until then"
                log.error("limits over all hosts cannot be asked for: %s %s", todo, fields(why=error))
            self._failing = True
            return EVERY
        if self._failing:
            log.info("limits over all hosts are known again")
        self._failing = False
        # what was given up is in force already; now what was taken
        self._until = began + OURS
        for tube, share in self._shares.items():
            self._throttle.adjust(local_limit(self._limits[tube], share), until=self._until)
        return EVERY

    def _take(self, others: Mapping[str, list[Row]]) -> dict[str, Row]:
        now = time.monotonic()
        passed, self._at = now - self._at, now
        return {tube: self._take_one(tube, [HostShare(*row) for row in rows], passed) for tube, rows in others.items()}

    def _take_one(self, tube: str, others: Sequence[HostShare], passed: float) -> Row:
        limit, before = self._limits[tube], self._shares[tube]
        demand = self._throttle.demand(tube)
        wanted = next_share(limit, with_demand(before, demand, self._before.get(tube), passed), others)
        less = HostShare(before.host, min(before.rate, wanted.rate), min(before.slots, wanted.slots))
        if (less.rate, less.slots) != (before.rate, before.slots):
            # children begin no more than that from here on; what they have begun is still ours
            self._throttle.adjust(local_limit(limit, less), until=self._until)
            demand = self._throttle.demand(tube)
        self._before[tube] = demand
        slots = max(wanted.slots, demand.in_use if limit.max_running is not None else 0)
        share = HostShare(before.host, wanted.rate, slots, wanted.used_rate, demand.in_use, demand.hungry)
        self._shares[tube] = share
        return (share.host, share.rate, share.slots, share.used_rate, share.used_slots, share.hungry)
