"""All that is kept of a person's deliveries goes, from every place, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.bodies import open_bodies
from glassq.bodies.waiting import WaitingBodies
from glassq.errors import InvalidRequest, SearchIncomplete
from glassq.journal import Journal, JournalRecord
from glassq.ledger import Entry, open_ledger
from glassq.operations import activity, archive, archive_file, forget
from glassq.operations.filters import Selection
from glassq.operations.progress import Silent
from glassq.operations.result import Did
from glassq.values import BodiesUrl
from tests.cli.conftest import put, put_bytes
from tests.operations.conftest import StopsAt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.forget import ForgetReport
    from glassq.queues.base import Inspector, Job
    from tests.postgres import PostgresServer
    from tests.queues.raw import Queue

SECRET = b"a person's own words"


def of(customer: str, source: str = "stripe", **more: str) -> Delivery:
    return envelope.new(source, SECRET + customer.encode(), {"event": "invoice.paid", "customer": customer, **more})


def record(operations: Operations, delivery: Delivery, state: str = "done") -> None:
    ledger = open_ledger(operations.settings.ledger)
    now = operations.clock()
    labels = dict(delivery.labels)
    ledger.record(
        Entry(delivery.id, delivery.source, now, state, 1, now, 0.1, body=delivery.body, labels=labels),
    )
    ledger.close()


def with_bodies(operations: Operations, directory: Path) -> BodyStore:
    """The store of large bodies, in this directory from now on."""
    bodies = replace(operations.settings.bodies, url=BodiesUrl(f"file://{directory}/bodies"))
    operations.settings = replace(operations.settings, bodies=bodies)
    store = open_bodies(operations.settings)
    store.prepare()
    return store


def stored(store: BodyStore, delivery: Delivery, content: bytes) -> Delivery:
    """The delivery with a body that is stored apart."""
    writer = store.begin(delivery.id)
    writer.write(content)
    return replace(delivery, body=b"", stored=writer.finish())


def forgotten(operations: Operations, queue: Inspector, *conditions: str, extra: tuple[Path, ...] = ()) -> ForgetReport:
    asked = forget.wanted(conditions, None)
    plan = forget.plan(operations, queue, asked, Silent(), extra)
    return forget.carry_out(operations, queue, plan, Silent())


def test_it_is_kept_that_something_was_done_but_not_for_whom(operations: Operations, inspector: Inspector) -> None:
    record(operations, of("cus_1"))
    log = operations.activities(Silent())
    log.record("kick", command="glassq kick --where label.customer=cus_1", filter_="label.customer=cus_1")
    log.record("put", command="glassq put --label customer=cus_1")
    log.record("pause", command="glassq pause", filter_="label.customer=cus_2")
    forgotten(operations, inspector, "label.customer=cus_1")
    assert [(each.did, each.command, each.filter) for each in activity.newest(operations)] == [
        ("pause", "glassq pause", "label.customer=cus_2"),
        ("put", "", ""),
        ("kick", "", ""),
    ]
    directory = Path(str(operations.settings.ledger.url).removeprefix("sqlite:///")).parent
    assert not [path for path in directory.glob("ledger.db*") if b"cus_1" in path.read_bytes()]


def bodies(inspector: Inspector) -> list[bytes]:
    states = inspector.capabilities.lists
    return sorted(envelope.decode(job.body).body for job in inspector.find(states, ["glassq"]))


def in_ledger(operations: Operations) -> set[str]:
    with operations.ledger() as ledger:
        return {entry.delivery for entry in ledger.recent(100)}


def test_it_goes_from_the_queue_in_every_state_and_others_stay(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    for state in ("ready", "delayed", "buried"):
        put(queue, of("ann"), state)
        put(queue, of("bob"), state)
    put_bytes(queue, b"damaged", "buried")
    plan = forget.plan(operations, inspector, forget.wanted(["label.customer=ann"], None), Silent())
    assert (plan.places.queue, len(bodies_and_damaged(inspector))) == (3, 7)
    report = forget.carry_out(operations, inspector, plan, Silent())
    assert (report.complete, report.count(Did.FORGOTTEN), report.places.queue) == (True, 3, 3)
    assert len(bodies_and_damaged(inspector)) == 4


def bodies_and_damaged(inspector: Inspector) -> list[bytes]:
    return [job.body for job in inspector.find(inspector.capabilities.lists, ["glassq"])]


def test_what_is_being_worked_stays_and_is_told(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    put(queue, of("ann"), "reserved")
    report = forgotten(operations, inspector, "label.customer=ann")
    assert (report.complete, report.places.queue) == (False, 0)
    assert "a consumer works it right now" in report.results[0].why
    assert len(bodies(inspector)) == 1


def test_what_comes_back_to_the_queue_meanwhile_is_told(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    put(queue, of("ann"), "buried")
    plan = forget.plan(operations, inspector, forget.wanted(["label.customer=ann"], None), Silent())
    late = of("ann")
    put(queue, late, "delayed")
    report = forget.carry_out(operations, inspector, plan, Silent())
    assert (report.complete, report.places.queue) == (False, 1)
    assert [(each.delivery, each.why) for each in report.results if each.did is Did.NOTHING] == [
        (late.id, forget.CAME_BACK)
    ]


class LooksAway:
    """An inspector whose first look misses what is given back just then: its new place was looked at before."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._looked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inspector, name)

    def find(self, *arguments: Any, **keywords: Any) -> Any:
        looked, self._looked = self._looked, True
        return self._inspector.find(*arguments, **keywords) if looked else iter(())


