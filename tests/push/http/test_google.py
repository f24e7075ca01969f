"""Google's own client of Cloud Tasks, pointed at glassq-tasks."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials

from tests.conftest import ROOT
from tests.push.http.conftest import TOKEN

if TYPE_CHECKING:
    from google.auth.credentials import Credentials as AnyCredentials
    from google.cloud import tasks_v2  # noqa: TC004 - _google imports it

    from tests.push.http.conftest import Tasks

URL = "http://127.0.0.1:9/base/send"


@pytest.fixture(scope="module", autouse=True)
def _google() -> None:
    """Imports their client here, as that takes longer than to collect all other modules: for these tests alone."""
    global tasks_v2
    from google.cloud import tasks_v2


def connected(tcp: Tasks, credentials: AnyCredentials) -> tasks_v2.CloudTasksClient:
    where = {"api_endpoint": f"http://127.0.0.1:{tcp.address[1]}"}
    return tasks_v2.CloudTasksClient(credentials=credentials, transport="rest", client_options=where)


@pytest.fixture(scope="module")
def client(tcp: Tasks) -> tasks_v2.CloudTasksClient:
    return connected(tcp, Credentials(TOKEN))  # type: ignore[no-untyped-call]


def test_a_url_is_all_that_a_task_needs(client: tasks_v2.CloudTasksClient) -> None:
    parent = client.queue_path("p", "l", "mail")
    made = client.create_task(parent=parent, task={"http_request": {"url": URL}})
    assert (made.http_request.url, made.http_request.http_method) == (URL, tasks_v2.HttpMethod.POST)
    assert client.get_task(name=made.name).name == made.name
    client.delete_task(name=made.name)


def test_a_task_is_created_shown_listed_run_and_deleted(client: tasks_v2.CloudTasksClient) -> None:
    parent, name = client.queue_path("p", "l", "mail"), client.task_path("p", "l", "mail", "all-of-it")
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    sent = tasks_v2.Task(
        name=name,
        http_request=tasks_v2.HttpRequest(
            url=URL, http_method=tasks_v2.HttpMethod.PUT, headers={"X-Trace": "7"}, body=b"\0\xff"
        ),
        schedule_time=due,
        dispatch_deadline=timedelta(seconds=20),
    )
    made = client.create_task(parent=parent, task=sent)
    assert (made.name, made.schedule_time, made.dispatch_deadline) == (name, due, timedelta(seconds=20))
    seen = client.get_task(request={"name": name, "response_view": tasks_v2.Task.View.FULL})
    assert (seen.http_request.body, dict(seen.http_request.headers)) == (b"\0\xff", {"X-Trace": "7"})
    assert seen.view == tasks_v2.Task.View.FULL
    with pytest.raises(exceptions.Conflict):
        client.create_task(parent=parent, task=sent)
    others = {client.create_task(parent=parent, task={"http_request": {"url": URL}}).name for _ in range(3)}
    assert {name, *others} <= {task.name for task in client.list_tasks(request={"parent": parent, "page_size": 2})}
    assert client.run_task(name=name).schedule_time == due
    client.delete_task(name=name)
    with pytest.raises(exceptions.NotFound):
        client.get_task(name=name)


def test_what_is_refused_is_the_exception_that_google_has_for_it(client: tasks_v2.CloudTasksClient) -> None:
    parent = client.queue_path("p", "l", "mail")
    with pytest.raises(exceptions.BadRequest, match=r"push\.targets"):
        client.create_task(parent=parent, task={"http_request": {"url": "https://evil.test/"}})
    oidc = {"service_account_email": "a@b"}
    with pytest.raises(exceptions.BadRequest, match="oidcToken"):
        client.create_task(parent=parent, task={"http_request": {"url": URL, "oidc_token": oidc}})
    with pytest.raises(exceptions.NotFound, match="is not in"):
        client.create_task(parent=client.queue_path("p", "l", "none"), task={"http_request": {"url": URL}})
    with pytest.raises(exceptions.MethodNotImplemented, match=r"queue\.yaml"):
        client.delete_queue(name=parent)


def test_the_example_in_the_documents_adds_a_task(tcp: Tasks, client: tasks_v2.CloudTasksClient) -> None:
    page = (ROOT / "docs" / "tasks-http.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for here, there in (("the token", TOKEN), ("127.0.0.1:8083", f"127.0.0.1:{tcp.address[1]}"), ("8082", "9/base")):
        assert here in code
        code = code.replace(here, there)
    parent = client.queue_path("p", "l", "mail")
    before = len(list(client.list_tasks(parent=parent)))
    exec(code, {})
    assert len(list(client.list_tasks(parent=parent))) == before + 1


def test_queues_are_shown_paused_resumed_and_purged(client: tasks_v2.CloudTasksClient) -> None:
    parent = client.queue_path("p", "l", "mail")
    client.create_task(parent=parent, task={"http_request": {"url": URL}})
    assert client.get_queue(name=parent).rate_limits.max_dispatches_per_second == 100
    assert client.pause_queue(name=parent).state == tasks_v2.Queue.State.PAUSED
    assert client.resume_queue(name=parent).state == tasks_v2.Queue.State.RUNNING
    assert [queue.name for queue in client.list_queues(parent="projects/p/locations/l")][1] == parent
    client.purge_queue(name=parent)
    assert not list(client.list_tasks(parent=parent))


def test_a_wrong_token_in_the_credentials_is_one_that_they_cannot_renew(tcp: Tasks) -> None:
    client = connected(tcp, Credentials("wrong"))  # type: ignore[no-untyped-call]
    with pytest.raises(RefreshError):
        client.list_tasks(parent=client.queue_path("p", "l", "mail"))


def test_a_token_may_come_as_metadata_and_without_one_nothing_is_done(tcp: Tasks) -> None:
    client = connected(tcp, AnonymousCredentials())  # type: ignore[no-untyped-call]
    parent = client.queue_path("p", "l", "mail")
    bearer = [("authorization", "bearer the-next-one")]
    assert client.create_task(parent=parent, task={"http_request": {"url": URL}}, metadata=bearer).name
    before = len(tcp.deliveries())
    for token in ("", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
        answer = tcp.ask(
            f"POST /tasks/mail HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nAuthorization: {token}\r\n\r\n{{}}".encode()
        )
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), token
    assert len(tcp.deliveries()) == before


# The methods that are refused, each with a request that would be right for Google.
QUEUE, LOCATION = "projects/p/locations/l/queues/mail", "projects/p/locations/l"
REFUSED: dict[str, dict[str, Any]] = {
    "create_queue": {"parent": LOCATION, "queue": {"name": QUEUE}},
    "update_queue": {"queue": {"name": QUEUE}},
    "delete_queue": {"name": QUEUE},
    "batch_create_tasks": {"request": {"parent": QUEUE, "requests": [{"parent": QUEUE, "task": {}}]}},
    "batch_delete_tasks": {"request": {"parent": QUEUE, "names": [f"{QUEUE}/tasks/a"]}},
    "get_cmek_config": {"name": f"{LOCATION}/cmekConfig"},
    "update_cmek_config": {"cmek_config": {"name": f"{LOCATION}/cmekConfig"}},
    "get_iam_policy": {"resource": QUEUE},
    "set_iam_policy": {"request": {"resource": QUEUE, "policy": {}}},
    "test_iam_permissions": {"resource": QUEUE, "permissions": ["a"]},
    "list_locations": {"request": {"name": "projects/p"}},
    "get_location": {"request": {"name": LOCATION}},
    "get_operation": {"request": {"name": f"{LOCATION}/operations/1"}},
}


def test_the_documents_tell_of_each_method_of_the_client_what_becomes_of_it(
    client: tasks_v2.CloudTasksClient,
) -> None:
    page = (ROOT / "docs" / "tasks-http.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (does it|refused: \"(.+)\") \|$", page, re.MULTILINE)
    told = {name: why for names, _, why in rows for name in re.findall(r"[a-z_]+", names)}
    calls = inspect.getmembers(type(client), inspect.isfunction)
    assert told.keys() == {name for name, call in calls if "timeout" in inspect.signature(call).parameters}
    assert {name for name, why in told.items() if why} == REFUSED.keys()
    for name, request in REFUSED.items():
        with pytest.raises(exceptions.MethodNotImplemented, match=re.escape(told[name])):
            getattr(client, name)(**request)
