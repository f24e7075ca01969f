"""The three roles on an engine, in tubes that one test of the conformance suite has for itself."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, closing
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from glassq.queues.base import ALL_STATES, NewJob, Receipt
from tests.conftest import wait_for
from tests.queues.conformance.engine import LEASE, TIMEOUT

if TYPE_CHECKING:
    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Job, Reservation, State, TubeCounts, WaitingState
    from tests.queues.conformance.engine import Engine

Role = TypeVar("Role", "Producer", "Receiver", "Inspector")

_numbers = count(1)


def new_key() -> str:
    """The id of a delivery that nothing else has: there are engines that know it again."""
    return f"key {os.getpid()} {next(_numbers)}"


def key_of(body: bytes) -> str:
    """The id of a delivery with this body, which is the only one of a test that has it."""
    return f"key of {hashlib.sha256(body).hexdigest()[:20]}"


class Roles:
    """A producer, an inspector, and as many receivers as a test wants.

    `tube`, `other` and `third` are tubes that nobody else uses.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._open = ExitStack()
        name = f"t{os.getpid()}.{next(_numbers)}"
        self.tubes = (self.tube, self.other, self.third) = (name, f"{name}.other", f"{name}.third")
        engine.make(self.tubes)
        self.producer = self._closed(engine.producer())
        self.inspector = self._closed(engine.inspector())
        self.able = self.inspector.capabilities

    def close(self) -> None:
        self._open.close()
        self.engine.let_go()

    def reconnect(self) -> None:
        """Forgets the connections to an engine that was restarted."""
        self.producer.close()
        self.inspector.close()

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        return self._closed(self.engine.receiver(lease=lease, port=port, timeout=timeout))

    def new_producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return self._closed(self.engine.producer(lease=lease, port=port, timeout=timeout))

    def new_inspector(self, *, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        return self._closed(self.engine.inspector(port=port, timeout=timeout))

    def put(self, body: bytes = b"ping", *, tube: str = "", delay: float = 0.0, lease: int = LEASE) -> str:
        """Puts one job that must be taken; its reference."""
        self.engine.make([tube or self.tube])
        producer = self.producer if lease == LEASE else self.new_producer(lease=lease)
        [answer] = producer.put([NewJob(new_key(), body, tube or self.tube, delay)], within=TIMEOUT)
        assert isinstance(answer, Receipt), answer
        return answer.ref

    def take(self, receiver: Receiver, body: bytes | None = None, *, tube: str = "") -> Reservation:
        """Reserves the job that must be there, and looks at all its facts."""
        reservation = receiver.reserve([tube or self.tube], TIMEOUT)
        assert reservation is not None
        assert body in (None, reservation.body)
        return receiver.examine(reservation)

    def counts(self, tube: str = "") -> TubeCounts:
        [found] = self.inspector.counts([tube or self.tube])
        return found

    def find(self, *states: State) -> list[Job]:
        """All jobs of our tubes in these states (in any, where none is named), newest first."""
        return self.engine.find(self.inspector, frozenset(states) or ALL_STATES, self.tubes)

    def job(self, ref: str) -> Job:
        """The job with this reference, which must be there."""
        return self.engine.job(self.inspector, ref)

    def remove(self, job: Job) -> None:
        """Deletes what nobody works any more."""
        self.engine.remove(self.inspector, job)

    def waiting(self, tube: str = "") -> int:
        """How many consumers wait for a job of this tube."""
        return self.engine.waiting(self.inspector, tube or self.tube)

    def there(self, *states: State) -> list[tuple[State, bytes]]:
        """The same, in short and sorted."""
        return sorted((job.state, job.body) for job in self.find(*states))

    def wait_until_free(self) -> None:
        """Until no job of our tubes is reserved: an engine learns of an ended connection in its own time."""
        wait_for(lambda: not any(self.counts(tube).reserved for tube in self.tubes), "the jobs to be free again")

    def lie(self, state: WaitingState, body: bytes = b"ping", *, tube: str = "", delay: float = 3600.0) -> Job:
        """A job that waits in this state."""
        ref = self.inspector.insert(body, tube=tube or self.tube, state=state, delay=delay)
        return self.job(ref)

    def _closed(self, role: Role) -> Role:
        return self._open.enter_context(closing(role))
