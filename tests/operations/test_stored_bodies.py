"""Deliveries whose bodies are in the store: every operation takes the body along, and leaves none behind."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.bodies import check
from glassq.delivery import StepResult, decode, result_key
from glassq.errors import BodyLost
from glassq.ledger import Entry, open_ledger
from glassq.lifecycle import after_bury
from glassq.operations import archive, archive_file, delete, kick, move, replay, restore, story
from glassq.operations import put as put_operation
from glassq.operations.filters import Selection
from glassq.operations.move import Move
from glassq.operations.progress import Silent
from glassq.operations.put import PutRequest
from glassq.operations.replay_plan import ReplayFilter
from glassq.operations.result import Did
from glassq.queues.base import ALL_STATES
from glassq.settings import Route
from glassq.values import Step
from tests.bodies.test_directory import put as store_body
from tests.bodies.test_directory import read, states
from tests.cli.conftest import put
from tests.operations.conftest import Heard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.queues import Queue
    from glassq.queues.base import Inspector

BODY = json.dumps({"token": "s3cret-s3cret", "much": "x" * 2_000_000}).encode()
ALL = Selection(everything=True)


def stored(operations: Operations, body: bytes = BODY) -> Delivery:
    operations.bodies.prepare()
    key, about = store_body(operations.bodies, body)
    return envelope.new("mirror", b"", {"collection": "timeline"}, stored=about, key=key, content_type="text/x")


def bury(operations: Operations, queue: Queue, body: bytes = BODY) -> Delivery:
    delivery = after_bury(stored(operations, body), "no disk")
    put(queue, delivery, "buried")
    return delivery


def in_queue(inspector: Inspector) -> list[Delivery]:
    tubes = [counts.name for counts in inspector.counts()]
    return [decode(job.body) for job in inspector.find(ALL_STATES, tubes)]


def archived(operations: Operations, inspector: Inspector, directory: Path, heard: Silent | None = None) -> Path:
    heard = heard or Silent()
    report = archive.carry_out(operations, inspector, archive.plan(operations, inspector, ALL, heard), heard, directory)
    assert report.complete
    assert report.file is not None
    return report.file


def restored(operations: Operations, inspector: Inspector, file: Path) -> int:
    plan = restore.plan(operations, inspector, [file], Silent())
    return restore.carry_out(operations, inspector, plan, Silent()).count(Did.RESTORED)


def test_an_archive_is_whole_by_itself_and_a_restore_brings_the_bodies_back(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    deliveries = [bury(operations, queue, BODY[: size or None]) for size in (40_000, 0, 768 << 10)]
    put(queue, after_bury(envelope.new("mirror", b"small", {}), "no"), "buried")
    file = archived(operations, inspector, tmp_path)
    assert (in_queue(inspector), states(operations.bodies)) == ([], {})
    assert restored(operations, inspector, file) == 4
    assert states(operations.bodies) == {delivery.id: "live" for delivery in deliveries}
    for delivery in deliveries:
        assert delivery.stored is not None
        check(operations.bodies, delivery.id, delivery.stored)
    assert {each.id: each.stored for each in in_queue(inspector) if each.stored} == {
        each.id: each.stored for each in deliveries
    }


@pytest.mark.parametrize(
    ("change", "whole", "says"),
    [
        (lambda lines: lines[:3] + lines[4:], 1, "the body that ends here|the body of the job before it is cut off"),
        (
            lambda lines: [*lines[:3], lines[3].replace(b'"base64":"', b'"base64":"AAAA'), *lines[4:]],
            1,
            "is not the one",
        ),
        (lambda lines: [*lines[:3], b'{"part":2,"base64":"!"}\n', *lines[4:]], 1, "is no part of a body"),
        (lambda lines: lines[:3], 0, "the body of the last job is cut off"),
    ],
)
def test_a_body_that_is_not_whole_is_found_out_and_its_job_left_out(
    operations: Operations,
    inspector: Inspector,
    queue: Queue,
    tmp_path: Path,
    change: Callable[[list[bytes]], list[bytes]],
    whole: int,
    says: str,
) -> None:
    bury(operations, queue)
    put(queue, after_bury(envelope.new("mirror", b"small", {}), "no"), "buried")
    file = archived(operations, inspector, tmp_path)
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    mistakes: list[str] = []
    assert len(list(archive_file.read(file, mistakes))) == whole
    assert any(part in "; ".join(mistakes) for part in says.split("|")), mistakes


def test_a_lost_body_hinders_no_archive_but_is_told(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    lost, damaged = bury(operations, queue), bury(operations, queue)
    operations.bodies.delete(lost.id)
    os.truncate(tmp_path / "bodies" / "live" / damaged.id, 5)
    heard = Heard()
    file = archived(operations, inspector, tmp_path, heard)
    assert sum(words.startswith("archived without its body: body ") for words in heard.warnings) == 2
    # it may be all that is left
    assert states(operations.bodies) == {damaged.id: "done"}
    assert restored(operations, inspector, file) == 2


def test_what_is_deleted_takes_its_body_along(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    gone, left = bury(operations, queue), bury(operations, queue)
    plan = delete.plan(operations, inspector, Selection(ids=(gone.id,)), Silent())
    assert delete.carry_out(operations, inspector, plan, Silent()).complete
    assert states(operations.bodies) == {left.id: "live"}


def test_a_move_and_a_kick_touch_the_body_before_the_job_moves(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    delivery = bury(operations, queue)
    path = tmp_path / "bodies" / "live" / delivery.id
    os.utime(path, (1.0, 1.0))
    asked, heard = Move(selection=ALL, target="elsewhere"), Heard()
    plan = move.plan(operations, inspector, asked, heard)
    assert move.carry_out(operations, inspector, plan, heard, "elsewhere").complete
    assert path.stat().st_mtime > 1.0
    assert [each.stored for each in in_queue(inspector)] == [delivery.stored]
    assert "who works elsewhere needs it" in heard.warnings[-1]
    back = Move(selection=Selection(), target="glassq", origin="elsewhere")
    move.carry_out(operations, inspector, move.plan(operations, inspector, back, Silent()), Silent(), "glassq")
    kicks = kick.plan(operations, inspector, ALL, Silent())
    assert kick.carry_out(operations, inspector, kicks, Silent()).complete
    assert states(operations.bodies) == {delivery.id: "live"}


def record(operations: Operations, delivery: Delivery, state: str = "done") -> None:
    ledger = open_ledger(operations.settings.ledger)
    kept: dict[str, Any] = {"content_type": delivery.content_type, "headers": {"x": "y"}, "stored": delivery.stored}
    kept |= {"done": delivery.done} if delivery.done else {}
    entry = Entry(delivery.id, delivery.source, delivery.received, state, 1, datetime.now(UTC), 0.5, kept=kept)
    ledger.record(msgspec.structs.replace(entry, body=delivery.body, labels=delivery.labels))
    ledger.close()


def replayed(operations: Operations, inspector: Inspector, again: bool = False) -> Any:
    asked = ReplayFilter(selection=Selection(), state="done", again=again)
    plan = replay.plan(operations, inspector, asked, Silent())
    return replay.carry_out(operations, inspector, plan, Silent())


def test_a_replay_gives_the_new_delivery_the_body_and_leaves_the_old_one_its_own(
    operations: Operations, inspector: Inspector
) -> None:
    old = stored(operations)
    operations.bodies.retire(old.id)
    record(operations, old)
    assert replayed(operations, inspector).complete
    assert replayed(operations, inspector, again=True).complete
    new = in_queue(inspector)
    assert len({each.id for each in new} - {old.id}) == 2
    assert all((each.stored, each.content_type, each.headers) == (old.stored, "text/x", {"x": "y"}) for each in new)
    assert states(operations.bodies) == {old.id: "done", **{each.id: "live" for each in new}}
    operations.bodies.delete(old.id)
    operations.bodies.delete(new[0].id)
    assert read(operations.bodies, new[1].id) == BODY


def test_without_its_body_nothing_is_replayed(operations: Operations, inspector: Inspector) -> None:
    old = stored(operations)
    record(operations, old)
    operations.bodies.delete(old.id)
    (result,) = replayed(operations, inspector).results
    assert (result.did, result.why) == (Did.NOTHING, "its large body is no longer kept ([bodies] done_max)")
    assert in_queue(inspector) == []


def test_show_tells_size_and_beginning_and_masks_them(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    delivery = bury(operations, queue)
    told = story.tell(operations, inspector, delivery.id, Silent())
    said = str(told.body)
    assert f"({len(BODY)} bytes in all)" in said
    assert "xxxx" in said
    assert "s3cret" not in said
    assert told.document()["delivery"]["stored"] == msgspec.structs.asdict(delivery.stored)
    operations.bodies.delete(delivery.id)
    assert "cannot be shown: body" in str(story.tell(operations, inspector, delivery.id, Silent()).body)


def test_show_tells_it_of_what_is_done_as_well(operations: Operations, inspector: Inspector) -> None:
    old = stored(operations)
    operations.bodies.retire(old.id)
    record(operations, old)
    told = story.tell(operations, inspector, old.id, Silent())
    assert f"({len(BODY)} bytes in all)" in str(told.body)


def test_what_is_put_as_a_file_has_its_body_in_the_store(operations: Operations, inspector: Inspector) -> None:
    settings = operations.settings
    large = msgspec.structs.replace(settings.intake, max_body=type(settings.intake.max_body)("3MiB"))
    operations.settings = msgspec.structs.replace(settings, intake=large)
    plan = put_operation.plan(operations, PutRequest(source="cron", labels={}), BODY, Silent())
    put_operation.carry_out(operations, plan, Silent())
    (delivery,) = in_queue(inspector)
    assert (delivery.body, read(operations.bodies, delivery.id)) == (b"", BODY)
    assert delivery.stored is not None
    check(operations.bodies, delivery.id, delivery.stored)
    with pytest.raises(BodyLost):
        operations.bodies.open(envelope.new_id())


# -- results of steps --------------------------------------------------------------------------------------------------

SHRUNK, FETCHED = StepResult("shrink", "text", "small"), "fetch"


def with_results(operations: Operations, queue: Queue | None = None) -> Delivery:
    """A delivery whose first step has a large result, and whose second one has a small one."""
    operations.bodies.prepare()
    delivery = envelope.new("mirror", b"{}", {"collection": "timeline"})
    writer = operations.bodies.begin(result_key(delivery.id, FETCHED))
    writer.write(b"large")
    done = (StepResult(FETCHED, "bytes", stored=writer.finish()), SHRUNK)
    delivery = after_bury(msgspec.structs.replace(delivery, done=done), "no disk")
    if queue is not None:
        put(queue, delivery, "buried")
    return delivery


def test_what_is_deleted_takes_the_results_of_its_steps_along(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    gone, left = with_results(operations, queue), with_results(operations, queue)
    plan = delete.plan(operations, inspector, Selection(ids=(gone.id,)), Silent())
    assert delete.carry_out(operations, inspector, plan, Silent()).complete
    assert states(operations.bodies) == {result_key(left.id, FETCHED): "live"}


def test_an_archive_has_no_large_results_and_the_store_keeps_them_for_a_while(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    delivery = with_results(operations, queue)
    file = archived(operations, inspector, tmp_path)
    assert states(operations.bodies) == {result_key(delivery.id, FETCHED): "done"}
    assert restored(operations, inspector, file) == 1
    assert [result.step for result in in_queue(inspector)[0].done] == [FETCHED, "shrink"]


def test_show_has_the_results_of_steps(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    delivery = with_results(operations, queue)
    told = story.tell(operations, inspector, delivery.id, Silent())
    assert [(step.step, step.result) for step in told.steps] == [(FETCHED, "(5 bytes)"), ("shrink", "small")]
    assert told.document()["delivery"]["done"][1]["result"] == "small"


STEPS = tuple(Step({"name": name, "handler": "m:f"}) for name in (FETCHED, "shrink", "store"))


@pytest.mark.parametrize(
    ("step", "carried", "why"),
    [
        ("", [], None),
        (FETCHED, [], None),
        ("shrink", [FETCHED], None),
        ("store", [FETCHED, "shrink"], None),
        ("paint", [], "its route has no step paint"),
    ],
)
def test_a_replay_begins_with_the_step_that_was_asked_for(
    operations: Operations, inspector: Inspector, step: str, carried: list[str], why: str | None
) -> None:
    operations.settings = msgspec.structs.replace(
        operations.settings, routes=(Route(source="mirror", steps=STEPS, name="photos"),)
    )
    old = with_results(operations)
    operations.bodies.retire(result_key(old.id, FETCHED))
    record(operations, old)
    plan = replay.plan(operations, inspector, ReplayFilter(selection=Selection(), state="done"), Silent())
    (result,) = replay.carry_out(operations, inspector, plan, Silent(), from_step=step).results
    if why:
        assert (result.did, result.why) == (Did.NOTHING, why)
        return
    (new,) = in_queue(inspector)
    assert [each.step for each in new.done] == carried
    linked = {result_key(new.id, FETCHED): "live"} if FETCHED in carried else {}
    assert states(operations.bodies) == {result_key(old.id, FETCHED): "done", **linked}
