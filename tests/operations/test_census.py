"""The census of what lies buried, on a real queue: what it finds, and by which questions it is kept up to date."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from glassq.delivery import encode
from glassq.errors import InvalidRequest, Unsupported
from glassq.ledger.activity import RELOADED, STARTED, Activity
from glassq.ledger.activity_writer import ActivityWriter
from glassq.operations import listing
from glassq.operations.bulk import digest_of
from glassq.operations.census import Census
from glassq.operations.census_table import BuriedKinds, CensusTable, RefIndex
from glassq.operations.filters import Filter, Selection
from glassq.operations.find import found_in
from glassq.operations.progress import Silent
from glassq.queues.base import Job
from glassq.queues.beanstalk.inspector import CAPABILITIES
from tests.cli.conftest import a_delivery, evidence, put, put_bytes
from tests.conftest import wait_for

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

NOW = datetime.now(UTC)


class Counted:
    """The real inspector, which counts what it is asked."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        if name in ("find", "get_all", "still", "newest"):
            self.asked[name] += 1
        return getattr(self._inspector, name)


class Blind(Counted):
    """The real inspector of an engine that does not list what is buried."""

    capabilities = replace(CAPABILITIES, lists=frozenset(), unseen="this engine shows nothing")


@pytest.fixture
def census(operations: Operations) -> Census:
    return Census(operations)


@pytest.fixture
def asked(inspector: Inspector) -> Counted:
    return Counted(inspector)


def bury(queue: Queue, *messages: str, source: str = "mirror") -> list[int]:
    made = [a_delivery(source=source, buried=words, evidence=(evidence(words),)) for words in messages]
    return [put(queue, delivery, "buried") for delivery in made]


def step(census: Census, asked: Counted) -> Counter[str]:
    """What the census has asked the queue."""
    asked.asked.clear()
    census.step(asked)  # type: ignore[arg-type]
    return +asked.asked


def refs(census: Census) -> list[str]:
    """All that it knows, newest first."""
    return [entry.ref for entry in census.snapshot().matching(Filter(), NOW)]


def counted(census: Census) -> list[tuple[str, int]]:
    return sorted((group.cause.message, group.count) for group in census.snapshot().groups)


def test_the_first_walk_finds_all_and_says_the_same_as_the_command(
    operations: Operations, inspector: Inspector, queue: Queue, census: Census, asked: Counted
) -> None:
    jobs = bury(queue, "503 from a", "503 from a", "no such item 4711")
    put_bytes(queue, b"\xff\xfe", "buried")
    put(queue, a_delivery(), "ready")
    assert census.snapshot().looked_at is None
    step(census, asked)
    view = census.snapshot()
    assert (view.total, view.complete, view.trouble, view.short) == (4, True, "", "")
    assert refs(census)[1:] == [str(job) for job in reversed(jobs)]
    now = operations.clock()
    by_command = listing.buried_groups(operations, inspector, Selection(everything=True), "reason", Silent()).document()
    by_view = view.grouped(Filter(), "reason", operations.tube, now).document()
    assert by_view == by_command
    assert sorted(group["count"] for group in by_view["groups"]) == [1, 1, 2]


def test_an_entry_tells_what_a_plan_needs(operations: Operations, queue: Queue, inspector: Inspector) -> None:
    odd = a_delivery(id="not-a-uuid", received=NOW - timedelta(hours=2))
    for delivery in (odd, a_delivery(evidence=(evidence("x"),))):
        job = inspector.get(str(put(queue, delivery, "buried")))
        entry = BuriedKinds().entry(found_in(operations, job), NOW.timestamp())
        assert (entry.delivery, entry.ref, entry.tube, entry.source) == (delivery.id, job.ref, "glassq", "mirror")
        assert entry.digest == digest_of(job.body)
        assert entry.received == delivery.received.timestamp()
        assert entry.age(NOW) == pytest.approx(delivery.age(NOW))
        assert entry.failed_at == found_in(operations, job).failed_at
    damaged = BuriedKinds().entry(found_in(operations, Job("7", "glassq", "buried", b"x", 5.0)), 1_000.0)
    assert (damaged.delivery, damaged.failed_at, damaged.received) == ("", None, 995.0)


