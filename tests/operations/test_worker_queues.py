"""Queues of [worker.queues]: what operations know of them, and where what they put goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import delivery as envelope
from glassq import settings
from glassq.errors import InvalidRequest
from glassq.operations import Operations, put, status, worker_queues
from glassq.operations.checks import queue as checks
from glassq.operations.filters import Filter
from glassq.operations.find import buried_matching, unworked
from glassq.operations.pause import chosen
from glassq.operations.progress import Silent
from glassq.settings import Route
from glassq.values import HandlerName
from tests.syncers import queue_section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

SECTIONS = """
[sources.stripe]
kind = "stripe"
queue = "payments"
[sources.github]
[worker]
processes = 3
[worker.queues.payments]
weight = 3
children = 1
"""


@pytest.fixture
def ours(operations: Operations, beanstalkd: Beanstalkd, tmp_path: Path) -> Operations:
    file = tmp_path / "queues.toml"
    file.write_text(f'{queue_section(beanstalkd.url)}[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n{SECTIONS}')
    return Operations(settings.load(str(file), {}), actor=operations.actor)


def fill(queue: Queue, name: str, count: int = 1) -> str:
    tube = f"{queue.tube}.queue.{name}" if name else queue.tube
    for _ in range(count):
        queue.put(envelope.encode(envelope.new("stripe", b"{}", {}, tube=tube)), tube=tube)
    return tube


def test_each_queue_has_a_row_with_its_share_its_sources_and_what_waits(ours: Operations, queue: Queue) -> None:
    fill(queue, "payments", 2)
    fill(queue, "", 1)
    fill(queue, "old", 1)
    with ours.queue() as inspector:
        rows = {row.name: row.document() for row in worker_queues.snapshot(ours, inspector)}
    assert list(rows) == ["default", "payments", "old"]
    assert rows["payments"] == {
        **rows["payments"],
        "tube": f"{queue.tube}.queue.payments",
        "weight": 3,
        "children": 1,
        "sources": ["stripe"],
        "backlog": 2,
    }
    assert rows["default"] == {**rows["default"], "tube": queue.tube, "weight": 1, "sources": ["github"], "backlog": 1}
    assert rows["old"] == {**rows["old"], "in_settings": False, "weight": None, "sources": [], "backlog": 1}


def test_without_queues_there_are_no_rows(operations: Operations, queue: Queue) -> None:
    fill(queue, "", 1)
    with operations.queue() as inspector:
        assert worker_queues.snapshot(operations, inspector) == ()


def test_a_queue_that_is_gone_is_still_ours_and_doctor_and_status_say_so(ours: Operations, queue: Queue) -> None:
    tube = fill(queue, "old", 2)
    job = queue.reserve(0, [tube])
    assert job is not None
    queue.bury(job.id)
    with ours.queue() as inspector:
        (found,) = buried_matching(ours, inspector, Filter(), Silent())
        (check,) = checks.worker_queues(ours, inspector, Silent())
        hints = [str(hint) for hint in status.snapshot(ours, inspector, Silent()).hints]
    assert (found.tube, unworked(ours, tube)) == (tube, "")
    said = f"queue old is not in [worker.queues] of {ours.settings.file}, and holds 2 jobs: they are worked with the "
    assert check.said.startswith(said)
    assert any(hint.startswith(said) for hint in hints)


def test_jobs_of_a_route_that_is_gone_are_ours_and_doctor_and_status_say_so(ours: Operations, queue: Queue) -> None:
    for name in ("photos", "mails", "gone"):
        queue.put(b"x", tube=f"{queue.tube}.route.{name}")
    some = Route(source="github", handler=HandlerName("m:f"), name="photos", concurrency=1)
    lifted = Route(source="github", handler=HandlerName("m:f"), name="mails")
    ours = Operations(msgspec.structs.replace(ours.settings, routes=(some, lifted)), actor="ada")
    with ours.queue() as inspector:
        found = [check.said for check in checks.routes(ours, inspector, Silent())]
        hints = [str(hint) for hint in status.snapshot(ours, inspector, Silent()).hints]
        with pytest.raises(InvalidRequest, match=rf"did you mean {queue.tube}.route.photos\?"):
            chosen(ours, inspector, ["photos"])
    assert [said.partition(" any more")[0] for said in found] == [
        "route gone is not in [[routes]]",
        "route mails has no concurrency",
    ]
    assert set(found) <= set(hints)


def test_what_is_put_by_hand_goes_into_the_queue_of_its_source(ours: Operations) -> None:
    for source, tube in (("stripe", f"{ours.tube}.queue.payments"), ("github", ours.tube)):
        request = put.PutRequest(source=source, labels={"event": "x"}, unchecked=True)
        assert put.plan(ours, request, b"{}", Silent()).tube == tube


def test_queues_are_paused_by_name_and_an_unknown_one_is_refused(ours: Operations, queue: Queue) -> None:
    tube = fill(queue, "payments")
    with ours.queue() as inspector:
        assert worker_queues.chosen(ours, inspector, Silent(), ["payments"]) == {"payments": tube}
        assert worker_queues.chosen(ours, inspector, Silent(), ["default"]) == {"default": queue.tube}
        with pytest.raises(InvalidRequest, match=r"^there is no queue payment; did you mean payments\?$"):
            worker_queues.chosen(ours, inspector, Silent(), ["payment"])
        assert chosen(ours, inspector, []) == [queue.tube, tube]
        with pytest.raises(InvalidRequest, match=rf"did you mean {tube}\?"):
            chosen(ours, inspector, ["payments"])
