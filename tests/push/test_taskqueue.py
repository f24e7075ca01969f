"""The task queue API on a real beanstalkd: what is in the queue after each call."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq.delivery import Delivery, decode
from glassq.errors import JobTooBig, SettingsError
from glassq.push import taskqueue
from glassq.push.client import Client
from glassq.push.request import TaskRequest, from_labels
from glassq.push.rule import RetryParameters
from glassq.push.taskqueue import Queue, Task, TaskRetryOptions
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.packet import Unanswered
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.settings import PushSettings, Settings
from glassq.values import TargetUrl
from tests.conftest import Beanstalkd, wait_for
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.protocol import JobStats

BIG = ("-z", "131072")
TUBE = "glassq.push.default"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Beanstalkd]:
    # some tests make clients without a syncer
    started = Beanstalkd(tmp_path, options=(*BIG, "-f0"))
    yield started
    started.stop()


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    file = tmp_path / "queue.yaml"
    file.write_text("queue:\n- name: mail\n  rate: 1/s\n- name: back\n  rate: 1/s\n  target: backend\n")
    return file


@pytest.fixture
def settings(server: Beanstalkd, tmp_path: Path, yaml: Path) -> Settings:
    targets = {"default": TargetUrl("http://127.0.0.1:8080"), "backend": TargetUrl("http://127.0.0.1:8081")}
    push = PushSettings(queue_yaml=str(yaml), names=f"sqlite:///{tmp_path / 'names.db'}", targets=targets)
    return Settings(file="glassq.toml", queue=server.settings, push=push)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    made = Client(settings)
    yield made
    made.close()


@pytest.fixture
def default(client: Client) -> Queue:
    return Queue("default", client=client)


def take(server: Beanstalkd, tube: str = TUBE) -> list[Delivery]:
    """All that is ready in this tube, oldest first, deleted."""
    queue = BeanstalkConnection(server.url, tube, ttr=60, connect_timeout=1, timeout=2)
    found = []
    while (job := queue.reserve(0)) is not None:
        found.append(decode(job.body))
        queue.delete(job.id)
    queue.close()
    return found


def count(server: Beanstalkd, state: str = "ready", tube: str = TUBE) -> int:
    queue = server.queue()
    found: int = getattr(queue.stats_tube(tube), state)
    queue.close()
    return found


def test_a_task_becomes_a_delivery_that_says_what_to_request(server: Beanstalkd, default: Queue) -> None:
    options = TaskRetryOptions(task_retry_limit=3)
    task = Task(
        b"\x00photo", url="/work", name="photo-17", headers={"X-Own": "1"}, target="backend", retry_options=options
    )
    assert default.add(task) is task
    assert (task.was_enqueued, task.queue_name, task.name) == (True, "default", "photo-17")
    [delivery] = take(server)
    assert (delivery.source, delivery.body) == ("push", b"\x00photo")
    assert from_labels(delivery.labels) == TaskRequest(
        queue="default",
        name="photo-17",
        url="/work",
        target="backend",
        headers={"X-Own": "1"},
        retry=RetryParameters(task_retry_limit=3),
    )


def test_a_task_without_a_name_is_given_that_of_its_delivery(server: Beanstalkd, default: Queue) -> None:
    task = default.add(Task())
    [delivery] = take(server)
    assert task.name == delivery.id == delivery.labels["task"]


def test_a_task_without_a_url_goes_to_that_of_its_queue(server: Beanstalkd, client: Client) -> None:
    Queue("mail", client=client).add([Task(), Task(method="GET", params={"a": "b"})])
    urls = [delivery.labels["url"] for delivery in take(server, "glassq.push.mail")]
    assert urls == ["/_ah/queue/mail", "/_ah/queue/mail?a=b"]


def test_an_eta_delays_the_job_by_whole_seconds_and_is_told(server: Beanstalkd, default: Queue) -> None:
    task = default.add(Task(countdown=100.5))
    queue = server.queue()
    [found] = [each for each in queue.scan(frozenset({"delayed"}), TUBE) if not isinstance(each, tuple)]
    assert found.delay == 101 or found.delay == 100  # type: ignore[union-attr]
    assert float(decode(queue.peek(found.id).body).labels["eta"]) == task.eta_posix  # type: ignore[union-attr]
    queue.close()


def test_an_eta_that_has_passed_delays_nothing(server: Beanstalkd, default: Queue) -> None:
    default.add(Task(countdown=-100))
    assert count(server) == 1


def test_a_list_is_added_whole_and_an_empty_one_is_nothing(server: Beanstalkd, default: Queue) -> None:
    tasks = [Task(url=f"/{number}") for number in range(100)]
    assert default.add(tasks) == tasks
    assert all(task.was_enqueued for task in tasks)
    assert [delivery.labels["url"] for delivery in take(server)] == [task.url for task in tasks]
    assert default.add([]) == []


@pytest.mark.parametrize(
    ("tasks", "error"),
    [
        ([Task() for _ in range(101)], taskqueue.TooManyTasksError),
        ([Task(name="a"), Task(), Task(name="a")], taskqueue.DuplicateTaskNameError),
        ([Task()] * 2, taskqueue.BadTaskStateError),
        ([Task(), Task(target="elsewhere")], taskqueue.InvalidTaskError),
        ([Task(), "task"], taskqueue.InvalidTaskError),
        ([Task(), Task(headers={"A": '"' * 100_000})], taskqueue.TaskTooLargeError),
    ],
)
def test_what_is_refused_as_a_whole_puts_nothing(
    server: Beanstalkd, default: Queue, tasks: list[Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        default.add(tasks)
    assert count(server) == 0
    default.add(Task(name="a"))


def test_a_task_is_added_once(default: Queue) -> None:
    task = default.add(Task())
    with pytest.raises(taskqueue.BadTaskStateError):
        default.add(task)


def test_a_transactional_add_is_refused_and_says_why(server: Beanstalkd, default: Queue) -> None:
    with pytest.raises(taskqueue.BadTransactionStateError, match="no transactions"):
        default.add(Task(), transactional=True)
    with pytest.raises(taskqueue.BadTransactionStateError):
        taskqueue.add(url="/work", transactional=True)
    assert count(server) == 0


def test_an_unknown_queue_is_refused_until_queue_yaml_names_it(
    server: Beanstalkd, client: Client, yaml: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = Queue("new", client=client)
    with pytest.raises(taskqueue.UnknownQueueError, match=r"queue\.yaml"):
        new.add(Task())
    yaml.write_text("queue:\n- name: new\n  rate: 1/s\n")
    new.add(Task())
    yaml.write_text("queue: [}\n")
    new.add(Task())
    assert "queue.yaml" in caplog.text
    assert count(server, tube="glassq.push.new") == 2


def test_a_name_that_is_alive_is_refused_and_the_rest_of_the_list_is_added(server: Beanstalkd, default: Queue) -> None:
    default.add(Task(name="a"))
    tasks = [Task(name="b"), Task(name="a"), Task()]
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        default.add(tasks)
    assert [task.was_enqueued for task in tasks] == [True, False, True]
    assert count(server) == 3


def test_names_are_each_queues_own(client: Client) -> None:
    for name in ("default", "mail"):
        assert Queue(name, client=client).add(Task(name="a")).was_enqueued


def test_a_name_whose_task_is_gone_is_tombstoned(client: Client, default: Queue) -> None:
    default.add(Task(name="a"))
    client.names.mark_finished("default", "a")
    with pytest.raises(taskqueue.TombstonedTaskError):
        default.add(Task(name="a"))


def test_no_connection_is_a_transient_error_and_a_named_task_may_be_added_again(
    server: Beanstalkd, default: Queue
) -> None:
    server.stop()
    task = Task(name="a")
    with pytest.raises(taskqueue.TransientError):
        default.add([task, Task(name="b")])
    assert not task.was_enqueued
    server.start()
    assert default.add([task, Task(name="b")])
    assert count(server) == 2


def test_a_server_that_drains_is_a_transient_error_and_frees_the_names(server: Beanstalkd, default: Queue) -> None:
    default.add(Task())
    server.send(signal.SIGUSR1)
    with pytest.raises(taskqueue.TransientError, match="draining"):
        default.add(Task(name="a"))
    server.stop()
    server.start()
    assert default.add(Task(name="a")).was_enqueued


def test_a_server_that_keeps_nothing_on_disk_confirms_nothing(
    server: Beanstalkd, settings: Settings, default: Queue
) -> None:
    server.stop()
    server.start(durable=False)
    with pytest.raises(taskqueue.TransientError, match="disk"):
        default.add(Task(name="a"))
    assert count(server) == 0


def test_a_connection_that_broke_while_it_lay_idle_costs_no_add(server: Beanstalkd, default: Queue) -> None:
    default.add(Task())
    server.stop()
    server.start()
    # longer than a connection is trusted without a look
    until = time.monotonic() + 1.1
    while time.monotonic() < until:
        time.sleep(0.05)
    assert default.add(Task(name="a")).was_enqueued
    assert count(server) == 2


def test_a_large_task_needs_a_server_that_takes_it(tmp_path: Path, settings: Settings, default: Queue) -> None:
    large = b"x" * (102_400 - Task(url="/work").size)
    assert default.add(Task(large, url="/work")).was_enqueued
    home = tmp_path / "small"
    home.mkdir()
    small = Beanstalkd(home)
    client = Client(msgspec.structs.replace(settings, queue=small.settings))
    tasks = [Task(name="x"), Task(large, url="/work", name="y"), Task(name="z")]
    with pytest.raises(taskqueue.TaskTooLargeError, match=r"its option -z\).*131072 bytes"):
        Queue("default", client=client).add(tasks)
    assert [task.was_enqueued for task in tasks] == [True, False, True]
    assert Queue("default", client=client).add(Task(name="y")).was_enqueued
    client.close()
    small.stop()


def through(kind: type[BeanstalkConnection], server: Beanstalkd) -> BeanstalkProducer:
    return BeanstalkProducer(lambda: kind(server.url, "glassq", ttr=60, connect_timeout=1, timeout=2))


class Troubled(BeanstalkConnection):
    """Puts one job a packet, and loses the answer to every put of a payload that asks for it."""

    def pipeline(self, commands: Sequence[Command[Any]]) -> list[Any]:
        results: list[Any] = []
        for command in commands:
            if results and isinstance(results[-1], Unanswered):
                results.append(Unanswered("the answer to an earlier one was lost", sent=False))
                continue
            results += super().pipeline([command])
            if command.text.endswith(b"lose\r\n"):
                self.close()
                results[-1] = Unanswered("the answer was lost", sent=True)
            if command.text.endswith(b"big\r\n"):
                results[-1] = JobTooBig("too big")
        return results


def test_after_a_lost_answer_the_tasks_before_are_there_and_those_after_are_free(
    server: Beanstalkd, settings: Settings
) -> None:
    client = Client(
        settings,
        producer=BeanstalkProducer(lambda: Troubled(server.url, "glassq", ttr=60, connect_timeout=1, timeout=2)),
    )
    queue = Queue("default", client=client)
    tasks = [Task(name="a"), Task(b"lose", name="b"), Task(name="c")]
    with pytest.raises(taskqueue.TransientError):
        queue.add(tasks)
    assert [task.was_enqueued for task in tasks] == [True, False, False]
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        queue.add(Task(name="a"))
    assert queue.add(tasks[2]).was_enqueued
    # tried by the pool meanwhile: the name is known to be alive, and a second add needs not wait for the claim
    client.names.touch("default", "b")
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        queue.add(tasks[1])
    client.close()


def names_in(tmp_path: Path) -> dict[str, str]:
    """What the names' database holds: name to state."""
    with contextlib.closing(sqlite3.connect(tmp_path / "names.db")) as database:
        return dict(database.execute("SELECT name, state FROM task_names").fetchall())


