"""What operators put, change and delete: rows of the shelf, and messages. And the mover, which sends what is due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError, QueueRefused
from glassq.queues.shelf import CLAIM, Shelved, id_of
from glassq.queues.sqs.messages import LIMITS, MAX_DELAY, MessageStory
from glassq.queues.sqs.sending import Outgoing, batches, send_batch_making, send_making

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import Change, Job, NewForm
    from glassq.queues.shelf import Shelf
    from glassq.queues.sqs.client import SqsClient

# How often the mover looks, in seconds. It sends a row up to MAX_DELAY before it is due: so it may be away for a while.
INTERVAL = 60.0


class ShelfChanger:
    """Puts, changes and deletes, for one thread. `left` raises QueueUnavailable where the time for it is over.

    `refused` says why the last message was refused, if it was.
    """

    def __init__(self, client: SqsClient, shelf: Shelf, left: Callable[[], float]) -> None:
        self._client = client
        self._shelf = shelf
        self._left = left
        self.refused: QueueRefused | None = None

    def probe(self, tube: str, *, aside: bool) -> None:
        """Raises QueueError if no row can be written, the last message was refused, or this tube has no queue.

        No message is sent to try it: nobody could take it back. With `aside` the shelf must be there already.
        """
        self._left()
        self._client.insist("get_queue_attributes", **self._client.of(tube), AttributeNames=["QueueArn"])
        self.try_shelf(needed=aside)
        if self.refused is not None:
            raise self.refused

    def try_shelf(self, *, needed: bool = False) -> None:
        """Raises QueueError if no row can be written now; unless it is `needed`, the pool may make the shelf later."""
        self._left()
        self._shelf.check(needed=needed)

    def insert(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        """For each form its reference, or why it is not there."""
        return [self._insert(form) for form in forms]

    def change(self, change: Change) -> str | QueueError:
        """The job's new reference, or why it is as it was."""
        job = change.job
        body, tube = job.body if change.body is None else change.body, change.tube or job.tube
        if error := LIMITS.fault(body, tube, change.delay):
            return error
        row = self._seen(job)
        if row is None:
            return _gone(job)
        as_it_is = body == job.body and tube == job.tube
        try:
            if change.state == "ready" or (change.state == "delayed" and change.delay <= MAX_DELAY):
                delay = change.delay if change.state == "delayed" else 0.0
                kicked = as_it_is and change.state == "ready"
                return self._send(row, tube, Outgoing(body, delay, MessageStory(kicked=kicked)))
            due = time.time() + change.delay if change.state == "delayed" else 0.0
            new = Shelved(tube, "buried" if change.state == "buried" else "delayed", body, due)
            return self._shelf.replace(row, new) or _gone(job)
        except QueueError as error:
            return error

    def delete(self, job: Job) -> QueueError | None:
        """Why the job is still there; None if it is not."""
        row = self._seen(job)
        try:
            return None if row is not None and self._shelf.delete(row) else _gone(job)
        except QueueError as error:
            return error

    def _seen(self, job: Job) -> Shelved | None:
        """The row that the job was, if it can only be one of the shelf's."""
        number = id_of(job.ref)
        if not number or job.state not in ("delayed", "buried"):
            return None
        return Shelved(job.tube, "buried" if job.state == "buried" else "delayed", job.body, id=number)

    def _insert(self, form: NewForm) -> str | QueueError:
        if error := LIMITS.fault(form.body, form.tube, form.delay):
            return error
        try:
            if form.state == "buried":
                return self._shelf.put([Shelved(form.tube, "buried", form.body)])[0]
            delay = form.delay if form.state == "delayed" else 0.0
            if delay > MAX_DELAY:
                return self._shelf.put([Shelved(form.tube, "delayed", form.body, due=time.time() + delay)])[0]
            self._left()
            return self._noting(form.tube, Outgoing(form.body, delay))
        except QueueError as error:
            return error

    def _send(self, row: Shelved, tube: str, message: Outgoing) -> str | QueueError:
        """Sends the row's next form, and only then deletes the row: meanwhile nobody else sends it."""
        self._left()
        if not self._shelf.claim(row):
            return _gone_row()
        try:
            ref = self._noting(tube, message)
        except QueueError:
            self._shelf.give_up([row])
            raise
        self._shelf.remove([row])
        return ref

    def _noting(self, tube: str, message: Outgoing) -> str:
        try:
            ref = send_making(self._client, tube, message)
        except QueueRefused as error:
            self.refused = error
            raise
        self.refused = None
        return ref


class ShelfMover:
    """See `glassq.queues.engine.Mover`: it sends the delayed rows that are due soon. Each row is claimed first.

    What cannot be sent holds up nothing else: a step comes to each row once.
    """

    title = "shelf"

    def __init__(self, client: SqsClient, shelf: Shelf) -> None:
        self._client = client
        self._shelf = shelf

    def step(self) -> float:
        before = time.time() + MAX_DELAY
        last: Shelved | None = None
        failed: set[str] = set()
        first: QueueError | None = None
        while rows := self._shelf.claim_due(before, after=last, without=failed):
            last = rows[-1]
            # who sends for longer may send what another one has claimed by then
            until = time.monotonic() + CLAIM / 2
            for tube in sorted({row.tube for row in rows}):
                try:
                    error = self._send(tube, [row for row in rows if row.tube == tube], until)
                except QueueError as raised:
                    failed.add(tube)
                    error = raised
                first = first or error
        if first is not None:
            raise first
        return INTERVAL

    def _send(self, tube: str, rows: Sequence[Shelved], until: float) -> QueueError | None:
        """Sends rows of one tube; why one was refused, if any was. Raises QueueError where none can be sent now."""
        unsent = {row.id: row for row in rows}
        error: QueueError | None = None
        try:
            for entries in batches((row.id, _outgoing(row)) for row in rows):
                if time.monotonic() > until:
                    break
                answers = send_batch_making(self._client, tube, entries)
                self._shelf.remove([unsent.pop(number) for number, found in answers.items() if isinstance(found, str)])
                error = error or next((found for found in answers.values() if isinstance(found, QueueError)), None)
        finally:
            if unsent:
                self._shelf.give_up(unsent.values())
        return error


def _outgoing(row: Shelved) -> Outgoing:
    delay = min(MAX_DELAY, max(0.0, row.due - time.time()))
    return Outgoing(row.body, delay, MessageStory(losses=row.losses, kicked=row.kicked))


def _gone(job: Job) -> JobNotFound:
    return JobNotFound(f"the job {job.ref} is not on the shelf as it was seen")


def _gone_row() -> JobNotFound:
    return JobNotFound("the row is not on the shelf as it was seen, or is being sent now")
