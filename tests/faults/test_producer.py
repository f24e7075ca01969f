"""What a producer's connections do when theirs breaks, at every byte and in every way (facts: greenstalk's table)."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueUnavailable
from glassq.intake.durable_store import BUDGET
from glassq.queues.base import NewJob, Receipt, Refusal
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.values import Duration
from tests.conftest import wait_for
from tests.proxy import BACK, BOTH, FREEZE, PASS, THERE, Fault, Proxy
from tests.queues.scripted import Scripted
from tests.syncers import prover_beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd

# A sender is promised an answer within 5 s, of which the spool needs next to nothing, and gives up after 10; a busy
# machine gets the rest.
PROMISED = 10.0
# For lines that stay silent: no more is to be learnt by waiting longer.
SHORT = "500ms"


class Enqueue:
    """Puts one body after the other, as intake does."""

    def __init__(self, url: str, timeout: str = "4s", *, durable: bool = True) -> None:
        seconds = Duration(timeout)
        self.producer = BeanstalkProducer(
            lambda: BeanstalkConnection(
                url, "glassq", ttr=120, connect_timeout=seconds, timeout=seconds, require_durable=durable
            ),
            prover_beside(url),
        )

    def put(self, body: bytes) -> int:
        return int(self.receipt(body).ref)

    def receipt(self, body: bytes) -> Receipt:
        (answer,) = self.producer.put([NewJob("", body, "glassq")], within=BUDGET, again=True)
        if isinstance(answer, Refusal):
            raise answer.error
        return answer

    def close(self) -> None:
        self.producer.close()


@pytest.fixture
def enqueue(proxy: Proxy) -> Iterator[Enqueue]:
    made = Enqueue(proxy.url)
    yield made
    made.close()


@pytest.fixture
def hasty(proxy: Proxy) -> Iterator[Enqueue]:
    """One that soon gives up. On a busy machine it may do so for no fault: see `put_at_last`."""
    made = Enqueue(proxy.url, SHORT)
    yield made
    made.close()


def put_at_last(enqueue: Enqueue, body: bytes) -> int:
    """The id of the job, once the queue has taken it."""
    taken: list[int] = []

    def put() -> bool:
        with suppress(QueueUnavailable):
            taken.append(enqueue.put(body))
        return bool(taken)

    wait_for(put, "the queue to take a job")
    return taken[0]


def bodies(server: Beanstalkd) -> list[bytes]:
    """All that is in the queue, taken out of it."""
    queue = server.queue()
    found = []
    while job := queue.reserve(0):
        queue.delete(job.id)
        found.append(job.body)
    queue.close()
    return found


def unavailable_in_time(enqueue: Enqueue) -> None:
    """The put is given up within what a sender is promised."""
    started = time.monotonic()
    with pytest.raises(QueueUnavailable):
        enqueue.put(b"ping")
    assert time.monotonic() - started < PROMISED


@pytest.mark.parametrize("softly", [False, True], ids=["RST", "FIN"])
def test_a_connection_that_ended_while_idle_is_replaced_at_once(
    enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd, softly: bool
) -> None:
    enqueue.put(b"first")
    (link,) = proxy.links
    link.end(softly=softly)
    enqueue.put(b"second")
    assert bodies(beanstalkd) == [b"first", b"second"]


@pytest.mark.parametrize("softly", [False, True], ids=["RST", "FIN"])
def test_a_reply_cut_at_any_byte_loses_nothing_and_crosses_with_no_other(
    enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd, softly: bool
) -> None:
    reply = len(b"INSERTED 99\r\n")
    for cut in range(reply + 1):
        enqueue.put(b"warm %d" % cut)
        proxy.living()[-1].set(Fault(cut=cut, softly=softly, ways=BACK))
        put = enqueue.put(b"ping %d" % cut)
        look = beanstalkd.queue()
        assert look.peek(put).body == b"ping %d" % cut
        look.close()
    found = bodies(beanstalkd)
    assert set(found) == {b"%b %d" % (what, cut) for what in (b"warm", b"ping") for cut in range(reply + 1)}
    # the one whose reply was cut may lie there twice, and no other
    assert all(found.count(b"warm %d" % cut) == 1 for cut in range(reply + 1))
    assert all(found.count(b"ping %d" % cut) <= 2 for cut in range(reply + 1))


def test_a_request_cut_at_any_byte_leaves_no_half_job(enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd) -> None:
    request = len(b"put 65536 0 120 4\r\nping\r\n")
    for cut in range(0, request, 3):
        enqueue.put(b"warm")
        proxy.living()[-1].set(Fault(cut=cut, ways=THERE))
        enqueue.put(b"ping")
    assert set(bodies(beanstalkd)) == {b"warm", b"ping"}


def test_a_greeting_cut_at_any_byte_is_no_connection(proxy: Proxy, beanstalkd: Beanstalkd) -> None:
    # USING, WATCHING, WATCHING and the start of the statistics that say whether it is durable
    for cut in range(0, 60, 4):
        proxy.set(Fault(cut=cut, ways=BACK))
        enqueue = Enqueue(proxy.url)
        with pytest.raises(QueueUnavailable):
            enqueue.put(b"ping")
        proxy.set(PASS)
        enqueue.put(b"ping %d" % cut)
        enqueue.close()
    assert bodies(beanstalkd) == [b"ping %d" % cut for cut in range(0, 60, 4)]


def test_an_empty_or_short_reply_is_a_broken_connection_and_the_next_one_takes_the_job() -> None:
    for reply in (b"\r\n", b"\n", b"I", b"INSERTED\r\n", b""):
        with Scripted(reply, b"INSERTED 7\r\n", named=True) as server:
            enqueue = Enqueue(server.url, durable=False)
            assert enqueue.put(b"ping") == 7
            enqueue.close()


FROZEN = {"both ways": BOTH, "replies only": BACK}


@pytest.mark.parametrize("ways", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
def test_a_frozen_server_is_given_up_in_time_and_late_replies_are_nobodys(
    hasty: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd, warm: bool, ways: frozenset[str]
) -> None:
    if warm:
        put_at_last(hasty, b"warm")
    proxy.set(Fault(freeze=True, ways=ways))  # type: ignore[arg-type]
    unavailable_in_time(hasty)
    proxy.set(PASS)
    put = put_at_last(hasty, b"after")
    look = beanstalkd.queue()
    assert look.peek(put).body == b"after"
    look.close()


DRIPS = {"replies": BACK, "requests": THERE}


@pytest.mark.parametrize("ways", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
def test_what_drips_in_slowly_is_given_up_in_time(
    hasty: Enqueue, proxy: Proxy, warm: bool, ways: frozenset[str]
) -> None:
    if warm:
        put_at_last(hasty, b"warm")
    # no single wait is long; all together they are
    proxy.set(Fault(drip=0.2, ways=ways))  # type: ignore[arg-type]
    unavailable_in_time(hasty)


def test_long_timeouts_in_the_settings_do_not_make_a_sender_wait(proxy: Proxy) -> None:
    enqueue = Enqueue(proxy.url, "60s")
    proxy.set(FREEZE)
    unavailable_in_time(enqueue)


@pytest.fixture
def patient(proxy: Proxy) -> Iterator[Enqueue]:
    """One that gives up late enough for four threads to get their connections, and early enough for another try."""
    made = Enqueue(proxy.url, "1500ms")
    yield made
    made.close()


def test_when_one_connection_is_found_dead_the_idle_ones_are_not_tried_either(patient: Enqueue, proxy: Proxy) -> None:
    # nobody is answered before all four have their connection
    proxy.set(FREEZE)
    with ThreadPoolExecutor(4) as threads:
        going = threads.map(lambda number: put_at_last(patient, b"ping %d" % number), range(4))
        wait_for(lambda: len(proxy.links) >= 4, "four connections")
        proxy.set(PASS)
        list(going)
    before = proxy.living()
    # as a firewall does that forgets connections: nothing comes through, nobody says so
    for link in before:
        link.set(FREEZE)
    put_at_last(patient, b"after")
    # the one that was tried holds bytes back, and does not see its end
    wait_for(lambda: sum("there" in link.over for link in before) >= len(before) - 1, "the others to be closed")


def test_all_goes_well_one_byte_at_a_time(enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd) -> None:
    proxy.set(Fault(drip=0.0))
    receipts = [enqueue.receipt(b"ping %d" % number) for number in range(5)]
    assert len({receipt.ref for receipt in receipts}) == 5
    enqueue.producer.confirm(receipts[-1:], within=BUDGET)
    proxy.set(PASS)
    assert bodies(beanstalkd) == [b"ping %d" % number for number in range(5)]


def test_many_threads_on_a_slow_and_breaking_line_get_their_own_replies(
    enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd
) -> None:
    chance = random.Random(61)
    look = beanstalkd.queue()

    def put(number: int) -> tuple[bytes, int]:
        body = b"ping %d" % number
        for _ in range(100):
            with suppress(QueueUnavailable):
                return body, enqueue.put(body)
        pytest.fail(f"put {number} found no way through")

    with ThreadPoolExecutor(8) as threads:
        going = threads.map(put, range(200))
        for _ in range(20):
            for link in proxy.living():
                cut = chance.choice([None, None, chance.randrange(60)])
                link.set(Fault(delay=chance.uniform(0, 0.02), cut=cut, ways=BACK))
            time.sleep(0.02)
        proxy.set(PASS)
        answered = list(going)
    assert all(look.peek(job_id).body == body for body, job_id in answered)
    look.close()
    assert set(bodies(beanstalkd)) == {b"ping %d" % number for number in range(200)}


def test_a_server_that_comes_back_is_used_by_the_very_next_put(
    enqueue: Enqueue, proxy: Proxy, beanstalkd: Beanstalkd
) -> None:
    enqueue.put(b"before")
    beanstalkd.stop()
    unavailable_in_time(enqueue)
    beanstalkd.start()
    enqueue.put(b"after")
    assert bodies(beanstalkd) == [b"before", b"after"]


def test_what_a_probe_shows_is_that_it_is_on_disk_and_nothing_stays_of_it(beanstalkd: Beanstalkd) -> None:
    queue = beanstalkd.queue()
    assert queue.probe_durability().file > 0
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    queue.close()
    assert queue.probe_durability().file == 0
    queue.close()
    look = beanstalkd.queue()
    wait_for(lambda: look.tubes() == ["default", "glassq"], "the probe's tube to be gone")
    look.close()