def test_what_is_given_back_while_it_is_looked_for_keeps_its_row_and_body_until_its_job_goes(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    store, worked = with_bodies(operations, tmp_path), of("ann")
    put(queue, stored(store, worked, SECRET), "reserved")
    record(operations, worked, "retrying")
    away: Any = LooksAway(inspector)
    report = forgotten(operations, away, "label.customer=ann")
    assert (report.complete, report.places.total) == (False, 0)
    assert {body.key for body in store.list()} == {worked.id}


def test_it_goes_from_the_ledger_and_out_of_its_files(
    operations: Operations, inspector: Inspector, tmp_path: Path
) -> None:
    others = [
        of("bob"),
        of("ANN"),
        of("ann", "shop"),
        of("an%"),
        envelope.new("stripe", b"x", {"note": "customer ann"}),
    ]
    gone = [of("ann"), of("ann", more="label")]
    for each in [*others, *gone]:
        record(operations, each)
    assert SECRET + b"ann" in files_of(tmp_path)
    report = forgotten(operations, inspector, "label.customer=ann", "source=stripe")
    assert (report.complete, report.places.ledger) == (True, 2)
    assert in_ledger(operations) == {each.id for each in others}
    record(operations, replace(others[2], labels={"event": "e"}))
    assert files_of(tmp_path).count(SECRET + b"ann") == 1


def files_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("ledger.db*"))


@pytest.mark.parametrize("value", ['with "quotes" and \\', "100%_/", "ü ☃", "a=b"])
def test_a_label_may_have_any_value(operations: Operations, inspector: Inspector, value: str) -> None:
    record(operations, of(value))
    record(operations, of(value + "x"))
    assert forgotten(operations, inspector, f"label.customer={value}").places.ledger == 1


