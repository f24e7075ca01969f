"""How things are at the moment, for the process that tells the metrics: the children, and the queue."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.metrics import Gauge
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues import Queue, ServerStats
    from glassq.worker.scoreboard import Scoreboard

# Prometheus waits for 10 seconds by default; the queue has so much of it.
PATIENCE = 5.0

_CHILDREN = Gauge("glassq_children", "Children of the pool, by what they do.", ("state",))
_UP = Gauge("glassq_queue_up", "1 if beanstalkd answers; what follows is missing while it does not.")
_JOBS = Gauge("glassq_jobs", "Jobs of our tubes, by their state.", ("tube", "state"))
_OLDEST = Gauge("glassq_oldest_ready_seconds", "Age of the job that is ready for longest; 0 for none.", ("tube",))
_PAUSED = Gauge("glassq_tube_paused", "1 while nobody reserves from the tube.", ("tube",))
_DURABLE = Gauge("glassq_queue_durable", "1 if beanstalkd writes jobs to disk.")
_DRAINING = Gauge("glassq_queue_draining", "1 if beanstalkd takes no jobs until it is restarted.")
_FILES = Gauge("glassq_binlog_files", "Binlog files that beanstalkd must keep; old jobs pin them.")
_CONNECTIONS = Gauge("glassq_queue_connections", "Connections that beanstalkd has.")


class Look:
    """Looks up what nobody counts. One thread at a time asks."""

    def __init__(self, board: Scoreboard, queue: Queue, tubes: Sequence[str]) -> None:
        """`queue` is a connection of its own; `tubes` are ours."""
        self._board = board
        self._queue = queue
        self._tubes = tubes
        self._last: ServerStats | None = None
        self._writes = True

    def __call__(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        """The gauges, each with its numbers. Never raises QueueError."""
        looked = {_CHILDREN: self._children()}
        try:
            self._queue.until(time.monotonic() + PATIENCE)
            return {**looked, _UP: {(): 1.0}, **self._server(), **self._jobs()}
        except QueueError:
            return {**looked, _UP: {(): 0.0}}

    def _children(self) -> dict[tuple[str, ...], float]:
        found = Counter(self._board.card(index).state for index in range(len(self._board.slots)))
        return {(state.name.lower(),): float(found[state]) for state in State if state is not State.EMPTY}

    def _server(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        now = self._queue.stats()
        if self._last is not None and now.uptime >= self._last.uptime:
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
            oldest[tube,] = float(first.age) if first else 0.0
            paused[tube,] = float(stats.paused_for > 0)
        return {_JOBS: jobs, _OLDEST: oldest, _PAUSED: paused}
