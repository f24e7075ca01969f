"""Sends messages: one, or as many at once as a call takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from glassq.errors import QueueError, QueueRefused, WrongTables
from glassq.queues.aws.text import text_of
from glassq.queues.aws.troubles import AnswerMissing, in_short
from glassq.queues.sqs.messages import MAX_BATCH, MAX_DELAY, MAX_MESSAGE, MessageStory, attributes_of
from glassq.queues.sqs.tubes import make_queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.queues.sqs.client import SqsClient

# What a batch's other texts take of its size at most, for each message.
_ROOM = 512


class Outgoing(NamedTuple):
    """A message to send; `delay` is in seconds, up to MAX_DELAY."""

    body: bytes
    delay: float = 0.0
    story: MessageStory = MessageStory()


def send(client: SqsClient, tube: str, message: Outgoing) -> str:
    """Sends one message into the tube's queue; the job's reference. Raises QueueError, as `SqsClient.once`."""
    answer = client.once("send_message", **client.of(tube), **_arguments(message))
    return message.story.ref or str(answer["MessageId"])


def send_making(client: SqsClient, tube: str, message: Outgoing) -> str:
    """As `send`; a queue that is missing is made: that of a parking tube comes and goes with the keys of deliveries."""
    try:
        return send(client, tube, message)
    except WrongTables:
        make_queue(client, tube)
        return send(client, tube, message)


def batches(messages: Iterable[tuple[int, Outgoing]]) -> Iterator[list[dict[str, Any]]]:
    """Numbered messages as entries of calls, in portions that one call takes. Each is made when it is asked for."""
    batch: list[dict[str, Any]] = []
    size = 0
    for number, message in messages:
        entry = {"Id": str(number), **_arguments(message)}
        more = len(entry["MessageBody"].encode()) + _ROOM
        if batch and (len(batch) == MAX_BATCH or size + more > MAX_MESSAGE):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += more
    if batch:
        yield batch


def send_batch(
    client: SqsClient, tube: str, entries: Sequence[dict[str, Any]], *, within: float
) -> dict[int, str | QueueError]:
    """Sends a portion of `batches` in one call: for each message, by its number, its reference, or why it is not there.

    Raises QueueError where the call failed as a whole.
    """
    answer = client.once("send_message_batch", within=within, **client.of(tube, within=within), Entries=entries)
    found: dict[int, str | QueueError] = {}
    for done in answer.get("Successful", ()):
        found[int(done["Id"])] = str(done["MessageId"])
    for failure in answer.get("Failed", ()):
        found[int(failure["Id"])] = _refused(failure)
    # an answer that leaves one out says nothing about it
    lost = AnswerMissing("the answer does not say what became of it")
    return {number: found.get(number, lost) for number in numbers_of(entries)}


def send_batch_making(client: SqsClient, tube: str, entries: Sequence[dict[str, Any]]) -> dict[int, str | QueueError]:
    """As `send_batch`; a queue that is missing is made, as in `send_making`."""
    try:
        return send_batch(client, tube, entries, within=client.timeout)
    except WrongTables:
        make_queue(client, tube)
        return send_batch(client, tube, entries, within=client.timeout)


def numbers_of(entries: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the messages in a portion."""
    return [int(entry["Id"]) for entry in entries]


def _refused(failure: dict[str, Any]) -> QueueError:
    """Why one message of a batch was not taken, though others were."""
    said = f"{failure.get('Code')}: {in_short(failure.get('Message'))}".rstrip(": ")
    return QueueError(said) if failure.get("SenderFault") else QueueRefused(said)


def _arguments(message: Outgoing) -> dict[str, Any]:
    if not 0 <= message.delay <= MAX_DELAY:
        raise ValueError(message.delay)
    found: dict[str, Any] = {"MessageBody": text_of(message.body), **attributes_of(message.story)}
    if message.delay:
        found["DelaySeconds"] = math.ceil(message.delay)
    return found
