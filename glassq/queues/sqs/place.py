"""What a queue's URL says: sqs://REGION/PREFIX, and options."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

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
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    poll = int(options.get("poll", LONGEST_POLL))
    return SqsPlace(parts.netloc, parts.path.strip("/"), options.get("endpoint", ""), poll)
