"""Tasks whose proof does not come: nobody is told that they were added, and they are taken back where they can be."""

from __future__ import annotations

import contextlib
import functools
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from glassq import connections
from glassq.database.engine import parse_url
from glassq.delivery import decode
from glassq.errors import DeadlineExceeded
from glassq.push import client as adding
from glassq.push import taskqueue
from glassq.push.client import Client
from glassq.push.names import Names
from glassq.push.taskqueue import Queue, Task
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.queues.beanstalk.prover import SyncerProver
from glassq.settings import PushSettings, Settings
from glassq.values import TargetUrl
from tests.conftest import PATIENCE
from tests.queues.binlog import failing
from tests.queues.test_forms import Watched, frozen, inspecting, killed, refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

TUBE = "glassq.push.default"
# How long a claim of a name lasts that is to run out, in seconds.
CONFIRM = 3.0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    """One whose binlog can be broken."""
    with failing(tmp_path, monkeypatch) as running:
        yield running


def adder(server: Beanstalkd, tmp_path: Path, *, confirm: float = PATIENCE, **more: Any) -> Client:
    names = f"sqlite:///{tmp_path}/names.db"
    push = PushSettings(names=names, targets={"default": TargetUrl("http://127.0.0.1:8080")})
    settings = Settings(file="glassq.toml", queue=server.settings, push=push)
    return Client(settings, names=Names(parse_url(names, "[push] names"), confirm=confirm), **more)


def watched(server: Beanstalkd, before: Callable[[], object]) -> BeanstalkProducer:
    def connection() -> BeanstalkConnection:
        return BeanstalkConnection(server.url, "glassq", ttr=60, connect_timeout=20, timeout=20)

    return BeanstalkProducer(connection, Watched(server, before))


def tasks_in(server: Beanstalkd) -> list[str]:
    with contextlib.closing(inspecting(server)) as looking:
        return sorted(decode(job.body).labels.get("task", "") for job in looking.find(ALL_STATES, [TUBE]))


def names_in(tmp_path: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(tmp_path / "names.db")) as database:
        return dict(database.execute("SELECT name, state FROM task_names").fetchall())


@pytest.mark.parametrize("trouble", [frozen, killed, refusing])
def test_without_a_proof_no_task_is_added_and_what_was_put_is_taken_back(
    server: Beanstalkd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Beanstalkd], None]
) -> None:
    with contextlib.closing(adder(server, tmp_path)) as client:
        queue = Queue("default", client=client)
        queue.add(Task(name="before"))
        trouble(server)
        tasks = [Task(name="a"), Task(name="b"), Task()]
        with monkeypatch.context() as patch, pytest.raises(taskqueue.TransientError, match="syncer"):
            if trouble is frozen:
                # nobody answers, however long he is waited for
                patch.setattr(adding, "PUT_WITHIN", 0.5)
            queue.add(tasks)
        assert [task.was_enqueued for task in tasks] == [False] * 3
        # Else who adds the third one again has it worked twice.
        assert tasks_in(server) == ["before"]
        assert names_in(tmp_path) == {"before": "put"}
        if trouble is refusing:
            return
        server.syncer.stop()
        server.syncer.start()
        assert queue.add(Task(name="a")).was_enqueued
        assert names_in(tmp_path) == {"before": "put", "a": "put"}


def test_without_a_proof_the_name_of_a_task_that_is_at_work_runs_out(server: Beanstalkd, tmp_path: Path) -> None:
    with contextlib.closing(server.queue()) as worker:

        def begin() -> None:
            assert worker.reserve(20, [TUBE]) is not None
            server.syncer.stop(signal.SIGKILL)

        client = adder(server, tmp_path, confirm=CONFIRM, producer=watched(server, begin))
        with contextlib.closing(client):
            queue = Queue("default", client=client)
            with pytest.raises(taskqueue.TransientError, match="syncer"):
                queue.add([Task(name="a"), Task(name="b")])
        assert (tasks_in(server), names_in(tmp_path)) == (["a"], {"a": "claimed"})
        # The claim runs out, and the name can be added again.
        server.syncer.start()
        with contextlib.closing(adder(server, tmp_path, confirm=CONFIRM)) as client:
            assert Queue("default", client=client).add(Task(name="a")).was_enqueued
    assert names_in(tmp_path) == {"a": "put"}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, DeadlineExceeded])
