"""Operators' new forms of jobs: one proof for a packet of them, and no old form goes before it or without it."""

from __future__ import annotations

import signal
from contextlib import closing, contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest

from glassq.errors import JobNotFound, NoProof, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import ALL_STATES, Change, NewForm, WaitingState
from glassq.queues.beanstalk import forms
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.packet import WINDOW
from glassq.queues.beanstalk.prover import SyncerProver
from tests.queues.binlog import break_binlog, failing, fill_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from glassq.queues.base import Job, State
    from tests.conftest import Beanstalkd

WAITING: tuple[WaitingState, ...] = get_args(WaitingState)
TUBES = ["glassq", "glassq.push.aside"]
HERE, ASIDE = TUBES


class Watched:
    """The real syncer's proofs; `before` is done before each question."""

    def __init__(self, server: Beanstalkd, before: Callable[[], object] = lambda: None) -> None:
        self._prover = SyncerProver(server.syncer.address, connect_timeout=5)
        self._before = before
        self.asked = 0

    def prove(self, server: str, *, deadline: float) -> None:
        self.asked += 1
        self._before()
        self._prover.prove(server, deadline=deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prover, name)


def inspecting(server: Beanstalkd, before: Callable[[], object] = lambda: None) -> BeanstalkInspector:
    connection = BeanstalkConnection(server.url, "default", ttr=60, connect_timeout=20, timeout=20)
    return BeanstalkInspector(connection, server.url, Watched(server, before))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    """One whose binlog can be broken."""
    with failing(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def inspector(server: Beanstalkd) -> Iterator[BeanstalkInspector]:
    with closing(inspecting(server)) as opened:
        yield opened


def lie(inspector: BeanstalkInspector, *states: WaitingState) -> list[Job]:
    """Jobs that wait in these states."""
    forms = [NewForm(b"%d" % number, HERE, state, 3600) for number, state in enumerate(states)]
    found = inspector.get_all([ref for ref in inspector.insert_all(forms) if isinstance(ref, str)])
    return [job for job in found if not isinstance(job, QueueError)]


def there(server: Beanstalkd) -> list[tuple[str, State, bytes]]:
    with closing(inspecting(server)) as looking:
        return sorted((job.tube, job.state, job.body) for job in looking.find(ALL_STATES, TUBES))


def moves(jobs: list[Job]) -> list[Change]:
    """Each job becomes something else: ready, delayed and buried in turn, in the other tube, in another form."""
    states = [WAITING[number % 3] for number in range(len(jobs))]
    return [Change(job, state, job.body + b"!", ASIDE, 3600) for job, state in zip(jobs, states, strict=True)]


def frozen(server: Beanstalkd) -> None:
    server.syncer.send(signal.SIGSTOP)


def killed(server: Beanstalkd) -> None:
    server.syncer.stop(signal.SIGKILL)


def refusing(server: Beanstalkd) -> None:
    """The binlog fails, and the syncer says so."""
    break_binlog(server)
    with closing(server.queue()) as queue, pytest.raises(NotDurable):
        queue.put(b"lost", tube="elsewhere")


def test_a_kick_that_the_full_disk_refuses_is_no_job_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(tmp_path, monkeypatch, file_size=8192) as server, closing(inspecting(server)) as inspector:
        buried, delayed, gone, other = lie(inspector, "buried", "delayed", "buried", "buried")
        inspector.delete(gone)
        fill_disk(server, file_size=8192)
        jobs = [buried, delayed, gone, msgspec.structs.replace(other, body=b"another")]
        answers = inspector.change_all([Change(job, "ready") for job in jobs])
        assert [type(answer) for answer in answers] == [QueueRefused, QueueRefused, JobNotFound, JobNotFound]
        assert str(answers[0]) == forms.NOT_KICKED
        assert [job.state for job in inspector.get_all([buried.ref, delayed.ref])] == ["buried", "delayed"]


TROUBLE = [(frozen, NoProof), (killed, NoProof), (refusing, NotDurable)]


@pytest.mark.parametrize(("trouble", "error"), TROUBLE, ids=["frozen", "killed", "refusing"])
def test_without_a_proof_no_old_form_goes_and_no_new_one_stays(
    server: Beanstalkd,
    inspector: BeanstalkInspector,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Beanstalkd], None],
    error: type[QueueError],
) -> None:
    jobs = lie(inspector, *WAITING, *WAITING, *WAITING)
    before = there(server)
    trouble(server)
    if trouble is frozen:
        # nobody answers, however long he is waited for
        monkeypatch.setattr(forms, "PROOF_WITHIN", 0.3)
    answers = inspector.change_all(moves(jobs))
    assert [type(answer) for answer in answers] == [error] * 9
    assert there(server) == before
    answers = inspector.insert_all([NewForm(b"new", ASIDE, state, 3600) for state in WAITING])
    assert [type(answer) for answer in answers] == [error] * 3
    assert there(server) == before


