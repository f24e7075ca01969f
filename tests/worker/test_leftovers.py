"""Processes that handlers start: they end with an attempt that is cut off, and stay after one that comes to its end."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from glassq.errors import Interrupted
from glassq.queues.base import Reservation
from glassq.worker.lease import Lease
from glassq.worker.scoreboard import Scoreboard
from tests.conftest import wait_for
from tests.worker.conftest import jobs, made
from tests.worker.pools import HANDLERS, PoolRun, processes, title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues import Receiver
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

Make = "Callable[..., PoolRun]"

# Each of these leaves a process that writes its pid into the file `left`.
STARTERS = (
    HANDLERS
    + """
import os, signal, subprocess

SLEEPER = str(HERE / "sleeper.sh")
Path(SLEEPER).write_text(f"echo $$ >> '{HERE}/left'; exec sleep 1000")

def left():
    path = HERE / "left"
    return path.read_text().split() if path.exists() else []

def double_fork():
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    os.setsid()
    if os.fork() == 0:
        with (HERE / "left").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(1000)
    os._exit(0)

WAYS = [
    lambda: subprocess.Popen(["sh", SLEEPER]),
    lambda: subprocess.Popen(["sh", "-c", f"sh '{SLEEPER}' & wait"]),
    lambda: os.system(f"sh '{SLEEPER}' &"),
    lambda: subprocess.Popen(["sh", SLEEPER], start_new_session=True),
    lambda: subprocess.Popen(["sh", SLEEPER], start_new_session=True, env={}),
    lambda: os.system(f"setsid sh '{SLEEPER}' &"),
    double_fork,
]

def start_all():
    for way in WAYS:
        before = len(left())
        way()
        while len(left()) == before:
            time.sleep(0.01)

def starts_and_returns(name):
    start_all()

def starts_and_fails(name):
    start_all()
    raise ValueError("no")

def starts_and_waits(name):
    start_all()
    tell("started", name)
    hold(name)

def starts_and_waits_stubbornly(name):
    start_all()
    tell("started", name)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def starts_and_dies(name):
    start_all()
    os._exit(0)

def starts_and_is_killed(name):
    start_all()
    os.kill(os.getpid(), signal.SIGKILL)

def overruns(name):
    time.sleep(1000)

def waits_for_its_own(name):
    for code in range(20):
        # an orphan of its own beside each, which ends as well
        os.system("sleep 0.01 &")
        assert subprocess.run(["sh", "-c", f"exit {code}"]).returncode == code
"""
)
NUMBER = 7


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    runs: list[PoolRun] = []

    def make(**worker: object) -> PoolRun:
        runs.append(PoolRun(tmp_path, beanstalkd, look, **worker))
        runs[-1].write_handlers(STARTERS)
        return runs[-1]

    yield make
    for run in runs:
        run.__exit__()
        for pid in left(run):
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def left(run: PoolRun) -> list[int]:
    path = run.dir / "left"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def lives(pid: int) -> bool:
    """Whether it is there, and still what was started."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command.startswith((b"sleep\x001000", b"sh\x00/", b"glassq-worker: child"))
    return False


def workers(run: PoolRun) -> list[int]:
    """The children of the pool, without orphans that it has adopted."""
    return [pid for pid in run.children() if _leads(pid) and title(pid).startswith("glassq-worker: child")]


