"""What a Receiver promises."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.errors import JobNotFound, JobTooBig, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import NewJob
from tests.conftest import wait_for
from tests.proxy import BACK, FREEZE, PASS, Fault
from tests.queues.conformance.engine import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.queues import Receiver
    from glassq.queues.base import Reservation
    from tests.proxy import Proxy
    from tests.queues.conformance.engine import Engine
    from tests.queues.conformance.roles import Roles

    Settle = Callable[[Roles, Receiver, Reservation], object]
    Interrupter = Callable[..., None]

# What a consumer can say of a reservation. None of it may be lost, doubled, or believed too late.
SETTLE: dict[str, Settle] = {
    "extend": lambda _, receiver, held: receiver.extend(held),
    "complete": lambda _, receiver, held: receiver.complete(held),
    "retry": lambda roles, receiver, held: receiver.retry(held, b"again", delay=3600, tube=roles.tube),
    "retry at once": lambda roles, receiver, held: receiver.retry(held, b"again", delay=0, tube=roles.tube),
    "bury": lambda _, receiver, held: receiver.bury(held, b"put aside"),
    "bury as it is": lambda _, receiver, held: receiver.bury(held),
    "release": lambda _, receiver, held: receiver.release(held),
    "complete, then the next": lambda roles, receiver, held: receiver.complete(held, then=[roles.other]),
    "retry, then the next": lambda roles, receiver, held: receiver.retry(
        held, b"again", delay=3600, tube=roles.tube, then=[roles.other]
    ),
    "bury, then the next": lambda roles, receiver, held: receiver.bury(held, b"put aside", then=[roles.other]),
}
settles = pytest.mark.parametrize("settle", SETTLE.values(), ids=SETTLE)


# -- reserving ------------------------------------------------------------------------------------------------------


def test_a_job_is_ours_for_its_lease(roles: Roles) -> None:
    ref = roles.put(b"ping", lease=17)
    reservation = roles.take(roles.receiver(lease=17), b"ping")
    assert (reservation.ref, reservation.tube, reservation.lease) == (ref, roles.tube, 17)
    assert (reservation.losses, reservation.kicked) == (0, False)
    assert roles.receiver().reserve([roles.tube], 0) is None
    assert roles.there() == [("reserved", b"ping")]
    assert 0 < roles.job(ref).time_left <= 17


def test_a_job_comes_out_of_any_tube_that_is_named_and_of_no_other(roles: Roles) -> None:
    for tube in roles.tubes:
        roles.put(tube.encode(), tube=tube)
    receiver = roles.receiver()
    found = [receiver.reserve([roles.tube, roles.other], 0) for _ in range(3)]
    assert sorted(each.body for each in found if each) == [roles.tube.encode(), roles.other.encode()]
    assert roles.take(receiver, tube=roles.third).tube == roles.third


def test_the_oldest_job_of_all_these_tubes_is_the_next(roles: Roles) -> None:
    if not roles.able.oldest:
        return
    for number in range(9):
        roles.put(b"%d" % number, tube=roles.tubes[number * 2 % 3])
    receiver = roles.receiver()
    found = [receiver.reserve(roles.tubes, 0) for _ in range(9)]
    assert [each.body for each in found if each] == [b"%d" % number for number in range(9)]


def test_tubes_that_hold_jobs_are_found_by_how_their_names_begin(roles: Roles) -> None:
    receiver, prefix = roles.receiver(), f"{roles.tube}.queue."
    assert receiver.filled((prefix,)) == []
    for name in ("b", "a"):
        roles.put(b"ping", tube=f"{prefix}{name}")
    roles.put(b"ping", tube=roles.other)
    assert sorted(receiver.filled((prefix,))) == [f"{prefix}a", f"{prefix}b"]
    held = receiver.reserve([f"{prefix}a"], 0)
    assert held is not None
    assert sorted(receiver.filled((prefix,))) == [f"{prefix}a", f"{prefix}b"]
    receiver.complete(held)
    assert receiver.filled((prefix,)) == [f"{prefix}b"]


def test_where_nothing_comes_it_is_none(roles: Roles) -> None:
    receiver = roles.receiver()
    assert receiver.reserve([roles.tube], 0) is None
    assert receiver.reserve([roles.tube, roles.other], 0.5) is None
    roles.put(b"elsewhere", tube=roles.third)
    assert receiver.reserve([roles.tube, roles.other], 0) is None


def test_who_waits_gets_what_is_put_meanwhile(roles: Roles) -> None:
    receiver, found = roles.receiver(), []
    thread = threading.Thread(target=lambda: found.append(receiver.reserve(roles.tubes, TIMEOUT)))
    thread.start()
    wait_for(lambda: roles.waiting(roles.other) or not thread.is_alive(), "somebody to wait")
    roles.put(b"ping", tube=roles.other)
    thread.join()
    assert [each and each.body for each in found] == [b"ping"]


def test_two_consumers_never_have_the_same_job(roles: Roles) -> None:
    bodies = [b"%d" % number for number in range(60)]
    roles.producer.put([NewJob(body.hex(), body, roles.tube) for body in bodies], within=TIMEOUT)
    worked: list[bytes] = []

    def work(receiver: Receiver) -> None:
        while (held := receiver.reserve([roles.tube], 0)) is not None:
            worked.append(held.body)
            receiver.complete(held, then=[roles.tube])

    threads = [threading.Thread(target=work, args=(roles.receiver(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(worked) == sorted(bodies)
    assert roles.find() == []


# How a job ends whose end reserves the next one.
ENDS: dict[str, Settle] = {
    "complete": lambda roles, receiver, held: receiver.complete(held, then=[roles.tube]),
    "retry": lambda roles, receiver, held: receiver.retry(
        held, b"again", delay=3600, tube=roles.other, then=[roles.tube]
    ),
    "bury": lambda roles, receiver, held: receiver.bury(held, b"put aside", then=[roles.tube]),
}
ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


@ends
def test_the_end_of_one_can_reserve_the_next(roles: Roles, end: Settle) -> None:
    first, second = roles.put(b"1"), roles.put(b"2")
    receiver = roles.receiver()
    held = receiver.reserve([roles.tube], 0)
    assert held is not None
    assert not receiver.has_next
    end(roles, receiver, held)
    # what an engine reserves ahead nobody else gets; one that cannot leaves it to the next reserve
    ahead = receiver.has_next
    assert ahead == (not roles.there("ready"))
    following = receiver.reserve([roles.tube], 0)
    assert not receiver.has_next
    assert (held.ref, following and following.ref, following and following.body) == (first, second, b"2")
    assert following is not None
    end(roles, receiver, following)
    assert receiver.reserve([roles.tube], 0) is None
    assert not roles.there("ready", "reserved")


def test_jobs_that_are_moved_one_after_the_other_are_ready_elsewhere(roles: Roles, engine: Engine) -> None:
    bodies = [b"%d" % number for number in range(min(100, engine.many))]
    roles.producer.put([NewJob(body.hex(), body, roles.tube) for body in bodies], within=TIMEOUT)
    receiver, told, failed = roles.receiver(), set[str](), list[QueueError]()
    while (held := receiver.reserve([roles.tube], 0)) is not None:
        receiver.move(held, held.body, tube=roles.other, put=told.add, then=[roles.tube], failed=failed.append)
    # who has nothing else to do has them all proven
    assert (receiver.unproven, told, failed) == (0, {roles.other}, [])
    assert sorted(job.body for job in roles.find()) == sorted(bodies)
    assert {(job.tube, job.state, job.losses) for job in roles.find()} == {(roles.other, "ready", 0)}


def test_quick_jobs_end_one_after_the_other_and_none_twice(roles: Roles) -> None:
    bodies = [b"%02d" % number for number in range(60)]
    roles.producer.put([NewJob(body.hex(), body, roles.tube) for body in bodies], within=TIMEOUT)
    receiver, failed, worked = roles.receiver(), list[QueueError](), list[bytes]()
    for _ in bodies[:-5]:
        held = receiver.reserve([roles.tube], 0)
        assert held is not None
        receiver.begin()
        worked.append(held.body)
        receiver.complete(held, then=[roles.tube], failed=failed.append)
    # what was reserved ahead and never given out has lost nothing
    receiver.close()
    if roles.able.frees_at_once:
        roles.wait_until_free()
    left = [roles.take(roles.receiver()) for _ in range(5)]
    assert sorted([*worked, *(each.body for each in left)]) == bodies
    assert ({each.losses or 0 for each in left}, failed) == ({0}, [])
    assert {job.losses for job in roles.find()} == {0}


def test_a_handler_begins_and_what_was_reserved_beyond_its_job_goes_back(roles: Roles) -> None:
    bodies = [b"%02d" % number for number in range(60)]
    roles.producer.put([NewJob(body.hex(), body, roles.tube) for body in bodies], within=TIMEOUT)
    receiver, failed = roles.receiver(), list[QueueError]()
    for _ in range(40):
        held = receiver.reserve([roles.tube], 0)
        assert held is not None
        receiver.move(held, held.body, tube=roles.other, put=lambda tube: None, then=[roles.tube], failed=failed.append)
    held = receiver.reserve([roles.tube], 0)
    assert held is not None
    receiver.begin()
    assert not receiver.has_next
    assert roles.counts(roles.tube).ready == 19
    assert roles.counts(roles.other).ready == 40
    receiver.complete(held)
    receiver.finish()
    assert failed == []
    found = roles.find()
    assert sorted(job.body for job in found) == [body for body in bodies if body != held.body]
    assert {job.losses for job in found} == {0}


@ends
def test_the_next_one_is_there_though_the_end_came_too_late(roles: Roles, engine: Engine, end: Settle) -> None:
    if not roles.able.fenced:
        return
    lease = engine.shortest_lease
    roles.put(b"1", lease=lease)
    late, next_one = roles.receiver(lease=lease), roles.receiver(lease=lease)
    lost = roles.take(late)
    engine.end_lease(late, lost)
    held = roles.take(next_one, b"1")
    roles.put(b"2")
    next_one.extend(held)
    with pytest.raises(JobNotFound):
        end(roles, late, lost)
    roles.take(late, b"2")
    assert roles.there() == [("reserved", b"1"), ("reserved", b"2")]
    next_one.complete(held)


def test_one_that_was_reserved_ahead_and_never_given_out_is_no_lost_attempt(roles: Roles) -> None:
    bodies = {b"1", b"2"}
    for body in bodies:
        roles.put(body)
    receiver = roles.receiver()
    held = roles.take(receiver)
    receiver.complete(held, then=[roles.tube])
    [rest] = bodies - {held.body}
    receiver.close()
    if roles.able.frees_at_once:
        roles.wait_until_free()
    assert roles.take(roles.receiver(), rest).losses == 0


def test_one_that_was_reserved_ahead_is_not_given_out_after_its_connection_broke(roles: Roles, proxy: Proxy) -> None:
    bodies = {b"1", b"2"}
    for body in bodies:
        roles.put(body)
    receiver = roles.receiver(port=proxy.port)
    held = roles.take(receiver)
    receiver.complete(held, then=[roles.tube])
    [rest] = bodies - {held.body}
    proxy.reset()
    if roles.able.bearer:
        # it does not belong to the connection
        receiver.complete(roles.take(receiver, rest))
        assert roles.find() == []
        return
    with pytest.raises(QueueUnavailable):
        receiver.extend(roles.take(receiver, rest))
    if roles.able.frees_at_once:
        roles.wait_until_free()
    receiver.complete(roles.take(receiver, rest))
    assert roles.find() == []


def test_a_look_tells_what_the_reservation_does_not(roles: Roles) -> None:
    ref = roles.put(b"ping", lease=17)
    receiver = roles.receiver(lease=17)
    held = receiver.reserve(roles.tubes, 0)
    assert held is not None
    assert 0 < held.lease <= 17
    assert (held.tube in ("", roles.tube), held.losses in (None, 0)) == (True, True)
    seen = receiver.examine(held)
    assert (seen.ref, seen.tube, seen.body, seen.lease) == (ref, roles.tube, b"ping", 17)
    assert (seen.losses, seen.kicked) == (0, False)
    assert receiver.extend(held) == 17
    receiver.complete(held)
    with pytest.raises(JobNotFound):
        receiver.examine(held)


def test_several_are_held_at_once_and_end_in_any_order(roles: Roles) -> None:
    if not roles.able.many_held:
        return
    receiver = roles.receiver()
    for number in range(6):
        roles.put(b"%d" % number)
    held = {reservation.body: reservation for reservation in (roles.take(receiver) for _ in range(6))}
    assert len(held) == 6
    receiver.extend(held[b"0"])
    receiver.complete(held[b"3"])
    receiver.retry(held[b"1"], b"1 again", delay=60, tube=roles.tube)
    receiver.bury(held[b"4"], b"4 buried")
    assert roles.there() == [
        ("buried", b"4 buried"), ("delayed", b"1 again"),
        ("reserved", b"0"), ("reserved", b"2"), ("reserved", b"5"),
    ]  # fmt: skip
    receiver.release(held[b"5"])
    receiver.complete(held[b"0"])
    assert roles.there("reserved", "ready") == [("ready", b"5"), ("reserved", b"2")]
    receiver.close()
    if roles.able.frees_at_once:
        roles.wait_until_free()
        assert roles.there("ready") == [("ready", b"2"), ("ready", b"5")]


def test_who_holds_one_whose_lease_ends_soon_can_still_reserve(roles: Roles, engine: Engine) -> None:
    if not roles.able.many_held:
        return
    lease = engine.shortest_lease
    roles.put(b"held", lease=lease)
    receiver = roles.receiver(lease=lease)
    held = roles.take(receiver, b"held")
    assert receiver.reserve([roles.tube], lease / 2) is None
    receiver.extend(held)
    roles.put(b"next", tube=roles.other)
    receiver.complete(roles.take(receiver, b"next", tube=roles.other))
    assert [body for _, body in roles.there()] == [b"held"]
    # one that held several may keep a job beyond its lease (receiver.py of beanstalkd), but never beyond its end
    receiver.close()
    wait_for(lambda: roles.there() == [("ready", b"held")], "the job to be free")


# -- what becomes of it ---------------------------------------------------------------------------------------------


def test_what_is_completed_is_gone(roles: Roles) -> None:
    roles.put()
    receiver = roles.receiver()
    receiver.complete(roles.take(receiver))
    assert roles.find() == []


def test_the_next_form_takes_the_place_of_the_job(roles: Roles) -> None:
    roles.put(b"first form")
    receiver = roles.receiver()
    ref = receiver.retry(roles.take(receiver), b"second form", delay=3600, tube=roles.other)
    [job] = roles.find()
    assert (job.ref, job.state, job.body, job.tube) == (ref, "delayed", b"second form", roles.other)
    assert 3500 < job.time_left <= 3600


def test_a_retry_without_a_delay_is_ready_at_once_with_no_loss(roles: Roles) -> None:
    roles.put(b"first form")
    receiver = roles.receiver()
    receiver.retry(roles.take(receiver), b"second form", delay=0, tube=roles.tube)
    following = roles.take(receiver, b"second form")
    assert (following.losses, following.kicked) == (0, False)
    assert roles.there() == [("reserved", b"second form")]


@pytest.mark.parametrize("body", [b"with the evidence", None], ids=["another form", "as it is"])
def test_what_is_buried_waits_for_an_operator(roles: Roles, body: bytes | None) -> None:
    roles.put(b"ping")
    receiver = roles.receiver()
    ref = receiver.bury(roles.take(receiver), body)
    assert roles.there() == [("buried", body or b"ping")]
    assert receiver.reserve([roles.tube], 0) is None
    job = roles.inspector.get(ref)
    assert (job.state, job.tube, job.losses, job.durable) == ("buried", roles.tube, 0, True)
    roles.inspector.change(job, state="ready")
    again = roles.take(receiver)
    assert (again.body, again.kicked, again.losses) == (body or b"ping", True, 0)


def test_what_is_released_is_ready_at_once_and_counts_no_loss(roles: Roles) -> None:
    ref = roles.put(b"ping")
    receiver = roles.receiver()
    for _ in range(3):
        receiver.release(roles.take(receiver))
        assert roles.there() == [("ready", b"ping")]
    again = roles.take(roles.receiver())
    assert (again.ref, again.losses, again.kicked) == (ref, 0, False)


@pytest.mark.parametrize("act", ["retry", "bury"])
def test_a_form_that_is_too_big_leaves_the_reservation_as_it_was(roles: Roles, act: str) -> None:
    body = b"x" * (roles.inspector.status().max_job + 1)
    roles.put(b"ping")
    receiver = roles.receiver()
    held = roles.take(receiver)
    with pytest.raises(JobTooBig):
        receiver.bury(held, body) if act == "bury" else receiver.retry(held, body, delay=0, tube=roles.tube)
    assert roles.there() == [("reserved", b"ping")]
    receiver.extend(held)
    receiver.complete(held)
    assert roles.find() == []


@pytest.mark.parametrize("act", ["retry", "bury"])
def test_a_form_that_is_refused_leaves_the_reservation_as_it_was(roles: Roles, engine: Engine, act: str) -> None:
    roles.put(b"ping")
    receiver = roles.receiver()
    with engine.refusing():
        roles.reconnect()
        held = roles.take(receiver, b"ping")
        with pytest.raises(QueueRefused):
            SETTLE[act](roles, receiver, held)
        receiver.extend(held)
        receiver.release(held)
        held = roles.take(receiver, b"ping")
        if not roles.able.buries_in_place:
            with pytest.raises(QueueRefused):
                receiver.bury(held)
            assert roles.there() == [("reserved", b"ping")]
            return
        receiver.bury(held)
        assert [roles.inspector.first(state, roles.tube) is not None for state in ("ready", "buried")] == [False, True]


# -- leases ---------------------------------------------------------------------------------------------------------


def test_an_extended_lease_begins_anew_from_any_thread(roles: Roles) -> None:
    ref = roles.put(lease=5)
    receiver = roles.receiver(lease=5)
    held = roles.take(receiver)
    wait_for(lambda: roles.job(ref).time_left < 4, "some of the lease to pass")
    thread = threading.Thread(target=receiver.extend, args=(held,))
    thread.start()
    thread.join()
    assert roles.job(ref).time_left >= 4
    receiver.complete(held)


def test_a_job_whose_lease_has_ended_is_ready_again_with_a_loss(roles: Roles, engine: Engine) -> None:
    lease = engine.shortest_lease
    ref = roles.put(b"ping", lease=lease)
    late = roles.receiver(lease=lease)
    engine.end_lease(late, roles.take(late))
    again = roles.take(roles.receiver(lease=lease), b"ping")
    assert again.ref == ref
    if roles.able.exact_losses:
        assert again.losses == 1


@pytest.fixture
def overtaken(roles: Roles, engine: Engine) -> tuple[Receiver, Reservation, Receiver, Reservation]:
    """A consumer and the job whose lease it let end, and the one that has that job now."""
    lease = engine.shortest_lease
    roles.put(b"ping", lease=lease)
    late, next_one = roles.receiver(lease=lease), roles.receiver(lease=lease)
    lost = roles.take(late)
    engine.end_lease(late, lost)
    held = roles.take(next_one, b"ping")
    next_one.extend(held)
    return late, lost, next_one, held


@settles
def test_a_settle_that_comes_too_late_is_refused_and_changes_nothing(
    roles: Roles, settle: Settle, request: pytest.FixtureRequest
) -> None:
    # one that is not fenced goes by its own clock, whatever is said: each of these takes a lease's time
    if not roles.able.fenced and settle not in (SETTLE["complete"], SETTLE["retry at once"]):
        return
    late, lost, next_one, held = request.getfixturevalue("overtaken")
    next_one.extend(held)
    with pytest.raises(JobNotFound):
        settle(roles, late, lost)
    assert roles.there() == [("reserved", b"ping")]
    next_one.complete(held)
    assert roles.find() == []


@settles
def test_what_is_settled_cannot_be_settled_again(roles: Roles, settle: Settle) -> None:
    for state, end in {
        "gone": lambda receiver, held: receiver.complete(held),
        "ready": lambda receiver, held: receiver.release(held),
        "buried": lambda receiver, held: receiver.bury(held),
    }.items():
        roles.put(b"ping")
        receiver = roles.receiver()
        held = roles.take(receiver)
        end(receiver, held)  # type: ignore[no-untyped-call]
        with pytest.raises(JobNotFound):
            settle(roles, receiver, held)
        assert roles.there() == ([] if state == "gone" else [(state, b"ping")])
        for job in roles.find():
            roles.remove(job)


# -- interrupts -----------------------------------------------------------------------------------------------------


def test_a_wait_that_is_interrupted_ends_and_no_later_one_waits(roles: Roles, interrupter: Interrupter) -> None:
    receiver = roles.receiver(timeout=1000)
    interrupter(receiver, lambda: roles.waiting() == 1)
    assert receiver.reserve([roles.tube], 1000) is None
    assert receiver.reserve([roles.tube], 1000) is None
    roles.put(b"ping")
    other = roles.receiver()
    other.complete(roles.take(other, b"ping"))


def test_a_job_that_comes_as_the_wait_is_interrupted_goes_back(
    roles: Roles, proxy: Proxy, interrupter: Interrupter
) -> None:
    receiver = roles.receiver(port=proxy.port, timeout=1000)
    assert receiver.reserve([roles.tube], 0) is None

    def job_is_on_its_way() -> bool:
        if not roles.waiting():
            return False
        proxy.set(Fault(freeze=True, ways=BACK))
        roles.put(b"ping")
        with suppress(pytest.fail.Exception):
            wait_for(lambda: roles.there() == [("reserved", b"ping")], "it to be reserved", deadline=5.0)
            return True
        # It had looked a last time before it waits, and that answer was held up: it gets this job as any other.
        proxy.set(PASS)
        wait_for(lambda: not roles.there(), "the job to be completed")
        return False

    interrupter(receiver, job_is_on_its_way, then=lambda: proxy.set(PASS))
    while (early := receiver.reserve([roles.tube], 1000)) is not None:
        receiver.complete(early)
    roles.wait_until_free()
    assert roles.there() == [("ready", b"ping")]


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    """Interrupts a receiver from another thread, once this is so; and does something then."""
    threads: list[threading.Thread] = []

    def interrupt(receiver: Receiver, when: Callable[[], bool], then: Callable[[], object] = bool) -> None:
        def run() -> None:
            wait_for(when, "it to wait")
            receiver.interrupt()
            then()

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield interrupt
    for thread in threads:
        thread.join()


# -- connections ----------------------------------------------------------------------------------------------------


def test_what_a_closed_connection_held_is_ready_and_the_attempt_counts_as_lost(roles: Roles) -> None:
    if not roles.able.frees_at_once:
        return
    ref = roles.put(b"ping")
    for losses in range(3):
        receiver = roles.receiver()
        held = roles.take(receiver, b"ping")
        assert (held.ref, held.losses) == (ref, losses if roles.able.exact_losses else held.losses)
        receiver.close()
        roles.wait_until_free()
        assert roles.find()[0].losses == (losses + 1 if roles.able.exact_losses else roles.find()[0].losses)


@settles
def test_after_a_broken_connection_what_it_held_is_not_ours(roles: Roles, proxy: Proxy, settle: Settle) -> None:
    roles.put(b"ping")
    receiver = roles.receiver(port=proxy.port)
    held = roles.take(receiver)
    proxy.reset()
    if roles.able.bearer:
        # it does not belong to the connection; where that broke only as it was used, it is ours all the same
        try:
            settle(roles, receiver, held)
        except QueueUnavailable:
            settle(roles, receiver, held)
        assert ("reserved", b"ping") not in roles.there() or settle is SETTLE["extend"]
        return
    with pytest.raises(QueueUnavailable):
        settle(roles, receiver, held)
    if roles.able.frees_at_once:
        roles.wait_until_free()
        # the engine has not heard of any of it
        assert roles.there() == [("ready", b"ping")]
        with pytest.raises(JobNotFound):
            settle(roles, receiver, held)
        assert roles.there() == [("ready", b"ping")]
        receiver.complete(roles.take(receiver, b"ping"))
        assert roles.find() == []


def test_a_frozen_connection_is_given_up_and_the_next_call_has_a_fresh_one(roles: Roles, proxy: Proxy) -> None:
    roles.put(b"ping")
    receiver = roles.receiver(port=proxy.port, timeout=0.3)
    held = roles.take(receiver)
    proxy.set(FREEZE)
    if roles.able.bearer:
        # ours until the lease ends, by its own clock
        assert 0 < receiver.extend(held) < held.lease
        proxy.set(PASS)
        receiver.complete(held)
        assert roles.find() == []
        return
    with pytest.raises(QueueUnavailable):
        receiver.extend(held)
    proxy.set(PASS)
    # the late answer must not be taken for this one's
    assert roles.take(receiver, b"ping").body == b"ping"


def test_an_engine_that_dies_while_somebody_waits_is_noticed(roles: Roles, engine: Engine) -> None:
    receiver = roles.receiver()
    failed: list[type[BaseException]] = []

    def wait() -> None:
        try:
            receiver.reserve([roles.tube], 30)
        except QueueUnavailable as error:
            failed.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(roles.waiting, "the reserve to wait")
    engine.kill()
    thread.join()
    try:
        assert failed == [QueueUnavailable]
        with pytest.raises(QueueUnavailable):
            receiver.reserve([roles.tube], 0)
    finally:
        engine.start()
    roles.reconnect()
    roles.put(b"after")
    assert roles.take(receiver, b"after")


def test_what_was_reserved_at_a_crash_is_ready_after_it(roles: Roles, engine: Engine) -> None:
    roles.put(b"ping")
    receiver = roles.receiver()
    held = roles.take(receiver)
    engine.kill()
    engine.start()
    roles.reconnect()
    if roles.able.bearer:
        # nobody has forgotten who has it
        receiver.extend(held)
        receiver.complete(held)
        assert roles.find() == []
        return
    with pytest.raises(QueueUnavailable):
        receiver.extend(held)
    for settle in SETTLE.values():
        with pytest.raises(JobNotFound):
            settle(roles, receiver, held)
    assert roles.there() == [("ready", b"ping")]
    receiver.complete(roles.take(receiver, b"ping"))


def test_a_forked_child_that_lets_go_keeps_no_job_of_its_parent(roles: Roles) -> None:
    roles.put(b"ping")
    receiver = roles.receiver()
    held = roles.take(receiver)
    gate, opened = os.pipe()
    child = os.fork()
    if not child:
        receiver.close_inherited()
        os.close(opened)
        os.read(gate, 1)
        os._exit(0)
    try:
        os.close(gate)
        receiver.extend(held)
        receiver.close()
        if roles.able.frees_at_once:
            roles.wait_until_free()
            assert roles.there() == [("ready", b"ping")]
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.close(opened)
        os.waitpid(child, 0)


def test_a_closed_receiver_can_be_closed_again_and_used_again(roles: Roles) -> None:
    receiver = roles.receiver()
    receiver.close()
    roles.put(b"ping")
    receiver.complete(roles.take(receiver, b"ping"))
    receiver.close()
    receiver.close()
    assert receiver.reserve([roles.tube], 0) is None
