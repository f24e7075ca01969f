from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.delivery import MAX_MESSAGE, Delivery
from glassq.errors import NotDurable, QueueRefused, QueueUnavailable
from glassq.queues.beanstalk.receiver import BURY_DELAY
from glassq.routes import Context, retry_policy
from glassq.worker.bucket import Limit
from glassq.worker.consumer import longest_poll
from glassq.worker.layout import State
from glassq.worker.record import MAX_RESULT
from tests.conftest import Beanstalkd, wait_for
from tests.worker.conftest import DEADLINE, GRACE, Bench, Crash, jobs, made, only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from glassq.ledger import Entry
    from tests.queues.raw import Queue


pytestmark = pytest.mark.usefixtures("nobody_reports_deaths")


def put(queue: Queue, delivery: Delivery) -> int:
    return queue.put(envelope.encode(delivery))


def told(bench: Bench) -> Entry:
    (entry,) = bench.ledger.entries
    return entry


# -- what each outcome leaves behind --------------------------------------------------------------------------------


@pytest.mark.parametrize(("children", "seconds"), [(1, 10), (40, 10), (100, 25), (200, 50), (500, 50)])
def test_a_child_of_a_large_pool_asks_less_often(children: int, seconds: int) -> None:
    assert longest_poll(children) == seconds


def test_without_a_job_there_is_nothing_to_work(bench: Bench) -> None:
    assert bench.consumer.work_one(0) is False
    assert (bench.consumer.worked, bench.ledger.entries) == (0, [])


@pytest.mark.parametrize(
    ("do", "result"),
    [
        ("done", "stored"),
        ("nothing", ""),
        ("dict", '{"urls": ["a", "b"]}'),
        ("odd text", r"caf\udce9"),
    ],
)
def test_a_delivery_that_is_done_is_gone_and_its_result_is_recorded(
    bench: Bench, look: Queue, do: str, result: str
) -> None:
    delivery = made(do)
    put(look, delivery)
    assert bench.consumer.work_one(0) is True
    assert jobs(look) == []
    entry = told(bench)
    assert (entry.delivery, entry.source, entry.received) == (delivery.id, "mirror", delivery.received)
    assert (entry.state, entry.attempts, entry.job, entry.result) == ("done", 1, "", result)


CUT = f" (cut: a result has at most {MAX_RESULT} characters)"


@pytest.mark.parametrize(
    ("do", "result", "note"),
    [
        ("odd dict", r'{"b": "caf\udce9"}', "(not JSON: TypeError: keys must be str, int"),
        ("mute dict", '{"a": "(its message cannot be shown)"}', "(not JSON: TypeError: Object of type _Mute is not"),
        ("object", '{"at": "Ellipsis"}', "(not JSON: TypeError: Object of type ellipsis is not JSON"),
        ("long result", "x" * (MAX_RESULT - len(CUT)), CUT.strip()),
    ],
)
def test_a_result_that_the_ledger_cannot_hold_is_said_there_and_in_the_log_and_the_delivery_is_done(
    bench: Bench, look: Queue, caplog: pytest.LogCaptureFixture, do: str, result: str, note: str
) -> None:
    put(look, made(do))
    bench.consumer.work_one(0)
    assert jobs(look) == []
    entry = told(bench)
    assert entry.state == "done"
    assert entry.result.startswith(f"{result} {note}")
    assert len(entry.result) <= MAX_RESULT
    (line,) = (record for record in caplog.records if record.message.startswith("done"))
    assert line.levelname == "WARNING"
    assert note.replace('"', "'") in line.message


@pytest.mark.parametrize("do", ["coroutines", "generator"])
def test_a_result_that_is_still_to_be_awaited_buries_at_once(bench: Bench, look: Queue, do: str) -> None:
    put(look, made(do))
    bench.consumer.work_one(0)
    stats, buried = only(look)
    assert (stats.state, buried.attempt) == ("buried", 1)
    assert "its work was not done" in buried.buried
    assert [(each.outcome, each.error) for each in buried.evidence] == [("bury", "Bury")]


