"""Quick jobs on SQS: up to ten come with one call, and are deleted with one."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import NewJob, Receipt
from glassq.queues.shelf import Shelf
from glassq.queues.sqs import receiver as receiving
from glassq.queues.sqs.client import SqsClient
from glassq.queues.sqs.names import queue_name
from glassq.queues.sqs.place import SqsPlace
from glassq.queues.sqs.producer import SqsProducer
from glassq.queues.sqs.receiver import SqsReceiver
from glassq.queues.sqs.tubes import make_queue
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import REGION, SqsService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Reservation

TUBE, JOBS = "pings", 60
_numbers = count(1)


class Quick:
    """A receiver, its queue with JOBS jobs, and what was told of ends for which nobody waited."""

    def __init__(self, service: SqsService, directory: Path) -> None:
        self._service = service
        self.place = SqsPlace(REGION, f"quick{next(_numbers)}", service.endpoint(), poll=1)
        self.client = SqsClient(self.place, connect_timeout=20, timeout=20)
        self.shelf = Shelf(f"sqlite:///{directory}/ledger.db")
        self.failures: list[QueueError] = []
        make_queue(self.client, TUBE)
        jobs = [NewJob("key", b"%d" % number, TUBE) for number in range(JOBS)]
        answers = SqsProducer(self.client, self.shelf, tube=TUBE).put(jobs, within=20)
        assert all(isinstance(answer, Receipt) for answer in answers)
        self.receiver = self.another()

    def another(self, timeout: float = 20) -> SqsReceiver:
        client = SqsClient(self.place, connect_timeout=timeout, timeout=timeout)
        return SqsReceiver(client, self.shelf, lease=600)

    def take(self) -> Reservation:
        held = self.receiver.reserve([TUBE], 0)
        assert held is not None
        self.receiver.begin()
        return held

    def end(self, held: Reservation) -> None:
        self.receiver.complete(held, then=[TUBE], failed=self.failures.append)

    def work(self, jobs: int) -> list[int]:
        numbers = []
        for _ in range(jobs):
            held = self.take()
            numbers.append(int(held.body))
            self.end(held)
        return numbers

    def there(self, state: str) -> set[int]:
        """The numbers of the jobs in this state."""
        name = queue_name(self.place.prefix, TUBE)
        found = [each for each in self._service.truth().messages if (each["queue"], each["state"]) == (name, state)]
        return {int(each["body"]) for each in found}


@pytest.fixture
def quick(service: SqsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quick]:
    # a loaded machine is slow
    monkeypatch.setattr(receiving, "QUICK", 60.0)
    made = Quick(service, tmp_path)
    with closing(made.receiver):
        yield made


def test_ten_are_received_and_deleted_in_one_call_each(quick: Quick, service: SqsService) -> None:
    service.calls(clear=True)
    worked, most = [], 0
    for _ in range(JOBS):
        worked += quick.work(1)
        # what the scoreboard is told covers what a dead child would have held beside the job in hand
        held = len(quick.there("reserved"))
        assert held <= quick.receiver.unproven + 1
        most = max(most, held)
    assert sorted(worked) == list(range(JOBS))
    assert quick.receiver.reserve([TUBE], 0) is None
    assert (quick.there("ready"), quick.there("reserved"), quick.failures) == (set(), set(), [])
    # 1, 1, 2, 4, 8, and then ten each time
    calls = service.calls()
    assert most == 10
    assert (calls["ReceiveMessage"], calls["DeleteMessageBatch"], calls["DeleteMessage"]) == (12, 8, 2), calls


def test_what_waits_behind_a_slow_one_goes_back_and_what_is_done_is_deleted(
    quick: Quick, service: SqsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {*quick.work(4)}
    slow = quick.take()
    quick.receiver.tend()
    assert len(quick.there("reserved")) > 2, "it may still be quick"
    monkeypatch.setattr(quick.receiver._ahead, "_until", 0.0)
    service.calls(clear=True)
    quick.receiver.tend()
    calls = service.calls()
    assert (quick.there("reserved"), quick.receiver.unproven) == ({int(slow.body)}, 0)
    assert quick.there("ready") == set(range(JOBS)) - done - {int(slow.body)}
    assert {what: many for what, many in calls.items() if many} == {"SendMessageBatch": 1, "DeleteMessageBatch": 1}
    quick.end(slow)
    with closing(quick.another()) as other:
        again = [other.reserve([TUBE], 0) for _ in range(len(quick.there("ready")))]
        assert {each.losses for each in again if each} == {0}, "it was nobody's attempt"
    assert len(quick.there("reserved")) == 1, "the next one came alone"


def test_what_one_call_has_not_deleted_is_deleted_alone_or_told(quick: Quick, service: SqsService) -> None:
    quick.receiver = quick.another(timeout=0.5)
    done = quick.work(10)
    last = quick.take()
    service.set(Faults(broken=1.0))
    try:
        with pytest.raises(QueueUnavailable):
            quick.receiver.complete(last)
    finally:
        service.set()
    assert quick.failures
    assert all(isinstance(each, QueueUnavailable) for each in quick.failures)
    assert {*done, int(last.body)} & quick.there("reserved"), "they are worked again"
    quick.receiver.close()


def test_what_is_parked_goes_ten_a_call(quick: Quick, service: SqsService) -> None:
    make_queue(quick.client, f"{TUBE}.parked")
    service.calls(clear=True)
    told: list[str] = []
    for _ in range(JOBS):
        held = quick.receiver.reserve([TUBE], 0)
        assert held is not None
        move = quick.receiver.move
        move(held, held.body, tube=f"{TUBE}.parked", put=told.append, then=[TUBE], failed=quick.failures.append)
    assert quick.receiver.reserve([TUBE], 0) is None
    calls = service.calls()
    # 1, 1, 2, 4, 8, and then ten each time; the last receives find nothing
    deleted = calls["DeleteMessage"] + calls["DeleteMessageBatch"]
    assert (calls["SendMessageBatch"], deleted, calls["ReceiveMessage"], quick.failures) == (10, 10, 12, []), calls
    assert told == [f"{TUBE}.parked"] * 10
    assert (quick.there("ready"), quick.there("reserved"), quick.receiver.unproven) == (set(), set(), 0)


def test_what_cannot_be_parked_is_there_and_its_consumer_knows(quick: Quick, service: SqsService) -> None:
    held = quick.receiver.reserve([TUBE], 0)
    assert held is not None
    service.set(Faults(refuse=True))
    try:
        quick.receiver.move(held, held.body, tube="aside", put=lambda _: None, failed=quick.failures.append)
        assert [type(error) for error in quick.failures] == [QueueRefused]
        with pytest.raises(QueueRefused):
            quick.receiver.reserve([TUBE], 0)
    finally:
        service.set()
    assert quick.there("ready") == set(range(JOBS))
