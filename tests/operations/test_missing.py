"""What a queue has lost: `glassq delete --lost` gives it up; an engine that cannot show all jobs is not believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from glassq.errors import InvalidRequest, Stopped, Unsupported
from glassq.ledger import Entry, open_ledger
from glassq.operations import delete, missing
from glassq.operations.filters import Selection
from glassq.operations.progress import Silent
from glassq.operations.result import Did
from glassq.queues.base import TubeCounts
from tests.cli.conftest import a_delivery, put
from tests.operations.conftest import Blind, StopsAt

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues import Queue
    from glassq.queues.base import Inspector


@pytest.fixture
def lost(operations: Operations, queue: Queue) -> str:
    """A delivery that the ledger has as buried, and that is not in the queue; another one is."""
    ledger, gone, there = open_ledger(operations.settings.ledger), a_delivery(), a_delivery()
    job = put(queue, there)
    for told, ref in ((gone, "4711"), (there, str(job))):
        ledger.record(Entry(told.id, "mirror", told.received, "buried", 1, datetime.now(UTC), 0.5, ref))
    ledger.close()
    return gone.id


def test_counts_alone_tell_whether_something_may_be_missing(operations: Operations, lost: str) -> None:
    assert missing.may_be_missing(operations, [TubeCounts("glassq", buried=1)])
    assert not missing.may_be_missing(operations, [TubeCounts("glassq", buried=1), TubeCounts("b", buried=1)])


def test_an_engine_that_does_not_show_all_jobs_is_never_sure(
    operations: Operations, inspector: Inspector, queue: Queue, lost: str
) -> None:
    put(queue, a_delivery())
    blind: Inspector = Blind(inspector)  # type: ignore[assignment]
    found = missing.find_missing(operations, blind, 5.0, Silent())
    assert ([each.delivery for each in found.deliveries], found.sure) == ([lost], False)
    with pytest.raises(Unsupported):
        missing.surely_missing(operations, blind, Silent())
    with pytest.raises(Unsupported):
        delete.plan(operations, blind, Selection(), Silent(), lost=True)
    assert missing.find_missing(operations, inspector, 5.0, Silent()).sure


def test_looking_can_be_stopped(operations: Operations, inspector: Inspector, lost: str) -> None:
    with pytest.raises(Stopped):
        missing.find_missing(operations, inspector, 5.0, StopsAt(1))


def test_what_is_lost_is_given_up_only_when_that_is_carried_out(
    operations: Operations, inspector: Inspector, lost: str
) -> None:
    plan = delete.plan(operations, inspector, Selection(), Silent(), lost=True)
    assert [result.words for result in plan.preview().results] == ["would be deleted"]
    assert [each.delivery for each in missing.surely_missing(operations, inspector, Silent())] == [lost]
    report = delete.carry_out(operations, inspector, plan, Silent())
    assert [(result.delivery, result.did) for result in report.results] == [(lost, Did.DELETED)]
    assert missing.surely_missing(operations, inspector, Silent()) == ()


def test_lost_ones_go_without_ids_and_filters(operations: Operations, inspector: Inspector) -> None:
    for selection in (Selection(ids=("01990000-0000",)), Selection(limit=1)):
        with pytest.raises(InvalidRequest):
            delete.plan(operations, inspector, selection, Silent(), lost=True)
