"""A real beanstalkd, driven at random through our connections, against a model of its own commands and counters.

What every engine promises by the queue's roles is driven in conformance/test_state_machine.py.
The model follows facts that were measured on beanstalkd 1.12: what each command does to state and counters, and what
of it is in the binlog after a restart. Two consumers and an operator each have a connection of their own.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glassq.errors import JobNotFound, QueueUnavailable
from glassq.queues.beanstalk.protocol import JobBody, JobStats
from tests.conftest import Beanstalkd, wait_for
from tests.thorough import examples

if TYPE_CHECKING:
    from tests.queues.raw import Queue

ALL = frozenset({"ready", "reserved", "delayed", "buried"})
# Long enough never to be over while an example runs, in seconds.
DELAY = 3600
# From the third binlog file on, beanstalkd moves old jobs into new files whenever it writes: then more than the last
# logged event may have survived.
EXACT_RESTARTS = 2

CONSUMERS = ("first", "second")
consumers = st.sampled_from(CONSUMERS)
picks = st.integers(0, 1000)


@dataclass(frozen=True)
class Told:
    """What `stats-job` tells of a job."""

    state: str
    reserves: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0


@dataclass
class Modelled:
    """A job: how it is, how the binlog has it, who holds it, and how many attempts were really lost."""

    body: bytes
    now: Told
    logged: Told
    owner: str = ""
    lost: int = 0

    def become(self, told: Told, *, logged: bool, owner: str = "") -> None:
        self.now, self.owner = told, owner
        if logged:
            self.logged = told

    def lose(self) -> None:
        """Its reservation ended with the connection."""
        if self.owner:
            self.lost += 1
            self.become(replace(self.now, state="ready"), logged=False)


@dataclass
class Model:
    jobs: dict[int, Modelled] = field(default_factory=dict)

    def having(self, state: str) -> list[int]:
        return sorted(job_id for job_id, job in self.jobs.items() if job.now.state == state)


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="glassq-")
        self.server = Beanstalkd(Path(self._directory.name), unix=True)
        self.operator = self.server.queue(timeout=20)
        self.queues: dict[str, Queue] = {name: self.server.queue(timeout=20) for name in CONSUMERS}
        self.model = Model()
        self.connected: set[str] = set()
        self.restarts = 0

    def at(self, name: str) -> Queue:
        """The consumer's queue, connected, for one command."""
        if name not in self.connected:
            self.queues[name].tubes()
            self.connected.add(name)
        return self.queues[name]

    def teardown(self) -> None:
        for queue in (self.operator, *self.queues.values()):
            queue.close()
        self.server.stop()
        self._directory.cleanup()

    # -- what is done, and what must follow -----------------------------------------------------------------------

    @rule(body=st.binary(max_size=40), delayed=st.booleans())
    def put(self, body: bytes, delayed: bool) -> None:
        job_id = self.operator.put(body, delay=DELAY if delayed else 0)
        assert job_id not in self.model.jobs
        told = Told("delayed" if delayed else "ready")
        self.model.jobs[job_id] = Modelled(body, told, told)
        self.agree(job_id)

    @rule(name=consumers)
    def reserve(self, name: str) -> None:
        ready = self.model.having("ready")
        job = self.at(name).reserve(0)
        if not ready:
            assert job is None
            return
        assert job == JobBody(ready[0], self.model.jobs[ready[0]].body)
        self.reserved(job.id, name)

    @precondition(lambda self: self.model.jobs)
    @rule(name=consumers, pick=picks)
    def reserve_job(self, name: str, pick: int) -> None:
        job_id, modelled = self.picked(pick)
        if modelled.now.state == "reserved":
            with pytest.raises(JobNotFound):
                self.at(name).reserve_job(job_id)
            return
        assert self.at(name).reserve_job(job_id) == JobBody(job_id, modelled.body)
        self.reserved(job_id, name)

    @precondition(lambda self: self.model.having("reserved"))
    @rule(name=consumers, pick=picks, delayed=st.booleans())
    def release(self, name: str, pick: int, delayed: bool) -> None:
        job_id, modelled = self.picked(pick, "reserved")
        delay = DELAY if delayed else 0
        if modelled.owner != name:
            with pytest.raises(JobNotFound):
                self.at(name).release(job_id, delay=delay)
        else:
            self.at(name).release(job_id, delay=delay)
            state = "delayed" if delayed else "ready"
            # a release without a delay is never logged
            modelled.become(replace(modelled.now, state=state, releases=modelled.now.releases + 1), logged=delayed)
        self.agree(job_id)

    @precondition(lambda self: self.model.having("reserved"))
    @rule(name=consumers, pick=picks)
    def bury(self, name: str, pick: int) -> None:
        job_id, modelled = self.picked(pick, "reserved")
        if modelled.owner != name:
            with pytest.raises(JobNotFound):
                self.at(name).bury(job_id)
        else:
            self.at(name).bury(job_id)
            modelled.become(replace(modelled.now, state="buried", buries=modelled.now.buries + 1), logged=True)
        self.agree(job_id)

    @precondition(lambda self: self.model.having("reserved"))
    @rule(name=consumers, pick=picks)
    def touch(self, name: str, pick: int) -> None:
        job_id, modelled = self.picked(pick, "reserved")
        if modelled.owner != name:
            with pytest.raises(JobNotFound):
                self.at(name).touch(job_id)
        else:
            self.at(name).touch(job_id)
        self.agree(job_id)

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks)
    def kick(self, pick: int) -> None:
        job_id, modelled = self.picked(pick)
        if modelled.now.state not in ("buried", "delayed"):
            with pytest.raises(JobNotFound):
                self.operator.kick(job_id)
        else:
            self.operator.kick(job_id)
            modelled.become(replace(modelled.now, state="ready", kicks=modelled.now.kicks + 1), logged=True)
        self.agree(job_id)

    @precondition(lambda self: self.model.jobs)
    @rule(name=consumers, pick=picks)
    def delete(self, name: str, pick: int) -> None:
        job_id, modelled = self.picked(pick)
        if modelled.owner not in ("", name):
            with pytest.raises(JobNotFound):
                self.at(name).delete(job_id)
            self.agree(job_id)
            return
        self.at(name).delete(job_id)
        del self.model.jobs[job_id]
        with pytest.raises(JobNotFound):
            self.operator.peek(job_id)

    @rule(name=consumers)
    def disconnect(self, name: str) -> None:
        self.queues[name].close()
        self.connected.discard(name)
        for modelled in self.model.jobs.values():
            if modelled.owner == name:
                modelled.lose()
        # the server learns of it in its own time
        reserved = len(self.model.having("reserved"))
        wait_for(lambda: self.operator.stats_tube().reserved == reserved, "the jobs to be given back")

    @precondition(lambda self: self.model.jobs)
    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def restart(self, number: signal.Signals) -> None:
        self.server.stop(number)
        self.server.start()
        self.restarts += 1
        for queue in (self.operator, *(self.queues[name] for name in self.connected)):
            # once, and the next command goes over a new connection
            with pytest.raises(QueueUnavailable):
                queue.tubes()
            assert "glassq" in queue.tubes()
        for job_id, modelled in self.model.jobs.items():
            self.survived(self.told(job_id), modelled)

    @rule()
    def scan(self) -> None:
        found = sorted(job.id for job in self.operator.scan(ALL) if isinstance(job, JobStats))
        assert found == sorted(self.model.jobs)
        for job_id in found:
            self.agree(job_id)

    # -- how the two are compared -----------------------------------------------------------------------------------

    @invariant()
    def the_tube_is_counted_as_in_the_model(self) -> None:
        tube = self.operator.stats_tube()
        for state in ALL:
            assert getattr(tube, state) == len(self.model.having(state)), state

    def survived(self, told: Told, modelled: Modelled) -> None:
        """What a restart may leave of a job; from here on the model has it as it is."""
        before, logged = modelled.now, modelled.logged
        modelled.lose()
        if self.restarts <= EXACT_RESTARTS:
            assert told == _replayed(logged)
        else:
            assert told.state in (logged.state, modelled.now.state)
            for name in ("reserves", "releases", "buries", "kicks"):
                more = name == "buries" and told.state == "buried"
                assert getattr(logged, name) + more <= getattr(told, name) <= getattr(before, name) + more, name
        modelled.now = told

    def agree(self, job_id: int) -> None:
        """The job is as the model has it, in the queue's own words."""
        modelled = self.model.jobs[job_id]
        assert self.told(job_id) == modelled.now
        assert self.operator.peek(job_id) == JobBody(job_id, modelled.body)
        assert self.operator.stats_job(job_id).file > 0

    def reserved(self, job_id: int, name: str) -> None:
        modelled = self.model.jobs[job_id]
        modelled.become(
            replace(modelled.now, state="reserved", reserves=modelled.now.reserves + 1), logged=False, owner=name
        )
        self.agree(job_id)
        lost = self.operator.stats_job(job_id).lost
        # a restart forgets attempts, and counts a burial twice: nobody is blamed for more than was lost
        assert lost <= modelled.lost
        assert self.restarts or lost == modelled.lost

    def told(self, job_id: int) -> Told:
        found = self.operator.stats_job(job_id)
        return Told(found.state, found.reserves, found.releases, found.buries, found.kicks)

    def picked(self, pick: int, state: str = "") -> tuple[int, Modelled]:
        ids = self.model.having(state) if state else sorted(self.model.jobs)
        job_id = ids[pick % len(ids)]
        return job_id, self.model.jobs[job_id]


def _replayed(logged: Told) -> Told:
    """A job as it is after a restart, from the last event that was logged. A buried one is buried once more."""
    return replace(logged, buries=logged.buries + 1) if logged.state == "buried" else logged


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=examples(20),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