def test_the_row_of_a_job_goes_with_it_whatever_the_row_knows(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    ann = of("ann")
    put(queue, ann, "buried")
    record(operations, replace(ann, labels={}), "buried")
    assert forgotten(operations, inspector, "label.customer=ann").places.ledger == 1
    assert in_ledger(operations) == set()


def an_archive(operations: Operations, inspector: Inspector, queue: Queue, directory: Path, *jobs: Delivery) -> Path:
    for each in jobs:
        put(queue, replace(each, buried="busy"), "buried")
    plan = archive.plan(operations, inspector, Selection(everything=True), Silent())
    file = archive.carry_out(operations, inspector, plan, Silent(), directory).file
    assert file is not None
    return file.resolve()


def test_archives_are_written_anew_without_it(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    directory = archive.default_directory(operations)
    (ann, bob), elsewhere = (of("ann"), of("bob")), tmp_path / "elsewhere"
    elsewhere.mkdir()
    mixed = an_archive(operations, inspector, queue, directory, ann, bob)
    alone = an_archive(operations, inspector, queue, elsewhere, of("ann"))
    untouched = an_archive(operations, inspector, queue, directory, of("bob"))
    before, first = untouched.stat(), mixed.read_bytes().splitlines()[0]
    report = forgotten(operations, inspector, "label.customer=ann", extra=(elsewhere,))
    assert report.complete
    assert report.places.archives == {mixed: 1, alone: 1}
    mistakes: list[str] = []
    assert [envelope.decode(item.data).id for item in archive_file.read(mixed, mistakes)] == [bob.id]
    assert (mistakes, mixed.read_bytes().splitlines()[0], mixed.stat().st_mode & 0o777) == ([], first, 0o600)
    # nothing is left of one that held nothing else
    assert not alone.exists()
    assert untouched.stat().st_mtime_ns == before.st_mtime_ns
    assert not list(directory.glob(".*"))
    # the ledger had them as archived
    assert ann.id not in in_ledger(operations)


def test_bodies_that_an_archive_holds_apart_stay_with_their_jobs(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    store = with_bodies(operations, tmp_path)
    large = {name: SECRET + name.encode() + bytes(range(256)) * 4000 for name in ("ann", "bob")}
    jobs = [stored(store, of(name), content) for name, content in large.items()]
    file = an_archive(operations, inspector, queue, tmp_path, *jobs, of("ann"))
    assert forgotten(operations, inspector, "label.customer=ann", extra=(file,)).places.archives == {file: 2}
    mistakes: list[str] = []
    (left,) = archive_file.read(file, mistakes)
    assert (mistakes, envelope.decode(left.data).labels["customer"]) == ([], "bob")
    assert left.body is not None
    assert b"".join(left.body.parts()) == large["bob"]


def test_a_damaged_archive_is_left_as_it_is_and_named(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    file = an_archive(operations, inspector, queue, tmp_path, of("ann"), of("bob"))
    file.write_bytes(file.read_bytes().replace(b'"reason":"busy"', b'"reason":"idle"', 1))
    before = file.read_bytes()
    report = forgotten(operations, inspector, "label.customer=ann", extra=(file,))
    assert (report.complete, file.read_bytes()) == (False, before)
    assert report.results[0].id == str(file)
    assert "is left as it is: line 4: its sha256" in report.results[0].why


def test_it_goes_from_the_journal_and_what_is_with_it_goes_into_the_queue(
    operations: Operations, inspector: Inspector, tmp_path: Path
) -> None:
    place = tmp_path / "spool"
    settings = replace(operations.settings, intake=replace(operations.settings.intake, journal=str(place)))
    operations.settings = settings
    journal = Journal(place, max_size=1 << 26, min_free=0)
    journal.write([JournalRecord(each.id, envelope.encode(each)) for each in (of("ann"), of("bob"))])
    refused = of("ann")
    (place / "refused" / f"{refused.id}.job").write_bytes(envelope.encode(refused))
    journal.close()
    plan = forget.plan(operations, inspector, forget.wanted(["label.customer=ann"], None), Silent())
    assert plan.places.journal == 2
    report = forget.carry_out(operations, inspector, plan, Silent())
    assert report.complete, report.results
    assert bodies(inspector) == [SECRET + b"bob"]
    assert not [path for path in place.rglob("*") if path.is_file() and SECRET + b"ann" in path.read_bytes()]


def test_it_goes_from_damaged_files_of_the_journal_and_what_nobody_can_read_there_is_named(
    operations: Operations, inspector: Inspector, tmp_path: Path
) -> None:
    place = tmp_path / "spool"
    operations.settings = replace(operations.settings, intake=replace(operations.settings.intake, journal=str(place)))
    journal = Journal(place, max_size=1 << 26, min_free=0)
    for each in (of("ann"), of("bob"), of("ann"), of("cid")):
        journal.write([JournalRecord(each.id, envelope.encode(each))])
    journal.close()
    (segment,) = (place / "segments").glob("*.segment")
    segment.write_bytes(segment.read_bytes().replace(SECRET + b"bob", SECRET + b"b?b"))
    torn, mended = place / "damaged" / f"{of('ann').id}.job", place / "damaged" / f"{of('ann').id}.job"
    torn.write_bytes(envelope.encode(of("dot"))[:-1] + b"?")
    mended.write_bytes(envelope.encode(of("ann")))
    report = forgotten(operations, inspector, "label.customer=ann")
    damaged = place / "damaged" / segment.name
    assert bodies(inspector) == [SECRET + b"cid"]
    assert not mended.exists()
    assert not [path for path in place.rglob("*") if path.is_file() and SECRET + b"ann" in path.read_bytes()]
    # what is left is as it was
    assert SECRET + b"b?b" in damaged.read_bytes()
    assert SECRET + b"cid" in damaged.read_bytes()
    assert {result.id for result in report.results if result.general} == {str(torn), str(damaged)}
    assert not report.complete
    # it is named each time, also where nothing is found
    asked = forget.wanted(["label.customer=ann"], None)
    assert forget.plan(operations, inspector, asked, Silent()).places.total == 0
    assert {result.id for result in forgotten(operations, inspector, "label.customer=ann").results} == {
        str(torn),
        str(damaged),
    }


def test_a_stop_leaves_what_the_same_command_finds_again(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    ann = of("ann")
    put(queue, ann, "buried")
    record(operations, replace(ann, labels={}), "buried")
    plan = forget.plan(operations, inspector, forget.wanted(["label.customer=ann"], None), Silent())
    report = forget.carry_out(operations, inspector, plan, StopsAt(0, "forgotten so far"))
    assert (report.complete, len(bodies(inspector))) == (False, 1)
    assert forgotten(operations, inspector, "label.customer=ann").complete
    assert (bodies(inspector), in_ledger(operations)) == ([], set())


def test_bodies_that_are_stored_apart_go_too_but_not_one_that_is_in_use(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    store = with_bodies(operations, tmp_path)
    waits, worked, done, other = (of(name) for name in ("ann", "ann", "ann", "bob"))
    for each in (waits, worked, done, other):
        job = stored(store, each, SECRET)
        if each is not done:
            put(queue, job, "reserved" if each is worked else "ready")
    for each in (worked, done):
        record(operations, each, "retrying" if each is worked else "done")
    store.retire(done.id)
    plan = forget.plan(operations, inspector, forget.wanted(["label.customer=ann"], None), Silent())
    assert plan.places.bodies == 2
    report = forget.carry_out(operations, inspector, plan, Silent())
    assert (report.complete, report.places.bodies) == (False, 2)
    assert {body.key for body in store.list()} == {worked.id, other.id}


@pytest.mark.parametrize("refusing", [False, True], ids=["a store that takes it", "a store that refuses it"])
def test_a_body_that_waits_beside_the_journal_goes_at_once(
    operations: Operations, inspector: Inspector, postgres: PostgresServer, tmp_path: Path, *, refusing: bool
) -> None:
    place, database = tmp_path / "spool", postgres.database()
    shared = replace(operations.settings.bodies, url=BodiesUrl(postgres.url(database).whole))
    intake = replace(operations.settings.intake, journal=str(place))
    operations.settings = replace(operations.settings, bodies=shared, intake=intake)
    store = open_bodies(operations.settings)
    store.prepare()
    postgres.execute("REVOKE INSERT ON glassq_bodies FROM glassq", database)
    journal = Journal(place, max_size=1 << 26, min_free=0)
    waits = WaitingBodies.of(operations.settings, journal)
    assert waits is not None
    ann, bob = (stored(waits, of(name), SECRET) for name in ("ann", "bob"))  # type: ignore[arg-type]
    journal.write([JournalRecord(each.id, envelope.encode(each)) for each in (ann, bob)])
    journal.close()
    assert {path.name for path in (place / "bodies").iterdir()} == {ann.id, bob.id}
    if not refusing:
        postgres.execute("GRANT INSERT ON glassq_bodies TO glassq", database)
    report = forgotten(operations, inspector, "label.customer=ann")
    assert (report.complete, report.places.queue, report.places.bodies) == (True, 1, 1)
    assert {path.name for path in (place / "bodies").iterdir()} == ({bob.id} if refusing else set())
    assert {body.key for body in store.list()} == (set() if refusing else {bob.id})
    # the other one stays with its body
    assert len(bodies(inspector)) == (not refusing)


def test_where_not_all_jobs_can_be_looked_at_no_row_and_no_body_goes_before_its_job(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    ann = of("ann")
    put(queue, ann, "buried")
    record(operations, ann, "buried")
    plan = forget.plan(operations, HalfBlind(inspector), forget.wanted(["label.customer=ann"], None), Silent())
    assert (plan.places.total, plan.rows) == (0, frozenset())
    report = forget.carry_out(operations, inspector, plan, Silent())
    assert (report.complete, in_ledger(operations)) == (False, {ann.id})
    assert "is left until then: run this again" in report.results[0].why


class HalfBlind:
    """The real inspector of a queue that cannot show all its jobs now."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    def __getattr__(self, name: str) -> object:
        return getattr(self._inspector, name)

    def find(self, *_: object, **__: object) -> Iterator[Job]:
        raise SearchIncomplete(0, 1, 200)


@pytest.mark.parametrize(
    "conditions", [(), ("source=stripe",), ("label.a=1", "error~x"), ("label.a=1", "label.a=2"), ("customer=ann",)]
)
def test_without_a_label_nothing_is_forgotten(conditions: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        forget.wanted(conditions, None)
