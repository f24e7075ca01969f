"""The booted machine under load: every unit restarted, reloaded, killed and frozen, and each ping counted."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import wait_for
from tests.system.load import Load, worked
from tests.system.machine import SETTINGS, Machine

SERVICES = ("glassq-web", "glassq-worker", "glassq-beanstalkd", "glassq-syncer")
# Short, so that nobody need wait for long; the unit's own is two minutes.
WATCHDOG = "[Service]\nWatchdogSec=6\n"
WATCHDOG_FILE = "etc/systemd/system/glassq-worker.service.d/watchdog.conf"


@pytest.mark.parametrize(
    "unit", [*(f"{name}.service" for name in SERVICES), "glassq-beanstalkd.socket", "glassq-syncer.socket"]
)
def test_a_restart_costs_no_ping(glassq: Machine, unit: str) -> None:
    with Load(glassq, f"restart-{unit}") as load:
        for _ in range(2):
            glassq.run(f"systemctl restart {unit}")
            glassq.wait_active(*SERVICES[:2])
            load.flow()
    assert load.sent_again() == set()


@pytest.mark.parametrize("unit", ["glassq-web.socket", "glassq.target"])
def test_while_the_address_itself_is_restarted_pings_are_refused_and_none_is_lost(glassq: Machine, unit: str) -> None:
    with Load(glassq, f"restart-{unit}") as load:
        glassq.run(f"systemctl restart {unit}")
    assert load.acknowledged() == load.answers.keys()


def test_a_reload_costs_no_ping_and_new_settings_are_in_force(glassq: Machine) -> None:
    before = [glassq.pid(name) for name in SERVICES]
    with Load(glassq, "reload") as load:
        reload(glassq, workers=3, processes=6)
        load.flow()
        reload(glassq, workers=2, processes=4)
    assert load.sent_again() == set()
    # nothing was restarted for it
    assert [glassq.pid(name) for name in SERVICES] == before


def reload(machine: Machine, *, workers: int, processes: int) -> None:
    """Until there are so many of them."""
    text = (machine.root / SETTINGS).read_text()
    for name, number in (("workers", workers), ("processes", processes)):
        text = re.sub(rf"^{name} = \d+$", f"{name} = {number}", text, flags=re.MULTILINE)
    machine.write(SETTINGS, text)
    machine.run("systemctl reload glassq-web glassq-worker")
    wait_for(lambda: len(machine.children("glassq-web")) == workers, f"the intake to have {workers} workers")
    wait_for(lambda: consumers(machine) == processes, f"the pool to have {processes} consumers")
    machine.transcript.say(f"reloaded: {workers} workers of the intake, {processes} consumers")


def consumers(machine: Machine) -> int:
    """How many the queue knows."""
    return int(json.loads(machine.run("glassq status --json"))["queue"]["workers"])


@pytest.mark.parametrize("unit", ["glassq-worker", "glassq-beanstalkd", "glassq-syncer"])
def test_a_kill_of_what_is_behind_the_intake_costs_no_ping(glassq: Machine, unit: str) -> None:
    with Load(glassq, f"kill-{unit}") as load:
        before = glassq.pid(unit)
        glassq.run(f"kill -9 {before}")
        glassq.wait_active(unit, instead_of=before)
    assert load.sent_again() == set()


def test_what_a_killed_pool_was_at_is_worked_and_not_buried(glassq: Machine) -> None:
    assert glassq.ping("slow-killed") == ["200"]
    wait_for(lambda: "slow-killed" in begun(glassq), "it to be under way")
    before = glassq.pid("glassq-worker")
    # the children that wait for a job die one after the other, and each may get this one before it does
    glassq.run(f"kill -9 {before}")
    glassq.wait_active("glassq-worker", instead_of=before)
    wait_for(lambda: "slow-killed" in worked(glassq), "it to be worked")


def test_a_kill_of_the_intake_loses_nothing_that_it_acknowledged(glassq: Machine) -> None:
    with Load(glassq, "kill-glassq-web") as load:
        before = glassq.pid("glassq-web")
        glassq.run(f"kill -9 {before}")
        glassq.wait_active("glassq-web", instead_of=before)
    # those that were just being answered get nothing, and their sender sends them again
    assert load.acknowledged() == load.answers.keys()
    assert {status for statuses in load.answers.values() for status in statuses} <= {0, 200}


def test_a_pool_that_freezes_is_killed_by_the_watchdog_and_what_was_under_way_is_worked(glassq: Machine) -> None:
    glassq.write(WATCHDOG_FILE, WATCHDOG)
    glassq.run("systemctl daemon-reload && systemctl restart glassq-worker")
    glassq.wait_active("glassq-worker")
    slow = [f"slow-{number}" for number in range(4)]
    with Load(glassq, "freeze") as load:
        before = glassq.pid("glassq-worker")
        frozen = [before, *glassq.children("glassq-worker")]
        assert glassq.ping(*slow) == ["200"] * 4
        wait_for(lambda: begun(glassq) >= set(slow), "all of them to be under way")
        glassq.run(f"kill -STOP {' '.join(frozen)}")
        glassq.transcript.say(f"frozen: the pool with its {len(frozen) - 1} children, {len(slow)} at work")
        glassq.wait_active("glassq-worker", instead_of=before)
        wait_for(lambda: worked(glassq).keys() >= set(slow), "what was under way to be worked")
    assert load.sent_again() == set()
    assert glassq.tells(f"ls -d {' '.join(f'/proc/{pid}' for pid in frozen)} 2>/dev/null") == ""
    said = glassq.shows("journalctl --no-pager -o cat -u glassq-worker | grep -A2 'Watchdog timeout'")
    assert "Watchdog timeout" in said
    (glassq.root / WATCHDOG_FILE).unlink()
    glassq.run("systemctl daemon-reload && systemctl restart glassq-worker")
    glassq.wait_active("glassq-worker")


def begun(machine: Machine) -> set[str]:
    return set((machine.root / "var/lib/glassq/begun").read_text().split())


def test_after_a_reboot_all_is_up_by_itself_and_what_waited_is_worked(glassq: Machine) -> None:
    items = [f"before-{number}" for number in range(20)]
    glassq.run("systemctl stop glassq-worker")
    assert glassq.ping(*items) == ["200"] * len(items)
    glassq.reboot()
    glassq.wait_active(*SERVICES)
    assert glassq.ping("after") == ["200"]
    wait_for(lambda: worked(glassq).keys() >= {*items, "after"}, "all to be worked")
    glassq.transcript.say(f"{len(items)} pings waited while it was down; all of them were worked")


HOLDER = """[Unit]
DefaultDependencies=no
Before=glassq-web.socket
[Service]
Type=notify
NotifyAccess=all
ExecStart=python3 -c "import socket, subprocess, time; held = socket.create_server(('127.0.0.1', 8080)); \\
    subprocess.run(['systemd-notify', '--ready']); time.sleep(9999)"
[Install]
WantedBy=sockets.target
"""


def test_an_address_that_is_taken_at_boot_is_listened_on_once_it_is_free(glassq: Machine) -> None:
    glassq.write("etc/systemd/system/holder.service", HOLDER)
    glassq.run("systemctl daemon-reload && systemctl enable holder")
    glassq.reboot()
    glassq.wait_active("glassq-worker")
    assert not glassq.active("glassq-web.socket")
    glassq.run("systemctl disable --now holder && rm /etc/systemd/system/holder.service && systemctl daemon-reload")
    glassq.wait_active(*SERVICES)
    assert glassq.ping("after-it-was-free") == ["200"]
