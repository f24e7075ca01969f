"""The mover of the shelf: what cannot be sent holds up nothing else."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueError, QueueRefused
from glassq.queues.shelf import BATCH, Shelf, Shelved
from glassq.queues.sqs.client import SqsClient
from glassq.queues.sqs.names import queue_name
from glassq.queues.sqs.place import SqsPlace
from glassq.queues.sqs.shelving import INTERVAL, ShelfMover
from glassq.queues.sqs.tubes import make_queue
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import REGION, SqsService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The one sorts before the other, and its rows are due before.
STUCK, TUBE = "another", "pings"
MANY = BATCH + 30
_numbers = count(1)


class Moving:
    """A mover, and its shelf: MANY rows of STUCK, which has no queue, and then five of TUBE, which has one."""

    def __init__(self, service: SqsService, directory: Path) -> None:
        self._service = service
        self._place = SqsPlace(REGION, f"shelving{next(_numbers)}", service.endpoint(), poll=1)
        self.client = SqsClient(self._place, connect_timeout=20, timeout=20)
        self.shelf = Shelf(f"sqlite:///{directory}/ledger.db")
        self.mover = ShelfMover(self.client, self.shelf)
        make_queue(self.client, TUBE)
        # many are due at the same time
        due = time.time() - 60
        self.shelf.put([Shelved(STUCK, "delayed", b"stuck %d" % number, due=due) for number in range(MANY)])
        self.shelf.put([Shelved(TUBE, "delayed", b"%d" % number, due=due + 1) for number in range(5)])

    def sent(self, tube: str) -> list[str]:
        name = queue_name(self._place.prefix, tube)
        return sorted(each["body"] for each in self._service.truth().messages if each["queue"] == name)

    def rows(self, tube: str) -> int:
        return self.shelf.counts().get((tube, "delayed"), 0)


@pytest.fixture
def moving(service: SqsService, tmp_path: Path) -> Iterator[Moving]:
    made = Moving(service, tmp_path)
    yield made
    service.set()
    made.shelf.close()


def test_a_tube_whose_queue_is_missing_and_cannot_be_made_holds_up_no_other(
    moving: Moving, service: SqsService
) -> None:
    service.set(Faults(unmade=True))
    service.calls(clear=True)
    with pytest.raises(QueueRefused, match=f"the queue .*-{STUCK}: .*CreateQueue"):
        moving.mover.step()
    assert (moving.sent(TUBE), moving.rows(TUBE)) == (["0", "1", "2", "3", "4"], 0)
    assert (moving.sent(STUCK), moving.rows(STUCK)) == ([], MANY)
    assert service.calls()["CreateQueue"] == 1, "it is tried once a step"
    # nobody holds the rows: an operator may have them
    row = moving.shelf.first("delayed", STUCK)
    assert row is not None
    assert moving.shelf.delete(row)
    # once queues can be made, it is
    service.set()
    assert moving.mover.step() == INTERVAL
    assert (len(moving.sent(STUCK)), moving.rows(STUCK)) == (MANY - 1, 0)


def test_rows_that_are_refused_hold_up_no_others_of_their_tube(moving: Moving, service: SqsService) -> None:
    due = time.time()
    moving.shelf.put([Shelved(STUCK, "delayed", b"fit %d" % number, due=due) for number in range(3)])
    service.set(Faults(unfit="stuck"))
    with pytest.raises(QueueError, match="It is not fit"):
        moving.mover.step()
    assert moving.sent(STUCK) == ["fit 0", "fit 1", "fit 2"]
    assert (moving.rows(STUCK), moving.rows(TUBE)) == (MANY, 0)
    service.set()
    assert moving.mover.step() == INTERVAL
    assert (len(moving.sent(STUCK)), moving.rows(STUCK)) == (MANY + 3, 0)
