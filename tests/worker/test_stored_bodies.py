"""Deliveries whose bodies are in the store: what the handler gets, and what each outcome leaves there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies
from glassq.delivery import MAX_JOB, new_id, result_key
from glassq.errors import BodyError, Bury, Drop, Interrupted, Retry
from glassq.handlers.steps import in_steps
from glassq.lifecycle import after_kick
from glassq.loading import Part
from glassq.values import Step
from tests.bodies.test_directory import put as store_body
from tests.bodies.test_directory import states
from tests.worker.conftest import Bench, jobs, made, only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from tests.queues.raw import Queue


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBodies:
    made = DirectoryBodies(tmp_path / "bodies")
    made.prepare()
    return made


@pytest.fixture
def stored_bench(queue: Queue, store: DirectoryBodies) -> Bench:
    return Bench(queue, bodies=store)


def put(look: Queue, store: DirectoryBodies, do: str) -> tuple[Delivery, bytes]:
    body = json.dumps({"do": do, "much": "x" * MAX_JOB}).encode()
    key, stored = store_body(store, body)
    delivery = envelope.new("mirror", b"", {"collection": "timeline"}, stored=stored, key=key)
    look.put(envelope.encode(delivery))
    return delivery, body


@pytest.mark.parametrize(
    ("do", "left"),
    [
        ("done", "done"),
        ("drop", "done"),
        ("retry", "live"),
        ("wait", "live"),
        ("bury", "live"),
        ("interrupted", "live"),
    ],
)
def test_the_body_stays_as_long_as_the_job(
    stored_bench: Bench, look: Queue, store: DirectoryBodies, do: str, left: str
) -> None:
    delivery, body = put(look, store, do)
    stored_bench.consumer.work_one(0)
    (seen,) = stored_bench.seen
    assert (seen.id, seen.stored) == (delivery.id, delivery.stored)
    assert states(store) == {delivery.id: left}
    if left == "live":
        assert only(look)[1].stored == delivery.stored
    assert seen.body == body


def test_it_goes_only_after_its_job_is_known_to_be_gone(
    stored_bench: Bench, look: Queue, store: DirectoryBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    for number in range(30):
        # so quick that they come several at a time
        if number % 5:
            look.put(envelope.encode(made("done")))
        else:
            stored.append(put(look, store, "done")[0].id)
    began, deletes = stored_bench.queue.begin_delete, list[str]()

    def begin_delete(job: int, failed: Callable[[QueueError], None]) -> None:
        deletes.append(stored_bench.seen[-1].id)
        began(job, failed)

    monkeypatch.setattr(stored_bench.queue, "begin_delete", begin_delete)
    stored_bench.work_ahead(30)
    assert states(store) == dict.fromkeys(stored, "done")
    assert deletes, "the others' answers are not awaited"
    assert not set(deletes) & set(stored)


def test_the_handler_reads_it_in_parts(queue: Queue, look: Queue, store: DirectoryBodies) -> None:
    parts: list[bytes] = []

    def handle(delivery: Any, _context: object) -> None:
        with delivery.open() as file:
            parts.extend(iter(lambda: file.read(10_000), b""))

    bench = Bench(queue, bodies=store, handler=handle)
    _, body = put(look, store, "done")
    bench.consumer.work_one(0)
    assert b"".join(parts) == body
    assert len(parts) > 5


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "its body cannot be used: body {id} is not in {dir}"),
        (damage, "its body cannot be used: body {id} was changed since it was stored: its SHA-256 is another"),
        (lambda path: os.truncate(path, 5), "its body cannot be used: body {id} has 5 bytes, and had {size}"),
    ],
)
def test_without_its_body_it_is_buried_and_no_handler_sees_it(
    stored_bench: Bench, look: Queue, store: DirectoryBodies, harm: Callable[[Path], object], says: str
) -> None:
    delivery, body = put(look, store, "done")
    harm(store.directory / "live" / delivery.id)
    stored_bench.consumer.work_one(0)
    stats, left = only(look)
    assert stats.state == "buried"
    assert left.buried == says.format(id=delivery.id, dir=store.directory, size=len(body))
    assert stored_bench.seen == []


def test_while_the_store_cannot_be_read_it_is_retried(stored_bench: Bench, look: Queue, store: DirectoryBodies) -> None:
    put(look, store, "done")
    store.directory.rename(store.directory.with_name("away"))
    stored_bench.consumer.work_one(0)
    stats, left = only(look)
    assert (stats.state, left.failures, left.evidence[0].error) == ("delayed", 1, BodyError.__name__)
    assert stored_bench.seen == []


def test_a_done_body_serves_a_job_that_came_back(stored_bench: Bench, look: Queue, store: DirectoryBodies) -> None:
    """A power cut may bring back the job of a delivery that was done, as the delete of a job is not proven."""
    delivery, body = put(look, store, "done")
    stored_bench.consumer.work_one(0)
    look.put(envelope.encode(delivery))
    stored_bench.consumer.work_one(0)
    assert [seen.body for seen in stored_bench.seen] == [body, body]
    assert jobs(look) == []


def test_a_new_form_is_touched_before_it_is_put(stored_bench: Bench, look: Queue, store: DirectoryBodies) -> None:
    delivery, _ = put(look, store, "retry")
    os.utime(store.directory / "live" / delivery.id, (1.0, 1.0))
    stored_bench.consumer.work_one(0)
    (info,) = store.list()
    assert info.touched > 1.0


def test_a_body_that_cannot_be_retired_stays_for_the_sweep(
    stored_bench: Bench, look: Queue, store: DirectoryBodies, caplog: pytest.LogCaptureFixture
) -> None:
    delivery, _ = put(look, store, "done")
    (store.directory / "done").rmdir()
    (store.directory / "done").write_text("in the way")
    stored_bench.consumer.work_one(0)
    assert jobs(look) == []
    assert states_of_live(store) == [delivery.id]
    assert "a body stays where it is until it is swept" in caplog.text


def states_of_live(store: DirectoryBodies) -> list[str]:
    return [path.name for path in (store.directory / "live").iterdir()]


def test_a_job_holds_the_story_of_a_stored_delivery_alone() -> None:
    delivery = envelope.new("mirror", b"", {}, stored=envelope.StoredBody(25 << 20, "0" * 64), key=new_id())
    again = envelope.decode(envelope.encode(delivery))
    assert again == msgspec.structs.replace(delivery, received=again.received)
    assert len(envelope.encode(delivery)) < 400


@pytest.mark.parametrize(
    ("last", "left", "carried"),
    [
        (None, "done", ()),
        (Drop("gone"), "done", ()),
        (Retry("busy"), "live", ("fetch",)),
        (Retry("not ready", counts=False), "live", ("fetch",)),
        (Bury("no"), "live", ("fetch",)),
        # given back as it was: the next attempt fetches anew, and then the result is another's
        (Interrupted(), "live", ()),
    ],
)
def test_a_large_result_of_a_step_stays_as_long_as_the_job(
    queue: Queue, look: Queue, store: DirectoryBodies, last: BaseException | None, left: str, carried: tuple[str, ...]
) -> None:
    ran: list[str] = []

    def fetch(_delivery: Delivery, _context: object) -> str:
        ran.append("fetch")
        return "x" * 10_000

    def keep(_delivery: Delivery, context: Any) -> str:
        ran.append("keep")
        if last is not None:
            raise last
        return f"{len(context.results['fetch'])} bytes"

    steps = [
        Part(Step({"name": name, "handler": "m:f"}), step, {}) for name, step in (("fetch", fetch), ("keep", keep))
    ]
    bench = Bench(queue, bodies=store, handler=in_steps(steps))
    delivery = envelope.new("mirror", b"", {"collection": "timeline"})
    look.put(envelope.encode(delivery))
    bench.consumer.work_one(0)
    assert ran == ["fetch", "keep"]
    assert states(store) == {result_key(delivery.id, "fetch"): left}
    if left == "done":
        (entry,) = bench.ledger.entries
        assert [result.step for result in (entry.kept or {})["done"]] == ["fetch"]
        assert entry.result == ("10000 bytes" if last is None else "")
        return
    now = only(look)[1]
    assert tuple(result.step for result in now.done) == carried
    assert [each.step for each in now.evidence] == (["keep"] if isinstance(last, Retry | Bury) and now.evidence else [])
    if carried:
        # as an operator has it worked
        look.put(envelope.encode(after_kick(now)))
        ran.clear()
        bench.consumer.work_one(0)
        assert ran == ["keep"]
