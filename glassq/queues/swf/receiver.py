"""Reserves and settles jobs in SWF: an activity task is a reservation, and each settle is one answer to it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound, QueueError, WrongTables
from glassq.queues.aws.beside import beside
from glassq.queues.aws.leases import LeaseBook
from glassq.queues.aws.polls import Polls
from glassq.queues.aws.tubes import TubesInTurn
from glassq.queues.swf.forms import LIMITS, form_of, written
from glassq.queues.swf.history import BURY, DIED, RELEASE, RETRY
from glassq.queues.swf.looking import open_runs
from glassq.queues.swf.names import list_of, tube_in
from glassq.queues.swf.pauses import paused
from glassq.queues.swf.tasks import HeldTask, held_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import Reservation
    from glassq.queues.swf.client import SwfClient

# How long a look at which tubes are paused holds, in seconds.
PAUSE_LOOK = 5.0
# A poll that finds a task answers at once: after so long, in seconds, the next tube is asked as well.
NEXT = 0.1
# How long a reserve that must not wait waits for polls that have just begun, in seconds.
AT_ONCE = 1.0
# How long a stop waits for polls to end, in seconds: a pool ends children that are silent for longer. What a poll gets
# that goes on beyond it is free again when its lease is over.
LAST_POLLS = 20.0


class SwfReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, client: SwfClient, *, lease: int) -> None:
        """`lease` is that of the next forms, in seconds: the one of a job came with its put."""
        self._client = client
        self._lease = lease
        self._held = LeaseBook[HeldTask]()
        self._polls = Polls[HeldTask](self._poll, self._give_back)
        self._tubes = TubesInTurn(lambda: paused(client), PAUSE_LOOK)
        self._over = threading.Event()

    # -- reserving --------------------------------------------------------------------------------------------------

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        begun = time.monotonic()
        held = self._taken(self._tubes.open(tubes, anew=wait <= 0)) or self._ask(tubes)
        # in time to extend what else is held
        until = min(begun + max(wait, AT_ONCE), self._held.soonest() - self._lease / 3)
        while held is None and not self._polls.interrupted and time.monotonic() < until:
            open_tubes = self._tubes.open(tubes)
            if wait > 0:
                self._polls.start(open_tubes)
            elif not any(map(self._polls.runs, open_tubes)):
                held = self._taken(open_tubes)
                break
            self._polls.wait(min(until, time.monotonic() + PAUSE_LOOK))
            if not self._polls.interrupted:
                held = self._taken(self._tubes.open(tubes))
        if self._polls.interrupted:
            self._polls.turn_away()
        return None if held is None else self._held.add(held)

    @property
    def has_next(self) -> bool:
        return False

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        found: set[str] = set()
        for page in open_runs(self._client, lambda: self._client.timeout):
            found.update(tube_in(list(run.tags)) for run in page)
        return sorted(tube for tube in found if tube.startswith(prefixes))

    def named(self, prefix: str) -> list[str]:
        return self.filled((prefix,))

    def is_paused(self, tube: str) -> bool:
        return tube in paused(self._client)

    def interrupt(self) -> None:
        self._polls.interrupt()

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def examine(self, reservation: Reservation) -> Reservation:
        return self._held.ours(reservation).reservation

    def extend(self, reservation: Reservation) -> float:
        return self._held.extend(reservation, self._extend)

    def complete(
        self,
        reservation: Reservation,
        *,
        then: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        held = self._held.ours(reservation)
        if meanwhile is None:
            self._settle(held, "respond_activity_task_completed")
            return
        with beside(lambda: self._settle(held, "respond_activity_task_completed"), "complete"):
            meanwhile()

    def retry(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        delay: float,
        tube: str,
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> str:
        if error := LIMITS.fault(body, tube, delay):
            raise error
        form = form_of(body, tube, lease=self._lease, state="delayed", delay=delay)
        return self._fail(self._held.ours(reservation), RETRY, written(form))

    def move(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        tube: str,
        put: Callable[[str], None],
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        self.retry(reservation, body, delay=0, tube=tube)
        put(tube)

    def begin(self) -> None:
        self._polls.turn_away()

    @property
    def unproven(self) -> int:
        return 0

    def tend(self) -> None:
        """Nothing is begun that is not finished."""

    def finish(self) -> None:
        """As `tend`."""

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        held = self._held.ours(reservation)
        if body is None:
            return self._fail(held, BURY)
        if error := LIMITS.bad_size(body):
            raise error
        return self._fail(held, BURY, written(form_of(body, held.tube, lease=self._lease, state="buried")))

    def release(self, reservation: Reservation) -> None:
        self._fail(self._held.ours(reservation), RELEASE)

    def free(self, handle: str) -> None:
        with suppress(QueueError):
            self._client.settle("respond_activity_task_failed", taskToken=handle, reason=DIED)

    # -- the connection ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.begin()
        for held in self._held:
            self.free(held.token)
        self._held.clear()
        if self._polls.interrupted:
            self._over.set()
            self._polls.finish(min(self._client.place.poll, LAST_POLLS))
        self._polls.close()

    def close_inherited(self) -> None:
        self._held.clear()
        self._polls.forget()

    # -- how --------------------------------------------------------------------------------------------------------

    def _taken(self, tubes: Sequence[str]) -> HeldTask | None:
        """What a poll has brought, and is ours still."""
        while (held := self._polls.take(tubes)) is not None:
            if time.monotonic() < held.until:
                return held
        return None

    def _ask(self, tubes: Sequence[str]) -> HeldTask | None:
        """Begins to wait at one tube after the other, until one has something.

        All at once would bring what must go back, where several have something.
        """
        open_tubes = self._tubes.in_turn(tubes)
        for tube in open_tubes:
            if self._polls.interrupted:
                return None
            if not self._polls.runs(tube):
                self._polls.start([tube])
                self._polls.wait(time.monotonic() + NEXT)
                if not self._polls.interrupted and (held := self._taken(open_tubes)) is not None:
                    return held
        return None

    def _poll(self, tube: str) -> list[HeldTask]:
        """What comes at this tube while one waits at the service. In a thread of its own."""
        asked = time.monotonic()
        try:
            answer = self._client.poll("poll_for_activity_task", taskList=list_of(tube))
        except WrongTables:
            # to ask again at once would be a storm
            self._over.wait(PAUSE_LOOK)
            raise
        if not answer.get("taskToken"):
            return []
        # an answer is under way for less than a call may take: the service gave the task after that
        return [held_task(answer, tube, max(asked, time.monotonic() - self._client.timeout))]

    def _extend(self, held: HeldTask) -> float:
        self._client.call("record_activity_task_heartbeat", taskToken=held.token)
        return held.lease

    def _fail(self, held: HeldTask, reason: str, details: str = "") -> str:
        """Ends the attempt with this reason, and the delivery's next form; the job's reference, which stays."""
        more = {"details": details} if details else {}
        self._settle(held, "respond_activity_task_failed", reason=reason, **more)
        return held.reservation.ref

    def _settle(self, held: HeldTask, action: str, **arguments: Any) -> None:
        try:
            self._client.settle(action, taskToken=held.token, **arguments)
        except JobNotFound:
            self._held.drop(held)
            raise
        self._held.drop(held)

    def _give_back(self, held: HeldTask) -> None:
        """A job that nobody was given. What cannot be said to the service is over with its lease."""
        with suppress(QueueError):
            self._client.settle("respond_activity_task_failed", taskToken=held.token, reason=RELEASE)