def test_a_task_whose_answer_was_lost_keeps_its_name_claimed_and_one_that_was_refused_frees_it(
    server: Beanstalkd, settings: Settings, tmp_path: Path
) -> None:
    client = Client(
        settings,
        producer=BeanstalkProducer(lambda: Troubled(server.url, "glassq", ttr=60, connect_timeout=1, timeout=2)),
    )
    queue = Queue("default", client=client)
    with pytest.raises(taskqueue.TransientError):
        queue.add([Task(name="put"), Task(b"lose", name="lost"), Task(name="unsent")])
    assert names_in(tmp_path) == {"put": "put", "lost": "claimed"}
    server.send(signal.SIGUSR1)
    with pytest.raises(taskqueue.TransientError, match="draining"):
        queue.add(Task(name="refused"))
    assert "refused" not in names_in(tmp_path)
    client.close()


class Quick(BeanstalkConnection):
    """A job is worked before its adder can look at it."""

    worked = False

    def stats_job(self, job_id: int) -> JobStats:
        if not self.worked:
            self.worked = True
            self.delete(job_id)
        return super().stats_job(job_id)


class Forgetful(BeanstalkConnection):
    """Its server has stopped writing to disk."""

    def stats_job(self, job_id: int) -> JobStats:
        return dataclasses.replace(super().stats_job(job_id), file=0)


