"""Tasks over HTTP and a schedule on the booted machine: glassq-tasks under its unit, and the pool behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.system.machine import SETTINGS, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = ("glassq-tasks.socket", "glassq-tasks.service")
SOCKET = "/run/glassq/tasks.sock"
# Asks the socket, and prints status and answer.
ASK = """import http.client, socket, sys
method, path, *body = sys.argv[1:]
connection = http.client.HTTPConnection("localhost", timeout=60)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/glassq/tasks.sock")
connection.request(method, path, *[text.encode() for text in body])
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
MORE = """
[[routes]]
source = "push"
url = "/orders/*"
handler = "exec:/etc/glassq/order.sh"
[[routes]]
source = "schedule"
handler = "exec:/etc/glassq/order.sh"
[[schedule]]
name = "nightly"
cron = "30 2 * * *"
zone = "Europe/Berlin"
body = "a report"
"""


@pytest.fixture(scope="module")
def push(glassq: Machine) -> Iterator[Machine]:
    """The machine with a route for tasks and one for a schedule, and glassq-tasks; afterwards as it was."""
    before = (glassq.root / SETTINGS).read_text()
    glassq.write("usr/local/share/ask.py", ASK)
    glassq.write("etc/glassq/order.sh", '#!/bin/sh\necho "worked: $(cat), due ${GLASSQ_LABEL_DUE:-now}"\n')
    glassq.run("chmod 755 /etc/glassq/order.sh")
    glassq.write(SETTINGS, before + MORE)
    glassq.run("glassq config check")
    glassq.shows(
        f"systemctl daemon-reload && systemctl restart glassq-worker && systemctl enable --now {' '.join(UNITS)}"
    )
    glassq.wait_active("glassq-worker", "glassq-tasks")
    yield glassq
    glassq.run(f"systemctl disable --now {' '.join(UNITS)}")
    glassq.write(SETTINGS, before)
    glassq.run("rm /usr/local/share/ask.py /etc/glassq/order.sh")
    glassq.run("systemctl daemon-reload && systemctl restart glassq-worker")
    glassq.wait_active("glassq-worker")


def ask(machine: Machine, *words: str) -> str:
    """What a program of the user `app` gets as an answer."""
    return machine.tells(f"runuser -u app -- python3 /usr/local/share/ask.py {' '.join(words)}")


def test_only_the_group_of_clients_may_add_tasks(push: Machine) -> None:
    assert push.run(f"stat -c '%A %U %G' {SOCKET}") == "srw-rw---- glassq glassq-clients"
    assert "Permission denied" in ask(push, "POST", "/tasks/default/orders/1", "one")
    push.run("usermod -aG glassq-clients app")
    assert ask(push, "POST", "/tasks/default/orders/1", "one").startswith("200 ")
    wait_for(lambda: "worked: one, due now" in push.log("glassq-worker"), "the task to be worked")
    # what else is there stays closed to it
    assert "Permission denied" in push.tells("runuser -u app -- cat /etc/glassq/secrets/credentials-key")


def test_a_name_stays_taken_over_a_restart_of_the_server_that_refuses_no_task(push: Machine) -> None:
    named = ("POST", "/v2/projects/p/locations/l/queues/default/tasks")
    task = """'{"task": {"name": "projects/p/locations/l/queues/default/tasks/seven", "appEngineHttpRequest":"""
    task += """ {"relativeUri": "/orders/7", "body": "c2V2ZW4="}}}'"""
    assert ask(push, *named, task).startswith("200 ")
    push.shows("systemctl restart glassq-tasks")
    assert ask(push, *named, task).startswith("409 ")
    wait_for(lambda: "worked: seven, due now" in push.log("glassq-worker"), "the task to be worked")
    push.shows(
        "systemctl reload glassq-tasks; systemctl status --no-pager --lines=0 glassq-tasks | sed -n '1p;/Active:/p'"
    )
    assert ask(push, *named, task).startswith("409 ")


def test_the_server_of_tasks_sees_its_tokens_alone_and_gets_no_rights(push: Machine) -> None:
    seen = push.run(f"nsenter -t {push.pid('glassq-tasks')} -m ls /etc/glassq/secrets")
    assert seen.split() == ["tasks-tokens"]
    closed = "systemctl show -P MemoryDenyWriteExecute -P NoNewPrivileges -P PrivateUsers glassq-tasks"
    assert push.run(closed).split() == ["yes", "yes", "yes"]
    assert "takes tasks" in push.shows("glassq doctor | grep tasks")


def test_a_schedule_is_shown_and_is_put_when_asked_for(push: Machine) -> None:
    assert "nightly" in push.shows("glassq schedules")
    push.shows("glassq schedules run nightly")
    wait_for(lambda: "worked: a report, due 2" in push.log("glassq-worker"), "its delivery to be worked")
