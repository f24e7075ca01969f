"""Amazon SWF: a server that keeps histories as it does, and two threads that decide."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from glassq.errors import GlassqError
from glassq.queues.base import ALL_STATES, NewJob
from glassq.queues.swf.client import SwfClient
from glassq.queues.swf.deciding import SwfDeciding
from glassq.queues.swf.inspector import SwfInspector
from glassq.queues.swf.making import SwfDomain
from glassq.queues.swf.names import id_of, list_of
from glassq.queues.swf.place import SwfPlace
from glassq.queues.swf.producer import SwfProducer
from glassq.queues.swf.receiver import SwfReceiver
from glassq.queues.swf.versions import NEWEST
from tests.conftest import wait_for
from tests.queues.conformance.engine import LEASE, TIMEOUT, Engine
from tests.queues.swf.faults import Faults
from tests.queues.swf.service import CREDENTIALS, REGION, SwfService
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Job, Reservation, State, TubeCounts, WaitingState

DOMAIN = "conformance"
# How long a poll waits, in seconds: where nothing comes a reserve takes as long.
POLL = 0.05
# And where somebody has to wait until a test has done something.
LONG_POLL = 30.0
DECIDERS = 2


class SwfEngine(Engine):
    """Amazon SWF. What is killed is the way to it: the service itself loses nothing, and goes on, as do the deciders.

    Whoever looks or reserves waits until what has happened is decided on: between the two is what a decider takes.
    """

    name = "swf"
    kind = "Amazon SWF"
    shortest_lease = 1
    largest = 24_000
    # each call goes through HTTP; a delivery takes seven
    many, samples, days, backlog = 60, 20, 4, 1000

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        super().__init__(directory, careless=careless)
        os.environ.update(CREDENTIALS)
        self._service = SwfService(directory, poll=POLL, decider_poll=LONG_POLL)
        # whether polls wait for a test
        self._long = False
        self._clients: dict[tuple[int, float], SwfClient] = {}
        self._stopping = threading.Event()
        self._deciders = [threading.Thread(target=self._decide, daemon=True) for _ in range(DECIDERS)]
        place = SwfPlace(REGION, DOMAIN, self._service.back_door)
        self._behind = SwfClient(place, connect_timeout=TIMEOUT, timeout=TIMEOUT)
        SwfDomain(self._behind).upgrade()
        for decider in self._deciders:
            decider.start()

    @staticmethod
    def missing() -> str:
        return "" if importlib.util.find_spec("boto3") else "no boto3"

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
        self._stopping.set()
        self._service.be(Faults(poll=POLL))
        for decider in self._deciders:
            decider.join()
        self.let_go()
        self._behind.close()
        self._service.end()

    def let_go(self) -> None:
        for client in self._clients.values():
            client.close()
        # those that no other test can use
        for port, timeout in [key for key in self._clients if key[0]]:
            del self._clients[port, timeout]
        self._service.set()
        self._service.clear(DOMAIN)

    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return SwfProducer(self._client(port, timeout), lease=lease)

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        return PatientReceiver(self._client(port, timeout), self, lease=lease)

    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        return PatientInspector(self._client(port, timeout), self.wait_decided, lease=lease)

    def calls(self, *, clear: bool = False) -> Counter[str]:
        return Counter(self._service.calls(clear=clear))

    def section(self) -> str:
        return queue_section(f"swf://{REGION}/{DOMAIN}?endpoint={self._service.endpoint()}&poll=1")

    def job(self, inspector: Inspector, ref: str) -> Job:
        # each decision leaves events, which people see
        self.wait_decided()
        found = inspector.get(ref)
        if found.state != "reserved":
            return found
        # a heartbeat is no event: only the service knows
        return msgspec.structs.replace(found, time_left=self._service.lease_left(id_of(ref)))

    def remove(self, inspector: Inspector, job: Job) -> None:
        # what a cut connection has reserved would stay so until its lease ends
        self._behind.call("terminate_workflow_execution", workflowId=id_of(job.ref))

    def waiting(self, inspector: Inspector, tube: str) -> int:
        key = f"activity {DOMAIN} {list_of(tube)['name']}"
        if not self._service.truth().waiting.get(key):
            return 0
        # those that wait go on until the test has seen to them
        self._service.be(Faults(poll=LONG_POLL))
        self._long = True
        return self._service.truth().waiting.get(key, 0)

    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        inspector = self.inspector()
        wait_for(lambda: inspector.get(held.ref).state == "ready", "the lease to end")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nothing may be put, and no next form be given."""
        names = ("StartWorkflowExecution", "RespondActivityTaskFailed.details")
        refused = frozenset({*names, "SignalWorkflowExecution.signalName=change"})
        self._service.set(Faults(refuse=refused))
        try:
            yield
        finally:
            self._service.set()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        raise NotImplementedError("it never forgets")

    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        wanted = [NewJob(uuid4().hex, body, tubes[number % len(tubes)]) for number in range(jobs)]
        SwfProducer(self._behind, lease=LEASE).put(wanted, within=300)
        self.wait_decided()

    def end_polls(self) -> None:
        """Those that wait for a test do so no longer."""
        if self._long:
            self._service.set()
            self._long = False

    def wait_decided(self) -> None:
        """Until deciders have nothing to do."""
        assert self._service.decided(TIMEOUT), "the deciders do not come to an end"

    def _decide(self) -> None:
        deciding = SwfDeciding(self._behind, NEWEST)
        while not self._stopping.is_set():
            with suppress(GlassqError):
                deciding.step()

    def _client(self, port: int, timeout: float) -> SwfClient:
        if (port, timeout) not in self._clients:
            place = SwfPlace(REGION, DOMAIN, self._service.endpoint(port), poll=1)
            self._clients[port, timeout] = SwfClient(place, connect_timeout=timeout, timeout=timeout)
        return self._clients[port, timeout]


class PatientReceiver(SwfReceiver):
    def __init__(self, client: SwfClient, engine: SwfEngine, *, lease: int) -> None:
        super().__init__(client, lease=lease)
        self._engine = engine

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        self._engine.wait_decided()
        held = super().reserve(tubes, wait)
        self._engine.end_polls()
        # what is left running would take what the test puts next
        wait_for(lambda: not any(map(self._polls.runs, tubes)), "its polls to end")
        # on a busy machine a poll that finds something at once takes longer than a reserve waits for it
        if held is None and (late := self._taken(tubes)) is not None:
            held = self._held.add(late)
        # or two of them find something
        self._polls.turn_away()
        return held

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        self._engine.wait_decided()
        return super().filled(prefixes)


class PatientInspector(SwfInspector):
    def __init__(self, client: SwfClient, decided: Callable[[], None], *, lease: int) -> None:
        super().__init__(client, lease=lease)
        self._decided = decided

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        self._decided()
        return super().counts(tubes, states=states)

    def first(self, state: WaitingState, tube: str) -> Job | None:
        self._decided()
        return super().first(state, tube)

    def find(self, states: frozenset[State], tubes: Sequence[str], **more: object) -> Iterator[Job]:
        self._decided()
        return super().find(states, tubes, **more)  # type: ignore[arg-type]
