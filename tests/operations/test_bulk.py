"""Plans are carried out job by job, each looked at again; whatever ends them early is told."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from glassq.errors import JobNotFound, NoProof, QueueRefused, QueueUnavailable, Stopped
from glassq.operations import bulk, kick
from glassq.operations.bulk import Plan
from glassq.operations.filters import Selection
from glassq.operations.find import look
from glassq.operations.move import moved
from glassq.operations.progress import Silent
from glassq.operations.result import Did, Report, Result, remark
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from tests.cli.conftest import a_delivery, put, put_bytes
from tests.conftest import wait_for
from tests.operations.conftest import StopsAt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.queues.base import Inspector, State
    from glassq.queues.beanstalk.commands import Command
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

ASIDE = "glassq.push.aside"
STATES: frozenset[State] = frozenset({"ready", "reserved", "delayed", "buried"})


class Died(BaseException):
    """What ends a process."""


class Dying:
    """The real queue, which dies before the nth command that changes something."""

    def __init__(self, queue: Queue, step: int) -> None:
        self._queue = queue
        self._left = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def pipeline(self, commands: Sequence[Command[Any]]) -> list[Any]:
        answers = []
        for command in commands:
            if not command.text.startswith((b"peek", b"stats")):
                if not self._left:
                    # what dies has its connection closed
                    self._queue.close()
                    raise Died
                self._left -= 1
            answers += self._queue.pipeline([command])
        return answers


def held(inspector: Inspector, *tubes: str) -> list[str]:
    return [job.state for job in inspector.find(STATES, tubes)]


@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
@pytest.mark.parametrize("step", range(6))
def test_whoever_dies_between_two_steps_of_a_move_leaves_the_delivery_at_least_once(
    operations: Operations, inspector: Inspector, beanstalkd: Beanstalkd, queue: Queue, state: str, step: int
) -> None:
    told = a_delivery()
    found = look(operations, inspector, str(put(queue, told, state)))
    connection = beanstalkd.queue()
    dying = Dying(connection, step)
    with suppress(Died):
        BeanstalkInspector(dying, beanstalkd.url, beanstalkd.syncer.prover).change_all([moved(found, ASIDE)])  # type: ignore[arg-type]
    connection.close()
    wait_for(lambda: "reserved" not in held(inspector, "glassq", ASIDE), "the connection to be gone")
    jobs = list(inspector.find(STATES, ["glassq", ASIDE]))
    assert 1 <= len(jobs) <= 2
    assert {look(operations, inspector, job.ref).name for job in jobs} == {told.id}


def test_a_delivery_that_a_consumer_takes_meanwhile_is_left_to_it_alone(
    operations: Operations, inspector: Inspector, beanstalkd: Beanstalkd, queue: Queue
) -> None:
    job = put(queue, a_delivery())
    found, consumer = look(operations, inspector, str(job)), beanstalkd.queue()
    consumer.reserve_job(job)
    [answer] = inspector.change_all([moved(found, ASIDE)])
    assert isinstance(answer, JobNotFound)
    assert held(inspector, ASIDE) == []
    assert queue.stats_job(job).state == "reserved"
    consumer.close()


def test_only_what_is_still_as_it_was_planned_is_touched(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    jobs = [put(queue, a_delivery(), "buried") for _ in range(4)]
    plan = kick.plan(operations, inspector, Selection(everything=True), Silent())
    queue.kick(jobs[0])
    queue.delete(jobs[1])
    queue.reserve_job(jobs[2])
    report = kick.carry_out(operations, inspector, plan, Silent())
    told = {result.id: (result.did, result.why) for result in report.results}
    assert told[str(jobs[0])] == (Did.NOTHING, "it is ready by now")
    assert told[str(jobs[1])] == (Did.NOTHING, "it was worked or removed meanwhile")
    assert told[str(jobs[2])] == (Did.NOTHING, "a consumer works it right now: try again when that is over")
    assert told[str(jobs[3])] == (Did.KICKED, "")
    assert not report.complete


def test_a_reference_that_was_given_again_is_left_alone(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    put(queue, a_delivery(), "buried")
    plan = kick.plan(operations, inspector, Selection(everything=True), Silent())
    other = put_bytes(queue, b"another one's", "buried")
    [chosen] = plan.chosen
    swapped = Plan(plan.did, (bulk.Chosen(chosen.text, str(other), *_rest(chosen)),))
    [result] = kick.carry_out(operations, inspector, swapped, Silent()).results
    assert (result.did, result.why) == (Did.NOTHING, "this job id now belongs to another delivery")
    assert queue.stats_job(other).state == "buried"


def _rest(chosen: Chosen) -> tuple[Any, ...]:
    return chosen.delivery, chosen.tube, chosen.state, chosen.age, chosen.digest


def planned(*refs: str) -> Plan:
    return Plan(Did.MOVED, tuple(bulk.Chosen(ref, ref, None, "glassq", "ready", 1.0, b"") for ref in refs))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (QueueUnavailable("gone"), "until then 2 of 4 were moved; it may be in both tubes"),
        (QueueRefused("draining"), "until then 2 of 4 were moved"),
        (NoProof("no syncer"), "until then 2 of 4 were moved"),
    ],
)
def test_what_was_done_before_the_queue_went_away_is_told(error: Exception, words: str) -> None:
    report, plan = Report(), planned("1", "2", "3", "4")

    def fails_at_the_third(packet: Sequence[Chosen]) -> Iterator[Result]:
        for each in packet:
            if each.ref == "3":
                raise error
            yield each.result(Did.MOVED)

    bulk.run(report, plan, [plan.chosen], fails_at_the_third, Silent(), in_doubt="it may be in both tubes")
    assert [result.did for result in report.results] == [Did.MOVED, Did.MOVED]
    assert (report.error, report.words) == (error, [words])


def all_moved(packet: Sequence[Chosen]) -> list[Result]:
    return [each.result(Did.MOVED) for each in packet]


def test_a_stop_waits_for_the_packet_at_hand_and_tells_how_far_it_was() -> None:
    report, plan = Report(), planned("1", "2", "3")
    bulk.run(report, plan, [plan.chosen[:2], plan.chosen[2:]], all_moved, StopsAt(2))
    assert [result.words for result in report.results] == ["moved", "moved", "nothing"]
    assert (report.results[-1].id, report.results[-1].why) == ("interrupted", "2 of 3 were moved")
    assert isinstance(report.error, Stopped)


def test_each_packet_is_whole_before_a_signal_is_taken() -> None:
    inside: list[bool] = []

    class Deferring(Silent):
        def defer_signals(self) -> Any:
            inside.append(True)
            return nullcontext()

    report, plan = Report(), planned("1", "2", "3")
    bulk.run(report, plan, [plan.chosen[:2], plan.chosen[2:]], all_moved, Deferring())
    assert len(inside) == 2


def test_a_preview_says_what_would_be_done_in_the_same_keys() -> None:
    [document] = [result.document() for result in planned("7").preview().results]
    assert document == {"id": "7", "job": "7", "delivery": None, "did": "would be moved", "why": ""}
    report = Report([*planned("1", "2").preview().results, Result("x", None, None, Did.NOTHING, "why")])
    assert report.sums() == {"would be moved": 2, "nothing": 1}
    assert report.sum_words() == "2 would be moved, 1 not done"


def test_what_is_said_of_the_whole_is_no_delivery_in_the_sum() -> None:
    report = Report([*planned("1").preview().results, remark("--canary", "stopped")])
    assert (report.sums(), report.complete) == ({"would be moved": 1}, False)
    assert report.results[-1].document() == {
        "id": "--canary", "job": None, "delivery": None, "did": "nothing", "why": "stopped",
    }  # fmt: skip
