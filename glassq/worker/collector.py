"""Collects what nobody counts, for the process that serves the metrics: what the children do, and the queue's state."""

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

    from glassq.queues import Inspector
    from glassq.queues.base import Job
    from glassq.worker.scoreboard import Scoreboard

# Prometheus waits for 10 seconds by default; the queue has this many of them.
QUEUE_TIMEOUT = 5.0

_CHILDREN = Gauge("glassq_children", "Children of the pool, by what they do.", ("state",))
_UP = Gauge("glassq_queue_up", "1 if the queue answers; what follows is missing while it does not.")
_JOBS = Gauge("glassq_jobs", "Jobs of our tubes, by their state.", ("tube", "state"))
_OLDEST = Gauge("glassq_oldest_ready_seconds", "How long the next job has been ready; 0 for none.", ("tube",))
_PAUSED = Gauge("glassq_tube_paused", "1 while nobody reserves from the tube.", ("tube",))
_DURABLE = Gauge("glassq_queue_durable", "1 if the queue writes jobs to disk.")
_DRAINING = Gauge("glassq_queue_draining", "1 if the queue takes no jobs until it is restarted.")

Numbers = dict[Gauge, dict[tuple[str, ...], float]]


class PoolCollector:
    """Called for each scrape, by one thread at a time."""

    def __init__(self, scoreboard: Scoreboard, inspector: Inspector, tubes: Sequence[str]) -> None:
        """`inspector` is a connection of its own; `tubes` are ours."""
        self._scoreboard = scoreboard
        self._inspector = inspector
        self._tubes = tubes
        #: of each tube: the job that was ready for longest, and since when it is
        self._first: dict[str, tuple[str, float]] = {}

    def __call__(self) -> Numbers:
        """The gauges, each with its numbers. Never raises QueueError."""
        collected: Numbers = {_CHILDREN: self._children()}
        self._inspector.set_deadline(time.monotonic() + QUEUE_TIMEOUT)
        # A connection that broke while it lay idle shows only now.
        for _ in range(2):
            with suppress(QueueError):
                return {**collected, _UP: {(): 1.0}, **self._engine(), **self._jobs()}
        return {**collected, _UP: {(): 0.0}}

    def _children(self) -> dict[tuple[str, ...], float]:
        board = self._scoreboard
        found = Counter(board.card(index).state for index in range(len(board.slots)))
        return {(state.name.lower(),): float(found[state]) for state in State if state is not State.EMPTY}

    def _engine(self) -> Numbers:
        status = self._inspector.status()
        own: Numbers = {Gauge(each.name, each.help): {(): float(each.value)} for each in status.gauges}
        return {_DURABLE: {(): float(status.durable)}, _DRAINING: {(): float(not status.accepting)}, **own}

    def _jobs(self) -> Numbers:
        jobs: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        paused: dict[tuple[str, ...], float] = {}
        for tube in self._inspector.counts(self._tubes):
            for state in ("ready", "reserved", "delayed", "buried"):
                jobs[tube.name, state] = float(getattr(tube, state))
            first = self._inspector.first("ready", tube.name) if tube.ready else None
            oldest[tube.name,] = self._ready_for(first) if first else 0.0
            paused[tube.name,] = float(tube.paused_for > 0)
        return {_JOBS: jobs, _OLDEST: oldest, _PAUSED: paused}

    def _ready_for(self, job: Job) -> float:
        """How long, in seconds; where the engine cannot tell, since it was first seen so."""
        if job.ready_for is not None:
            return job.ready_for
        if self._first.get(job.tube, ("", 0.0))[0] != job.ref:
            self._first[job.tube] = (job.ref, time.monotonic())
        return time.monotonic() - self._first[job.tube][1]