class QuickAndForgetful(Quick, Forgetful):
    """Both at once."""


# What somebody has worked cannot be taken back: only an attempt, or time, says more of its name.
@pytest.mark.parametrize(("kind", "names"), [(Forgetful, {}), (QuickAndForgetful, {"a": "claimed"})])
def test_what_was_put_after_the_binlog_failed_is_not_confirmed(
    server: Beanstalkd, settings: Settings, tmp_path: Path, kind: type[BeanstalkConnection], names: dict[str, str]
) -> None:
    client = Client(
        settings, producer=BeanstalkProducer(lambda: kind(server.url, "glassq", ttr=60, connect_timeout=1, timeout=2))
    )
    task = Task(name="a")
    with pytest.raises(taskqueue.TransientError, match="memory only"):
        Queue("default", client=client).add(task)
    assert not task.was_enqueued
    assert (count(server), names_in(tmp_path)) == (0, names)
    client.close()


def test_a_task_that_was_worked_at_once_was_added(server: Beanstalkd, settings: Settings, tmp_path: Path) -> None:
    client = Client(
        settings, producer=BeanstalkProducer(lambda: Quick(server.url, "glassq", ttr=60, connect_timeout=1, timeout=2))
    )
    assert Queue("default", client=client).add(Task(name="a")).was_enqueued
    assert (count(server), names_in(tmp_path)) == (0, {"a": "put"})
    client.close()


