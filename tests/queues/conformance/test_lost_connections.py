"""A connection that dies at each message of each operation: no delivery is lost, none is doubled without a doubt."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING, get_args

import pytest

from glassq.errors import QueueError, QueueUnavailable
from glassq.queues.base import Change, NewJob, WaitingState
from tests.conftest import wait_for
from tests.queues.conformance.cutter import cut_at_each_message
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.roles import new_key
from tests.queues.conformance.test_receiver import SETTLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues import Receiver
    from tests.queues.conformance.roles import Roles

# In seconds: longer than any engine lets a job wait behind others that are quick.
LATE = 0.12
WAITING: tuple[WaitingState, ...] = get_args(WaitingState)
# The form that a delivery has after each of these, beside the one it had; None: it may be gone.
AFTER: dict[str, bytes | None] = {
    "extend": b"ping",
    "complete": None,
    "retry": b"again",
    "retry at once": b"again",
    "bury": b"put aside",
    "bury as it is": b"ping",
    "release": b"ping",
    "complete, then the next": None,
    "retry, then the next": b"again",
    "bury, then the next": b"put aside",
}


def check(roles: Roles, before: bytes, after: bytes | None, *, cut: bool, anew: bool = False) -> None:
    """What lies in our tubes is the delivery: in the old form or the new one, or, in doubt, in both.

    `anew`: the new form may be the same bytes, put once more.
    """
    if roles.able.frees_at_once:
        roles.wait_until_free()
    found = [job.body for job in roles.find()]
    assert set(found) <= {before, after}, found
    assert len(found) >= (after is not None), "it is lost"
    assert len(found) <= (1 if roles.able.atomic or (before == after and not anew) else 2), found
    assert anew or len(set(found)) == len(found), "a form is there twice"
    if not cut:
        assert found == ([] if after is None else [after])


def clear(roles: Roles) -> None:
    for job in roles.find():
        roles.remove(job)


@pytest.mark.parametrize("name", SETTLE)
def test_a_delivery_that_is_settled_is_never_lost(roles: Roles, name: str) -> None:
    for cutter in cut_at_each_message(roles.engine):
        roles.put(b"ping")
        receiver = roles.receiver(port=cutter.port)
        held = roles.take(receiver, b"ping")
        broke = False
        with cutter:
            try:
                SETTLE[name](roles, receiver, held)
            except QueueUnavailable:
                broke = True
        # the end of the job may have been answered, and only then the connection broke; what may happen twice is
        # tried again where it belongs to no connection
        assert broke == cutter.fired or (cutter.fired and ("then" in name or roles.able.bearer))
        receiver.close()
        anew = cutter.fired and not roles.able.buries_in_place and name in ("release", "bury as it is")
        check(roles, b"ping", AFTER[name], cut=broke or anew, anew=anew)
        clear(roles)


# Who may be the first to tell the engine of ends that nobody has waited for, and of jobs that have waited for too long.
TENDS: dict[str, Callable[[Receiver], None]] = {
    "tend": lambda receiver: receiver.tend(),
    "begin": lambda receiver: receiver.begin(),
    "finish": lambda receiver: receiver.finish(),
}


@pytest.mark.parametrize("tend", TENDS.values(), ids=TENDS)
def test_what_is_finished_later_is_never_lost(roles: Roles, tend: Callable[[Receiver], None]) -> None:
    """Nor does anything else than a QueueError come out: the keeper of a job in hand relies on that."""
    jobs = [b"%d" % number for number in range(8)]
    roles.engine.make([roles.tube])
    for cutter in cut_at_each_message(roles.engine):
        roles.producer.put([NewJob(new_key(), body, roles.tube) for body in jobs], within=TIMEOUT)
        receiver = roles.receiver(port=cutter.port)
        failures: list[QueueError] = []
        ended: set[bytes] = set()
        while len(ended) < 4:
            held = receiver.reserve([roles.tube], TIMEOUT)
            assert held is not None
            receiver.complete(held, then=[roles.tube], failed=failures.append)
            ended.add(held.body)
        with cutter:
            end = time.monotonic() + LATE
            wait_for(lambda: time.monotonic() > end, "what waits behind others to be late")  # noqa: B023
            broke = not attempt(lambda: tend(receiver))  # noqa: B023
        assert cutter.fired or not (broke or failures)
        receiver.close()
        found = settled(roles)
        assert set(jobs) - ended <= set(found)
        # what goes back as another job may be there twice, if nobody knows whether the queue has got that
        assert len(found) == len(set(found)) or (cutter.fired and roles.able.bearer)
        assert cutter.fired or not ended & set(found)
        clear(roles)


def test_a_reservation_that_is_not_answered_is_lost_and_its_job_is_not(roles: Roles) -> None:
    for cutter in cut_at_each_message(roles.engine):
        receiver = roles.receiver(port=cutter.port)
        assert receiver.reserve([roles.tube], 0) is None
        roles.put(b"ping")
        with cutter:
            attempt(lambda: receiver.reserve([roles.tube], 0))  # noqa: B023
        receiver.close()
        check(roles, b"ping", b"ping", cut=cutter.fired)
        clear(roles)


@pytest.mark.parametrize("state", WAITING)
def test_a_job_that_an_operator_puts_is_there_once_or_not_at_all(roles: Roles, state: WaitingState) -> None:
    for cutter in cut_at_each_message(roles.engine):
        inspector = roles.new_inspector(port=cutter.port)
        inspector.counts([roles.third])
        with cutter:
            done = attempt(lambda: inspector.insert(b"ping", tube=roles.tube, state=state, delay=3600))  # noqa: B023
        assert done or cutter.fired
        inspector.close()
        found = settled(roles)
        assert found == [b"ping"] if done else found in ([], [b"ping"])
        clear(roles)


@pytest.mark.parametrize(("old", "new"), [*product(WAITING, WAITING)])
@pytest.mark.parametrize("body", [b"ping", b"another form"], ids=["same form", "other form"])
def test_a_job_that_an_operator_changes_is_never_lost(
    roles: Roles, old: WaitingState, new: WaitingState, body: bytes
) -> None:
    if old not in roles.able.lists:
        return
    for tube in (roles.tube, roles.other):
        for cutter in cut_at_each_message(roles.engine):
            job = roles.lie(old)
            inspector = roles.new_inspector(port=cutter.port)
            inspector.counts([roles.third])
            with cutter:
                done = attempt(
                    lambda: inspector.change(job, state=new, body=body, tube=tube, delay=1800)  # noqa: B023
                )
            assert done or cutter.fired
            inspector.close()
            found = settled(roles)
            assert set(found) <= {b"ping", body}
            assert 1 <= len(found) <= (1 if done or roles.able.atomic else 2)
            if done:
                assert [(each.state, each.body, each.tube) for each in roles.find()] == [(new, body, tube)]
            clear(roles)


@pytest.mark.parametrize("new", WAITING)
def test_jobs_that_an_operator_changes_together_are_never_lost(roles: Roles, new: WaitingState) -> None:
    for cutter in cut_at_each_message(roles.engine):
        jobs = [roles.lie(old, b"%d" % number) for number, old in enumerate(WAITING) if old in roles.able.lists]
        inspector = roles.new_inspector(port=cutter.port)
        inspector.counts([roles.third])
        with cutter:
            changes = [Change(job, new, job.body + b"!", roles.other, 1800) for job in jobs]
            answers = inspector.change_all(changes)
        assert cutter.fired or not any(isinstance(answer, QueueUnavailable) for answer in answers)
        inspector.close()
        found = settled(roles)
        for job, answer in zip(jobs, answers, strict=True):
            assert {job.body, job.body + b"!"} & set(found)
            assert isinstance(answer, QueueUnavailable) or job.body not in found
        clear(roles)


def test_a_job_that_an_operator_deletes_is_gone_or_there(roles: Roles) -> None:
    for cutter in cut_at_each_message(roles.engine):
        job = roles.lie("buried")
        inspector = roles.new_inspector(port=cutter.port)
        inspector.counts([roles.third])
        with cutter:
            done = attempt(lambda: inspector.delete(job))  # noqa: B023
        assert done or cutter.fired
        found = settled(roles)
        assert found == [] if done else found in ([], [b"ping"])
        clear(roles)


# The engine may have been told what was decided, and the connection break only as others are told of it.
def attempt(call: Callable[[], object]) -> bool:
    """Whether it went well."""
    try:
        call()
    except QueueUnavailable:
        return False
    return True


def settled(roles: Roles) -> list[bytes]:
    """The bodies in our tubes, once the engine has seen that the connection ended."""
    if roles.able.frees_at_once:
        roles.wait_until_free()
    return [job.body for job in roles.find()]
