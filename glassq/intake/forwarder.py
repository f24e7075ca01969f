"""Puts into the queue what the journal has already kept, where pings are acknowledged by the journal alone."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from glassq.log import logger
from glassq.queues.packets import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher
    from glassq.journal import Journal
    from glassq.queues import Producer
    from glassq.queues.base import NewJob

log = logger("glassq.intake")

# What it has in memory, in deliveries and bytes. More stays in the journal until the watcher moves it on.
MAX_WAITING, MAX_SIZE = 4096, 64 << 20
# What it puts with one proof, in deliveries.
PACKET = 256
# The queue's time for a packet, in seconds. Nobody waits for it.
FORWARD_BUDGET = 5.0


class Forwarder:
    """A thread of its own. What it has is held in the journal: it is retired there once the queue has proven it."""

    def __init__(self, producer: Producer, journal: Journal, state: IntakeState, watcher: Watcher) -> None:
        self._producer = producer
        self._journal = journal
        self._state = state
        self._watcher = watcher
        self._batches: SimpleQueue[Sequence[NewJob] | None] = SimpleQueue()
        self._counting = threading.Lock()
        self._waiting = self._size = 0
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call it after the fork."""
        self._thread.start()

    def stop(self, wait: float) -> None:
        """Ends the thread after what it has; waits for that, up to this number of seconds."""
        self._batches.put(None)
        self._thread.join(wait)

    def has_room(self, batch: Sequence[NewJob]) -> bool:
        """Whether it can take these."""
        return self._waiting + len(batch) <= MAX_WAITING and self._size + _size(batch) <= MAX_SIZE

    def hand_over(self, batch: Sequence[NewJob]) -> None:
        """These are held in the journal, and go into the queue now."""
        self._count(len(batch), _size(batch))
        self._batches.put(batch)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            jobs, over = self._with_those_that_wait(batch)
            try:
                self._forward(jobs)
            except Exception:
                log.exception("bug in the intake's forwarder")
                self._journal.release([job.key for job in jobs])
            self._count(-len(jobs), -_size(jobs))
            if over:
                return

    def _with_those_that_wait(self, first: Sequence[NewJob]) -> tuple[list[NewJob], bool]:
        jobs = list(first)
        while len(jobs) < PACKET:
            try:
                more = self._batches.get_nowait()
            except Empty:
                break
            if more is None:
                return jobs, True
            jobs += more
        return jobs, False

    def _forward(self, jobs: Sequence[NewJob]) -> None:
        if self._state.queue_trouble:
            self._journal.release([job.key for job in jobs])
            return
        result = put(self._producer, jobs, within=FORWARD_BUDGET)
        if result.error is not None:
            self._state.queue_fails(result.error)
        self._journal.retire(list(result.proven))
        # the watcher asks for the proof of what was put, and moves on what is left; what is too big is set aside then
        self._watcher.await_proof(result.late.values())
        here = result.proven.keys() | result.late.keys()
        self._journal.release([job.key for job in jobs if job.key not in here])

    def _count(self, many: int, size: int) -> None:
        with self._counting:
            self._waiting += many
            self._size += size


def _size(batch: Sequence[NewJob]) -> int:
    return sum(len(job.body) for job in batch)
