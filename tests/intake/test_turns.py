"""What is worked and kept together: many requests of one turn, their order, and what holds nobody up."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from glassq import delivery
from tests.conftest import free_port, wait_for
from tests.intake.conftest import Web, empty
from tests.intake.test_queue_trouble import at_once
from tests.intake.test_reload import Load, kept
from tests.intake.wire import HEALTH, PATIENCE, Wire, body, request
from tests.metrics.test_counters import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd

PING = request()
READY = HEALTH.replace(b"healthz", b"readyz")
BAD = {
    403: request(b"{}"),
    400: request(b"["),
    404: request(b"", line="GET /nowhere HTTP/1.1"),
    415: request(kind="text/plain"),
    431: request(None, *(f"X-{number}: y" for number in range(101))),
}


def items(server: Beanstalkd) -> list[str]:
    return [json.loads(delivery.decode(job).body)["itemId"] for job in empty(server)]


def ping(item: object) -> bytes:
    return request(body(itemId=f"item-{item}"))


@pytest.fixture
def frozen(beanstalkd: Beanstalkd) -> Iterator[Callable[[], None]]:
    """Freezes the queue; at the end it goes on."""
    yield lambda: beanstalkd.send(signal.SIGSTOP)
    beanstalkd.send(signal.SIGCONT)


def sent_to_a_stopped_worker(web: Web, stack: ExitStack, requests: list[bytes]) -> list[Wire]:
    """A connection for each request, all of which are there when the worker goes on: one turn."""
    (worker,) = web.workers()
    wires = [stack.enter_context(web.wire()) for _ in requests]
    # it has accepted them
    assert all(wire.ask(HEALTH).status == 200 for wire in wires)
    os.kill(worker, signal.SIGSTOP)
    try:
        for wire, data in zip(wires, requests, strict=True):
            wire.send(data)
    finally:
        os.kill(worker, signal.SIGCONT)
    return wires


def test_good_and_bad_requests_of_one_turn_get_each_its_own_answer(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url)
    requests = [data for number in range(6) for data in (ping(number), *BAD.values(), HEALTH)]
    expected = [status for _ in range(6) for status in (200, *BAD, 200)]
    with ExitStack() as stack:
        wires = sent_to_a_stopped_worker(web, stack, requests)
        assert [wire.answer().status for wire in wires] == expected
    assert sorted(items(beanstalkd)) == [f"item-{number}" for number in range(6)]


def test_the_pings_of_a_turn_share_a_batch(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    inside = ("127.0.0.1", free_port())
    web = start_web(beanstalkd.url, queue=f'[metrics]\nintake = "127.0.0.1:{inside[1]}"')
    with ExitStack() as stack:
        wires = sent_to_a_stopped_worker(web, stack, [ping(number) for number in range(40)])
        assert {wire.answer().status for wire in wires} == {200}
    with Wire(inside) as wire:
        told = samples(wire.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body)
    assert told[("glassq_intake_batch_pings_sum",)] == 40
    # the loop looks at its connections while more arrives: a few turns, and by far not forty
    assert told[("glassq_intake_batch_pings_count",)] < 20
    assert sorted(items(beanstalkd)) == sorted(f"item-{number}" for number in range(40))


def test_pipelined_pings_are_put_and_answered_in_order(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url)
    with web.wire() as wire:
        wire.send(b"".join(ping(number) + BAD[403] for number in range(30)))
        assert [wire.answer().status for _ in range(60)] == [200, 403] * 30
    assert items(beanstalkd) == [f"item-{number}" for number in range(30)]


def test_a_batch_that_waits_for_a_frozen_queue_holds_up_nobody_else(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web], frozen: Callable[[], None]
) -> None:
    web = start_web(beanstalkd.url)
    assert web.ask(PING).status == 200
    frozen()
    with web.wire() as first, web.wire() as other:
        first.send(PING)
        # the loop goes on: these are answered while the ping waits for its budget, or after it
        assert [other.ask(data).status for data in (HEALTH, *(BAD[status] for status in (403, 404, 415)))] == [
            200, 403, 404, 415,
        ]  # fmt: skip
        assert [web.ask(ping(number)).status for number in range(5)] == [200] * 5
        assert first.answer().status == 200
    assert web.log().count("they go to the journal") == 1
    # whoever comes later waits for nothing
    assert {answer.status for answer in at_once(web, 16)} == {200}


def test_a_queue_that_is_asked_aside_holds_up_no_ping(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web], frozen: Callable[[], None]
) -> None:
    web = start_web(beanstalkd.url)
    frozen()
    with ExitStack() as stack:
        # more than there are threads beside, and written so that only the app understands it
        asking = [stack.enter_context(web.wire()) for _ in range(8)]
        for wire in asking:
            wire.send(READY.replace(b"readyz", b"%72eadyz"))
        assert [web.ask(HEALTH).status for _ in range(20)] == [200] * 20
        assert web.ask(PING).status == 200
        assert {wire.answer().status for wire in asking} == {200}


def test_what_is_kept_nowhere_is_503_and_its_connection_goes_on(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, journal_min_free="1000000GiB")
    beanstalkd.stop()
    with ExitStack() as stack:
        wires = sent_to_a_stopped_worker(web, stack, [PING, BAD[403], PING, HEALTH])
        answers = [wire.answer() for wire in wires]
        assert [answer.status for answer in answers] == [503, 403, 503, 200]
        for answer in (answers[0], answers[2]):
            assert answer.is_problem()
            assert (answer.closing, int(answer.headers["retry-after"]) > 0) == (False, True)
        beanstalkd.start()
        wait_for(lambda: wires[0].ask(PING).status == 200, "the queue to be used again")
    assert len(items(beanstalkd)) == 1


@pytest.mark.parametrize("limit", ["max_held = 3", f"memory_max = {2 * len(PING) + 1}"], ids=["number", "size"])
def test_beyond_what_may_wait_a_ping_is_503_at_once(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web], frozen: Callable[[], None], limit: str
) -> None:
    web = start_web(beanstalkd.url, conf=f"BufferingWorker.{limit}", budget=1.0)
    assert web.ask(PING).status == 200
    frozen()
    with ExitStack() as stack:
        wires = sent_to_a_stopped_worker(web, stack, [PING] * 8 + [HEALTH])
        answers = [wire.answer() for wire in wires]
    assert [answer.status for answer in answers] == [200] * 3 + [503] * 5 + [200]
    assert all(answer.is_problem() and answer.headers["retry-after"] for answer in answers[3:8])
    assert "too much waits to be kept" in web.log()


def test_one_who_reads_nothing_does_not_hold_up_the_answers_of_his_turn(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url)
    stop = threading.Event()

    def greedy() -> None:
        with web.wire() as wire:
            wire.sock.settimeout(1)
            while not stop.is_set():
                try:
                    wire.sock.sendall(PING * 50)
                except OSError:
                    return

    thread = threading.Thread(target=greedy)
    thread.start()
    try:
        assert {answer.status for answer in at_once(web, 8)} == {200}
        assert [web.ask(PING).status for _ in range(20)] == [200] * 20
    finally:
        stop.set()
        thread.join(PATIENCE)


# -- the syncer, the queue and the web itself in trouble, under load ------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_syncer_that_does_not_answer_sends_pings_to_the_journal_and_nothing_is_lost(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web], number: signal.Signals
) -> None:
    web = start_web(beanstalkd.url, workers=2, budget=0.5)
    with Load(web, clients=6) as load:
        if number is signal.SIGSTOP:
            beanstalkd.syncer.send(number)
        else:
            beanstalkd.syncer.stop()
        wait_for(lambda: "they go to the journal" in web.log(), "the journal to be used")
        load.wait_for_more(30)
        beanstalkd.syncer.send(signal.SIGCONT) if number is signal.SIGSTOP else beanstalkd.syncer.start()
        wait_for(lambda: "the queue takes deliveries again" in web.log(), "the queue to be used again")
        load.wait_for_more(30)
    assert (load.refused, load.broken) == ([], [])
    wait_for(lambda: not web.journaled(), "the journal to be empty")
    assert set(load.acknowledged) <= set(kept(beanstalkd))


def test_a_queue_that_is_killed_and_started_again_and_again_loses_nothing(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, workers=2)
    with Load(web, clients=6) as load:
        for _ in range(3):
            beanstalkd.stop(signal.SIGKILL)
            load.wait_for_more(10)
            beanstalkd.start()
            load.wait_for_more(30)
    assert (load.refused, load.broken) == ([], [])
    wait_for(lambda: not web.journaled(), "the journal to be empty")
    assert set(load.acknowledged) <= set(kept(beanstalkd))


def test_with_the_journal_first_a_killed_and_a_stopped_web_lose_nothing(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, workers=2, acknowledge="journal")
    with Load(web, clients=4) as load:
        os.kill(web.workers()[0], signal.SIGKILL)
        load.wait_for_more(30)
        web.process.send(signal.SIGTERM)
        assert web.process.wait() == 0
    assert load.refused == []
    # what is left is moved on by whoever comes
    again = start_web(beanstalkd.url, journal=str(web.spool))
    wait_for(lambda: not web.journaled(), "the journal to be empty")
    assert set(load.acknowledged) <= set(kept(beanstalkd))
    assert again.healthy()
