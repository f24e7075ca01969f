"""Next forms whose proof a consumer does not await: the old jobs stay its own until the proof is there."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import greenstalk
import pytest

from glassq.errors import JobNotFound, JobTooBig, NoProof, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import ALL_STATES, MAX_UNPROVEN, MAX_UNPROVEN_MOVES, Reservation
from glassq.queues.beanstalk import receiver as receiving
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.protocol import JobStats
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from tests.conftest import wait_for
from tests.queues.binlog import forgotten
from tests.queues.test_forms import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd

TUBE, OTHER = "glassq", "glassq.other"


class Held:
    """A question whose answer comes when `answer` is set: the real syncer's, or an error."""

    def __init__(self, prover: Holding) -> None:
        self._prover = prover
        self._open = prover.opened

    def here(self) -> bool:
        return self._open.is_set()

    def prove(self, server: str, *, deadline: float) -> None:
        assert self._open.wait(20)
        if self._prover.error is not None:
            raise self._prover.error
        self._prover.prove(server, deadline=deadline)

    def close(self) -> None:
        self._prover.dropped += 1


class Holding(Watched):
    """A prover whose questions wait until `opened` is set."""

    def __init__(self, server: Beanstalkd) -> None:
        super().__init__(server)
        self.opened = threading.Event()
        self.error: QueueError | None = None
        self.questions = self.dropped = 0

    def ask(self, *, deadline: float) -> Held:
        self.questions += 1
        return Held(self)


class Bench:
    """A receiver, its prover, and a look at the queue."""

    def __init__(self, server: Beanstalkd) -> None:
        self.prover = Holding(server)
        connection = BeanstalkConnection(server.url, TUBE, ttr=60, connect_timeout=20, timeout=20)
        self.receiver = BeanstalkReceiver(connection, self.prover)
        self.look = server.queue()
        self.failures: list[QueueError] = []
        self.told: list[str] = []

    def take(self, body: bytes) -> Reservation:
        self.look.put(body, tube=TUBE)
        held = self.receiver.reserve([TUBE], 0)
        assert held is not None
        assert held.body == body
        return held

    def retry(self, held: Reservation, body: bytes) -> str:
        return self.receiver.retry(held, body, delay=3600, tube=TUBE, failed=self.failures.append)

    def move(self, held: Reservation, body: bytes = b"moved") -> None:
        put, failed = self.told.append, self.failures.append
        self.receiver.move(held, body, tube=OTHER, put=put, then=[TUBE], failed=failed)

    def move_five_of_six(self) -> Reservation:
        """The fifth: it waits for the company of the last one, which was reserved together with it."""
        self.prover.opened.set()
        for number in range(6):
            self.look.put(b"%d" % number, tube=TUBE)
        for _ in range(5):
            held = self.receiver.reserve([TUBE], 0)
            assert held is not None
            self.move(held)
        return held

    def there(self) -> list[tuple[str, bytes]]:
        found = [each for each in self.look.scan(ALL_STATES, TUBE, OTHER) if isinstance(each, JobStats)]
        return sorted((each.state, self.look.peek(each.id).body) for each in found)


@pytest.fixture
def bench(beanstalkd: Beanstalkd) -> Iterator[Bench]:
    made = Bench(beanstalkd)
    with closing(made.look):
        yield made
        made.prover.opened.set()
        made.prover.error = None
        made.receiver.close()


