"""What docs/tasks.md and the example of docs/handlers.md promise, on real servers; and its tables, against the code."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from glassq import deferred, taskqueue
from glassq.delivery import decode
from glassq.routes import Context
from glassq.settings import Settings
from glassq.testing import work
from tests.conftest import PATIENCE, ROOT
from tests.syncers import queue_section
from tests.test_docs import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

PAGE = (ROOT / "docs" / "tasks.md").read_text("utf-8")
TUBE = "glassq.push.default"


# -- Retry-After, in the example of handlers.md ------------------------------------------------------------------------


def asked(retry_after: str | None) -> float:
    """How long the page's handler waits where its service is busy and says this."""

    class Busy(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.send_response(429)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    example = ModuleType("handlers")
    exec(files("handlers.md")["handlers.py"], example.__dict__)
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            invoices = example.Invoices(Settings())
            invoices.address = f"127.0.0.1:{server.server_port}"
            context = Context(Settings())
            context.provide(example.Invoices, invoices)
            body = json.dumps({"id": "o-1", "state": "paid", "cents": 990}).encode()
            came = work(example.handle, body, context=context)
        finally:
            server.shutdown()
            thread.join()
    assert (came.state, came.reason) == ("retrying", "too many invoices at once")
    return came.delay


def test_the_example_waits_as_long_as_its_service_asks_in_seconds_or_by_a_date() -> None:
    assert asked("90") == 90
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    assert 1700 < asked(later) <= 1800
    assert asked("Sun, 06 Nov 1994 08:49:37 GMT") == 1


@pytest.mark.parametrize("nonsense", [None, "", "soon", "-1", "1e9"])
def test_the_example_waits_by_the_backoff_where_its_service_says_nothing_of_use(nonsense: str | None) -> None:
    assert 1 <= asked(nonsense) <= 30


# -- programs that add tasks -----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Path]:
    """All files of the page, with a queue for its settings; the settings are those of this process, too."""
    for name, code in files("tasks.md").items():
        (tmp_path / name).write_text(code)
    config = tmp_path / "glassq.toml"
    names = f'[push]\nnames = "sqlite:///{tmp_path}/names.db"'
    routes = '[[routes]]\nsource = "push"\nurl = "/orders"\nhandler = "handlers:archive"\n'
    text = config.read_text().replace("[push]", names)
    config.write_text(f"{queue_section(beanstalkd.url)}{text}{routes}")
    taskqueue.configure(str(config))
    yield tmp_path
    taskqueue.configure(None)


def put(beanstalkd: Beanstalkd) -> list[tuple[str, bytes]]:
    """The url and payload of all tasks that wait, which are taken away."""
    queue = beanstalkd.queue()
    found = []
    for state in ("ready", "delayed"):
        while (job := queue.peek_first(state, TUBE)) is not None:
            queue.delete(job.id)
            delivery = decode(job.body)
            found.append((delivery.labels["url"], delivery.body))
    queue.close()
    return found


@pytest.mark.parametrize(
    ("program", "count", "url"),
    [("program.py", 1, "/mail/welcome"), ("photos.py", 1, deferred.URL), ("loop.py", 101, "/mail/welcome")],
)
def test_a_program_of_the_page_puts_its_tasks(
    here: Path, beanstalkd: Beanstalkd, program: str, count: int, url: str
) -> None:
    env = {**os.environ, "GLASSQ_CONFIG": str(here / "glassq.toml")}
    subprocess.run([sys.executable, program], cwd=here, env=env, check=True, timeout=PATIENCE)
    found = put(beanstalkd)
    assert len(found) == count
    assert url in {each for each, _ in found}


class HTTPException(Exception):
    """FastAPI's."""

    def __init__(self, status_code: int, detail: str, headers: dict[str, str]) -> None:
        super().__init__(detail)
        self.status_code, self.headers = status_code, headers


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """A framework that is not installed here, as far as the page uses it."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def loaded(file: Path) -> Any:
    module = ModuleType(file.stem)
    exec(file.read_text(), module.__dict__)
    return module


def same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def test_the_fastapi_example_adds_its_task_once_and_refuses_while_the_queue_is_away(
    here: Path, beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = SimpleNamespace(post=lambda _path: same)
    stand_in(monkeypatch, "fastapi", FastAPI=lambda: app, HTTPException=HTTPException)
    example = loaded(here / "fastapi_app.py")
    for _ in range(2):
        assert asyncio.run(example.order(7)) == {"task": "order-7"}
    assert put(beanstalkd) == [("/orders", b"number=7")]
    beanstalkd.stop()
    with pytest.raises(HTTPException) as caught:
        asyncio.run(example.order(8))
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "5"})


def test_the_django_example_adds_its_task_after_the_commit_and_in_an_async_view(
    here: Path, beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit: list[Callable[[], object]] = []
    stand_in(monkeypatch, "django")
    stand_in(monkeypatch, "django.db", transaction=SimpleNamespace(atomic=same, on_commit=commit.append))
    stand_in(monkeypatch, "django.http", HttpRequest=object, JsonResponse=lambda answer: answer)
    example = loaded(here / "django_views.py")
    assert example.order(None, 7) == {"order": 7}
    assert put(beanstalkd) == []
    commit[0]()
    assert put(beanstalkd) == [("/orders", b"number=7")]
    assert asyncio.run(example.later(None, 8))["task"]
    assert put(beanstalkd) == [("/orders", b"number=8")]


# -- the table of taskqueue ------------------------------------------------------------------------------------------

# Of App Engine's SDK: google/appengine/api/taskqueue/taskqueue.py, its __all__ and what its classes have.
ERRORS = [
    "Error",
    "BadTaskStateError",
    "BadTransactionState",
    "BadTransactionStateError",
    "DatastoreError",
    "DuplicateTaskNameError",
    "InternalError",
    "InvalidDeadlineError",
    "InvalidDispatchDeadlineError",
    "InvalidEtaError",
    "InvalidLeaseTimeError",
    "InvalidMaxTasksError",
    "InvalidQueueError",
    "InvalidQueueModeError",
    "InvalidQueueNameError",
    "InvalidTagError",
    "InvalidTaskError",
    "InvalidTaskNameError",
    "InvalidTaskRetryOptionsError",
    "InvalidUrlError",
    "PermissionDeniedError",
    "QueuePausedError",
    "TaskAlreadyExistsError",
    "TaskLeaseExpiredError",
    "TaskTooLargeError",
    "TombstonedTaskError",
    "TooManyTasksError",
    "TransactionalRequestTooLargeError",
    "TransientError",
    "UnknownQueueError",
]
VALUES = {
    "MAX_QUEUE_NAME_LENGTH": 100,
    "MAX_TASK_NAME_LENGTH": 500,
    "MAX_TASK_SIZE_BYTES": 100 * 1024,
    "MAX_PUSH_TASK_SIZE_BYTES": 100 * 1024,
    "MAX_TASKS_PER_ADD": 100,
    "MAX_URL_LENGTH": 2083,
    "MAX_DISPATCH_DEADLINE": timedelta(hours=24),
    "MIN_DISPATCH_DEADLINE": timedelta(seconds=15),
}
GONE = [
    "MAX_PULL_TASK_SIZE_BYTES",
    "MAX_LEASE_SECONDS",
    "MAX_TASKS_PER_LEASE",
    "MAX_TAG_LENGTH",
    "MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES",
    "DEFAULT_APP_VERSION",
    "create_rpc",
]
ARGUMENTS = [
    "payload",
    "queue_name",
    "name",
    "method",
    "url",
    "headers",
    "params",
    "transactional",
    "countdown",
    "eta",
    "retry_options",
    "target",
    "tag",
    "dispatch_deadline_usec",
]
MEMBERS = {
    "Task": [
        "add",
        "add_async",
        "extract_params",
        "name",
        "queue_name",
        "payload",
        "url",
        "on_queue_url",
        "method",
        "headers",
        "eta",
        "eta_posix",
        "size",
        "retry_options",
        "retry_count",
        "tag",
        "target",
        "dispatch_deadline_usec",
        "was_enqueued",
        "was_deleted",
    ],
    "TaskRetryOptions": [
        "min_backoff_seconds",
        "max_backoff_seconds",
        "task_age_limit",
        "max_doublings",
        "task_retry_limit",
    ],
    "Queue": [
        "name",
        "add",
        "add_async",
        "purge",
        "delete_tasks",
        "delete_tasks_async",
        "delete_tasks_by_name",
        "delete_tasks_by_name_async",
        "fetch_statistics",
        "fetch_statistics_async",
        "lease_tasks",
        "lease_tasks_async",
        "lease_tasks_by_tag",
        "lease_tasks_by_tag_async",
        "modify_task_lease",
    ],
    "QueueStatistics": [
        "fetch",
        "fetch_async",
        "queue",
        "tasks",
        "oldest_eta_usec",
        "executed_last_minute",
        "in_flight",
        "enforced_rate",
    ],
}


def table() -> dict[str, str]:
    """The first cells of the table of taskqueue, each with the second."""
    part = PAGE.partition("## What is kept of App Engine's taskqueue")[2]
    return {line.split(" | ")[0]: line.split(" | ")[1] for line in part.splitlines() if line.startswith("| ")}


def verdict(name: str) -> str:
    """What the table says of a name."""
    (found,) = {says for cell, says in table().items() if re.search(rf"(?<![a-z_]){name}(?![a-zA-Z_])", cell)} or {""}
    return found


@pytest.mark.parametrize("name", [*ERRORS, *VALUES, *GONE])
def test_the_table_tells_of_every_name_of_app_engines_module_what_became_of_it(name: str) -> None:
    kept = not verdict(name).startswith("not kept")
    assert verdict(name)
    assert hasattr(taskqueue, name) == kept == (name not in GONE)
    if name in VALUES:
        assert getattr(taskqueue, name) == VALUES[name]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_of_add_is_taken_and_told_of(name: str) -> None:
    (cell,) = [each for each in table() if each.startswith("| `add(")]
    assert re.search(rf"\b{name}\b", cell)
    with pytest.raises(Exception) as caught:
        taskqueue.add(**{name: object(), "eta": 7})  # type: ignore[arg-type]
    assert "unexpected keyword" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in MEMBERS.items() for name in names])
def test_every_member_of_app_engines_classes_is_there_and_told_of(kind: str, name: str) -> None:
    made: dict[str, Any] = {
        "Task": taskqueue.Task(),
        "TaskRetryOptions": taskqueue.TaskRetryOptions(),
        "Queue": taskqueue.Queue(),
        "QueueStatistics": taskqueue.QueueStatistics(taskqueue.Queue(), 0),
    }
    assert hasattr(made[kind], name)
    cells = [cell for cell in table() if kind in cell and re.search(rf"\b{name}\b", cell)]
    assert cells


def test_what_belongs_to_pull_queues_says_that_there_are_none() -> None:
    queue = taskqueue.Queue()
    for name in MEMBERS["Queue"]:
        if "lease" in name:
            with pytest.raises(taskqueue.InvalidQueueModeError, match="push queues only"):
                getattr(queue, name)(3600, 100)


def test_every_public_name_stands_in_the_module() -> None:
    assert [name for name in taskqueue.__all__ if not hasattr(taskqueue, name)] == []
