"""What a queue's URL says: swf://REGION/DOMAIN, and options."""

from __future__ import annotations

from typing import NamedTuple

from glassq.queues.aws.place import parts_of

# The engine's, for people.
NAME = "Amazon SWF"
# How long the service holds a poll for which there is nothing, in seconds.
POLL = 60


class SwfPlace(NamedTuple):
    """Where the executions are. `endpoint` is another server's URL ("": Amazon's own).

    `poll` is how long that server holds a poll at most, in whole seconds.
    """

    region: str
    domain: str
    endpoint: str = ""
    poll: int = POLL


def place_of(url: str) -> SwfPlace:
    """The place that a `QueueUrl` of SWF names; the text is right, as that type checks it."""
    return SwfPlace(*parts_of(url, POLL))
