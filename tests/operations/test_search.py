"""Finding anything: by its name, by words, within a stated time; and never by the letters of a secret."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq.ledger import Entry, open_ledger
from glassq.operations.census import Census
from glassq.operations.progress import Silent
from glassq.operations.search import Findings, Wanted, search
from tests.cli.conftest import a_delivery, evidence, put

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

NOW = datetime.now(UTC)
DONE, WAITING, BURIED = (f"01990000-aaaa-7000-8000-00000000000{number}" for number in (1, 2, 3))
SECRET = "hunter2secretvalue"


@pytest.fixture
def jobs(operations: Operations, queue: Queue) -> dict[str, int]:
    """A delivery that is done, one that waits and has not been tried, and one that lies buried."""
    done = a_delivery(id=DONE, body=json.dumps({"userToken": "otto", "verifyToken": SECRET}).encode())
    waiting = a_delivery(id=WAITING, body=json.dumps({"userToken": "anna"}).encode(), labels={"task": "order-17"})
    buried = a_delivery(id=BURIED, buried="503 from photos", evidence=(evidence("503 from photos"),))
    ledger = open_ledger(operations.settings.ledger)
    at = NOW - timedelta(minutes=5)
    ledger.record(Entry(DONE, "mirror", at, "done", 1, at, 0.5, result="stored a photo", body=done.body, labels={}))
    ledger.close()
    return {WAITING: put(queue, waiting), BURIED: put(queue, buried, "buried")}


@pytest.fixture
def find(operations: Operations, inspector: Inspector, jobs: dict[str, int]) -> object:
    census = Census(operations)
    census.step(inspector)

    def find(text: str, **narrow: object) -> Findings:
        wanted = Wanted(text, NOW - timedelta(hours=24), **narrow)  # type: ignore[arg-type]
        return search(operations, inspector, census.snapshot(), wanted, Silent())

    return find


@pytest.mark.parametrize(
    ("text", "key", "where"),
    [
        (DONE, DONE, "id"),
        (BURIED.upper(), BURIED, "id"),
        ("otto", DONE, "body"),
        ("STORED photo", DONE, "result"),
        ("anna", WAITING, "body"),
        ("order-17", WAITING, "label task"),
        ("503 photos", BURIED, "reason"),
    ],
)
def test_anything_leads_to_the_delivery(find: object, text: str, key: str, where: str) -> None:
    found = find(text)  # type: ignore[operator]
    assert [(hit.key, hit.where) for hit in found.hits] == [(key, where)]
    assert found.only == (key if where == "id" else "")
    assert found.looked
    assert not found.more
    json.dumps(found.document(), default=str)


def test_a_beginning_may_have_several_and_a_job_one(find: object, jobs: dict[str, int]) -> None:
    found = find(DONE[:8])  # type: ignore[operator]
    # one that waits and was never tried is known to the queue alone
    assert {hit.key for hit in found.hits} == {DONE, BURIED, WAITING}
    assert found.only == ""
    assert find(str(jobs[WAITING])).only == WAITING  # type: ignore[operator]
    gone = find("4711")  # type: ignore[operator]
    assert (gone.hits, gone.looked[0]) == ([], "the queue has no job 4711")


def test_words_of_an_error_lead_to_its_group(find: object) -> None:
    found = find("503")  # type: ignore[operator]
    assert [group.count for group in found.groups] == [1]


def test_what_is_looked_for_can_be_narrowed(find: object) -> None:
    assert [hit.key for hit in find("photo", state="done").hits] == [DONE]  # type: ignore[operator]
    assert [hit.key for hit in find("photo", state="buried").hits] == [BURIED]  # type: ignore[operator]
    assert find("photo", source="github").hits == []  # type: ignore[operator]
    assert find("photo", tube="elsewhere").hits == []  # type: ignore[operator]


@pytest.mark.parametrize("text", [SECRET, SECRET[:6], f"otto {SECRET[:4]}"])
def test_a_secret_is_not_found_by_its_letters(find: object, text: str) -> None:
    assert find(text).hits == []  # type: ignore[operator]


def test_it_stops_in_time_and_says_how_far_it_came(find: object, operations: Operations, inspector: Inspector) -> None:
    ledger = open_ledger(operations.settings.ledger)
    for number in range(600):
        ledger.record(Entry(f"x-{number}", "mirror", NOW, "done", 1, NOW, 0.1, result="nothing"))
    ledger.close()
    found = find("anna", within=0.0)  # type: ignore[operator]
    assert found.more
    assert found.hits == []
    assert [line for line in found.looked if line.startswith("ledger: the last")] != []
    assert [line for line in found.looked if line.startswith("queue: ")] == ["queue: 1 of 2 jobs in 0 s"]
    assert [hit.key for hit in find("anna", within=50.0).hits] == [WAITING]  # type: ignore[operator]


def test_one_letter_is_not_looked_for(find: object) -> None:
    assert find("a").looked == []  # type: ignore[operator]
