"""Jobs that go into another tube. SQS moves none: each is sent anew, and only then deleted; up to ten with one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import QueueError
from glassq.queues.sqs.sending import Outgoing, batches, numbers_of, send_batch_making
from glassq.queues.sqs.settling import delete_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.sqs.client import SqsClient
    from glassq.queues.sqs.leases import HeldMessage


class PendingMove(NamedTuple):
    """A message of ours that goes into `tube` in this form. `put` is told once it is there, `failed` why it is not."""

    held: HeldMessage
    body: bytes
    tube: str
    put: Callable[[str], None]
    failed: Callable[[QueueError], None]


class Moved(NamedTuple):
    """What came of a move: whether the next form was sent, and what went wrong with it, or with the old one's end."""

    move: PendingMove
    sent: bool
    error: QueueError | None


def send_moves(client: SqsClient, moves: Sequence[PendingMove]) -> list[Moved]:
    """Sends all, and deletes those that were sent. What was not sent is still ours."""
    answers: dict[int, str | QueueError] = {}
    for tube in dict.fromkeys(move.tube for move in moves):
        outgoing = [(number, Outgoing(move.body)) for number, move in enumerate(moves) if move.tube == tube]
        for entries in batches(outgoing):
            try:
                answers |= send_batch_making(client, tube, entries)
            except QueueError as error:
                answers |= dict.fromkeys(numbers_of(entries), error)
    sent = [move for number, move in enumerate(moves) if isinstance(answers[number], str)]
    errors = iter(delete_all(client, [move.held for move in sent]))
    done = []
    for number, move in enumerate(moves):
        answer = answers[number]
        unsent = answer if isinstance(answer, QueueError) else None
        done.append(Moved(move, sent=unsent is None, error=unsent or next(errors)))
    return done