def test_the_next_job_is_worked_while_the_last_ones_proof_is_awaited(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    second = bench.take(b"2")
    assert bench.there() == [("delayed", b"1 again"), ("reserved", b"1"), ("reserved", b"2")]
    bench.prover.opened.set()
    bench.receiver.tend()
    assert bench.there() == [("delayed", b"1 again"), ("reserved", b"2")]
    bench.receiver.complete(second)
    assert bench.there() == [("delayed", b"1 again")]
    assert bench.failures == []


def test_without_anything_to_work_the_proofs_are_awaited(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    threading.Timer(0.1, bench.prover.opened.set).start()
    assert bench.receiver.reserve([TUBE], 0) is None
    assert bench.there() == [("delayed", b"1 again")]


def test_a_job_comes_with_the_end_of_those_that_are_proven(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    bench.look.put(b"2", tube=TUBE)
    bench.prover.opened.set()
    found = bench.receiver.reserve([TUBE], 0)
    assert found is not None
    assert found.body == b"2"
    assert bench.there() == [("delayed", b"1 again"), ("reserved", b"2")]


def test_many_share_few_proofs_and_there_is_an_end_to_them(bench: Bench) -> None:
    for number in range(MAX_UNPROVEN - 1):
        bench.retry(bench.take(b"%d" % number), b"again")
    assert bench.prover.questions == 1
    last = bench.take(b"last")
    threading.Timer(0.1, bench.prover.opened.set).start()
    bench.retry(last, b"again")
    # the first question was about the first of them only; all others share one more
    assert (b"0" in {body for _, body in bench.there()}, bench.prover.questions) == (False, 2)
    assert bench.receiver.reserve([TUBE], 0) is None
    assert bench.there() == [("delayed", b"again")] * MAX_UNPROVEN


@pytest.mark.parametrize("error", [NotDurable("a write failed"), NoProof("nobody answers")], ids=["no", "later"])
def test_what_cannot_be_proven_is_withdrawn_and_given_back(bench: Bench, error: QueueError) -> None:
    bench.prover.error = error
    bench.retry(bench.take(b"1"), b"1 again")
    bench.retry(bench.take(b"2"), b"2 again")
    bench.prover.opened.set()
    bench.receiver.tend()
    assert bench.there() == [("ready", b"1"), ("ready", b"2")]
    assert bench.failures == [error, error]
    with pytest.raises(type(error)):
        bench.receiver.reserve([TUBE], 0)
    held = bench.receiver.reserve([TUBE], 0)
    assert held is not None
    bench.receiver.release(held)


def test_the_next_form_of_what_another_has_by_now_is_withdrawn(bench: Bench) -> None:
    held = bench.take(b"1")
    bench.retry(held, b"1 again")
    bench.receiver._connection._call(lambda client: client.release(greenstalk.Job(int(held.ref), b""), 1, 0))
    assert bench.look.reserve(20, [TUBE]) is not None
    bench.prover.opened.set()
    bench.receiver.tend()
    assert bench.there() == [("reserved", b"1")]
    assert [type(each) for each in bench.failures] == [JobNotFound]


def test_what_is_under_way_is_finished_before_the_connection_is_closed(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    bench.retry(bench.take(b"2"), b"2 again")
    threading.Timer(0.1, bench.prover.opened.set).start()
    bench.receiver.close()
    assert bench.there() == [("delayed", b"1 again"), ("delayed", b"2 again")]
    assert bench.failures == []


def test_after_a_crash_both_forms_are_there(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    bench.receiver.close_inherited()
    wait_for(lambda: ("ready", b"1") in bench.there(), "the server to see the end of the connection")
    assert bench.there() == [("delayed", b"1 again"), ("ready", b"1")]
    assert bench.prover.dropped == 1


def test_moves_go_in_packets_that_grow_and_share_a_proof(bench: Bench) -> None:
    bench.prover.opened.set()
    for number in range(MAX_UNPROVEN_MOVES):
        bench.look.put(b"%d" % number, tube=TUBE)
    while (held := bench.receiver.reserve([TUBE], 0)) is not None:
        bench.move(held)
    assert bench.there() == [("ready", b"moved")] * MAX_UNPROVEN_MOVES
    assert bench.failures == []
    # 1, 1, 1, 1, 2, 3, 4, 6, 9, 14, 21: each half of all before it, and the rest
    assert len(bench.told) < 14
    assert bench.prover.questions < 8


def test_what_is_put_before_a_handler_begins_is_proven_meanwhile(bench: Bench) -> None:
    bench.move(bench.take(b"1"))
    held = bench.take(b"2")
    bench.receiver.begin()
    bench.prover.opened.set()
    # as the keeper does
    wait_for(lambda: not bench.receiver.tend() and not bench.receiver.unproven, "the proof")
    assert bench.there() == [("ready", b"moved"), ("reserved", b"2")]
    bench.receiver.complete(held)


def test_a_move_goes_on_its_way_though_the_jobs_after_it_end_otherwise(bench: Bench) -> None:
    bench.move_five_of_six()
    held = bench.receiver.reserve([TUBE], 0)
    assert held is not None
    assert bench.look.stats_tube(OTHER).ready == 4
    bench.receiver.bury(held)
    assert bench.receiver.reserve([TUBE], 0) is None
    assert bench.there() == [("buried", b"5"), *[("ready", b"moved")] * 5]


@pytest.mark.parametrize("error", [QueueRefused("its disk is full"), JobTooBig("one byte too many")], ids=["no", "big"])
def test_what_is_not_taken_elsewhere_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: QueueRefused | JobTooBig
) -> None:
    bench.prover.opened.set()
    first = bench.take(b"1")
    packet = bench.receiver._connection.put_and_reserve
    refused = lambda *given: ([error], packet((), *given[1:])[1])  # noqa: E731
    monkeypatch.setattr(bench.receiver._connection, "put_and_reserve", refused)
    bench.move(first)
    assert (bench.failures, bench.told) == ([error], [])
    if isinstance(error, JobTooBig):
        assert bench.there() == [("reserved", b"1")]
        return
    assert bench.there() == [("ready", b"1")]
    with pytest.raises(QueueRefused):
        bench.receiver.reserve([TUBE], 0)


def test_moves_of_a_broken_connection_are_left_to_others(bench: Bench) -> None:
    for number in range(9):
        bench.look.put(b"%d" % number, tube=TUBE)
    bench.prover.opened.set()
    for _ in range(7):
        held = bench.receiver.reserve([TUBE], 0)
        assert held is not None
        bench.move(held)
    assert bench.receiver.has_next
    bench.receiver._connection.close()
    wait_for(lambda: bench.there().count(("ready", b"moved")) + len(bench.there()) > 9, "all to be ready again")
    bench.receiver.begin()
    assert not bench.receiver.has_next
    wait_for(lambda: not [state for state, _ in bench.there() if state != "ready"], "all to be ready")
    assert {body for _, body in bench.there()} >= {b"8", b"moved"}


def test_a_broken_connection_is_told_and_nothing_is_lost(bench: Bench) -> None:
    bench.retry(bench.take(b"1"), b"1 again")
    bench.receiver._connection.close()
    wait_for(lambda: ("ready", b"1") in bench.there(), "the old job to be ready again")
    bench.prover.opened.set()
    bench.receiver.tend()
    assert bench.there() == [("ready", b"1")]
    assert [type(each) for each in bench.failures] == [JobNotFound]


@pytest.mark.parametrize("seen", [True, False])
def test_after_a_restart_nothing_is_withdrawn_by_an_id_that_is_another_jobs_by_now(
    bench: Bench, beanstalkd: Beanstalkd, seen: bool
) -> None:
    first, second = bench.take(b"1"), bench.take(b"2")
    with forgotten(beanstalkd):
        lost = [bench.retry(held, b"again") for held in (first, second)]
    bench.look.close()
    if seen:
        with pytest.raises(QueueUnavailable):
            bench.receiver.extend(first)
    assert [str(bench.look.put(b"ping", tube=OTHER)) for _ in lost] == lost
    bench.prover.opened.set()
    bench.receiver.tend()
    assert bench.there() == [("ready", b"1"), ("ready", b"2"), ("ready", b"ping"), ("ready", b"ping")]
    assert [type(each) for each in bench.failures] == [JobNotFound if seen else NotDurable] * 2


def test_the_proof_of_one_server_is_none_for_what_another_has_answered(bench: Bench, beanstalkd: Beanstalkd) -> None:
    held = bench.take(b"1")
    with forgotten(beanstalkd):
        bench.retry(held, b"lost")
    bench.look.close()
    with pytest.raises(QueueUnavailable):
        bench.receiver.reserve([TUBE], 0)
    # the same job has the same id
    assert bench.receiver.reserve([TUBE], 0) == held
    bench.retry(held, b"1 again")
    bench.prover.opened.set()
    bench.receiver.finish()
    assert bench.there() == [("delayed", b"1 again")]
    assert [type(each) for each in bench.failures] == [JobNotFound]


def test_a_move_goes_only_where_its_job_was_reserved(bench: Bench, beanstalkd: Beanstalkd) -> None:
    held = bench.move_five_of_six()
    beanstalkd.stop(signal.SIGKILL)
    beanstalkd.start()
    bench.look.close()
    with pytest.raises(QueueUnavailable):
        bench.receiver.extend(held)
    # those before it may not have been proven
    while (other := bench.look.peek_first("ready", TUBE)) and other.body != b"4":
        bench.look.delete(other.id)
    assert bench.receiver.reserve([TUBE], 0) == held
    bench.receiver.begin()
    assert bench.there() == [("ready", b"5"), *[("ready", b"moved")] * 4, ("reserved", b"4")]


def test_the_real_syncers_proof_is_read_later(beanstalkd: Beanstalkd) -> None:
    connection = BeanstalkConnection(beanstalkd.url, TUBE, ttr=60, connect_timeout=20, timeout=20)
    failures: list[QueueError] = []
    with closing(beanstalkd.queue()) as look, closing(BeanstalkReceiver(connection, Watched(beanstalkd))) as receiver:
        for number in range(3 * MAX_UNPROVEN):
            look.put(b"%d" % number, tube=TUBE)
        while (held := receiver.reserve([TUBE], 0)) is not None:
            receiver.retry(held, b"again", delay=3600, tube=TUBE, failed=failures.append)
        found = [each.state for each in look.scan(ALL_STATES) if isinstance(each, JobStats)]
        assert found == ["delayed"] * 3 * MAX_UNPROVEN
    assert failures == []


def test_a_proof_ends_before_the_shortest_lease_does() -> None:
    assert receiving.PROOF < receiving.SHORTEST_LEASE