def test_a_table_gives_back_what_it_was_given(operations: Operations, queue: Queue, inspector: Inspector) -> None:
    """Whatever references and ids are: most engines' are numbers and UUIDs."""
    kinds, table = BuriedKinds(), CensusTable(2)
    made = []
    for ref, id_ in (
        ("4", "01a20a85-49fd-788a-b96a-165e85c0ee6b"),
        ("swf:7/x", "not-a-uuid"),
        ("18446744073709551615", "01a20a85-49fe-788a-b96a-165e85c0ee6b"),
        ("007", "01A20A85-49FD-788A-B96A-165E85C0EE6B"),
        ("18446744073709551616", "01a20a85"),
        ("9", ""),
    ):
        body = encode(a_delivery(id=id_, evidence=(evidence("503"),))) if id_ else b"damaged"
        made.append(kinds.entry(found_in(operations, Job(ref, "glassq", "buried", body, 5.0)), 1_000.0))
    for number, entry in enumerate(made[2:]):
        table.append(entry, number)
    table.put_before(made[1], 7)
    table.put_before(made[0], 8)
    rows = table.rows()
    assert [table.entry(row) for row in rows][:5] == made[:5]
    assert [(each.ref, each.delivery, each.failed_at) for each in (table.entry(rows[5]), made[5])] == [
        ("9", "", None)
    ] * 2
    assert [table.seen(row) for row in rows] == [8, 7, 0, 1, 2, 3]
    index = RefIndex(table)
    assert [index.row(entry.ref) for entry in made] == list(rows)
    assert index.row("8") is None
    assert table.rows_of([entry.ref for entry in made] + ["8"]) == dict(zip([e.ref for e in made], rows, strict=True))
    found = [table.delivery(row) for row in table.beginning("01a20a85", len(table))]
    assert found == [made[2].delivery, made[0].delivery, made[4].delivery]
    assert [table.delivery(row) for row in table.beginning("01a20a85-49fd-7", len(table))] == [made[0].delivery]
    assert [table.delivery(row) for row in table.beginning("01a20a8549fd", len(table))] == []
    assert [table.delivery(row) for row in table.beginning("not-a-uu", len(table))] == ["not-a-uuid"]
    assert table.forget(rows[0]).cause == made[0].cause
    assert (table.count, table.is_there(rows[0]), list(table.rows())) == (5, False, list(rows[1:]))
    assert table.entry(rows[0]) == made[0]
    assert RefIndex(table).row("4") is None
    assert table.rows_of(["4"]) == {}
    assert not list(table.beginning("01a20a85-49fd", len(table)))


