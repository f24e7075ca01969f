"""The queues of all tubes that the settings name: made, and with the retention that they must have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest, WrongTables
from glassq.queues.sqs.looking import look
from glassq.queues.sqs.names import queue_name
from glassq.queues.sqs.place import NAME
from glassq.queues.sqs.tubes import ATTRIBUTES, RETENTION, make_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.sqs.client import SqsClient

# What producers, pools and operators call, and what a pool needs for parking tubes (concurrency, breakers).
_ACTIONS = (
    *("SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"),
    *("GetQueueUrl", "GetQueueAttributes", "ListQueueTags", "CreateQueue", "TagQueue"),
)


class SqsQueues:
    """See `glassq.queues.engine.EngineTables`: the queues take the place of tables."""

    engine = NAME
    known = 1
    noun, grants = "queues", False

    def __init__(self, client: SqsClient, tubes: Sequence[str]) -> None:
        self._client = client
        self._tubes = tubes

    def version(self) -> int:
        return int(bool(self.parts()))

    def check(self) -> None:
        for tube in self._tubes[:1]:
            if not look(self._client, tube, self._client.timeout).retention:
                name = queue_name(self._client.place.prefix, tube)
                raise WrongTables(f"there is no queue {name} at Amazon SQS", "`glassq queue init` makes it")

    def upgrade(self) -> int:
        found = self.version()
        for tube in self._tubes:
            if not (retention := look(self._client, tube, self._client.timeout).retention):
                make_queue(self._client, tube)
            elif retention < RETENTION:
                self._client.insist("set_queue_attributes", **self._client.of(tube), Attributes=ATTRIBUTES)
        return found

    def parts(self) -> dict[str, int]:
        """Of a queue that does not keep messages for long enough the version is 0."""
        found = [look(self._client, tube, self._client.timeout) for tube in self._tubes]
        prefix = self._client.place.prefix
        return {queue_name(prefix, queue.tube): int(queue.retention >= RETENTION) for queue in found if queue.retention}

    def check_role(self, role: str) -> None:
        raise InvalidRequest(
            f"rights at Amazon are given by IAM: the policy that `glassq queue init` prints is {role}'s"
        )

    def rights(self, role: str) -> list[str]:
        place = self._client.place
        queues = f"arn:aws:sqs:{place.region}:*:{place.prefix}-*"
        statements = [
            {"Effect": "Allow", "Action": [f"sqs:{name}" for name in _ACTIONS], "Resource": queues},
            {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"},
        ]
        return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2).splitlines()

    def grant(self, role: str) -> None:
        self.check_role(role)

    def close(self) -> None:
        self._client.close()
