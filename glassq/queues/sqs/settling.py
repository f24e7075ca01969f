"""What becomes of messages that are ours: they are deleted, or go back. Up to ten that end together take one call."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, JobTooBig, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.sqs.messages import MAX_BATCH
from glassq.queues.sqs.sending import Outgoing, batches, numbers_of, send, send_batch
from glassq.queues.sqs.troubles import is_stale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.queues.sqs.client import SqsClient
    from glassq.queues.sqs.leases import HeldMessage


def delete(client: SqsClient, held: HeldMessage) -> None:
    """Deletes the message. Raises QueueError where it may be there."""
    # nobody else has it, as far as our clock says: what the service calls stale has been deleted by the first try
    with suppress(JobNotFound):
        client.insist("delete_message", **client.of(held.tube), ReceiptHandle=held.receipt)


def delete_all(client: SqsClient, held: Sequence[HeldMessage]) -> list[QueueError | None]:
    """Deletes the messages: for each None, or why it may be there."""
    errors: dict[int, QueueError] = {}
    for tube, numbers in _by_tube(held):
        for first in range(0, len(numbers), MAX_BATCH):
            portion = numbers[first : first + MAX_BATCH]
            for number in portion if len(portion) == 1 else _left(client, tube, held, portion):
                try:
                    delete(client, held[number])
                except QueueError as error:
                    errors[number] = error
    return [errors.get(number) for number in range(len(held))]


def put_back(client: SqsClient, held: HeldMessage) -> None:
    """Ready again, with no loss: as a new message, since another receive of this one would count as a loss.

    Where nothing can be sent, it is ready as it is. Raises QueueError.
    """
    try:
        send(client, held.tube, _anew(held))
    except (QueueRefused, QueueUnavailable, JobTooBig):
        show(client, held.tube, held.receipt)
        return
    delete(client, held)


def put_back_all(client: SqsClient, held: Sequence[HeldMessage]) -> None:
    """As `put_back`, for several that nobody was given. What cannot be said to the service is over with the lease."""
    for tube, numbers in _by_tube(held):
        for entries in batches((number, _anew(held[number])) for number in numbers):
            portion = numbers_of(entries)
            answers: dict[int, str | QueueError] = {}
            with suppress(QueueError):
                answers = send_batch(client, tube, entries, within=client.timeout)
            sent = [number for number in portion if isinstance(answers.get(number), str)]
            delete_all(client, [held[number] for number in sent])
            for number in portion:
                if number not in sent:
                    with suppress(QueueError):
                        show(client, tube, held[number].receipt)


def show(client: SqsClient, tube: str, receipt: str) -> None:
    """Everybody sees the message again. Raises QueueError."""
    client.call("change_message_visibility", **client.of(tube), ReceiptHandle=receipt, VisibilityTimeout=0)


def _left(client: SqsClient, tube: str, held: Sequence[HeldMessage], portion: Sequence[int]) -> list[int]:
    """Those of a portion that one call has not deleted."""
    entries = [{"Id": str(number), "ReceiptHandle": held[number].receipt} for number in portion]
    try:
        answer = client.insist("delete_message_batch", **client.of(tube), Entries=entries)
    except QueueError:
        return list(portion)
    stale = [each for each in answer.get("Failed", ()) if is_stale(each.get("Code", ""))]
    gone = {int(each["Id"]) for each in (*answer.get("Successful", ()), *stale)}
    # an answer that leaves one out says nothing about it
    return [number for number in portion if number not in gone]


def _by_tube(held: Sequence[HeldMessage]) -> Iterator[tuple[str, list[int]]]:
    tubes: defaultdict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(held):
        tubes[each.tube].append(number)
    yield from tubes.items()


def _anew(held: HeldMessage) -> Outgoing:
    return Outgoing(held.reservation.body, story=held.story)