def test_a_table_of_which_most_is_gone_is_made_anew(operations: Operations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassq.operations.census_table.MIN_ROWS", 4)
    kinds, table = BuriedKinds(), CensusTable()
    body = encode(a_delivery(evidence=(evidence("503"),)))
    for number in range(6):
        job = Job(str(number + 1), "glassq", "buried", body, 1.0)
        table.append(kinds.entry(found_in(operations, job), 0.0), number)
    for row in table.rows()[1:4]:
        assert table.tidied() is table
        table.forget(row)
    tidied = table.tidied()
    assert [tidied.ref(row) for row in tidied.rows()] == [table.ref(row) for row in table.rows()] == ["1", "5", "6"]
    assert [tidied.seen(row) for row in tidied.rows()] == [0, 4, 5]


def test_what_has_not_changed_costs_no_question(queue: Queue, census: Census, asked: Counted) -> None:
    bury(queue, "503", "404")
    assert step(census, asked)["find"] == 1
    first = census.snapshot()
    assert not step(census, asked)
    assert census.snapshot().groups is first.groups
    assert census.snapshot().looked_at > first.looked_at  # type: ignore[operator]


def test_new_ones_are_found_behind_the_newest_known_without_a_walk(
    queue: Queue, census: Census, asked: Counted, operations: Operations
) -> None:
    bury(queue, "503")
    step(census, asked)
    later = bury(queue, "404", "404")
    assert step(census, asked) == {"find": 1, "newest": 1}
    assert counted(census) == [("404", 2), ("503", 1)]
    assert refs(census)[:2] == [str(job) for job in reversed(later)]


def test_new_ones_that_the_ledger_names_need_no_search(
    queue: Queue, census: Census, asked: Counted, operations: Operations
) -> None:
    bury(queue, "503")
    step(census, asked)
    failed = a_delivery(buried="404", evidence=(evidence("404"),))
    record(operations, failed.id, put(queue, failed, "buried"))
    assert step(census, asked) == {"get_all": 1}
    assert counted(census) == [("404", 1), ("503", 1)]


def test_those_that_are_gone_are_asked_for_when_the_counts_say_so(queue: Queue, census: Census, asked: Counted) -> None:
    jobs = bury(queue, "503", "503", "404")
    step(census, asked)
    queue.kick(jobs[0])
    assert step(census, asked) == {"still": 1}
    assert counted(census) == [("404", 1), ("503", 1)]
    queue.delete(jobs[2])
    census.left([str(jobs[2]), "4711"])
    # those, and whether others went that nobody has told of
    assert step(census, asked) == {"still": 2}
    assert counted(census) == [("503", 1)]


def test_a_kick_and_a_failure_at_once_are_found_by_a_walk_in_the_end(
    queue: Queue, census: Census, asked: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an old job that is buried as it is has neither a later reference nor a line in the ledger
    old = put(queue, a_delivery(evidence=(evidence("500"),)), "ready")
    bury(queue, "503")
    step(census, asked)
    assert queue.reserve(timeout=0) is not None
    queue.bury(old)
    assert step(census, asked)["find"] == 1
    assert not census.snapshot().complete
    monkeypatch.setattr(census, "_may_walk", 0.0)
    step(census, asked)
    assert counted(census) == [("500", 1), ("503", 1)]
    assert census.snapshot().complete


def test_one_that_goes_as_another_one_comes_changes_no_count_and_is_noticed(
    queue: Queue, census: Census, asked: Counted
) -> None:
    first, _ = bury(queue, "503", "404")
    step(census, asked)
    # by others: nobody tells the census
    queue.delete(first)
    (late,) = bury(queue, "500")
    assert step(census, asked) == {"still": 1, "find": 1, "newest": 1}
    assert counted(census) == [("404", 1), ("500", 1)]
    assert refs(census)[0] == str(late)
    assert not step(census, asked)


def test_the_newest_are_kept_and_it_says_that_there_are_more(
    operations: Operations, queue: Queue, asked: Counted
) -> None:
    census = Census(operations, limit=3)
    jobs = bury(queue, *["503"] * 5)
    step(census, asked)
    view = census.snapshot()
    assert refs(census) == [str(job) for job in jobs[:1:-1]]
    assert (view.total, view.complete, view.short) == (
        5,
        True,
        "these are the newest 3 of 5: no more can be kept in memory",
    )
    assert not step(census, asked)
    jobs += bury(queue, "404")
    step(census, asked)
    assert refs(census) == [str(job) for job in jobs[:2:-1]]
    queue.delete(jobs[-1])
    assert step(census, asked) == {"still": 1}
    assert counted(census) == [("503", 2)]


def test_filters_choose_as_those_of_the_command_do(
    operations: Operations, inspector: Inspector, queue: Queue, census: Census, asked: Counted
) -> None:
    bury(queue, "Backend Error 503", "backend gone")
    bury(queue, "no such item", source="github")
    put(queue, a_delivery(received=NOW - timedelta(days=1), evidence=(evidence("Backend Error 503"),)), "buried")
    step(census, asked)
    view, now = census.snapshot(), operations.clock()
    cause = view.groups[0].id
    for filter_, many in {
        Filter(source="github"): 1,
        Filter(tube="glassq"): 4,
        Filter(cause=cause): view.groups[0].count,
        Filter(words="503 BACKEND"): 2,
        Filter(newer=3_600.0): 3,
        Filter(older=3_600.0): 1,
        Filter(handler="app:store"): 3,
        Filter(source="mirror", words="gone"): 1,
        Filter(source="gone"): 0,
    }.items():
        chosen = view.matching(filter_, now)
        found = listing.buried(operations, inspector, Selection(filter=filter_), Silent())
        assert [entry.ref for entry in chosen] == [row.job for row in found.rows]
        assert len(chosen) == many, filter_
    with pytest.raises(InvalidRequest, match="cannot filter by label"):
        view.matching(Filter(labels=(("a", "b"),)), now)


def test_an_engine_that_does_not_list_them_is_told_as_such(census: Census, inspector: Inspector) -> None:
    with pytest.raises(Unsupported, match="this engine shows nothing"):
        census.step(Blind(inspector))  # type: ignore[arg-type]


def test_its_thread_outlives_a_queue_that_is_away(
    operations: Operations, queue: Queue, census: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassq.operations.watcher.EVERY", 0.05)
    bury(queue, "503")
    real, away = operations.looking, [True]

    def looking() -> object:
        if away:
            raise Unsupported("away")
        return real()

    monkeypatch.setattr(operations, "looking", looking)
    census.start()
    try:
        wait_for(lambda: census.snapshot().trouble == "away", "the trouble")
        away.clear()
        wait_for(lambda: census.snapshot().total == 1 and not census.snapshot().trouble, "the count")
    finally:
        census.close()


def test_an_entry_is_small(operations: Operations) -> None:
    kinds, bodies = BuriedKinds(), [encode(a_delivery(evidence=(evidence("503"),))) for _ in range(20)]
    table = CensusTable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4_000):
            job = Job(str(10**7 + number), "glassq", "buried", bodies[number % 20], 1.0)
            table.append(kinds.entry(found_in(operations, job), 0.0), number)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / table.count < 100


def record(operations: Operations, delivery: str, job: int) -> None:
    from glassq.ledger import Entry, open_ledger

    ledger = open_ledger(operations.settings.ledger)
    ledger.record(Entry(delivery, "mirror", NOW, "buried", 1, datetime.now(UTC), 0.1, job=str(job)))
    ledger.close()


def test_groups_of_very_many_are_made_of_what_was_counted(
    queue: Queue, census: Census, asked: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(queue, "503", "503", "404")
    bury(queue, "503", source="github")
    step(census, asked)
    view = census.snapshot()
    expected = view.grouped(Filter(newer=3_600.0), "source", "glassq", NOW).groups

    def read(*_: object) -> None:
        raise AssertionError("an entry was read")

    monkeypatch.setattr("glassq.operations.census_table.CensusTable.entry", read)
    monkeypatch.setattr("glassq.operations.census_table.CensusTable.tallies", read)
    for filter_, counts in {
        Filter(): [2, 1, 1],
        Filter(source="github"): [1],
        Filter(words="404"): [1],
        Filter(cause=view.groups[0].id): [view.groups[0].count],
    }.items():
        assert [group.count for group in view.grouped(filter_, "reason", "glassq", NOW).groups] == counts
        assert len(view.matching(filter_, NOW)) == sum(counts)
    assert view.sources == ("github", "mirror")
    found = view.grouped(Filter(), "source", "glassq", NOW).groups
    assert [(each.id, each.count, each.first, each.last, each.example) for each in found] == [
        (each.id, each.count, each.first, each.last, each.example) for each in expected
    ]


def test_what_began_since_the_last_start_is_new(
    operations: Operations, inspector: Inspector, queue: Queue, census: Census
) -> None:
    now = operations.clock()
    hours = [evidence("503", at=now - timedelta(hours=3)), evidence("404", at=now - timedelta(hours=9))]
    for failure in hours:
        put(queue, a_delivery(evidence=(failure,)), "buried")

    def new() -> list[bool]:
        census.step(inspector)
        seen = census.snapshot().grouped(Filter(), "reason", "glassq", now).groups
        listed = listing.buried_groups(operations, inspector, Selection(everything=True), "reason", Silent()).groups
        assert [group.new for group in seen] == [group.new for group in listed]
        return [group.new for group in listed]

    assert new() == [False, False]
    record(operations, "x", 0)
    writer = ActivityWriter(operations.settings.ledger)
    for did, ago in ((STARTED, 30), (RELOADED, 4)):
        at = now - timedelta(hours=ago)
        writer.add(Activity(id=did, at=at, actor="host-a", via="pool", did=did, ended=at))
    census = Census(operations)
    assert new() == [True, False]