def test_a_change_in_place_needs_no_proof(server: Beanstalkd, inspector: BeanstalkInspector) -> None:
    jobs = lie(inspector, *WAITING)
    killed(server)
    assert inspector.change_all([Change(job, "ready") for job in jobs]) == [job.ref for job in jobs]
    assert inspector.change_all([Change(job, "buried") for job in jobs]) == [job.ref for job in jobs]
    assert inspector.delete_all(jobs) == [None, None, None]
    assert there(server) == []


def test_a_packet_has_one_proof_and_until_then_both_forms_are_there(server: Beanstalkd) -> None:
    seen: list[int] = []
    with closing(inspecting(server, lambda: seen.append(len(there(server))))) as inspector:
        jobs = lie(inspector, *WAITING * 100)
        assert seen == [300]
        refs = inspector.change_all(moves(jobs))
        assert seen == [300, 600]
        assert there(server) == sorted((ASIDE, WAITING[int(job.body) % 3], job.body + b"!") for job in jobs)
        # in the order of the old ones
        assert [int(ref) for ref in refs if isinstance(ref, str)] == sorted(int(ref) for ref in refs)  # type: ignore[arg-type]


def test_no_consumer_takes_a_new_form_before_its_proof(server: Beanstalkd) -> None:
    taken: list[object] = []

    def look() -> None:
        with closing(server.queue()) as consumer:
            taken.append(consumer.reserve(0, [ASIDE]))

    with closing(inspecting(server, look)) as inspector:
        jobs = lie(inspector, *["ready"] * 3)
        inspector.change_all([Change(job, "ready", tube=ASIDE) for job in jobs])
    assert taken == [None, None]
    with closing(server.queue()) as consumer:
        bodies = [job.body for _ in range(3) if (job := consumer.reserve(0, [ASIDE]))]
        assert bodies == [b"0", b"1", b"2"]


def test_a_delay_does_not_end_before_the_proof_that_it_hides_from(server: Beanstalkd) -> None:
    left: list[float] = []

    def look() -> None:
        with closing(inspecting(server)) as looking:
            left.extend(job.time_left for job in looking.find(frozenset({"delayed"}), [ASIDE]))

    with closing(inspecting(server, look)) as inspector:
        (job,) = lie(inspector, "ready")
        inspector.change_all([Change(job, "delayed", job.body, ASIDE, 1)])
        assert len(left) == 1
        assert left[0] > forms.PROOF_WITHIN
        # where there is no old form the delay is as given
        inspector.insert_all([NewForm(b"new", ASIDE, "delayed", 1)])
        (other,) = (job for job in inspector.find(frozenset({"delayed", "ready"}), [ASIDE]) if job.body == b"new")
        assert other.time_left <= 1


def test_a_job_that_a_consumer_takes_meanwhile_is_left_and_its_new_form_withdrawn(server: Beanstalkd) -> None:
    consumer = server.queue()
    with closing(inspecting(server)) as inspector:
        jobs = lie(inspector, *["ready"] * 3)
    with closing(inspecting(server, lambda: consumer.reserve_job(int(jobs[1].ref)))) as inspector:
        answers = inspector.change_all(moves(jobs))
    assert [isinstance(answer, JobNotFound) for answer in answers] == [False, True, False]
    assert there(server) == [(HERE, "reserved", b"1"), (ASIDE, "buried", b"2!"), (ASIDE, "ready", b"0!")]
    consumer.close()


