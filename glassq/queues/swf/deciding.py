"""Decides what happens next to deliveries: asks for histories, and answers with what `versions` makes of them.

Any number of hosts may do so, each with a few threads: a decision costs two calls, and the service gives each history
to one of them. Whatever ends in between is decided by another one soon.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound, QueueError
from glassq.queues.swf.names import decision_list
from glassq.queues.swf.versions import DECIDERS

if TYPE_CHECKING:
    from glassq.queues.swf.client import SwfClient

# So many threads of a host decide, for each version; each of them about eight times a second.
THREADS = 8
# In how many seconds a thread tries again after a failure.
AGAIN = 1.0


class SwfDeciding:
    """Decides about the runs of one version, for one thread."""

    def __init__(self, client: SwfClient, version: str) -> None:
        self._client = client
        self._version = version

    def step(self) -> bool:
        """Waits for a history, and decides; whether one came. Raises QueueError."""
        client = self._client
        tasks = decision_list(self._version)
        answer = client.poll("poll_for_decision_task", taskList=tasks)
        token = answer.get("taskToken")
        if not token:
            return False
        events = list(answer["events"])
        while more := answer.get("nextPageToken"):
            answer = client.poll("poll_for_decision_task", taskList=tasks, nextPageToken=more)
            events += answer["events"]
        self._answer(token, DECIDERS[self._version](events))
        return True

    def _answer(self, token: str, decisions: list[dict[str, Any]]) -> None:
        # it took too long, or the execution was ended: whoever gets it next decides anew
        with suppress(JobNotFound):
            self._client.settle("respond_decision_task_completed", taskToken=token, decisions=decisions)


class SwfMover:
    """See `glassq.queues.engine.Mover`: threads that decide, from the first step on until the process ends."""

    title = "decider"

    def __init__(self, client: SwfClient) -> None:
        self._client = client
        self._threads: list[threading.Thread] = []
        self._failed: QueueError | None = None

    def step(self) -> float:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, args=[version], name=f"decide {version}", daemon=True)
                for version in DECIDERS
                for _ in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        return AGAIN

    def _run(self, version: str) -> None:
        deciding = SwfDeciding(self._client, version)
        while True:
            try:
                deciding.step()
            except QueueError as error:
                self._failed = error
                time.sleep(AGAIN)
            except Exception as error:
                # a history that nobody of ours wrote must not stop the others
                self._failed = QueueError(f"a history cannot be decided: {type(error).__name__}: {error}")
                time.sleep(AGAIN)
