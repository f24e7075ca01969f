"""What a Producer promises."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.errors import JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import NewJob, Receipt, Refusal
from tests.conftest import wait_for
from tests.proxy import FREEZE, PASS
from tests.queues.conformance.cutter import cut_at_each_message
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.roles import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues import Producer
    from tests.proxy import Proxy
    from tests.queues.conformance.engine import Engine
    from tests.queues.conformance.roles import Roles


def batch(roles: Roles, *bodies: bytes) -> list[NewJob]:
    return [NewJob(key_of(body), body, roles.tube) for body in bodies]


def put(producer: Producer, jobs: Sequence[NewJob], *, again: bool = False) -> list[Receipt | Refusal]:
    return producer.put(jobs, within=TIMEOUT, again=again)


def taken(answers: Sequence[Receipt | Refusal]) -> list[Receipt]:
    assert all(isinstance(answer, Receipt) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Receipt)]


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"a\r\nDELETED\r\n", b"';--", bytes(range(256)), b"\x00" * 1000, b"x" * 60_000],
    ids=["empty", "line end", "a reply", "sql", "every byte", "zeros", "long"],
)
def test_a_body_of_any_bytes_is_reserved_as_it_was_put(roles: Roles, engine: Engine, body: bytes) -> None:
    body = body[: engine.largest]
    ref = roles.put(body)
    reservation = roles.take(roles.receiver(), body)
    assert (reservation.ref, reservation.tube) == (ref, roles.tube)


def test_a_batch_is_put_in_order_and_each_job_has_its_answer(roles: Roles) -> None:
    jobs = [
        NewJob("one", b"1", roles.tube),
        NewJob("two", b"2", roles.other),
        NewJob("three", b"3", roles.tube),
        NewJob("four", b"4", roles.tube, delay=3600),
    ]
    receipts = taken(put(roles.producer, jobs))
    assert [receipt.key for receipt in receipts] == ["one", "two", "three", "four"]
    assert len({receipt.ref for receipt in receipts}) == 4
    assert [roles.job(receipt.ref).body for receipt in receipts] == [b"1", b"2", b"3", b"4"]
    assert roles.there() == [("delayed", b"4"), ("ready", b"1"), ("ready", b"2"), ("ready", b"3")]
    assert roles.counts(roles.other).ready == 1
    receiver = roles.receiver()
    came = [roles.take(receiver).body for _ in range(2)]
    assert (sorted(came), came == [b"1", b"3"] or not roles.able.oldest) == ([b"1", b"3"], True)


def test_no_job_is_no_answer(roles: Roles) -> None:
    assert put(roles.producer, []) == []
    roles.producer.confirm([], within=TIMEOUT)


def test_a_job_with_a_delay_is_ready_after_it(roles: Roles) -> None:
    roles.put(b"later", delay=0.5)
    receiver = roles.receiver()
    assert roles.counts().delayed == 1
    assert receiver.reserve([roles.tube], 0) is None
    roles.take(receiver, b"later")


def test_a_bad_job_refuses_itself_alone(roles: Roles) -> None:
    too_big = roles.inspector.status().max_job + 1
    jobs = [
        NewJob("first", b"first", roles.tube),
        NewJob("too big", b"x" * too_big, roles.tube),
        NewJob("bad tube", b"x", "no tube\r\n"),
        NewJob("never", b"x", roles.tube, delay=float("inf")),
        NewJob("before now", b"x", roles.tube, delay=-5.0),
        NewJob("no delay", b"x", roles.tube, delay=float("nan")),
        NewJob("last", b"last", roles.tube),
    ]
    first, *bad, last = put(roles.producer, jobs)
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert [answer.key for answer in bad] == [job.key for job in jobs[1:-1]]
    for answer in bad:
        assert isinstance(answer, Refusal), answer
        assert isinstance(answer.error, QueueError)
        assert not answer.in_doubt
        assert isinstance(answer.error, JobTooBig) == (answer.key == "too big")
        assert not isinstance(answer.error, QueueUnavailable)
    assert roles.there() == [("ready", b"first"), ("ready", b"last")]


def test_many_jobs_are_put_in_order_whatever_their_size(roles: Roles, engine: Engine) -> None:
    """More than the buffers of a connection hold, in both directions."""
    large = min(50_000, engine.largest - 10)
    bodies = [b"%d " % number + b"x" * (large if number % 50 == 7 else 100) for number in range(engine.many)]
    receipts = taken(put(roles.producer, batch(roles, *bodies)))
    roles.producer.confirm(receipts, within=TIMEOUT)
    assert len({receipt.ref for receipt in receipts}) == engine.many
    receiver = roles.receiver()
    worked = []
    while (held := receiver.reserve([roles.tube], 0)) is not None:
        worked.append(held.body)
        receiver.complete(held, then=[roles.tube])
    assert (sorted(worked), worked == bodies or not roles.able.oldest) == (sorted(bodies), True)


def test_what_has_no_answer_is_in_doubt_only_if_it_may_be_there(roles: Roles, engine: Engine, proxy: Proxy) -> None:
    producer = roles.new_producer(port=proxy.port, timeout=0.3)
    # more than any engine takes in one packet
    jobs = batch(roles, *(b"%d " % number + b"x" * min(50_000, engine.largest - 10) for number in range(300)))
    taken(put(producer, batch(roles, b"before")))
    proxy.set(FREEZE)
    answers = producer.put(jobs, within=0.3)
    for answer in answers:
        assert isinstance(answer, Refusal), answer
        assert isinstance(answer.error, QueueUnavailable)
    doubts = [answer.in_doubt for answer in answers if isinstance(answer, Refusal)]
    # the first packet was sent, the last one was not
    assert (doubts[0], doubts[-1]) == (True, False)
    assert doubts == sorted(doubts, reverse=True)
    proxy.set(PASS)
    certain = {job.body for job, doubt in zip(jobs, doubts, strict=True) if not doubt}
    assert certain.isdisjoint(body for _, body in roles.there())


def test_nobody_listening_puts_nothing_in_doubt(roles: Roles, engine: Engine) -> None:
    engine.stop()
    try:
        for again in (False, True):
            answers = put(roles.new_producer(), batch(roles, b"1", b"2"), again=again)
            assert [getattr(answer, "in_doubt", None) for answer in answers] == [False, False]
            assert all(isinstance(getattr(answer, "error", None), QueueUnavailable) for answer in answers)
    finally:
        engine.start()
    roles.reconnect()
    assert roles.find() == []


def test_a_connection_that_breaks_at_any_message_leaves_exact_doubts(roles: Roles) -> None:
    for step, cutter in enumerate(cut_at_each_message(roles.engine)):
        producer = roles.new_producer(port=cutter.port)
        taken(put(producer, batch(roles, b"%d: before" % step)))
        jobs = batch(roles, *(b"%d: %d" % (step, number) for number in range(3)))
        with cutter:
            answers = put(producer, jobs)
        if not cutter.fired:
            taken(answers)
        wait_for(lambda step=step: roles.counts().ready >= step, "what was sent to arrive")  # type: ignore[misc]
        found = [job.body for job in roles.find()]
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Receipt):
                assert found.count(job.body) == 1
            else:
                assert found.count(job.body) <= int(answer.in_doubt)
        if cutter.fired and cutter.way == "there":
            # what was cut off has not come, nor has anything after it
            refused = [isinstance(answer, Refusal) for answer in answers]
            assert refused == sorted(refused)


def test_what_is_in_doubt_is_put_once_more_where_that_is_asked_for(roles: Roles) -> None:
    for step, cutter in enumerate(cut_at_each_message(roles.engine)):
        producer = roles.new_producer(port=cutter.port)
        taken(put(producer, batch(roles, b"%d: before" % step)))
        bodies = [b"%d: %d" % (step, number) for number in range(3)]
        with cutter:
            taken(put(producer, batch(roles, *bodies), again=True))
        found = [job.body for job in roles.find()]
        counts = [found.count(body) for body in bodies]
        assert all(1 <= number <= 2 for number in counts)
        assert cutter.fired or counts == [1, 1, 1]


def test_what_the_first_attempt_may_have_put_stays_in_doubt(roles: Roles) -> None:
    """The answer to the first put is lost, and then nobody can be reached."""
    for cutter in cut_at_each_message(roles.engine, for_good=True):
        producer = roles.new_producer(port=cutter.port)
        body = b"cut off the %s way at %d" % (cutter.way.encode(), cutter.step)
        taken(put(producer, batch(roles, b"before")))
        with cutter:
            [answer] = put(producer, batch(roles, body), again=True)
        found = [job.body for job in roles.find()].count(body)
        assert isinstance(answer, Receipt) != cutter.fired
        if isinstance(answer, Refusal):
            # where a put needs no connection of its own, the second one may have come as well
            assert found <= (2 if roles.able.bearer else 1) * answer.in_doubt


def test_an_engine_that_takes_no_jobs_refuses_all_and_leaves_no_doubt(roles: Roles, engine: Engine) -> None:
    producer = roles.new_producer()
    with engine.refusing():
        answers = put(producer, batch(roles, b"1", b"2"), again=True)
        assert [(type(answer), getattr(answer, "in_doubt", None)) for answer in answers] == [(Refusal, False)] * 2
        assert all(isinstance(getattr(answer, "error", None), QueueRefused) for answer in answers)
        with pytest.raises(QueueRefused):
            producer.check(within=TIMEOUT)
    assert len(taken(put(producer, batch(roles, b"3"), again=True))) == 1
    producer.check(within=TIMEOUT)


def test_what_is_confirmed_is_there_after_a_crash(roles: Roles, engine: Engine) -> None:
    producer = roles.new_producer()
    jobs = [*batch(roles, b"1", b"2"), NewJob("delayed", b"3", roles.other, delay=3600)]
    receipts = taken(put(producer, jobs))
    producer.confirm(receipts, within=TIMEOUT)
    engine.kill()
    engine.start()
    roles.reconnect()
    assert roles.there() == [("delayed", b"3"), ("ready", b"1"), ("ready", b"2")]


def test_what_consumers_have_finished_already_is_confirmed(roles: Roles) -> None:
    receipts = taken(put(roles.producer, batch(roles, b"1", b"2")))
    receiver = roles.receiver()
    for _ in receipts:
        receiver.complete(roles.take(receiver))
    roles.producer.confirm(receipts, within=TIMEOUT)


def test_an_engine_that_would_forget_is_found_out(roles: Roles, engine: Engine) -> None:
    if roles.able.never_forgets:
        return
    producer = roles.new_producer()
    [before] = taken(put(producer, batch(roles, b"before")))
    with engine.forgetting():
        # what it has not yet noticed itself it may answer well, once
        answers = [*put(producer, batch(roles, b"1")), *put(producer, batch(roles, b"2"))]
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        assert all(isinstance(refusal.error, NotDurable) and not refusal.in_doubt for refusal in refusals)
        if receipts:
            with pytest.raises(NotDurable):
                producer.confirm([*receipts, before], within=TIMEOUT)
        for _ in range(2):
            with pytest.raises(NotDurable):
                producer.check(within=TIMEOUT)
    producer.close()
    producer.check(within=TIMEOUT)
    receipts = taken(put(producer, batch(roles, b"after")))
    producer.confirm(receipts, within=TIMEOUT)


def test_a_check_says_that_nobody_is_there(roles: Roles, engine: Engine) -> None:
    producer = roles.new_producer()
    producer.check(within=TIMEOUT)
    [receipt] = taken(put(producer, batch(roles, b"1")))
    engine.stop()
    try:
        for call in (
            lambda: producer.check(within=TIMEOUT),
            lambda: producer.check(within=TIMEOUT),
            # where the answer was the proof, nobody is asked for one
            lambda: producer.confirm([receipt], within=TIMEOUT) if receipt.server else producer.check(within=TIMEOUT),
            lambda: producer.withdraw(receipt, within=TIMEOUT),
        ):
            with pytest.raises(QueueUnavailable):
                call()
    finally:
        engine.start()
    producer.check(within=TIMEOUT)
    [receipt] = taken(put(producer, batch(roles, b"2")))
    producer.confirm([receipt], within=TIMEOUT)


def test_what_an_earlier_run_of_the_engine_took_is_not_taken_for_proven(roles: Roles, engine: Engine) -> None:
    """It may have died with a put that it had not written."""
    producer = roles.new_producer()
    receipts = taken(put(producer, batch(roles, b"1", b"2")))
    if not receipts[0].server:
        return
    engine.kill()
    engine.start()
    roles.reconnect()
    producer.close()
    after = taken(put(producer, batch(roles, b"3")))
    assert after[0].server != receipts[0].server
    with pytest.raises(NotDurable):
        producer.confirm([*receipts, *after], within=TIMEOUT)
    producer.confirm(after, within=TIMEOUT)


def test_no_call_goes_on_beyond_its_time(roles: Roles, proxy: Proxy) -> None:
    producer = roles.new_producer(port=proxy.port)
    [receipt] = taken(put(producer, batch(roles, b"1")))
    proxy.set(FREEZE)
    # were they to wait for the engine's own limit, no test would wait for them: it is longer than a hang
    for call in (
        lambda: producer.check(within=0.1),
        lambda: producer.withdraw(receipt, within=0.1),
    ):
        with pytest.raises(QueueUnavailable):
            call()
    # the proof may come from somewhere else
    with suppress(QueueUnavailable):
        producer.confirm([receipt], within=0.1)
    [answer] = producer.put(batch(roles, b"2"), within=0.1, again=True)
    assert isinstance(answer, Refusal)
    proxy.set(PASS)
    producer.check(within=TIMEOUT)


def test_what_nobody_has_reserved_can_be_withdrawn_once(roles: Roles) -> None:
    ready, delayed = taken(
        put(roles.producer, [NewJob("ready", b"r", roles.tube), NewJob("delayed", b"d", roles.tube, 60)])
    )
    if not roles.able.withdraws:
        assert not roles.producer.withdraw(ready, within=TIMEOUT)
        assert not roles.producer.withdraw(delayed, within=TIMEOUT)
        assert roles.there() == [("delayed", b"d"), ("ready", b"r")]
        return
    for receipt in (ready, delayed):
        assert roles.producer.withdraw(receipt, within=TIMEOUT)
        assert not roles.producer.withdraw(receipt, within=TIMEOUT)
    assert roles.find() == []


def test_what_a_consumer_has_reserved_cannot_be_withdrawn(roles: Roles) -> None:
    [receipt] = taken(put(roles.producer, batch(roles, b"1")))
    receiver = roles.receiver()
    reservation = roles.take(receiver)
    assert not roles.producer.withdraw(receipt, within=TIMEOUT)
    receiver.complete(reservation)


def test_one_producer_serves_many_threads(roles: Roles) -> None:
    producer = roles.new_producer()
    receipts: list[Receipt] = []

    def work(thread: int) -> None:
        for number in range(10):
            found = taken(put(producer, batch(roles, b"%d %d a" % (thread, number), b"%d %d b" % (thread, number))))
            producer.confirm(found, within=TIMEOUT)
            receipts.extend(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt.ref for receipt in receipts}) == 120
    assert {receipt.key for receipt in receipts} == {key_of(job.body) for job in roles.find()}


def test_a_producer_works_on_both_sides_of_a_fork(roles: Roles) -> None:
    producer = roles.new_producer()
    taken(put(producer, batch(roles, b"before")))
    child = os.fork()
    if not child:
        try:
            done = taken(put(producer, batch(roles, *(b"child %d" % number for number in range(20)))))
            producer.confirm(done, within=TIMEOUT)
            os._exit(0)
        finally:
            os._exit(1)
    taken(put(producer, batch(roles, *(b"parent %d" % number for number in range(20)))))
    assert os.waitpid(child, 0)[1] == 0
    producer.check(within=TIMEOUT)
    assert len({job.body for job in roles.find()}) == 41


def test_a_closed_producer_can_be_used_again(roles: Roles) -> None:
    producer = roles.new_producer()
    for body in (b"1", b"2"):
        taken(put(producer, batch(roles, body)))
        producer.close()
        producer.close()
    assert roles.counts().ready == 2


def test_a_connection_that_broke_while_it_lay_idle_costs_no_put(roles: Roles, proxy: Proxy) -> None:
    """Where nobody can say whether a put happened, it must not have been tried on a connection that is likely dead."""
    producer = roles.new_producer(port=proxy.port)
    taken(put(producer, batch(roles, b"before")))
    wait_for(lambda: proxy.living(), "the connection")
    proxy.reset()
    # the longest time that an engine may believe an idle connection without asking
    threading.Event().wait(1.1)
    taken(put(producer, batch(roles, b"after")))
    assert roles.there() == [("ready", b"after"), ("ready", b"before")]