def test_add_async_says_at_get_result_what_add_would_have_said(server: Beanstalkd, default: Queue) -> None:
    task = Task(name="a")
    assert default.add_async(task).get_result() is task
    later = default.add_async([Task(name="a")])
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        later.get_result()
    assert count(server) == 1


def test_a_purge_empties_one_queue_and_leaves_tombstones(server: Beanstalkd, client: Client, default: Queue) -> None:
    mail = Queue("mail", client=client)
    default.add([Task(name="a"), Task(countdown=1000), Task()])
    mail.add(Task(name="a"))
    default.purge()
    assert (count(server), count(server, "delayed"), count(server, tube="glassq.push.mail")) == (0, 0, 1)
    with pytest.raises(taskqueue.TombstonedTaskError):
        default.add(Task(name="a"))


def test_a_purge_works_while_the_server_drains_and_notes_only_names_that_authors_gave(
    server: Beanstalkd, client: Client, default: Queue, tmp_path: Path
) -> None:
    default.add([Task(name=f"n-{number}" if number % 2 else None) for number in range(30)])
    server.send(signal.SIGUSR1)
    assert client.purge("default") == 30
    assert count(server) == 0
    assert names_in(tmp_path) == {f"n-{number}": "gone" for number in range(1, 30, 2)}