def test_a_retry_rule_that_exits_ends_no_child(queue: Queue, look: Queue) -> None:
    class Mean:
        def after(self, failures: int, age: float) -> float | None:
            sys.exit(1)

    @retry_policy(lambda _delivery, _context: Mean())
    def handle(delivery: Delivery, context: Context) -> None:
        raise ValueError("no")

    bench = Bench(queue, handler=handle)
    put(look, made("fail"))
    bench.consumer.work_one(0)
    assert only(look)[0].state == "delayed"


def test_a_handler_gets_the_delivery_as_it_was_taken_and_its_deadline(bench: Bench, look: Queue) -> None:
    delivery = made("done")
    put(look, delivery)
    bench.consumer.work_one(0)
    assert bench.seen == [delivery]
    assert 0 < bench.remaining[0] <= DEADLINE - GRACE


def begun_deletes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The jobs to whose ends nobody awaits the answer, from now on."""
    found: list[int] = []
    begin_delete = bench.queue.begin_delete
    monkeypatch.setattr(bench.queue, "begin_delete", lambda job, failed: (found.append(job), begin_delete(job, failed)))
    return found


@pytest.mark.parametrize("limited", [False, True])
def test_quick_deliveries_come_several_at_a_time_where_nothing_has_a_limit(
    queue: Queue, look: Queue, monkeypatch: pytest.MonkeyPatch, *, limited: bool
) -> None:
    bench = Bench(queue, limits=(Limit(f"{queue.tube}.push.mail", 100, 100, 100),) if limited else ())
    for _ in range(20):
        put(look, made("done"))
    begun = begun_deletes(bench, monkeypatch)
    assert len(bench.work_ahead(20)) == 20
    assert len(bench.seen) == 20
    assert bool(begun) != limited
    bench.consumer.close()
    assert jobs(look) == []


def test_a_dropped_delivery_is_gone_and_its_reason_recorded(bench: Bench, look: Queue) -> None:
    put(look, made("drop"))
    bench.consumer.work_one(0)
    assert jobs(look) == []
    assert (told(bench).state, told(bench).reason) == ("dropped", "spoofed")


def test_a_delivery_without_a_route_is_dropped(bench: Bench, look: Queue) -> None:
    put(look, made("done", source="unknown"))
    bench.consumer.work_one(0)
    assert (jobs(look), bench.seen) == ([], [])
    assert (told(bench).state, told(bench).reason) == ("dropped", "no route")


@pytest.mark.parametrize(
    ("do", "reason", "error"),
    [
        ("retry", "busy", "Retry"),
        ("fail", "ValueError: no", "ValueError"),
        ("exit", "SystemExit: 3", "SystemExit"),
        ("crash", "Crash: boom", "Crash"),
        ("overrun", "the handler overran its deadline", "DeadlineExceeded"),
    ],
)
def test_a_failure_is_put_again_with_its_evidence_after_a_backoff(
    bench: Bench, look: Queue, do: str, reason: str, error: str
) -> None:
    delivery = made(do)
    old = put(look, delivery)
    bench.consumer.work_one(0)
    stats, following = only(look)
    assert stats.state == "delayed"
    assert stats.id != old
    assert 1 <= stats.delay <= bench.policy.backoff
    assert (following.id, following.body, following.received) == (delivery.id, delivery.body, delivery.received)
    assert (following.attempt, following.failures) == (2, 1)
    (evidence,) = following.evidence
    assert (evidence.attempt, evidence.outcome, evidence.message, evidence.error) == (1, "retry", reason, error)
    entry = told(bench)
    assert (entry.state, entry.reason, entry.job, entry.attempts) == ("retrying", reason, str(stats.id), 1)


def test_a_delay_that_a_handler_asks_for_is_rounded_up(bench: Bench, look: Queue) -> None:
    put(look, made("retry later"))
    bench.consumer.work_one(0)
    assert only(look)[0].delay == 78


def test_a_delay_beyond_all_reason_is_no_trouble_for_the_queue(bench: Bench, look: Queue) -> None:
    put(look, made("retry never"))
    bench.consumer.work_one(0)
    assert only(look)[0].state == "delayed"


def test_an_error_of_any_length_and_alphabet_is_kept_in_bounds(bench: Bench, look: Queue) -> None:
    put(look, made("odd error"))
    for _ in range(3):
        bench.consumer.work_one(0)
        for stats in jobs(look):
            if stats.state == "delayed":
                look.kick(stats.id)
    stats, buried = only(look)
    assert stats.state == "buried"
    assert len(buried.buried) <= MAX_MESSAGE
    assert buried.evidence[0].message.startswith(r"OSError: caf\udce9yyy")


def test_waiting_is_put_again_and_takes_nothing_from_the_budget(bench: Bench, look: Queue) -> None:
    put(look, made("wait"))
    for attempt in range(1, 6):
        bench.consumer.work_one(0)
        stats, following = only(look)
        assert (stats.state, stats.delay) == ("delayed", 9)
        assert (following.attempt, following.failures, following.waits) == (attempt + 1, 0, attempt)
        assert following.evidence == ()
        look.kick(stats.id)


def test_a_delivery_that_a_handler_buries_lies_buried_with_its_reason(bench: Bench, look: Queue) -> None:
    delivery = made("bury")
    put(look, delivery)
    bench.consumer.work_one(0)
    stats, buried = only(look)
    assert stats.state == "buried"
    assert (buried.id, buried.buried, buried.attempt) == (delivery.id, "consent revoked", 1)
    assert [item.outcome for item in buried.evidence] == ["bury"]
    assert (told(bench).state, told(bench).reason, told(bench).job) == ("buried", "consent revoked", str(stats.id))


def test_a_spent_budget_buries_with_the_whole_story(bench: Bench, look: Queue) -> None:
    put(look, made("fail"))
    for _ in range(bench.policy.max_attempts):
        bench.consumer.work_one(0)
        (stats,) = jobs(look)
        if stats.state == "delayed":
            look.kick(stats.id)
    stats, buried = only(look)
    assert stats.state == "buried"
    assert buried.buried == "ValueError: no (gave up after 3 attempts)"
    assert [(item.attempt, item.outcome) for item in buried.evidence] == [(1, "retry"), (2, "retry"), (3, "bury")]
    assert [entry.state for entry in bench.ledger.entries] == ["retrying", "retrying", "buried"]


def test_a_kick_gives_a_fresh_budget_and_the_story_goes_on(bench: Bench, look: Queue) -> None:
    delivery = msgspec.structs.replace(made("fail"), attempt=3, failures=2)
    put(look, delivery)
    bench.consumer.work_one(0)
    stats, _ = only(look)
    assert stats.state == "buried"
    look.kick(stats.id)
    bench.consumer.work_one(0)
    stats, again = only(look)
    assert stats.state == "delayed"
    assert (again.attempt, again.failures, again.buried) == (5, 1, "")
    assert [item.attempt for item in again.evidence] == [3, 4]


def test_a_stop_gives_the_job_back_and_burns_no_attempt(bench: Bench, look: Queue) -> None:
    job_id = put(look, made("interrupted"))
    for _ in range(5):
        bench.consumer.work_one(0)
    stats, delivery = only(look)
    assert (stats.id, stats.state, stats.releases) == (job_id, "ready", 5)
    assert (delivery.attempt, delivery.failures, delivery.evidence) == (1, 0, ())
    assert bench.ledger.entries == []
    assert len(bench.seen) == 5


def test_a_lost_lease_leaves_the_job_to_whoever_has_it(bench: Bench, look: Queue) -> None:
    job_id = put(look, made("lease lost"))
    bench.consumer.work_one(0)
    assert [stats.id for stats in jobs(look)] == [job_id]
    assert bench.ledger.entries == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"glassq/1 00000000\n{}\n{}", b"\xff" * 100])
def test_a_damaged_job_is_buried_untouched_and_stays_so_when_kicked(bench: Bench, look: Queue, damage: bytes) -> None:
    job_id = look.put(damage)
    for kicks in range(2):
        bench.consumer.work_one(0)
        (stats,) = jobs(look)
        assert (stats.id, stats.state, stats.kicks) == (job_id, "buried", kicks)
        assert look.peek(job_id).body == damage
        look.kick(job_id)
    assert (bench.seen, bench.ledger.entries) == ([], [])


def test_the_scoreboard_shows_what_is_worked_and_how_much_was(queue: Queue, look: Queue) -> None:
    statuses = []
    bench = Bench(queue, handler=lambda _delivery, _context: statuses.append(bench.board.status(0)))
    delivery = made("done")
    job_id = put(look, delivery)
    bench.consumer.work_one(0)
    (during,), after = statuses, bench.board.status(0)
    assert (during.state, during.job, during.delivery) == (State.WORKING, str(job_id), delivery.id)
    assert 0 < during.deadline - during.started <= DEADLINE
    assert (after.state, after.job, after.delivery, after.deadline, after.worked) == (State.WAITING, "", "", 0.0, 1)


# -- attempts that ended with their process -------------------------------------------------------------------------


def lose(server: Beanstalkd, look: Queue, times: int) -> None:
    """As many consumers take the job and die."""
    for _ in range(times):
        queue = server.queue()
        job = queue.reserve(5)
        assert job is not None
        queue.close()
        wait_for(lambda: look.stats_tube().ready == 1, "the job to come back")


def test_a_delivery_whose_attempts_die_with_their_process_is_buried_unrun(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue
) -> None:
    put(look, made("done"))
    for _ in range(3):
        lose(beanstalkd, look, 1)
        bench.consumer.work_one(0)
    stats, buried = only(look)
    assert stats.state == "buried"
    assert buried.buried.startswith("3 attempts ended without an outcome")
    assert (buried.lost, bench.seen) == (3, [])
    look.kick(stats.id)
    bench.consumer.work_one(0)
    assert len(bench.seen) == 1, "a kicked job is run, not buried again"
    assert jobs(look) == []


def test_lost_attempts_are_counted_over_all_jobs_of_a_delivery(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue
) -> None:
    put(look, made("fail"))
    for _ in range(2):
        lose(beanstalkd, look, 1)
        bench.consumer.work_one(0)
    bench.consumer.work_one(0)
    stats, following = only(look)
    assert (following.lost, following.failures) == (2, 1)
    look.kick(stats.id)
    lose(beanstalkd, look, 1)
    bench.consumer.work_one(0)
    assert only(look)[0].state == "buried"
    assert len(bench.seen) == 1


def test_losses_that_nobody_lived_to_write_down_are_one(beanstalkd: Beanstalkd, bench: Bench, look: Queue) -> None:
    put(look, made("done"))
    lose(beanstalkd, look, 10)
    bench.consumer.work_one(0)
    (stats, delivery) = only(look)
    assert (stats.state, stats.lost, delivery.lost, delivery.attempt, bench.seen) == ("ready", 0, 1, 1, [])
    bench.consumer.work_one(0)
    assert (len(bench.seen), jobs(look)) == (1, [])


def test_what_the_pools_of_this_host_held_and_never_began_has_lost_nothing(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue
) -> None:
    put(look, made("done"))
    lose(beanstalkd, look, 2)
    bench.board.died(0)
    bench.consumer.work_one(0)
    assert ([seen.lost for seen in bench.seen], jobs(look)) == ([0], [])
    # as many as children died, and no more: this one was lost on another host
    put(look, made("done"))
    lose(beanstalkd, look, 1)
    bench.consumer.work_one(0)
    assert (only(look)[1].lost, len(bench.seen)) == (1, 1)


def test_what_a_dead_child_had_ended_has_lost_nothing_either(beanstalkd: Beanstalkd, bench: Bench, look: Queue) -> None:
    bench.slot.unproven(2)
    bench.board.died(0)
    for _ in range(3):
        put(look, made("done"))
        lose(beanstalkd, look, 1)
        bench.consumer.work_one(0)
        assert jobs(look) == []
    assert [seen.lost for seen in bench.seen] == [0, 0, 0]
    put(look, made("done"))
    lose(beanstalkd, look, 1)
    bench.consumer.work_one(0)
    assert (only(look)[1].lost, len(bench.seen)) == (1, 3)


def test_what_they_began_is_a_loss_however_many_jobs_they_may_have_held(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue
) -> None:
    delivery = made("done")
    job = put(look, delivery)
    lose(beanstalkd, look, 1)
    bench.board.died(0)
    bench.board.crashes.add(str(job), delivery.id, "with its pool", "", 0.5)
    bench.consumer.work_one(0)
    kept = only(look)[1]
    assert (kept.lost, [each.message for each in kept.evidence]) == (1, ["its process ended: with its pool"])
    assert bench.slot.excuse(), "it was not excused"


def test_each_death_that_was_seen_is_a_loss(beanstalkd: Beanstalkd, bench: Bench, look: Queue) -> None:
    delivery = made("done")
    job = put(look, delivery)
    lose(beanstalkd, look, 3)
    for _ in range(2):
        bench.board.crashes.add(str(job), delivery.id, "with its pool", "", 0.5)
    bench.consumer.work_one(0)
    assert (only(look)[1].lost, len(only(look)[1].evidence)) == (2, 2)


def test_a_job_given_back_is_not_a_lost_attempt(bench: Bench, look: Queue) -> None:
    put(look, made("interrupted"))
    for _ in range(10):
        bench.consumer.work_one(0)
    assert only(look)[0].state == "ready"


# -- crashes between two steps --------------------------------------------------------------------------------------


class Failing:
    """A queue whose user dies at one of its changing commands: just before it, or just after it was done.

    A packet is cut after each of its commands.
    """

    def __init__(self, queue: Queue, step: int, *, after: bool) -> None:
        self._queue = queue
        self._left = step
        self._after = after
        self.died = False

    def __getattr__(self, name: str) -> Any:
        if name == "pipeline":
            return lambda commands: [self._run(self._queue.pipeline, ([each],), {})[0] for each in commands]
        command = getattr(self._queue, name)
        if name not in ("put", "reserve_job", "bury", "delete", "delete_and_reserve", "release"):
            return command
        return lambda *args, **kwargs: self._run(command, args, kwargs)

    def _run(self, command: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._left -= 1
        if self._left:
            return command(*args, **kwargs)
        if self._after:
            command(*args, **kwargs)
        self.died = True
        self._queue.close()
        raise Crash


COMMANDS = {"done": 1, "drop": 1, "retry": 2, "bury": 4, "interrupted": 1}
CRASHES = [
    (do, step, after) for do, steps in COMMANDS.items() for step in range(1, steps + 1) for after in (False, True)
]


@pytest.mark.parametrize(("do", "step", "after"), CRASHES)
def test_a_crash_between_any_two_steps_never_loses_the_delivery(
    beanstalkd: Beanstalkd, look: Queue, do: str, step: int, after: bool
) -> None:
    delivery = made(do)
    put(look, delivery)
    dying = Failing(beanstalkd.queue(), step, after=after)
    with pytest.raises(Crash):
        Bench(dying).consumer.work_one(0)  # type: ignore[arg-type]
    assert dying.died
    wait_for(lambda: look.stats_tube().reserved == 0, "what it held to come back")
    kept = [envelope.decode(look.peek(stats.id).body) for stats in jobs(look)]
    finished = do in ("done", "drop") and after
    assert {found.id for found in kept} == (set() if finished else {delivery.id})


def test_no_outcome_takes_more_steps_than_the_crashes_are_tried_at(beanstalkd: Beanstalkd, look: Queue) -> None:
    for do, steps in COMMANDS.items():
        put(look, made(do))
        living = Failing(beanstalkd.queue(), steps + 1, after=False)
        Bench(living).consumer.work_one(0)  # type: ignore[arg-type]
        assert not living.died
        living.close()
        for stats in jobs(look):
            look.delete(stats.id)


def test_a_half_finished_bury_is_finished_by_whoever_gets_it(bench: Bench, look: Queue) -> None:
    job_id = put(look, msgspec.structs.replace(made("done"), buried="consent revoked"))
    bench.consumer.work_one(0)
    stats, delivery = only(look)
    assert (stats.id, stats.state, delivery.buried) == (job_id, "buried", "consent revoked")
    assert bench.seen == []
    look.kick(job_id)
    bench.consumer.work_one(0)
    assert len(bench.seen) == 1


def test_while_it_is_buried_nobody_else_can_have_it(beanstalkd: Beanstalkd, look: Queue) -> None:
    put(look, made("bury"))
    with pytest.raises(Crash):
        Bench(Failing(beanstalkd.queue(), 1, after=True)).consumer.work_one(0)  # type: ignore[arg-type]
    wait_for(lambda: look.stats_tube().reserved == 0, "the old job to come back")
    newest = jobs(look)[0]
    assert (newest.state, newest.delay) == ("delayed", BURY_DELAY)


class Meddled:
    """A queue into which somebody reaches right after a put."""

    def __init__(self, queue: Queue, meddle: Callable[[int], object]) -> None:
        self._queue = queue
        self._meddle = meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def put(self, body: bytes, *, delay: int = 0, tube: str | None = None) -> int:
        put = self._queue.put(body, delay=delay, tube=tube)
        self._meddle(put)
        return put


def test_when_an_operator_takes_the_job_being_buried_nothing_stays_reserved(
    beanstalkd: Beanstalkd, look: Queue
) -> None:
    old = put(look, made("bury"))
    operator = beanstalkd.queue()
    mine = beanstalkd.queue()
    assert Bench(Meddled(mine, operator.reserve_job)).consumer.work_one(0) is True  # type: ignore[arg-type]
    wait_for(lambda: look.stats_job(old).state == "ready", "the old job to be free")
    operator.close()
    mine.close()


def test_an_error_nobody_thought_of_leaves_nothing_reserved(beanstalkd: Beanstalkd, look: Queue) -> None:
    def meddle(_put: int) -> None:
        raise RuntimeError("a bug")

    old = put(look, made("retry"))
    mine = beanstalkd.queue()
    with pytest.raises(RuntimeError, match="a bug"):
        Bench(Meddled(mine, meddle)).consumer.work_one(0)  # type: ignore[arg-type]
    wait_for(lambda: look.stats_job(old).state == "ready", "the old job to be free")
    mine.close()


# -- a queue in trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do", ["retry", "bury", "fail"])
def test_a_job_whose_next_form_is_refused_is_given_back(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue, do: str
) -> None:
    job_id = put(look, made(do))
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: look.stats().draining, "the server to drain")
    for _ in range(4):
        with pytest.raises(QueueRefused):
            bench.consumer.work_one(0)
    stats = look.stats_job(job_id)
    assert (stats.state, stats.releases, stats.lost) == ("ready", 4, 0)
    assert bench.ledger.entries == []


def test_a_draining_queue_is_worked_empty(beanstalkd: Beanstalkd, bench: Bench, look: Queue) -> None:
    put(look, made("done"))
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: look.stats().draining, "the server to drain")
    assert bench.consumer.work_one(0) is True
    assert look.stats_tube().ready == 0


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Beanstalkd]:
    """A beanstalkd that takes jobs of 600 bytes at the most."""
    server = Beanstalkd(tmp_path, options=("-z", "600"))
    yield server
    server.stop()


def filled(room: int) -> Delivery:
    """A failing delivery that leaves so many of the 600 bytes."""
    delivery = made("fail")
    for filling in range(600):
        body = json.dumps({"do": "fail", "more": "x" * filling}).encode()
        delivery = msgspec.structs.replace(delivery, body=body)
        if len(envelope.encode(delivery)) == 600 - room:
            break
    return delivery


def test_a_job_whose_story_does_not_fit_is_tried_again_without_it(narrow: Beanstalkd) -> None:
    mine, look = narrow.queue(), narrow.queue()
    bench = Bench(mine)
    put(look, filled(room=100))
    assert bench.consumer.work_one(0) is True
    stats, kept = only(look)
    assert (stats.state, kept.attempt, kept.failures, kept.evidence) == ("delayed", 2, 1, ())
    mine.close()
    look.close()


def test_a_job_that_fits_in_no_other_form_is_buried_as_it_is(narrow: Beanstalkd) -> None:
    mine, look = narrow.queue(), narrow.queue()
    bench = Bench(mine)
    delivery = filled(room=0)
    job_id = put(look, delivery)
    assert bench.consumer.work_one(0) is True
    stats, kept = only(look)
    assert (stats.id, stats.state, kept) == (job_id, "buried", delivery)
    look.kick(job_id)
    assert bench.consumer.work_one(0) is True
    assert len(bench.seen) == 2
    mine.close()
    look.close()


def test_a_queue_that_dies_under_a_handler_costs_no_delivery(beanstalkd: Beanstalkd, look: Queue) -> None:
    def handler(_delivery: Delivery, _context: object) -> str:
        beanstalkd.stop(signal.SIGKILL)
        return "done"

    mine = beanstalkd.queue()
    bench = Bench(mine, handler=handler)
    put(look, made("done"))
    with pytest.raises(QueueUnavailable):
        bench.consumer.work_one(0)
    beanstalkd.start()
    again = Bench(mine)
    assert again.consumer.work_one(5) is True
    assert len(again.seen) == 1
    mine.close()


def test_the_loop_goes_on_after_the_queue_was_away(beanstalkd: Beanstalkd, bench: Bench) -> None:
    stop = threading.Event()
    loop = threading.Thread(target=bench.consumer.run, args=(stop.is_set,))
    loop.start()
    try:
        for number in (1, 2):
            look = beanstalkd.queue()
            put(look, made("done"))
            look.close()
            wait_for(lambda n=number: len(bench.ledger.entries) == n, "the delivery to be worked")
            beanstalkd.stop(signal.SIGKILL)
            wait_for(lambda: bench.board.status(0).state is State.CONNECTING, "the loss to be noticed")
            beanstalkd.start()
        wait_for(lambda: bench.board.status(0).state is State.WAITING, "the connection to be back")
    finally:
        stop.set()
        bench.queue.interrupt()
        loop.join(20)
    assert not loop.is_alive()


def test_a_queue_that_takes_no_puts_is_told_once_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Disk full, to a consumer: every put is refused. A delete still works."""
    server = Beanstalkd(tmp_path)
    mine, look = server.queue(), server.queue()
    refusing = Refusing(mine)
    bench = Bench(refusing)  # type: ignore[arg-type]
    put(look, made("fail"))
    stop = threading.Event()
    loop = threading.Thread(target=bench.consumer.run, args=(stop.is_set,))
    loop.start()
    try:
        wait_for(lambda: refusing.refused >= 2, "several refusals")
        assert caplog.text.count("queue takes no puts") == 1
        (stats,) = jobs(look)
        assert (stats.lost, stats.state in ("ready", "reserved"), stats.delay) == (0, True, 0)
        refusing.full = False
        wait_for(lambda: bench.ledger.entries, "the job to be put again")
    finally:
        stop.set()
        mine.interrupt()
        loop.join(30)
        mine.close()
    assert caplog.text.count("queue takes puts again") == 1
    stats, following = only(look)
    assert (stats.state, following.failures) == ("delayed", 1)
    look.close()
    server.stop()


class Refusing:
    """A queue whose disk is full until it is told otherwise."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.full = True
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def put(self, body: bytes, *, delay: int = 0, tube: str | None = None) -> int:
        if self.full:
            self.refused += 1
            raise QueueRefused("its disk is full")
        return self._queue.put(body, delay=delay, tube=tube)


def test_a_queue_in_memory_only_keeps_the_old_form_and_says_why(
    beanstalkd: Beanstalkd, bench: Bench, look: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    with contextlib.suppress(QueueUnavailable):
        look.stats()
    with contextlib.suppress(QueueUnavailable):
        bench.consumer.work_one(0)
    put(look, made("done"))
    assert bench.consumer.work_one(0)
    for do in ("retry", "bury"):
        job_id = put(look, made(do))
        for _ in range(2):
            with pytest.raises(NotDurable):
                bench.consumer.work_one(0)
        (stats,) = jobs(look)
        assert (stats.id, stats.state, stats.releases, stats.lost) == (job_id, "ready", 2, 0)
        look.delete(job_id)
    assert caplog.text.count("queue takes no puts") == 1
    assert "does not write to its disk any more" in caplog.text