def _leads(pid: int) -> bool:
    """Whether it leads a process group; one that has just ended does not."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def started(run: PoolRun, name: str, do: str) -> list[int]:
    """Has it work such a delivery; the pids of all that its handler has started."""
    before = len(left(run))
    run.put(name, do)
    wait_for(lambda: len(left(run)) == before + NUMBER, f"all to be started\n{run.log()}")
    return left(run)[before:]


def gone(run: PoolRun, pids: list[int]) -> None:
    wait_for(lambda: not any(map(lives, pids)), f"{[pid for pid in pids if lives(pid)]} to end\n{run.log()}")


CUT_OFF = {
    "soft deadline": ("starts_and_waits", {"deadline": "60s", "grace": "57s"}),
    "hard deadline": ("starts_and_waits_stubbornly", {"deadline": "4s", "grace": "1s", "max_lost": 1}),
    "exits": ("starts_and_dies", {"max_lost": 1}),
    "killed": ("starts_and_is_killed", {"max_lost": 1}),
}


@pytest.mark.parametrize("way", CUT_OFF)
def test_an_attempt_that_is_cut_off_takes_all_that_it_started_with_it(make: Make, way: str) -> None:
    do, worker = CUT_OFF[way]
    run = make(**worker).start().ready()
    gone(run, started(run, "cut", do))
    wait_for(lambda: "ended what the handler had started" in run.log(), "the log to say so")


def test_a_cold_stop_takes_all_that_was_started_with_it(make: Make, look: Queue) -> None:
    run = make().start().ready()
    pids = started(run, "cut", "starts_and_waits")
    run.send(signal.SIGQUIT)
    assert run.ended() == 0
    gone(run, pids)
    assert [job.state for job in jobs(look)] == ["ready"]


def test_a_child_that_is_killed_from_outside_leaves_nothing_of_its_attempt(make: Make) -> None:
    run = make(max_lost=1).start().ready()
    pids = started(run, "cut", "starts_and_waits")
    os.kill(workers(run)[0], signal.SIGKILL)
    gone(run, pids)


@pytest.mark.parametrize("do", ["starts_and_returns", "starts_and_fails"])
def test_what_a_handler_leaves_behind_at_its_end_outlives_others_that_are_cut_off(
    make: Make, look: Queue, do: str
) -> None:
    run = make(deadline="60s", grace="58s", max_attempts=1).start().ready()
    pids = started(run, "ends", do)
    run.put("late", "overruns")
    wait_for(lambda: "overran its deadline" in run.log(), f"another attempt to be cut off\n{run.log()}")
    (child,) = workers(run)
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: set(workers(run)) - {child}, "the child to be replaced")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    assert [pid for pid in pids if not lives(pid)] == [], run.log()
    assert "ended what the handler had started" not in run.log()


def test_what_was_started_just_before_an_attempt_outlives_it() -> None:
    """As a server of a handler's test does: what was there before the attempt is no part of it."""
    lease = Lease(cast("Receiver", None), math.inf, Scoreboard(1).slots[0])
    for _ in range(20):
        with sleeper() as before:
            lease.start(Reservation("1", "", b"", math.inf), made("cut"), deadline=math.inf, hard=math.inf)
            with sleeper() as started:
                lease.end_leftovers(Interrupted())
                assert started.wait(60) == -signal.SIGKILL
            assert before.poll() is None


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_another_child_works_on_is_left_alone(make: Make) -> None:
    run = make(processes=2, max_lost=1).start().ready()
    neighbours = started(run, "neighbour", "starts_and_waits")
    gone(run, started(run, "cut", "starts_and_is_killed"))
    assert [pid for pid in neighbours if not lives(pid)] == [], run.log()


def test_orphans_are_reaped_and_a_handler_gets_the_exit_codes_of_its_own(make: Make) -> None:
    run = make().start().ready()
    run.put("waits", "waits_for_its_own")
    wait_for(lambda: run.story("end"), f"each to end as it should\n{run.log()}")
    assert run.process is not None
    (child,) = workers(run)

    def zombies() -> list[int]:
        parents = (child, run.process.pid if run.process else 0)
        return [pid for pid, (parent, state) in processes().items() if parent in parents and state == "Z"]

    wait_for(lambda: not zombies(), f"no zombie to be left: {zombies()}")


# A program that starts others in its group, in a session of their own, and as orphans, and waits.
PROGRAM = """#!/bin/sh
trap '' TERM
cd {place}
sh ./sleeper.sh &
setsid sh ./sleeper.sh &
(setsid sh ./sleeper.sh & )
(env -i PATH="$PATH" sh ./sleeper.sh & )
echo $$ >> left
exec sleep 1000
"""


@pytest.mark.parametrize("way", ["deadline", "cold stop", "killed child"])
def test_a_program_that_is_cut_off_takes_all_that_it_started_with_it(make: Make, way: str) -> None:
    run = make(max_lost=1, deadline="60s", grace="57s" if way == "deadline" else "1s")
    program = run.dir / "program"
    program.write_text(PROGRAM.format(place=run.dir))
    program.chmod(0o755)
    run.write_settings("exec:./program")
    (run.dir / "sleeper.sh").write_text(f"echo $$ >> '{run.dir}/left'; exec sleep 1000")
    run.start().ready()
    run.put("cut")
    wait_for(lambda: len(left(run)) == 5 and all(map(lives, left(run))), f"all to run\n{run.log()}")
    if way == "cold stop":
        run.send(signal.SIGQUIT)
    elif way == "killed child":
        os.kill(workers(run)[0], signal.SIGKILL)
    gone(run, left(run))
