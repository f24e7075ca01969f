"""How things are at the moment, for the process that tells the metrics: the children, and the queue."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.metrics import Gauge
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues import JobStats, Queue, ServerStats
    from glassq.worker.scoreboard import Scoreboard

# Prometheus waits for 10 seconds by default; the queue has so much of it.
PATIENCE = 5.0

_CHILDREN = Gauge("glassq_children", "Children of the pool, by what they do.", ("state",))
_UP = Gauge("glassq_queue_up", "1 if beanstalkd answers; what follows is missing while it does not.")
_JOBS = Gauge("glassq_jobs", "Jobs of our tubes, by their state.", ("tube", "state"))
_OLDEST = Gauge("glassq_oldest_ready_seconds", "How long the next job has been ready; 0 for none.", ("tube",))
_PAUSED = Gauge("glassq_tube_paused", "1 while nobody reserves from the tube.", ("tube",))
_DURABLE = Gauge("glassq_queue_durable", "1 if beanstalkd writes jobs to disk.")
_DRAINING = Gauge("glassq_queue_draining", "1 if beanstalkd takes no jobs until it is restarted.")
_FILES = Gauge("glassq_binlog_files", "Binlog files that beanstalkd must keep; old jobs pin them.")
_CONNECTIONS = Gauge("glassq_queue_connections", "Connections that beanstalkd has.")


class Look:
    """Looks up what nobody counts. One thread at a time asks."""

    def __init__(self, scoreboard: Scoreboard, queue: Queue, tubes: Sequence[str]) -> None:
        """`queue` is a connection of its own; `tubes` are ours."""
        self._scoreboard = scoreboard
        self._queue = queue
        self._tubes = tubes
        self._last: ServerStats | None = None
        self._writes = True
        #: of each tube: the job that was ready for longest, and since when it is
        self._first: dict[str, tuple[int, float]] = {}

    def __call__(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        """The gauges, each with its numbers. Never raises QueueError."""
        looked = {_CHILDREN: self._children()}
        self._queue.set_deadline(time.monotonic() + PATIENCE)
        # a connection that broke while it lay idle shows only now
        for _ in range(2):
            with suppress(QueueError):
                return {**looked, _UP: {(): 1.0}, **self._server(), **self._jobs()}
        return {**looked, _UP: {(): 0.0}}

    def _children(self) -> dict[tuple[str, ...], float]:
        board = self._scoreboard
        found = Counter(board.card(index).state for index in range(len(board.slots)))
        return {(state.name.lower(),): float(found[state]) for state in State if state is not State.EMPTY}

    def _server(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        now = self._queue.stats()
        if self._last is not None and now.id == self._last.id:
            # what failed once is believed only when it writes again
            self._writes = now.records > self._last.records or (self._writes and now.jobs == self._last.jobs)
        else:
            self._writes = True
        self._last = now
        numbers: dict[Gauge, float] = {
            _DURABLE: now.durable and self._writes,
            _DRAINING: now.draining,
            _FILES: now.files,
            _CONNECTIONS: now.connections,
        }
        return {gauge: {(): float(number)} for gauge, number in numbers.items()}

    def _jobs(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        jobs: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        paused: dict[tuple[str, ...], float] = {}
        for tube in self._tubes:
            stats = self._queue.stats_tube(tube)
            for state in ("ready", "reserved", "delayed", "buried"):
                jobs[tube, state] = float(getattr(stats, state))
            first = self._queue.oldest_ready(tube) if stats.ready else None
            oldest[tube,] = self._ready_for(first) if first else 0.0
            paused[tube,] = float(stats.paused_for > 0)
        return {_JOBS: jobs, _OLDEST: oldest, _PAUSED: paused}

    def _ready_for(self, job: JobStats) -> float:
        """How long, in seconds. A job's age counts from its put, so its delay is no part of it.

        Since when one is ready that was released or kicked, nobody tells: for us it is since it was first seen so.
        """
        if not (job.releases or job.kicks):
            return float(max(0, job.age - job.delay))
        if self._first.get(job.tube, (0, 0.0))[0] != job.id:
            self._first[job.tube] = (job.id, time.monotonic())
        return time.monotonic() - self._first[job.tube][1]
