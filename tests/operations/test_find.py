"""How operations find the job that is meant, and what they refuse before they look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.delivery import encode
from glassq.errors import Ambiguous, InvalidRequest, NotFound, Unsupported
from glassq.operations import kick, listing, move, pause, story
from glassq.operations.filters import Filter, Selection
from glassq.operations.find import Finder, look, our_tubes, tubes_of, unworked
from glassq.operations.hints import Hint, adapt
from glassq.operations.progress import Brief, Silent
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk.inspector import CAPABILITIES
from tests.cli.conftest import a_delivery, evidence, put, put_bytes
from tests.operations.conftest import Blind

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

FIRST = "01990000-aaaa-7000-8000-000000000001"
SECOND = "01990000-aaaa-7000-8000-000000000002"


def test_a_reference_an_id_and_a_prefix_lead_to_the_same_job(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    job = put(queue, a_delivery(id=FIRST), "delayed")
    finder = Finder(operations, inspector, Silent())
    assert {finder.find(text).ref for text in (str(job), FIRST, FIRST.upper(), FIRST[:8])} == {str(job)}


def test_what_cannot_be_found_is_told_apart(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    for name in (FIRST, SECOND):
        put(queue, a_delivery(id=name))
    finder = Finder(operations, inspector, Silent())
    with pytest.raises(InvalidRequest, match="is no id: expected a job id"):
        finder.find("short")
    with pytest.raises(NotFound, match="there is no job 4711"):
        finder.find("4711")
    with pytest.raises(NotFound, match="the queue holds no delivery"):
        finder.find(FIRST[:-1] + "9")
    with pytest.raises(Ambiguous, match="the beginning of 2 deliveries") as caught:
        finder.find(FIRST[:8])
    assert caught.value.candidates == (FIRST, SECOND)


def test_what_may_be_in_a_tube_that_is_not_ours_is_no_loss(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    queue.put(encode(a_delivery(id=FIRST)), tube="aside;x")
    words = (
        f"{FIRST} is not in our tubes; 1 job is in tubes that no pool of these settings works (aside;x): "
        "`glassq move --from 'aside;x' --to glassq` brings back what is in one"
    )
    with pytest.raises(NotFound) as caught:
        Finder(operations, inspector, Silent()).find(FIRST)
    assert str(caught.value) == words
    with pytest.raises(NotFound) as caught:
        story.tell(operations, inspector, FIRST, Silent())
    assert str(caught.value) == words


def test_tubes_of_queues_are_ours_and_no_others(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    for tube in (
        "glassq.push.mail",
        "glassq.pushed",
        "elsewhere",
        "glassq.queue.pay",
        "glassq.queues",
        "glassq.route.a",
    ):
        queue.put(b"", tube=tube)
    assert our_tubes(operations, inspector) == ["glassq", "glassq.push.mail", "glassq.queue.pay", "glassq.route.a"]
    assert tubes_of(operations, inspector, Filter(tube="glassq.push.none")) == ["glassq.push.none"]
    with pytest.raises(
        InvalidRequest, match=r"tube elsewhere is not ours: expected glassq, glassq\.queue\.NAME, glassq\.r"
    ):
        tubes_of(operations, inspector, Filter(tube="elsewhere"))
    assert [unworked(operations, tube) for tube in ("glassq", "glassq.queue.gone", "glassq.route.gone")] == [""] * 3
    assert "there is no section [push]" in unworked(operations, "glassq.push.mail")
    assert "`glassq move --from elsewhere --to glassq`" in unworked(operations, "elsewhere")


def test_a_job_says_which_handler_works_it_and_when_and_why_it_was_buried(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    story = a_delivery(buried="503", evidence=(evidence("503 from the API"),))
    found = look(operations, inspector, str(put(queue, story, "buried")))
    assert (found.handler, found.error, found.buried_at) == ("app:store", "HttpError", story.evidence[0].at)
    assert found.cause.words == "HttpError: 503 from the API"
    other = msgspec.structs.replace(story, labels={"collection": "locations"})
    found = look(operations, inspector, str(put(queue, other)))
    assert (found.route, found.handler, found.buried_at) == (None, "", None)
    damaged = look(operations, inspector, str(put_bytes(queue, b"damaged", "buried")))
    assert (damaged.name, damaged.handler, damaged.source, damaged.buried_at) == ("", "", "", None)
    assert damaged.cause.error == "damaged"


def test_what_the_engine_cannot_do_is_refused_by_name_before_anything_is_done(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    job = put(queue, a_delivery(id=FIRST), "buried")
    blind: Inspector = Blind(inspector)  # type: ignore[assignment]
    asked = move.Move(selection=Selection(), target="glassq.push.aside", origin="glassq")
    with pytest.raises(Unsupported, match="SQS cannot show a delivery that waits"):
        move.plan(operations, blind, asked, Silent())
    assert Finder(operations, blind, Silent()).find(FIRST[:8]).ref == str(job)
    put(queue, a_delivery(), "ready")
    with pytest.raises(NotFound, match="SQS cannot show a delivery that waits; about 1 wait or are at work"):
        Finder(operations, blind, Silent()).find("00000000")
    with pytest.raises(Unsupported, match="SQS cannot pause a tube"):
        pause.pause(blind, {"glassq": "glassq"}, 5)
    plan = kick.plan(operations, blind, Selection(everything=True), Silent())
    assert [each.ref for each in plan.chosen] == [str(job)]
    assert ALL_STATES - blind.capabilities.lists == {"ready", "delayed", "reserved"}


def test_the_list_and_the_causes_are_documents(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    told = a_delivery(
        buried="503", evidence=(evidence("item 17: 503 from the API"),), labels={"collection": "timeline"}
    )
    job = put(queue, told, "buried")
    put(queue, a_delivery(buried="x", evidence=(evidence("item 4 is gone"),)), "buried")
    put_bytes(queue, b"damaged", "buried")
    selection = Selection(filter=Filter(labels=(("collection", "timeline"),)), limit=10)
    found = listing.buried(operations, inspector, selection, Silent())
    row = next(row for row in found.document()["jobs"] if row["job"] == str(job))
    assert (found.total, len(found.rows)) == (3, 2)
    assert (row["labels"], row["error"], row["handler"]) == ({"collection": "timeline"}, "HttpError", "app:store")
    assert row["buried_at"] == told.evidence[0].at
    groups = listing.buried_groups(operations, inspector, Selection(), "reason", Silent()).document()
    assert (groups["by"], groups["total"], [group["count"] for group in groups["groups"]]) == ("reason", 3, [1, 1, 1])
    assert row["cause"] in {group["id"] for group in groups["groups"]}
    one = listing.buried(operations, inspector, Selection(filter=Filter(cause=row["cause"])), Silent())
    assert [each.job for each in one.rows] == [str(job)]
    handlers = listing.buried_groups(operations, inspector, Selection(), "handler", Silent()).groups
    assert [(group.id, group.count) for group in handlers] == [("app:store", 2), ("", 1)]


def test_hints_and_texts_name_commands_that_a_face_adapts() -> None:
    hint = Hint("8 are buried", "buried --by reason")
    assert adapt(str(hint), "a b") == "8 are buried: `glassq --config 'a b' buried --by reason`"
    assert str(Hint("nothing to do")) == "nothing to do"


def test_what_a_census_knows_needs_neither_a_search_nor_a_ledger(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    jobs = {name: str(put(queue, a_delivery(id=name), "buried")) for name in (FIRST, SECOND)}
    operations.known_buried = lambda prefix: {name: ref for name, ref in jobs.items() if name.startswith(prefix)}
    unsearched: Inspector = Unsearched(inspector)  # type: ignore[assignment]
    finder = Finder(operations, unsearched, Silent())
    assert finder.find(FIRST).ref == jobs[FIRST]
    assert finder.find(SECOND[:-1] + "2", glance=True).ref == jobs[SECOND]
    with pytest.raises(Ambiguous, match="the beginning of 2 deliveries"):
        finder.find(FIRST[:8], glance=True)
    # to decide on it, the whole id is needed
    with pytest.raises(Searched):
        finder.find(FIRST[:-1])
    # the job is another one's by now
    jobs[FIRST] = jobs[SECOND]
    with pytest.raises(Searched):
        Finder(operations, unsearched, Silent()).find(FIRST)


def test_a_search_that_is_to_be_brief_says_that_it_did_not_look_at_all(
    operations: Operations, inspector: Inspector, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        put(queue, a_delivery())
    monkeypatch.setattr("glassq.operations.find.LOOKS", 2)
    with pytest.raises(NotFound, match=r"the newest 2 of 3 jobs were looked at \(`glassq show` looks at all\)"):
        Finder(operations, inspector, Ends(2)).find(FIRST)
    Brief(60.0).advance(1, 1, "")
    with pytest.raises(TimeoutError):
        Brief(-1.0).advance(1, 1, "")


class Searched(Exception):
    """The queue was searched."""


class Unsearched(Blind):
    """An inspector that must not search."""

    capabilities = CAPABILITIES

    def find(self, *_: object, **__: object) -> object:
        raise Searched


class Ends(Silent):
    """A search is over after so many jobs."""

    def __init__(self, number: int) -> None:
        self._number = number

    def advance(self, done: int, total: int, words: str) -> None:
        if done == self._number:
            raise TimeoutError
