"""What the pool is to be, according to the settings: a value, made anew at each reload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from glassq.worker.gates.shared import Gates
from glassq.worker.scoreboard import Scoreboard

if TYPE_CHECKING:
    from glassq.in_effect import Record
    from glassq.worker.bucket import Limit
    from glassq.worker.template import Load
    from glassq.worker.throttle import Throttle

# A child outside of an attempt is frozen if its keeper has not beaten for this long, in seconds. See health.py.
SILENCE = 20.0
# What the process beside the children runs, given the scoreboard and the gates; returns the exit code.
SidecarMain = Callable[[Scoreboard, Gates], int]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The pool according to the settings: what children run, how many there are, and which tubes have limits.

    Beside `processes` plain children there are `lane_processes` lane children, each with up to `lanes` jobs at once.

    `load` loads what a child runs. `preload`: children are forked from a process that has called it, where that is
    possible; else each calls it. `drain` is how long a stop waits for handlers, and `silence` how long a child may live
    without a heartbeat; in seconds. `kept` are the places of children that are kept for single queues, where there are
    more children than that. `sidecar` serves the metrics (None: nobody does), and `beside` are further processes, by
    names that are the same in every plan. `sharing` takes this host's share of the limits that hold over all hosts.
    `sweep` returns what sweeps large bodies now, if anything. `queue` is the queue's address, for people. `made_of` is
    the record of the settings that the plan was made of. `breakers` are the names of the routes that have one.
    """

    load: Load
    processes: int
    drain: float
    preload: bool = True
    silence: float = SILENCE
    limits: tuple[Limit, ...] = ()
    kept: tuple[Limit, ...] = ()
    sidecar: SidecarMain | None = None
    beside: Mapping[str, Callable[[], int] | None] = field(default_factory=dict)
    sharing: Callable[[Throttle], int] | None = None
    sweep: Callable[[], Callable[[], int] | None] | None = None
    queue: str = ""
    made_of: Record | None = None
    lane_processes: int = 0
    lanes: int = 0
    breakers: frozenset[str] = frozenset()

    def all_limits(self, processes: int) -> list[Limit]:
        """The limits and places of a pool of so many children. If they are too few, none is kept for a queue."""
        enough = sum(limit.max_running or 0 for limit in self.kept) < processes
        return [*self.limits, *(limit if enough else replace(limit, max_running=0) for limit in self.kept)]
