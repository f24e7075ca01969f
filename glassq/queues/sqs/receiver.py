"""Reserves and settles jobs in SQS. What a job's end puts is sent first, and only then its message is deleted.

Each call costs. So where one job after the other is worked in no time, up to ten are received, and deleted, at once.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError, QueueRefused, QueueUnavailable, WrongTables
from glassq.queues.ahead import EndsTogether
from glassq.queues.aws.beside import beside
from glassq.queues.aws.leases import LeaseBook
from glassq.queues.aws.polls import Polls
from glassq.queues.aws.tubes import TubesInTurn
from glassq.queues.shelf import Shelved
from glassq.queues.sqs.leases import MAX_LEASE, HeldMessage, parts_of, received
from glassq.queues.sqs.messages import LIMITS, MAX_BATCH, MAX_DELAY, STORY
from glassq.queues.sqs.moving import Moved, PendingMove, send_moves
from glassq.queues.sqs.sending import Outgoing, send, send_making
from glassq.queues.sqs.settling import delete_all, put_back, put_back_all, show
from glassq.queues.sqs.tubes import tubes_named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from glassq.queues.base import Reservation
    from glassq.queues.shelf import Shelf
    from glassq.queues.sqs.client import SqsClient

# A message is received for so long at first, in seconds; the first extension makes that a whole lease. So what a killed
# process had received and not begun, or a poll of it got when it was gone, is seen again soon.
FIRST = 60
# What waits for longer than this behind other jobs goes back, and what is done by then is deleted, in seconds.
QUICK = 0.1
# A tube that was found empty is not asked again for so long, in seconds, while others may have jobs.
EMPTY = 1.0
# How long it is taken for granted that a queue is still missing, in seconds.
MISSING = 30.0
# How long a look at which tubes are paused holds, in seconds, while nothing comes.
PAUSE_LOOK = 1.0


class SqsReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, client: SqsClient, shelf: Shelf, *, lease: float) -> None:
        self._client = client
        self._shelf = shelf
        self._lease = max(1, min(math.ceil(lease), MAX_LEASE))
        self._first = min(self._lease, FIRST)
        self._held = LeaseBook[HeldMessage]()
        self._polls = Polls[HeldMessage](self._poll, self._turn_away)
        self._ahead = EndsTogether[HeldMessage](MAX_BATCH, QUICK)
        # what goes into another tube, and is not sent yet; whether what waits came with the end of such a one; and why
        # the last one was refused, for the next reserve
        self._moves: list[PendingMove] = []
        self._ahead_of_moves = False
        self._refused: QueueRefused | None = None
        self._tubes = TubesInTurn(self._paused, PAUSE_LOOK)
        # until when a tube need not be asked; and whether the last round found nothing
        self._empty_until: dict[str, float] = {}
        self._idle = False
        self._over = threading.Event()

    # -- reserving --------------------------------------------------------------------------------------------------

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        if self._ahead.is_stale:
            self._give_back()
        if self._ahead.jobs:
            return self._ahead.jobs.popleft()
        self.finish()
        if (refused := self._refused) is not None:
            self._refused = None
            raise refused
        # in time to extend what else is held
        until = min(time.monotonic() + wait, self._held.soonest() - self._first / 3)
        held = self._polls.take(self._tubes.open(tubes, anew=wait <= 0))
        if held is None and (wait <= 0 or not self._idle):
            held = next(iter(self._look(tubes, anew=wait <= 0)), None)
        while held is None and not self._polls.interrupted and time.monotonic() < until:
            self._idle = True
            self._polls.start(self._tubes.open(tubes))
            self._polls.wait(min(until, time.monotonic() + PAUSE_LOOK))
            if not self._polls.interrupted:
                held = self._polls.take(self._tubes.open(tubes))
        if held is None:
            if self._polls.interrupted:
                self._polls.turn_away()
            return None
        self._idle = False
        return self._held.add(held)

    @property
    def has_next(self) -> bool:
        return bool(self._ahead.jobs)

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        # one call lists what begins with any of them
        first, last = min(prefixes, default=""), max(prefixes, default="")
        same = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
        named = self.named(first[:same])
        return [tube for tube in named if tube.startswith(prefixes) and self._holds(tube)]

    def named(self, prefix: str) -> list[str]:
        return sorted(tubes_named(self._client, prefix))

    def is_paused(self, tube: str) -> bool:
        return tube in self._shelf.paused()

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
        self._held.drop(held)
        if then and failed is not None and self._ahead.jobs:
            self._ahead.end(held, failed)
            return
        most = 1 if failed is None or self._ahead.is_over else self._ahead.most
        self._end(held, then, meanwhile, most)
        self._ahead.asked(most)

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
        held = self._held.ours(reservation)
        if delay > MAX_DELAY:
            ref = self._shelve(Shelved(tube, "delayed", body, due=time.time() + delay))
        else:
            ref = send(self._client, tube, Outgoing(body, delay))
        self._end(held, then)
        return ref

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
        if error := LIMITS.fault(body, tube, 0):
            raise error
        held = self._held.ours(reservation)
        if failed is None:
            send_making(self._client, tube, Outgoing(body))
            self._end(held, then)
            put(tube)
            return
        self._moves.append(PendingMove(held, body, tube, put, failed))
        if not (then and self._ahead.jobs):
            self._send_moves(then)

    def begin(self) -> None:
        self._polls.turn_away()
        self._send_moves()
        if self._ahead_of_moves and self._ahead.jobs:
            # a handler takes longer than a move
            self._give_back()
        self.tend()

    @property
    def unproven(self) -> int:
        return len(self._moves) + self._ahead.may_hold

    def tend(self) -> None:
        if self._ahead.is_late:
            self._give_back()
            self.finish()

    def finish(self) -> None:
        self._send_moves()
        self._ahead.end_all(lambda ended: delete_all(self._client, ended))

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        held = self._held.ours(reservation)
        form = reservation.body if body is None else body
        # what came so is shelved so: another program may have sent more than we would
        if body is not None and (error := LIMITS.bad_size(form)):
            raise error
        losses = 0 if body is not None else held.reservation.losses or 0
        ref = self._shelve(Shelved(held.tube, "buried", form, losses=losses))
        self._end(held, then)
        return ref

    def release(self, reservation: Reservation) -> None:
        held = self._held.ours(reservation)
        self._held.drop(held)
        put_back(self._client, held)

    def free(self, handle: str) -> None:
        tube, receipt = parts_of(handle)
        with suppress(QueueError):
            show(self._client, tube, receipt)

    # -- the connection ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._polls.turn_away()
        self._give_back()
        with suppress(QueueError):
            self.finish()
        for held in self._held:
            # whoever gets it counts a lost attempt
            with suppress(QueueError):
                show(self._client, held.tube, held.receipt)
        self._held.clear()
        if self._polls.interrupted:
            self._over.set()
            self._polls.finish(self._client.place.poll + self._client.timeout)
        self._polls.close()

    def close_inherited(self) -> None:
        self._held.clear()
        self._ahead.take_late()
        self._ahead.drop_ended()
        self._moves.clear()
        self._polls.forget()

    # -- how --------------------------------------------------------------------------------------------------------

    def _look(self, tubes: Sequence[str], *, anew: bool, most: int = 1) -> list[HeldMessage]:
        """The next jobs that are there, of the first tube in turn that has any; `anew`: also of those found empty."""
        missing: list[WrongTables] = []
        for tube in self._tubes.in_turn(tubes):
            now = time.monotonic()
            until = self._empty_until.get(tube, 0.0)
            if now < until and (not anew or until - now > EMPTY):
                continue
            try:
                found = self._receive(tube, 0, most)
            except WrongTables as error:
                missing.append(error)
                self._empty_until[tube] = now + MISSING
                continue
            if found:
                return found
            self._empty_until[tube] = now + EMPTY
        if missing and len(missing) == len(tubes):
            raise missing[0]
        self._idle = True
        return []

    def _paused(self) -> Collection[str]:
        try:
            return self._shelf.paused()
        except QueueRefused:
            # what was seen last holds while the shelf cannot be read
            return self._tubes.paused

    def _extend(self, held: HeldMessage) -> float:
        lease = math.floor(min(self._lease, held.last - time.monotonic()))
        if lease < 1:
            raise JobNotFound("no lease is longer than 12 hours")
        of = self._client.of(held.tube)
        self._client.call("change_message_visibility", **of, ReceiptHandle=held.receipt, VisibilityTimeout=lease)
        return lease

    def _poll(self, tube: str) -> list[HeldMessage]:
        """What comes at this tube while one waits at the server. In a thread of its own."""
        try:
            return self._receive(tube, self._client.place.poll)
        except WrongTables:
            # the other tubes are worked all the same; to ask again at once would be a storm
            self._over.wait(self._client.place.poll)
            return []

    def _receive(self, tube: str, wait: int, most: int = 1) -> list[HeldMessage]:
        asked = time.monotonic()
        client = self._client
        answer = client.call(
            "receive_message",
            within=wait + client.timeout,
            **client.of(tube),
            MaxNumberOfMessages=most,
            VisibilityTimeout=self._first,
            WaitTimeSeconds=wait,
            AttributeNames=["ApproximateReceiveCount"],
            MessageAttributeNames=[STORY],
        )
        # an answer is under way for less than a call may take: the service gave the lease after that
        asked = max(asked, time.monotonic() - client.timeout)
        return [received(message, tube, self._first, asked) for message in answer.get("Messages", ())]

    def _end(
        self, held: HeldMessage, then: Sequence[str], meanwhile: Callable[[], None] | None = None, most: int = 1
    ) -> None:
        """Deletes the message, and what else is done, while the next ones are received.

        Raises QueueError; it is worked twice then.
        """
        why: list[QueueError] = []
        self._held.drop(held)
        self._ahead.end(held, why.append)
        self._ahead.end_all(lambda ended: self._end_meanwhile(ended, then, meanwhile, most))
        if why:
            raise why[0]

    def _end_meanwhile(
        self, ended: Sequence[HeldMessage], then: Sequence[str], meanwhile: Callable[[], None] | None, most: int
    ) -> Sequence[QueueError | None]:
        """Deletes these messages while the next ones are received; as `delete_all`."""
        if not then and meanwhile is None:
            return delete_all(self._client, ended)
        answers: list[QueueError | None] = []
        with beside(lambda: answers.extend(delete_all(self._client, ended)), "delete"):
            if meanwhile is not None:
                meanwhile()
            if then and not self._ahead.jobs and not self._polls.interrupted:
                # the next reserve says what is wrong
                with suppress(QueueError):
                    self._hold(self._look(then, anew=False, most=most))
        return answers

    def _send_moves(self, then: Sequence[str] = ()) -> None:
        """Moves what is to be moved, while the next jobs are received. Raises QueueUnavailable."""
        moves, self._moves = self._moves, []
        if not moves:
            return
        most = 1 if self._ahead.is_over else self._ahead.most
        results: list[Moved] = []
        with beside(lambda: results.extend(send_moves(self._client, moves)), "move"):
            if then and not self._polls.interrupted:
                # the next reserve says what is wrong
                with suppress(QueueError):
                    self._hold(self._look(then, anew=False, most=most), of_moves=True)
        if then:
            self._ahead.asked(most)
        for tube, put in {each.move.tube: each.move.put for each in results if each.sent}.items():
            put(tube)
        for each in results:
            self._moved(each)
        if broken := next((each.error for each in results if isinstance(each.error, QueueUnavailable)), None):
            raise broken

    def _moved(self, done: Moved) -> None:
        held, error = done.move.held, done.error
        if done.sent:
            self._held.drop(held)
        elif isinstance(error, QueueRefused | QueueUnavailable):
            self._held.drop(held)
            with suppress(QueueError):
                show(self._client, held.tube, held.receipt)
            if isinstance(error, QueueRefused):
                self._refused = error
        if error is not None:
            done.move.failed(error)

    def _hold(self, found: Sequence[HeldMessage], *, of_moves: bool = False) -> None:
        """The next reserves return these."""
        self._ahead_of_moves = of_moves
        jobs = [self._held.add(held) for held in found]
        self._ahead.hold(jobs, min((held.until for held in found), default=0.0) - self._first)

    def _give_back(self) -> None:
        """What was reserved ahead is ready again, with no loss."""
        handles = {job.handle for job in self._ahead.take_late()}
        held = [each for each in self._held if each.reservation.handle in handles]
        for each in held:
            self._held.drop(each)
        put_back_all(self._client, held)

    def _turn_away(self, held: HeldMessage) -> None:
        put_back_all(self._client, [held])

    def _shelve(self, row: Shelved) -> str:
        [ref] = self._shelf.put([row])
        return ref

    def _holds(self, tube: str) -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        names.append("ApproximateNumberOfMessagesDelayed")
        answer = self._client.insist("get_queue_attributes", **self._client.of(tube), AttributeNames=names)
        return any(int(answer.get("Attributes", {}).get(name, 0)) for name in names)
