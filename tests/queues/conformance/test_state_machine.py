"""An engine, driven at random through the three roles, against a model of what they promise.

Two consumers, a producer and an operator have a connection each. Consumers' connections may end at any message of what
they say, and the engine may be killed. No delivery may be lost then, and none may be there twice but one that is in
doubt: the form it had and the form it was to have.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from glassq.errors import JobNotFound, QueueUnavailable
from glassq.queues.base import ALL_STATES, NewJob, Receipt, WaitingState
from tests.conftest import wait_for
from tests.queues.conformance.cutter import BOTH_WAYS, Cutter
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.roles import Roles, new_key
from tests.thorough import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues import Receiver
    from glassq.queues.base import Job, Reservation, State
    from tests.proxy import Way
    from tests.queues.conformance.engine import Engine

# Long enough never to be over while an example runs, in seconds.
DELAY = 3600

consumers = st.sampled_from(("first", "second"))
picks = st.integers(0, 1000)
tube_numbers = st.integers(0, 2)
waiting_states: st.SearchStrategy[WaitingState] = st.sampled_from(("ready", "delayed", "buried"))
# at which message of which way the connection dies; None: it lives
cuts: st.SearchStrategy[tuple[Way, int] | None] = st.sampled_from([None, None, *product(BOTH_WAYS, range(4))])
ends = st.sampled_from(("extend", "complete", "retry", "delay", "move", "bury", "bury as it is", "release"))


@dataclass
class Modelled:
    """A job as it must be; `had` are the states it was in before, one of which a crash may bring back.

    `plain`: it was ready from its put on, so the next of these is the one that was put first. `number` says when.
    """

    number: int
    tube: str
    body: bytes
    state: State
    losses: int = 0
    kicked: bool = False
    plain: bool = True
    held: Reservation | None = None
    owner: str = ""
    had: set[State] = field(default_factory=set)

    def become(self, state: State) -> None:
        self.had.add(self.state)
        self.state, self.held, self.owner = state, None, ""
        self.plain = self.plain and state == "reserved"

    def lose(self) -> None:
        """Its reservation ended with the connection."""
        self.become("ready")
        self.losses += 1


@dataclass
class Consumer:
    cutter: Cutter
    receiver: Receiver
    # what it held once and does not hold any more
    stale: list[Reservation] = field(default_factory=list)


class RolesMachine(RuleBasedStateMachine):
    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.roles = Roles(engine)
        self.tubes = self.roles.tubes
        self.able = self.roles.able
        self.jobs: dict[str, Modelled] = {}
        self.numbers = count(1)
        self.restarts = 0
        self.consumers: dict[str, Consumer] = {}
        for name in ("first", "second"):
            cutter = Cutter(engine)
            cutter.start()
            self.consumers[name] = Consumer(cutter, self.roles.receiver(port=cutter.port))

    def teardown(self) -> None:
        try:
            self.agree_all()
        finally:
            self.close()

    def close(self) -> None:
        for consumer in self.consumers.values():
            consumer.receiver.close()
            consumer.cutter.stop()
        if self.able.frees_at_once:
            self.roles.wait_until_free()
        for job in self.roles.find():
            self.roles.remove(job)
        self.roles.close()

    # -- what is done, and what must follow -----------------------------------------------------------------------

    @rule(wanted=st.lists(st.tuples(tube_numbers, st.integers(0, 3)), min_size=1, max_size=4))
    def put(self, wanted: list[tuple[int, int]]) -> None:
        jobs = [
            # one of four is delayed
            NewJob(new_key(), b"%d" % next(self.numbers), self.tubes[tube], 0 if kind else DELAY)
            for tube, kind in wanted
        ]
        for job, answer in zip(jobs, self.roles.producer.put(jobs, within=TIMEOUT), strict=True):
            assert isinstance(answer, Receipt)
            assert answer.ref not in self.jobs
            self.jobs[answer.ref] = Modelled(
                int(job.body), job.tube, job.body, "delayed" if job.delay else "ready", plain=not job.delay
            )
            self.agree(answer.ref)

    @rule(name=consumers, wanted=st.sets(tube_numbers, min_size=1), finishing=st.booleans(), pick=picks)
    def reserve(self, name: str, wanted: set[int], finishing: bool, pick: int) -> None:
        tubes = [self.tubes[number] for number in sorted(wanted)]
        held = self.held_by(name)
        done = held[pick % len(held)] if held and (finishing or not self.able.many_held) else ""
        finished = self.jobs.pop(done).held if done else None
        receiver = self.consumers[name].receiver
        if finished is not None:
            receiver.complete(finished, then=tubes)
        reservation = receiver.reserve(tubes, 0)
        if reservation is not None:
            reservation = receiver.examine(reservation)
        if finished is not None:
            self.consumers[name].stale.append(finished)
            self.agree_gone(done)
        ready = {ref: job for ref, job in self.jobs.items() if job.state == "ready" and job.tube in tubes}
        assert (reservation is None) == (not ready)
        if reservation is None:
            return
        job = ready[reservation.ref]
        assert (reservation.body, reservation.tube, reservation.kicked) == (job.body, job.tube, job.kicked)
        self.agree_losses(job, reservation.losses)
        if self.able.oldest and job.plain:
            assert job.number == min(each.number for each in ready.values() if each.plain), "it is not the oldest"
        job.become("reserved")
        job.held, job.owner = reservation, name
        self.agree(reservation.ref)

    @rule(name=consumers, end=ends, cut=cuts)
    def work(self, name: str, end: str, cut: tuple[Way, int] | None) -> None:
        """A consumer's day: the next job of all tubes, and what becomes of it."""
        if not any(job.state == "ready" for job in self.jobs.values()):
            self.put([(0, 1), (1, 1)])
        self.reserve(name, {0, 1, 2}, False, 0)
        if held := self.held_by(name):
            self.end(held[-1], end, cut)

    @precondition(lambda self: any(job.held for job in self.jobs.values()))
    @rule(end=ends, pick=picks, cut=cuts)
    def settle(self, end: str, pick: int, cut: tuple[Way, int] | None) -> None:
        self.end(self.picked(pick, "reserved"), end, cut)

    @precondition(lambda self: any(consumer.stale for consumer in self.consumers.values()) and self.able.fenced)
    @rule(name=consumers, end=ends, pick=picks)
    def settle_too_late(self, name: str, end: str, pick: int) -> None:
        stale = self.consumers[name].stale
        if not stale:
            return
        reservation = stale[pick % len(stale)]
        if any(job.owner == name and job.held and job.held.ref == reservation.ref for job in self.jobs.values()):
            # this very consumer holds the job anew, and nobody could tell the two apart
            return
        with pytest.raises(JobNotFound):
            self.say(name, reservation, b"too late", end)

    @precondition(lambda self: self.able.frees_at_once or self.able.bearer)
    @rule(name=consumers)
    def disconnect(self, name: str) -> None:
        self.lose(name)
        if not self.able.frees_at_once:
            return
        reserved = len([job for job in self.jobs.values() if job.held])
        wait_for(lambda: sum(each.reserved for each in self.counts()) == reserved, "the jobs to be given back")

    def lose(self, name: str) -> None:
        """What the consumer held, with its connection."""
        consumer = self.consumers[name]
        consumer.receiver.close()
        for ref in self.held_by(name):
            job = self.jobs[ref]
            consumer.stale.append(job.held)  # type: ignore[arg-type]
            job.lose()

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, state=waiting_states, new_body=st.booleans(), tube=st.none() | tube_numbers)
    def change(self, pick: int, state: WaitingState, new_body: bool, tube: int | None) -> None:
        ref = self.picked(pick)
        if self.jobs[ref].state not in self.able.lists:
            return
        job, seen = self.jobs[ref], self.roles.inspector.get(ref)
        body = self.next_form(job) if new_body else job.body
        target = job.tube if tube is None else self.tubes[tube]

        def do() -> str:
            return self.roles.inspector.change(seen, state=state, body=body, tube=target, delay=DELAY)

        if job.held:
            with pytest.raises(JobNotFound):
                do()
            self.agree(ref)
            return
        following = do()
        before = job.state
        if following == ref and (state, body, target) != (before, job.body, job.tube):
            assert (job.body, job.tube) == (body, target) or self.able.atomic
        self.jobs.pop(ref)
        if following != ref:
            self.agree_gone(ref)
            # where the change was more than one step, a crash may bring back one in between
            job.had, job.losses, job.kicked = set() if self.able.atomic else {"delayed"}, 0, False
            # what needs a put to become ready says that an operator has asked for it
            as_it_is = (body, target) == (job.body, job.tube)
            job.kicked = not self.able.buries_in_place and as_it_is and state == "ready"
        elif state == "ready" and before != "ready":
            job.kicked = True
        if (state, body, target) != (before, job.body, job.tube) or following != ref:
            job.become(state)
        job.body, job.tube = body, target
        self.jobs[following] = job
        self.agree(following)

    @precondition(lambda self: self.jobs)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        ref = self.picked(pick)
        if self.jobs[ref].state not in self.able.lists:
            return
        seen = self.roles.inspector.get(ref)
        if self.jobs[ref].held:
            with pytest.raises(JobNotFound):
                self.roles.inspector.delete(seen)
            self.agree(ref)
            return
        self.roles.inspector.delete(seen)
        del self.jobs[ref]
        self.agree_gone(ref)

    @precondition(lambda self: self.able.pause)
    @rule(name=consumers, tube=tube_numbers)
    def pause(self, name: str, tube: int) -> None:
        paused = self.tubes[tube]
        if not any(job.tube == paused for job in self.jobs.values()):
            return
        assert self.roles.inspector.pause(paused, DELAY)
        assert self.roles.counts(paused).paused_for > 0
        assert self.consumers[name].receiver.reserve([paused], 0) is None
        assert self.roles.inspector.pause(paused, 0)

    @precondition(lambda self: self.jobs and not self.restarts)
    @rule()
    def crash(self) -> None:
        self.restarts += 1
        self.engine.kill()
        self.engine.start()
        self.roles.reconnect()
        if self.able.bearer:
            # nothing was lost, and nobody has lost what he had
            self.agree_all()
            return
        for name in self.consumers:
            self.lose(name)
        for ref, job in self.jobs.items():
            found = self.roles.job(ref)
            assert (found.body, found.tube) == (job.body, job.tube)
            assert found.state in {job.state, "ready", *job.had} - {"reserved"}
            assert found.losses <= job.losses
            job.plain = job.plain and found.state == "ready" == job.state
            job.state, job.losses, job.kicked = found.state, found.losses, found.kicked

    # -- how the two are compared -----------------------------------------------------------------------------------

    @invariant()
    def the_tubes_are_counted_as_in_the_model(self) -> None:
        if not self.able.exact_counts:
            return
        for counts in self.counts():
            for state in ALL_STATES:
                jobs = [job for job in self.jobs.values() if (job.tube, job.state) == (counts.name, state)]
                assert getattr(counts, state) == len(jobs), (counts.name, state)

    def counts(self):  # type: ignore[no-untyped-def]
        return self.roles.inspector.counts(self.tubes)

    def agree_all(self) -> None:
        """What is found is what the model has, no more and no less."""
        found = self.roles.find()
        assert sorted(job.ref for job in found) == sorted(self.jobs)
        for job in found:
            self.agree(job.ref, job)

    def agree(self, ref: str, found: Job | None = None) -> None:
        """The job is as the model has it."""
        job = self.jobs[ref]
        found = found or self.roles.job(ref)
        assert (found.ref, found.state, found.tube, found.body) == (ref, job.state, job.tube, job.body), (found, job)
        assert found.kicked == job.kicked
        assert found.durable
        self.agree_losses(job, found.losses)

    def agree_losses(self, job: Modelled, losses: int) -> None:
        # an engine may forget losses in a crash; nobody is blamed for more than there were, unless they are guessed
        assert losses <= job.losses or not self.able.exact_losses
        if self.able.exact_losses and not self.restarts:
            assert losses == job.losses

    def agree_gone(self, ref: str) -> None:
        with pytest.raises(JobNotFound):
            self.roles.job(ref)

    def adopt(self, old: Modelled, end: str) -> None:
        """After an unknown outcome the model has of this delivery what is there, if that is allowed."""
        found = [job for job in self.roles.find() if job.body.split(b".")[0] == old.body.split(b".")[0]]
        found = [job for job in found if job.ref not in self.jobs]
        new = old.body if end in ("extend", "bury as it is", "release") else self.next_form(old)
        assert {job.body for job in found} <= {old.body, new}
        anew = not self.able.buries_in_place and end in ("release", "bury as it is")
        assert anew or len({job.body for job in found}) == len(found), "a form is there twice"
        assert found or end == "complete", "a delivery is lost"
        assert len(found) <= (1 if self.able.atomic else 2)
        refs = Counter(job.ref for job in found)
        for job in found:
            if job.state == "reserved" or refs[job.ref] > 1:
                # reserved by nobody, until the lease ends; or two of which nobody can tell which is which
                assert self.able.bearer
                self.roles.remove(job)
                continue
            self.jobs[job.ref] = Modelled(
                old.number, job.tube, job.body, job.state, job.losses, job.kicked, plain=False,
                had={*old.had, "delayed", "buried"},
            )  # fmt: skip

    # -- a consumer's words -----------------------------------------------------------------------------------------

    def next_form(self, job: Modelled) -> bytes:
        return job.body + b".x"

    def tell(self, ref: str, end: str) -> object:
        job = self.jobs[ref]
        assert job.held is not None
        return self.say(job.owner, job.held, self.next_form(job), end)

    def say(self, name: str, held: Reservation, body: bytes, end: str) -> object:
        receiver, tube = self.consumers[name].receiver, held.tube
        calls: dict[str, Callable[[], object]] = {
            "extend": lambda: receiver.extend(held),
            "complete": lambda: receiver.complete(held),
            "retry": lambda: receiver.retry(held, body, delay=0, tube=tube),
            "delay": lambda: receiver.retry(held, body, delay=DELAY, tube=tube),
            "move": lambda: receiver.retry(held, body, delay=0, tube=self.tubes[2]),
            "bury": lambda: receiver.bury(held, body),
            "bury as it is": lambda: receiver.bury(held),
            "release": lambda: receiver.release(held),
        }
        return calls[end]()

    def end(self, ref: str, end: str, cut: tuple[Way, int] | None) -> None:
        """Settles it, or tries to while the connection dies."""
        name = self.jobs[ref].owner
        if cut is None:
            self.settled(ref, end, self.tell(ref, end))
            return
        with self.consumers[name].cutter.arm(*cut) as cutter:
            try:
                following = self.tell(ref, end)
            except QueueUnavailable:
                broke = True
                assert cutter.fired
            else:
                broke = False
                # it took fewer messages, or what may happen twice was tried again on another connection
                assert not cutter.fired or self.able.bearer
        # what is put anew in its old form may be there twice after a second try
        if not broke and not (cutter.fired and end in ("release", "bury as it is")):
            self.settled(ref, end, following)
            return
        old = self.jobs.pop(ref)
        self.disconnect(name)
        self.adopt(old, end)

    def settled(self, ref: str, end: str, following: object) -> None:
        """What the model makes of an answer that came."""
        job = self.jobs[ref]
        assert job.held is not None
        if end == "extend":
            self.agree(ref)
            return
        self.consumers[job.owner].stale.append(job.held)
        if end == "complete":
            del self.jobs[ref]
            self.agree_gone(ref)
        elif end == "release":
            job.become("ready")
            self.agree(ref)
        elif end == "bury as it is":
            job.become("buried")
            del self.jobs[ref]
            self.jobs[str(following)] = job
            self.agree(str(following))
        else:
            del self.jobs[ref]
            tube = self.tubes[2] if end == "move" else job.tube
            state: State = {"delay": "delayed", "bury": "buried"}.get(end, "ready")  # type: ignore[assignment]
            had: set[State] = {"delayed"} if end == "bury" else set()
            self.jobs[str(following)] = Modelled(
                next(self.numbers), tube, self.next_form(job), state, plain=state == "ready", had=had
            )
            self.agree(str(following))

    def held_by(self, name: str) -> list[str]:
        return [ref for ref, job in self.jobs.items() if job.owner == name]

    def picked(self, pick: int, state: State | None = None) -> str:
        refs = [ref for ref, job in self.jobs.items() if state in (None, job.state)]
        return refs[pick % len(refs)]


def test_whatever_is_done_no_delivery_is_lost_or_doubled(engine: Engine) -> None:
    run_state_machine_as_test(
        lambda: RolesMachine(engine),
        settings=settings(
            max_examples=examples(engine.days),
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            # a failure is told as it came: to make it shorter may take longer than a test may
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
