"""Collects the gauges for a scrape: the states of the children, and the state of the queue."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.bodies.base import NO_LIMIT
from glassq.bodies.sweep import count_bodies
from glassq.errors import BodyError, NoProof, QueueError, QueueUnavailable
from glassq.metrics import Gauge
from glassq.settings import parking_tube
from glassq.worker.layout import State

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from glassq.bodies import BodyStore
    from glassq.queues import Inspector
    from glassq.queues.base import Job, TubeCounts
    from glassq.worker.gates.shared import Gates
    from glassq.worker.scoreboard import Scoreboard

# Of so many parking tubes the jobs are counted: each is a question.
MAX_TUBES = 1_000
# The queue must answer within this time, in seconds: Prometheus waits for 10 by default.
QUEUE_TIMEOUT = 5.0
# How often the bodies of a store that is no disk are counted, in seconds.
COUNT_EVERY = 60.0
# How often it is tried whether the queue takes jobs, in seconds: a large one, which costs the queue's disk something.
TRY_EVERY = 60.0

_CHILDREN = Gauge("glassq_children", "Children of the pool, by what they do.", ("state",))
_UP = Gauge("glassq_queue_up", "1 if the queue answers; the queue's other metrics are missing while it does not.")
_JOBS = Gauge("glassq_jobs", "Jobs of our tubes, by their state.", ("tube", "state"))
_OLDEST = Gauge("glassq_oldest_ready_seconds", "How long the next job has been ready; 0 if there is none.", ("tube",))
_PAUSED = Gauge("glassq_tube_paused", "1 while the tube is paused.", ("tube",))
_PARKED = Gauge("glassq_parked_jobs", "Ready jobs that wait for their key or for a paused route.", ("route",))
_ROUTE_PAUSED = Gauge("glassq_route_paused", "1 while the route has paused itself (breaker).", ("route",))
_DURABLE = Gauge(
    "glassq_queue_durable",
    "1 if the queue takes jobs and writes them to disk, and nothing stands against a proof of that.",
)
_DRAINING = Gauge("glassq_queue_draining", "1 if the queue accepts no jobs until it is restarted.")

_BODIES = Gauge("glassq_bodies", "Large bodies in the store, by their state.", ("state",))
_BODY_BYTES = Gauge("glassq_body_bytes", "Their size, by their state.", ("state",))
_OLDEST_BODY = Gauge("glassq_oldest_body_seconds", "Since when nobody has touched the live body that waits longest.")
_BODY_ROOM = Gauge("glassq_body_room_bytes", "How much more the store takes.")

Numbers = dict[Gauge, dict[tuple[str, ...], float]]


class PoolCollector:
    """Called for each scrape, by one thread at a time."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        inspector: Inspector,
        tubes: Sequence[str],
        bodies: BodyStore | None = None,
        *,
        prefixes: tuple[str, ...] = (),
        gates: Gates | None = None,
        breakers: Container[str] = (),
    ) -> None:
        """`inspector` must have a connection of its own. `tubes` and `gates` are the pool's; the main tube is first.

        `breakers` are the names of the routes that have one.

        A tube that is one of `prefixes` and a name is told as well, while it holds jobs.
        """
        self._gates = gates
        self._breakers = breakers
        self._bodies = bodies
        self._scoreboard = scoreboard
        self._inspector = inspector
        self._tubes = tubes
        self._prefixes = prefixes
        #: by tube: its first ready job, and when that was first seen
        self._first: dict[str, tuple[str, float]] = {}
        # what a store far away held, and until when that is told
        self._counted: Numbers = {}
        self._counted_until = 0.0
        # whether the queue kept the last job that was tried, and until when that is told
        self._kept = False
        self._tried_until = 0.0

    def __call__(self) -> Numbers:
        """All gauges with their values. Never raises QueueError."""
        collected: Numbers = {_CHILDREN: self._children(), **self._stored()}
        self._inspector.set_deadline(time.monotonic() + QUEUE_TIMEOUT)
        # A connection that broke while it was idle fails at the first try.
        for _ in range(2):
            with suppress(QueueError):
                return {**collected, _UP: {(): 1.0}, **self._engine(), **self._jobs(), **self._gated()}
        return {**collected, _UP: {(): 0.0}}

    def _children(self) -> dict[tuple[str, ...], float]:
        slots = range(len(self._scoreboard.slots))
        found = Counter(self._scoreboard.status(index).state for index in slots)
        return {(state.name.lower(),): float(found[state]) for state in State if state is not State.EMPTY}

    def _stored(self) -> Numbers:
        """Nothing where there is no store, or it cannot be read."""
        if self._bodies is None:
            return {}
        if time.monotonic() < self._counted_until:
            return self._counted
        try:
            found, room = count_bodies(self._bodies), self._bodies.free()
        except BodyError:
            return {}
        many = {"live": found.live, "done": found.done, "unfinished": found.unfinished}
        size = {"live": found.live_bytes, "done": found.done_bytes, "unfinished": found.unfinished_bytes}
        self._counted = {
            _BODIES: {(state,): float(value) for state, value in many.items()},
            _BODY_BYTES: {(state,): float(value) for state, value in size.items()},
            _OLDEST_BODY: {(): found.oldest},
        }
        if room != NO_LIMIT:
            self._counted[_BODY_ROOM] = {(): float(room)}
        else:
            # to list what is far away costs more than to look at a disk
            self._counted_until = time.monotonic() + COUNT_EVERY
        return self._counted

    def _engine(self) -> Numbers:
        status = self._inspector.status()
        own: Numbers = {Gauge(gauge.name, gauge.help): {(): float(gauge.value)} for gauge in status.gauges}
        kept = status.durable and (not status.accepting or self._keeps())
        return {_DURABLE: {(): float(kept)}, _DRAINING: {(): float(not status.accepting)}, **own}

    def _keeps(self) -> bool:
        """Whether a job that is put is taken and kept. Tried now and then: one is put and taken out again."""
        if time.monotonic() < self._tried_until:
            return self._kept
        self._tried_until, self._kept = time.monotonic() + TRY_EVERY, False
        try:
            self._inspector.check()
        except QueueError as error:
            if isinstance(error, QueueUnavailable) and not isinstance(error, NoProof):
                self._tried_until = 0.0
                raise
            return False
        self._kept = True
        return True

    def _jobs(self) -> Numbers:
        jobs: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        paused: dict[tuple[str, ...], float] = {}
        for tube in self._counts():
            for state in ("ready", "reserved", "delayed", "buried"):
                jobs[tube.name, state] = float(getattr(tube, state))
            if self._inspector.capabilities.oldest:
                first = self._inspector.first("ready", tube.name) if tube.ready else None
                oldest[tube.name,] = self._ready_for(first) if first else 0.0
            paused[tube.name,] = float(tube.paused_for > 0)
        return {_JOBS: jobs, _OLDEST: oldest, _PAUSED: paused}

    def _gated(self) -> Numbers:
        if self._gates is None:
            return {}
        states = self._gates.breakers.states(self._breakers)
        paused: dict[tuple[str, ...], float] = {(route,): float(state.is_open) for route, state in states.items()}
        parked = dict.fromkeys(paused, 0.0)
        seen = (parking_tube(self._tubes[0], hint.tube) for hint in self._gates.parked.look(-1, MAX_TUBES))
        found = {tube.name: tube.route for tube in seen if tube is not None}
        for counts in self._inspector.counts(list(found)) if found else ():
            route = (found[counts.name],)
            parked[route] = parked.get(route, 0.0) + counts.ready
        return {_PARKED: parked, _ROUTE_PAUSED: paused}

    def _counts(self) -> list[TubeCounts]:
        others = [tube for tube in self._inspector.tubes() if self._is_other(tube)] if self._prefixes else []
        found = self._inspector.counts([*self._tubes, *others])
        return [tube for tube in found if tube.jobs or tube.name in self._tubes]

    def _is_other(self, tube: str) -> bool:
        """Whether it is that of a queue or a route that the settings no longer have."""
        prefix = next(filter(tube.startswith, self._prefixes), "")
        # what has a longer name may be one of very many, and a label must not be
        return bool(prefix) and "." not in tube.removeprefix(prefix) and tube not in self._tubes

    def _ready_for(self, job: Job) -> float:
        """Seconds since the job became ready; if the engine cannot tell, since we first saw it ready."""
        if job.ready_for is not None:
            return job.ready_for
        if self._first.get(job.tube, ("", 0.0))[0] != job.ref:
            self._first[job.tube] = (job.ref, time.monotonic())
        return time.monotonic() - self._first[job.tube][1]