@pytest.mark.parametrize("count", [1, 300])
def test_a_server_that_is_killed_and_started_between_put_and_proof_has_proven_nothing(
    server: Beanstalkd, count: int
) -> None:
    def restart() -> None:
        server.stop(signal.SIGKILL, syncer=False)
        server.start()

    with closing(inspecting(server)) as inspector:
        jobs = lie(inspector, *["buried"] * count)
        before = there(server)
    with closing(inspecting(server, restart)) as inspector:
        answers = inspector.change_all(moves(jobs))
        assert {type(answer) for answer in answers} == {NotDurable}
        # withdrawn on another connection
        assert there(server) == before
        assert {type(answer) for answer in inspector.insert_all([NewForm(b"x", HERE, "buried")])} == {NotDurable}
    assert there(server) == before


def test_each_job_of_a_packet_has_its_own_error(server: Beanstalkd, inspector: BeanstalkInspector) -> None:
    jobs = lie(inspector, *["buried"] * 5)
    inspector.delete(jobs[1])
    large = bytes(inspector.status().max_job + 1)
    asked = [
        Change(jobs[0], "buried", b"a"),
        Change(jobs[1], "buried", b"b"),
        Change(jobs[2], "ready", large),
        Change(jobs[3], "ready", tube="no tube\r\n"),
        Change(jobs[4], "ready"),
    ]
    answers = inspector.change_all(asked)
    assert [type(answer).__name__ for answer in answers] == ["str", "JobNotFound", "JobTooBig", "QueueError", "str"]
    assert there(server) == sorted(
        [(HERE, "buried", b"2"), (HERE, "buried", b"3"), (HERE, "buried", b"a"), (HERE, "ready", b"4")]
    )


@contextmanager
def cut(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """The connection breaks when the nth window was sent, before its answers are read."""
    calls: list[int] = []
    exchange = BeanstalkConnection._exchange

    def broken(self: BeanstalkConnection, client: Any, packet: Any) -> None:
        calls.append(1)
        known = len(packet.results)
        exchange(self, client, packet)
        if len(calls) == step:
            del packet.results[known:]
            raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(BeanstalkConnection, "_exchange", broken)
        yield


@pytest.mark.parametrize("window", [1, 2])
def test_a_connection_that_breaks_between_puts_leaves_only_what_nobody_knows_of(
    server: Beanstalkd, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    with closing(inspecting(server)) as inspector:
        jobs = lie(inspector, *["buried"] * (3 * WINDOW))
        # three windows for the look at the old jobs, then those of the puts
        with cut(monkeypatch, 4 + window):
            answers = inspector.change_all([Change(job, "ready", job.body + b"!", ASIDE) for job in jobs])
    assert all(isinstance(answer, QueueUnavailable) for answer in answers)
    found = there(server)
    assert [body for tube, _, body in found if tube == HERE] == sorted(job.body for job in jobs)
    unknown = jobs[window * WINDOW : (window + 1) * WINDOW]
    assert {body for tube, _, body in found if tube == ASIDE} == {job.body + b"!" for job in unknown}


@pytest.mark.parametrize(("step", "state"), [*product(range(1, 8), WAITING)])
def test_a_connection_that_breaks_at_any_step_loses_nothing(
    server: Beanstalkd, monkeypatch: pytest.MonkeyPatch, step: int, state: WaitingState
) -> None:
    """One packet is sent, and its answers are lost."""
    with closing(inspecting(server)) as inspector:
        jobs = lie(inspector, *["buried"] * 4)
        changes = [Change(job, state, job.body + b"!", ASIDE, 3600) for job in jobs]
        with cut(monkeypatch, step):
            answers = inspector.change_all(changes)
    found = {body for _, _, body in there(server)}
    for job, answer in zip(jobs, answers, strict=True):
        assert job.body in found or job.body + b"!" in found
        if isinstance(answer, str):
            assert job.body not in found
    assert len(there(server)) <= 8
