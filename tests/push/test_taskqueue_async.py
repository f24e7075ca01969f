"""What goes on in a thread while its caller does something else; and what is known of a queue."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from glassq import taskqueue
from glassq.delivery import decode
from glassq.push.client import Client
from glassq.push.pending import Pending, Threads
from glassq.push.taskqueue import Queue, QueueStatistics, Task
from glassq.settings import load
from tests.conftest import PATIENCE, wait_for
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

TUBE = "glassq.push.default"


@pytest.fixture
def config(tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Path]:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: default\n  rate: 30/m\n- name: mail\n  rate: 1/s\n")
    file = tmp_path / "glassq.toml"
    file.write_text(
        f'{queue_section(beanstalkd.url)}[push]\nqueue_yaml = "{tmp_path}/queue.yaml"\n'
        f'names = "sqlite:///{tmp_path}/names.db"\n[push.targets]\ndefault = "http://127.0.0.1:8080"\n'
    )
    taskqueue.configure(str(file))
    yield file
    taskqueue.configure(None)


def ready(beanstalkd: Beanstalkd, tube: str = TUBE) -> int:
    queue = beanstalkd.queue()
    found = queue.stats_tube(tube).ready
    queue.close()
    return found


# -- awaited ---------------------------------------------------------------------------------------------------------


def test_an_add_is_awaited_by_function_task_and_queue(config: Path, beanstalkd: Beanstalkd) -> None:
    async def main() -> list[Any]:
        return [
            await taskqueue.add_async(b"payload", url="/work", queue_name="mail"),
            await Task(url="/work").add_async("mail"),
            await Queue("mail").add_async(Task(url="/work")),
            *await Queue("mail").add_async(Task(url=f"/{number}") for number in range(3)),
        ]

    tasks = asyncio.run(main())
    assert all(task.was_enqueued and task.queue_name == "mail" for task in tasks)
    assert ready(beanstalkd, "glassq.push.mail") == len(tasks) == 6


def test_many_adds_at_once_arrive_once_each(config: Path, beanstalkd: Beanstalkd) -> None:
    async def main() -> list[Task]:
        return await asyncio.gather(*(taskqueue.add_async(url=f"/{number}") for number in range(100)))

    assert {task.url for task in asyncio.run(main())} == {f"/{number}" for number in range(100)}
    assert ready(beanstalkd) == 100


def test_the_loop_goes_on_while_an_add_waits(config: Path, beanstalkd: Beanstalkd) -> None:
    async def main() -> int:
        beanstalkd.send(signal.SIGSTOP)
        adding = asyncio.ensure_future(asyncio.wait_for(taskqueue.add_async(url="/work"), PATIENCE))
        turns = 0
        try:
            while turns < 20:
                await asyncio.sleep(0.01)
                assert not adding.done()
                turns += 1
        finally:
            beanstalkd.send(signal.SIGCONT)
        await adding
        return turns

    assert asyncio.run(main()) == 20
    assert ready(beanstalkd) == 1


def test_what_add_would_raise_is_raised_where_it_is_awaited(config: Path) -> None:
    async def main() -> None:
        await taskqueue.add_async(name="a")
        with pytest.raises(taskqueue.TaskAlreadyExistsError):
            await taskqueue.add_async(name="a")
        with pytest.raises(taskqueue.UnknownQueueError):
            await taskqueue.add_async(queue_name="nowhere")
        with pytest.raises(taskqueue.BadTransactionStateError):
            await taskqueue.add_async(transactional=True)
        taskqueue.configure("/nowhere/glassq.toml")
        with pytest.raises(taskqueue.ConfigurationError):
            await taskqueue.add_async()

    asyncio.run(main())


def test_an_add_goes_on_where_nobody_waits_for_it_any_more(config: Path, beanstalkd: Beanstalkd) -> None:
    async def main() -> Pending[Task]:
        beanstalkd.send(signal.SIGSTOP)
        try:
            added = taskqueue.add_async(url="/work")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(added, 0.05)
        finally:
            beanstalkd.send(signal.SIGCONT)
        return added

    added = asyncio.run(main())
    # until its thread has given its connections back
    added.wait()
    wait_for(lambda: ready(beanstalkd) == 1, "the task to be in the queue")


def test_it_has_the_methods_of_app_engines_rpc(config: Path) -> None:
    made = taskqueue.add_async(name="a")
    made.wait()
    made.check_success()
    assert made.get_result().name == "a"
    again = taskqueue.add_async(name="a")
    again.wait()
    for ask in (again.check_success, again.get_result):
        with pytest.raises(taskqueue.TaskAlreadyExistsError):
            ask()


def test_tasks_are_deleted_in_a_thread(config: Path, beanstalkd: Beanstalkd) -> None:
    queue = Queue()
    tasks = queue.add([Task(name=name) for name in "abc"])

    async def main() -> None:
        await queue.delete_tasks_async(tasks[:1])
        await queue.delete_tasks_by_name_async("b")
        [last] = await queue.delete_tasks_by_name_async(["c"])
        assert last.was_deleted

    asyncio.run(main())
    assert tasks[0].was_deleted
    assert ready(beanstalkd) == 0


def test_a_program_ends_only_when_what_it_has_begun_to_add_is_kept(config: Path, beanstalkd: Beanstalkd) -> None:
    code = "from glassq import taskqueue\nfor number in range(50):\n    taskqueue.add_async(url=f'/{number}')\n"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "GLASSQ_CONFIG": str(config)}, check=True)
    assert ready(beanstalkd) == 50


def test_both_sides_of_a_fork_have_threads_of_their_own() -> None:
    threads = Threads()
    assert threads.start(os.getpid).get_result() == os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if threads.start(os.getpid).get_result() == os.getpid() else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert threads.start(os.getpid).get_result() == os.getpid()


def test_a_call_runs_in_another_thread_and_its_error_is_its_own() -> None:
    threads = Threads()
    assert threads.start(threading.get_ident).get_result() != threading.get_ident()
    failed: Pending[float] = threads.start(lambda: 1 / 0)
    failed.wait()
    with pytest.raises(ZeroDivisionError):
        failed.check_success()


# -- statistics ------------------------------------------------------------------------------------------------------


def test_an_empty_queue_has_nothing_to_tell_but_its_rate(config: Path) -> None:
    found = Queue().fetch_statistics()
    assert found == QueueStatistics(Queue(), 0, None, None, 0, 0.5)


def test_statistics_count_what_waits_is_delayed_and_runs_but_not_what_lies_buried(
    config: Path, beanstalkd: Beanstalkd
) -> None:
    before = time.time()
    Queue().add([Task(url="/first"), Task(url="/second"), Task(url="/buried")])
    Queue().add(Task(countdown=1000))
    consumer = beanstalkd.queue()
    running = consumer.reserve(0, [TUBE])
    assert running is not None
    other = consumer.reserve(0, [TUBE])
    assert other is not None
    consumer.bury(other.id)
    found = Queue().fetch_statistics()
    assert (found.tasks, found.in_flight, found.executed_last_minute) == (3, 1, None)
    assert found.oldest_eta_usec is not None
    assert before * 1e6 - 1 <= found.oldest_eta_usec <= time.time() * 1e6
    consumer.close()


def test_the_oldest_eta_is_the_one_that_its_task_was_given(config: Path, beanstalkd: Beanstalkd) -> None:
    task = Queue().add(Task(countdown=-60))
    assert Queue().fetch_statistics().oldest_eta_usec == round(task.eta_posix * 1e6)
    queue = beanstalkd.queue()
    job = queue.peek_first("ready", TUBE)
    assert job is not None
    assert decode(job.body).labels["task"] == task.name
    queue.put(b"damaged", tube="glassq.push.mail")
    queue.close()
    assert Queue("mail").fetch_statistics().oldest_eta_usec is None


def test_a_paused_queue_has_no_rate(config: Path, beanstalkd: Beanstalkd) -> None:
    Queue().add(Task())
    queue = beanstalkd.queue()
    assert queue.pause(1000, TUBE)
    queue.close()
    assert Queue().fetch_statistics().enforced_rate == 0.0


def test_statistics_are_fetched_by_name_queue_or_several_of_them_and_awaited(config: Path) -> None:
    assert QueueStatistics.fetch("mail").queue == Queue("mail")
    assert QueueStatistics.fetch(Queue("mail")).enforced_rate == 1.0
    assert [each.queue.name for each in QueueStatistics.fetch(["default", "mail"])] == ["default", "mail"]
    assert [each.queue.name for each in QueueStatistics.fetch([Queue("mail")], deadline=5)] == ["mail"]

    async def main() -> list[Any]:
        return [await Queue("mail").fetch_statistics_async(), await QueueStatistics.fetch_async(["mail"])]

    one, several = asyncio.run(main())
    assert [one] == several


@pytest.mark.parametrize(
    ("deadline", "error"),
    [(0, taskqueue.InvalidDeadlineError), (-1.0, taskqueue.InvalidDeadlineError), ("1", TypeError), (None, TypeError)],
)
def test_a_deadline_that_cannot_be_meant_is_refused(config: Path, deadline: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="deadline"):
        Queue().fetch_statistics(deadline)


def test_statistics_of_a_queue_that_is_not_there_or_cannot_be_asked_are_errors(
    config: Path, beanstalkd: Beanstalkd
) -> None:
    with pytest.raises(taskqueue.UnknownQueueError):
        Queue("nowhere").fetch_statistics()
    client = Client(load(str(config), {}))
    beanstalkd.stop()
    with pytest.raises(taskqueue.TransientError):
        Queue(client=client).fetch_statistics(deadline=5)
    client.close()
