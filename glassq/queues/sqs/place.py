"""What a queue's URL says: sqs://REGION/PREFIX, and options."""

from __future__ import annotations

from typing import NamedTuple

from glassq.queues.aws.place import parts_of

# The engine's, for people.
NAME = "Amazon SQS"
# How long a long poll may wait at the server, in seconds; more, SQS refuses.
LONGEST_POLL = 20


class SqsPlace(NamedTuple):
    """Where the queues are. `prefix` begins their names; `endpoint` is another server's URL ("": Amazon's own).

    `poll` is how long a receiver that is idle waits at the server, in whole seconds.
    """

    region: str
    prefix: str
    endpoint: str = ""
    poll: int = LONGEST_POLL


def place_of(url: str) -> SqsPlace:
    """The place that a `QueueUrl` of SQS names; the text is right, as that type checks it."""
    return SqsPlace(*parts_of(url, LONGEST_POLL))