@pytest.mark.parametrize("step", ["put", "confirm"])
def test_what_is_interrupted_before_its_proof_confirms_and_frees_no_name(
    server: Beanstalkd, tmp_path: Path, step: str, interrupt: type[BaseException]
) -> None:
    producer = watched(server, lambda: None)
    act = getattr(producer, step)

    def interrupted(jobs: Any, **how: Any) -> None:
        if step == "put":
            act(jobs, **how)
        raise interrupt

    setattr(producer, step, interrupted)
    with contextlib.closing(adder(server, tmp_path, producer=producer)) as client, pytest.raises(interrupt):
        Queue("default", client=client).add(Task(name="a"))
    assert (tasks_in(server), names_in(tmp_path)) == (["a"], {"a": "claimed"})


def test_what_the_put_has_taken_the_proof_has_less(server: Beanstalkd, tmp_path: Path) -> None:
    producer, given, taken = watched(server, lambda: None), [], []

    def timed(act: Callable[..., Any], *args: Any, within: float) -> Any:
        begun = time.monotonic()
        given.append(within)
        answer = act(*args, within=within)
        taken.append(time.monotonic() - begun)
        return answer

    for step in ("put", "confirm"):
        setattr(producer, step, functools.partial(timed, getattr(producer, step)))
    with contextlib.closing(adder(server, tmp_path, producer=producer)) as client:
        Queue("default", client=client).add(Task())
    assert given[1] <= given[0] - taken[0]


def test_many_tasks_share_one_proof_and_are_confirmed_after_it(server: Beanstalkd, tmp_path: Path) -> None:
    seen: list[tuple[int, set[str]]] = []

    def look() -> None:
        seen.append((len(tasks_in(server)), set(names_in(tmp_path).values())))

    with contextlib.closing(adder(server, tmp_path, producer=watched(server, look))) as client:
        Queue("default", client=client).add([Task(name=f"task-{number}") for number in range(100)])
    assert seen == [(100, {"claimed"})]
    assert set(names_in(tmp_path).values()) == {"put"}


def test_a_server_that_is_killed_and_started_between_put_and_proof_has_proven_nothing(
    server: Beanstalkd, tmp_path: Path
) -> None:
    def restart() -> None:
        server.stop(signal.SIGKILL, syncer=False)
        server.start()

    with contextlib.closing(adder(server, tmp_path, producer=watched(server, restart))) as client:
        task = Task(name="a")
        with pytest.raises(taskqueue.TransientError, match="restarted"):
            Queue("default", client=client).add(task)
    assert (task.was_enqueued, names_in(tmp_path)) == (False, {"a": "claimed"})


def test_an_add_asks_the_engine_for_no_statistics(
    server: Beanstalkd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a connection that was idle for long is tested, however busy this machine is
    monkeypatch.setattr(connections, "IDLE", 3600.0)
    producer = BeanstalkProducer(
        lambda: BeanstalkConnection(server.url, "glassq", ttr=60, connect_timeout=20, timeout=20),
        SyncerProver(server.syncer.address, connect_timeout=5),
    )
    with contextlib.closing(adder(server, tmp_path, producer=producer)) as client:
        queue = Queue("default", client=client)
        queue.add(Task())

        def asked(*_: object) -> None:
            raise AssertionError("it asked")

        for name in ("stats", "stats_job", "stats_tube", "connect"):
            monkeypatch.setattr(BeanstalkConnection, name, asked)
        for _ in range(3):
            queue.add(Task())