def test_tasks_are_deleted_by_name(server: Beanstalkd, default: Queue) -> None:
    named, unnamed, other = default.add([Task(name="a"), Task(), Task(name="other")])
    assert default.delete_tasks([named, unnamed])[0].was_deleted and unnamed.was_deleted
    assert [delivery.labels["task"] for delivery in take(server)] == [other.name]
    assert not default.delete_tasks_by_name("nobody").was_deleted
    for wrong, error in (
        (Task(), taskqueue.BadTaskStateError),
        (named, taskqueue.BadTaskStateError),
        ([Task(name="x"), Task(name="x")], taskqueue.DuplicateTaskNameError),
    ):
        with pytest.raises(error):
            default.delete_tasks(wrong)  # type: ignore[call-overload]
    with pytest.raises(taskqueue.TombstonedTaskError):
        default.add(Task(name="a"))


def test_threads_share_a_client_and_every_task_arrives_once(server: Beanstalkd, default: Queue) -> None:
    def run(number: int) -> None:
        for each in range(20):
            default.add(Task(url=f"/{number}/{each}", name=f"{number}-{each}" if each % 5 == 0 else None))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    urls = [delivery.labels["url"] for delivery in take(server)]
    assert sorted(urls) == sorted(f"/{number}/{each}" for number in range(8) for each in range(20))


def test_both_sides_of_a_fork_add_on_connections_of_their_own(server: Beanstalkd, default: Queue) -> None:
    default.add(Task(name="before"))
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for each in range(10):
                    default.add(Task(url=f"/{number}", name=f"{number}-{each}"))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    for each in range(10):
        default.add(Task(url="/parent", name=f"parent-{each}"))
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert len(take(server)) == 41


def test_after_a_fork_the_child_has_a_connection_of_its_own_and_keeps_none_of_its_parent(
    server: Beanstalkd, client: Client, default: Queue
) -> None:
    def connections(expected: int) -> bool:
        queue = server.queue()
        found = queue.stats().connections - queue.stats_tube("glassq.syncer").using
        queue.close()
        # beside those of the client the one that looks
        return found == expected + 1

    default.add(Task())
    wait_for(lambda: connections(1), "the parent's connection")
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(let_go)
            default.add(Task())
            os.read(hold, 1)
            code = 0
        finally:
            os._exit(code)
    os.close(hold)
    try:
        wait_for(lambda: connections(2), "a connection of the child's own", 20)
        client.close()
        wait_for(lambda: connections(1), "the parent's to be closed, which the child holds no more", 20)
    finally:
        os.close(let_go)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0
    assert len(take(server)) == 2


def test_without_a_push_section_there_is_a_clear_refusal(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"glassq.toml: missing section \[push\]"):
        Client(msgspec.structs.replace(settings, push=None))


def test_module_functions_use_the_settings_file_that_was_named(
    server: Beanstalkd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "glassq.toml"
    file.write_text(
        f'{queue_section(server.url)}[push]\nnames = "sqlite:///{tmp_path}/names.db"\n'
        '[push.targets]\ndefault = "http://127.0.0.1:8080"\n'
    )
    try:
        for path, environment in ((str(file), ""), (None, str(file))):
            monkeypatch.setenv("GLASSQ_CONFIG", environment)
            taskqueue.configure(path)
            assert taskqueue.add(url="/work", params={"a": "b"}).was_enqueued
            assert Task("text").add().was_enqueued
        taskqueue.configure(str(tmp_path / "nowhere.toml"))
        with pytest.raises(SettingsError, match=r"nowhere\.toml"):
            taskqueue.add()
    finally:
        taskqueue.configure(None)
    assert [delivery.body for delivery in take(server)] == [b"a=b", b"text"] * 2
