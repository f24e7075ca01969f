"""Keeps batches of deliveries durably, one way or the other: in the queue, else in the journal.

A batch is put into the queue in one go, and proven in one go. What has no proof within its budget goes into the
journal, and from then on everything does, at once, until the watcher (watcher.py) has found the queue well again: no
sender finds out anew. Nothing is acknowledged without a proof, so there is nothing to remember beyond a batch.

With `acknowledge = "journal"` a batch goes into the journal first, and from there into the queue (forwarder.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from glassq.errors import JournalError, NoProof, QueueError, QueueRefused
from glassq.journal import JournalRecord
from glassq.log import fields, logger
from glassq.queues.packets import put

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.intake.forwarder import Forwarder
    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher
    from glassq.journal import Journal
    from glassq.queues import Producer
    from glassq.queues.base import NewJob

log = logger("glassq.intake")

# The queue has this much time to take a batch and to prove it, in seconds. Some senders give up after a second.
BUDGET = 0.5

Place = Literal["queue", "journal"]


class DurableStore:
    """Takes checked pings to disk, in one thread of a process at a time."""

    def __init__(
        self,
        producer: Producer,
        journal: Journal,
        state: IntakeState,
        watcher: Watcher,
        forwarder: Forwarder | None = None,
        is_apart: Callable[[str], bool] = lambda key: False,
    ) -> None:
        """With `forwarder` deliveries go into the journal first.

        `is_apart` says whether a delivery's body waits with the journal, so that the delivery must as well.
        """
        self._is_apart = is_apart
        self._producer = producer
        self._journal = journal
        self._state = state
        self._watcher = watcher
        self._forwarder = forwarder

    def store(self, batch: Sequence[NewJob]) -> Sequence[Place | QueueError]:
        """Where each delivery lies durably now, in their order; or why it is kept nowhere."""
        apart = {job.key for job in batch if self._is_apart(job.key)}
        if not apart:
            return self._store(batch)
        others = [job for job in batch if job.key not in apart]
        places = dict(zip([job.key for job in others], self._store(others) if others else (), strict=True))
        places |= dict.fromkeys(apart, self._write([job for job in batch if job.key in apart]))
        return [places[job.key] for job in batch]

    def _store(self, batch: Sequence[NewJob]) -> Sequence[Place | QueueError]:
        if self._forwarder is not None and not self._state.journal_trouble:
            return [self._write_and_forward(batch, self._forwarder)] * len(batch)
        if self._state.queue_trouble:
            return [self._write(batch)] * len(batch)
        return self._put(batch)

    def _put(self, batch: Sequence[NewJob]) -> Sequence[Place | QueueError]:
        result = put(self._producer, batch, within=BUDGET)
        if result.error is not None:
            self._state.queue_fails(result.error)
        if len(result.proven) == len(batch):
            return ["queue"] * len(batch)
        for key, error in result.too_big.items():
            # this one alone: the queue is well
            log.error("a delivery goes to the journal %s", fields(delivery=key, why=error))
        places: dict[str, Place | QueueError] = dict.fromkeys(result.proven, "queue")
        others = [job for job in batch if job.key not in result.proven and job.key not in result.late]
        places |= dict.fromkeys((job.key for job in others), self._write_unproven(others))
        # what may still be proven is held back in the journal, so that it is not put twice
        late = [job for job in batch if job.key in result.late]
        place = self._write_unproven(late, hold=True)
        places |= dict.fromkeys(result.late, place)
        if place == "journal":
            self._watcher.await_proof(result.late.values())
        return [places[job.key] for job in batch]

    def _write_unproven(self, batch: Sequence[NewJob], *, hold: bool = False) -> Place | QueueError:
        """The same for what the queue was asked to take: where the journal refuses it, nobody knows about the queue."""
        place = self._write(batch, hold=hold)
        return NoProof(str(place)) if isinstance(place, QueueError) else place

    def _write(self, batch: Sequence[NewJob], *, hold: bool = False) -> Place | QueueError:
        """Writes these into the journal, all or none of them."""
        try:
            self._journal.write([JournalRecord(job.key, job.body) for job in batch], hold=hold)
        except JournalError as error:
            self._state.journal_fails(error)
            return QueueRefused(str(error))
        return "journal"

    def _write_and_forward(self, batch: Sequence[NewJob], forwarder: Forwarder) -> Place | QueueError:
        # what the forwarder takes is held back, so that the watcher does not put it as well
        forwarded = not self._state.queue_trouble and forwarder.has_room(batch)
        place = self._write(batch, hold=forwarded)
        if forwarded and place == "journal":
            forwarder.hand_over(batch)
        return place
