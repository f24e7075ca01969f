"""Amazon SQS: a server that behaves as it does."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound
from glassq.queues.aws.text import bytes_of
from glassq.queues.base import Job
from glassq.queues.shelf import Shelf
from glassq.queues.sqs.client import SqsClient
from glassq.queues.sqs.inspector import SqsInspector
from glassq.queues.sqs.messages import STORY, story_of
from glassq.queues.sqs.names import queue_name, tube_of
from glassq.queues.sqs.place import SqsPlace
from glassq.queues.sqs.producer import SqsProducer
from glassq.queues.sqs.receiver import SqsReceiver
from glassq.queues.sqs.tubes import ATTRIBUTES
from glassq.values import Tube
from tests.conftest import wait_for
from tests.queues.conformance.engine import LEASE, TIMEOUT, Engine
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import CREDENTIALS, REGION, SqsService
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Reservation, State

# How the names of queues at SQS begin, and a tube whose queue is always there.
PREFIX, KNOWN = "test", "known"


class SqsEngine(Engine):
    """Amazon SQS: moto behind a front that is as strict as the real service, with a queue for each tube.

    What is killed is the way to it: the service itself loses nothing, and goes on.
    """

    name = "sqs"
    kind = "Amazon SQS"
    shortest_lease = 2
    # each call goes through HTTP, and moto
    many, samples, days, backlog = 60, 20, 4, 1000

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        super().__init__(directory, careless=careless)
        os.environ.update(CREDENTIALS)
        self._service = SqsService(directory)
        self._shelf = Shelf(f"sqlite:///{directory}/ledger.db")
        self._made: set[str] = set()
        self._clients: dict[tuple[int, float], SqsClient] = {}

    @staticmethod
    def missing() -> str:
        return "" if importlib.util.find_spec("moto") and importlib.util.find_spec("boto3") else "no boto3, or no moto"

    @property
    def port(self) -> int:
        return self._service.port

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def kill(self) -> None:
        self._service.stop()

    def end(self) -> None:
        self.let_go()
        self._shelf.close()
        self._service.end()

    def let_go(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._service.drop([queue_name(PREFIX, tube) for tube in self._made])
        self._made.clear()

    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return SqsProducer(self._client(port, timeout), self._shelf, tube=KNOWN)

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        return SqsReceiver(self._client(port, timeout), self._shelf, lease=lease)

    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        return SqsInspector(self._client(port, timeout), self._shelf, tube=KNOWN)

    def calls(self, *, clear: bool = False) -> Counter[str]:
        return Counter(self._service.calls(clear=clear))

    def section(self) -> str:
        return queue_section(f"sqs://{REGION}/{PREFIX}?endpoint={self._service.endpoint()}&poll=1")

    def make(self, tubes: Sequence[str]) -> None:
        if missing := [tube for tube in {KNOWN, *tubes} - self._made if _is_tube(tube)]:
            self._made.update(missing)
            self._service.make([queue_name(PREFIX, tube) for tube in missing], ATTRIBUTES)

    def find(self, inspector: Inspector, states: frozenset[State], tubes: Sequence[str]) -> list[Job]:
        jobs = [job for job in self._messages() if job.state in states and job.tube in tubes]
        return [*jobs, *inspector.find(states & inspector.capabilities.lists, tubes)]

    def job(self, inspector: Inspector, ref: str) -> Job:
        if inspector.is_ref(ref):
            return inspector.get(ref)
        found = [job for job in self._messages() if job.ref == ref]
        if not found:
            raise JobNotFound(ref)
        return found[0]

    def remove(self, inspector: Inspector, job: Job) -> None:
        if inspector.is_ref(job.ref):
            inspector.delete(job)
        else:
            self._service.remove(job.ref)

    def waiting(self, inspector: Inspector, tube: str) -> int:
        return self._service.truth().waiting.get(queue_name(PREFIX, tube), 0)

    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        inspector = self.inspector()
        wait_for(lambda: self.job(inspector, held.ref).state == "ready", "the lease to end")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nothing may be sent, and the shelf's disk is full."""
        self._service.set(Faults(refuse=True))
        try:
            with self._full_shelf():
                yield
        finally:
            self._service.set()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        raise NotImplementedError("it never forgets")

    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        self.make(tubes)
        for number, tube in enumerate(tubes):
            self._service.fill(queue_name(PREFIX, tube), len(range(number, jobs, len(tubes))), body.decode())

    @contextmanager
    def _full_shelf(self) -> Iterator[None]:
        self._shelf.newest()
        trigger = "CREATE TRIGGER full_{0} BEFORE {0} ON glassq_shelf BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        with closing(sqlite3.connect(str(self._shelf.url.database))) as database:
            for what in ("INSERT", "UPDATE"):
                database.execute(trigger.format(what))
            try:
                yield
            finally:
                for what in ("INSERT", "UPDATE"):
                    database.execute(f"DROP TRIGGER full_{what}")

    def _messages(self) -> list[Job]:
        """All that there are, newest first."""
        found = []
        for each in reversed(self._service.truth().messages):
            story = story_of({"MessageAttributes": {STORY: {"StringValue": each["attributes"].get(STORY, "{}")}}})
            lost = max(0, each["receives"] - (each["state"] == "reserved"))
            found.append(
                Job(
                    story.ref or each["id"],
                    tube_of(PREFIX, each["queue"]) or "",
                    each["state"],
                    bytes_of(each["body"]),
                    each["age"],
                    each["left"],
                    losses=story.losses + lost,
                    kicked=story.kicked,
                )
            )
        return found

    def _client(self, port: int, timeout: float) -> SqsClient:
        if (port, timeout) not in self._clients:
            place = SqsPlace(REGION, PREFIX, self._service.endpoint(port), poll=1)
            self._clients[port, timeout] = SqsClient(place, connect_timeout=timeout, timeout=timeout)
        return self._clients[port, timeout]


def _is_tube(name: str) -> bool:
    try:
        Tube(name)
    except ValueError:
        return False
    return True
