"""The console on the booted machine: under its unit, reached through its socket and by ssh, as operators reach it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

UNITS = "glassq-console.socket glassq-console.service"
SOCKET = "/run/glassq-console.sock"
CURL = "curl -sS -H Sec-Fetch-Site:same-origin"
# by the groups that let them in, and act
USERS = {"anna": "glassq-console,glassq-operators", "boris": "glassq-console", "carl": ""}


@pytest.fixture(scope="module")
def console(glassq: Machine) -> Iterator[Machine]:
    """The machine with the console and its users, who come in by ssh with root's key; afterwards as it was."""
    glassq.run("mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    for user, groups in USERS.items():
        glassq.run(f"useradd -m {user} && usermod -G '{groups}' {user} && install -d -o {user} -m 700 ~{user}/.ssh")
        glassq.run(f"install -o {user} -m 600 /root/.ssh/id_ed25519.pub ~{user}/.ssh/authorized_keys")
    glassq.shows(f"systemctl enable --now {UNITS} 2>&1")
    yield glassq
    glassq.run(f"systemctl disable --now {UNITS}")
    for user in USERS:
        # it says that there is no mail
        glassq.run(f"userdel -r {user} 2>/dev/null")


def ask(machine: Machine, user: str, path: str, *options: str) -> str:
    """What a user's program gets at the socket, and the status behind it."""
    asks = f"{CURL} --unix-socket {SOCKET} -b /tmp/{user}.jar -c /tmp/{user}.jar -w '\\n%{{http_code}}'"
    return machine.tells(f"runuser -u {user} -- {asks} {' '.join(options)} http://localhost{path}")


def read(machine: Machine, user: str, path: str) -> dict[str, Any]:
    found, _, status = ask(machine, user, path).rpartition("\n")
    assert status == "200", found
    document: dict[str, Any] = json.loads(found)
    return document


def test_its_groups_come_in_as_what_they_are_and_nobody_else(console: Machine) -> None:
    assert console.run(f"stat -c '%A %U %G' {SOCKET}") == "srw-rw---- root glassq-console"
    for user in ("anna", "boris"):
        assert ask(console, user, "/login", "-d code=").endswith("303")
    assert "000curl: (7)" in ask(console, "carl", "/login", "-d code=")
    assert read(console, "boris", "/login.json")["role"] == "viewer"
    assert ask(console, "boris", "/pause", "-d for=10m").endswith("403")
    assert ask(console, "anna", "/pause", "-d for=10m").endswith("303")
    assert ask(console, "anna", "/resume", "-d tube=").endswith("303")
    did = [(each["actor"], each["via"], each["did"]) for each in read(console, "boris", "/activity.json")["activities"]]
    assert did[:2] == [("anna", "console", "resume"), ("anna", "console", "pause")]
    console.shows("glassq activity | head -n 3")


def test_by_ssh_it_knows_who_comes(console: Machine) -> None:
    options = "-o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ExitOnForwardFailure=yes"
    for user, role in (("anna", "operator"), ("carl", None)):
        console.run(f"ssh -f -N -M -S /root/{user} {options} -L 8099:{SOCKET} {user}@127.0.0.1 >/dev/null 2>&1")
        said = console.tells(f"{CURL} http://localhost:8099/login.json")
        console.run(f"ssh -S /root/{user} -O exit {user}@127.0.0.1 2>&1")
        if role:
            assert json.loads(said) == {"who": user, "role": role, "todo": ""}
        else:
            assert said.startswith("curl: ")


def test_its_health_says_nothing_is_wrong_that_doctor_finds_right(console: Machine) -> None:
    def wrong(document: dict[str, Any]) -> set[str]:
        return {check["name"] for check in document["checks"] if check["ok"] is False}

    assert wrong(read(console, "anna", "/health.json")) <= wrong(json.loads(console.tells("glassq doctor --json")))


def test_it_kicks_what_is_buried_and_says_what_came_of_it(console: Machine) -> None:
    def buried() -> list[str]:
        jobs = read(console, "anna", "/buried.json?group=0")["jobs"]
        return [job["delivery"] for job in jobs if "as it was asked" in job["reason"]]

    def leads_to(path: str, form: str) -> str:
        """Where the answer to this form sends a browser."""
        return (
            ask(console, "anna", path, f"-o /dev/null -w '%{{redirect_url}}\\n' -d {form}")
            .split("localhost")[1]
            .split()[0]
        )

    wait_for(buried, "the census to see it")
    [delivery, *_] = buried()
    run = leads_to(leads_to("/plan/kick", f"id={delivery}"), "pace=all")
    wait_for(lambda: read(console, "anna", f"{run}.json")["state"] == "done", "the run to be over")
    assert read(console, "anna", f"{run}.json")["done"] == 1
    wait_for(lambda: delivery in buried(), "it to be buried again, as it was asked")


def test_a_session_outlives_a_reload_and_a_restart_and_its_rights_do_not_outlive_the_group(console: Machine) -> None:
    for change in ("reload", "restart"):
        console.run(f"systemctl {change} glassq-console")
        assert read(console, "anna", "/login.json")["who"] == "anna"
        assert ask(console, "anna", "/live").endswith("200")
    console.run("gpasswd -d anna glassq-operators")
    assert ask(console, "anna", "/pause", "-d for=10m").endswith("403")
    console.run("usermod -aG glassq-operators anna")


def test_it_sees_no_secret_and_may_do_nothing(console: Machine) -> None:
    seen = console.run(f"nsenter -t {console.pid('glassq-console')} -m ls /etc/glassq/secrets")
    assert seen.split() == ["none"]
    console.shows("systemd-analyze security --no-pager --threshold=11 glassq-console | tail -n 1; echo exit $?")
    console.run("systemd-analyze security --no-pager --threshold=11 glassq-console >/dev/null")
