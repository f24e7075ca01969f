"""What the pool's parent makes of a silent child: real processes, and heartbeats as the test has them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from glassq.worker import health
from glassq.worker.health import OVERRUN, SILENT, STOPPED, Health
from glassq.worker.layout import State, WorkerStatus
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

SILENCE, MAX_SILENCE = 3.0, 6.0
QUICK = 0.25
# It says when it is up.
PROGRAMS = {
    # a fifth of the time, which is four times what makes it busy
    "busy": "import time; print(1, flush=True)\nwhile True: sum(range(200_000)); time.sleep(0.02)",
    "asleep": "import time; print(1, flush=True); time.sleep(1000)",
}


class Child:
    """A process whose heart beat last when it was made; `verdict` is what its parent makes of it now.

    Its times are `scale` times as long.
    """

    def __init__(self, program: str, scale: float = 1.0) -> None:
        self.silence, self.max_silence = SILENCE * scale, MAX_SILENCE * scale
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAMS[program]], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.beat = time.monotonic()
        self.health = Health(self.process.pid, idle_recent=scale)

    def verdict(self, state: State = State.WAITING, deadline: float = 0.0) -> str:
        status = WorkerStatus(state, 0, 1, self.beat, self.beat, deadline, 1, "id", 0.0, "")
        return self.health.verdict(status, time.monotonic(), self.silence, self.max_silence)

    def silent_for(self) -> float:
        return time.monotonic() - self.beat


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    yield from made(request.param)


@pytest.fixture
def quick_child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """For a test that a busy machine may hold up for any time."""
    for name in ("RECENT", "CPU_WINDOW"):
        monkeypatch.setattr(health, name, getattr(health, name) * QUICK)
    yield from made(request.param, QUICK)


def made(program: str, scale: float = 1.0) -> Iterator[Child]:
    child = Child(program, scale)
    yield child
    child.process.kill()
    child.process.communicate()


quick_both = pytest.mark.parametrize("quick_child", PROGRAMS, indirect=True)
quick_asleep = pytest.mark.parametrize("quick_child", ["asleep"], indirect=True)
busy = pytest.mark.parametrize("child", ["busy"], indirect=True)
asleep = pytest.mark.parametrize("child", ["asleep"], indirect=True)


@quick_both
def test_in_an_attempt_the_deadline_alone_ends_silence(quick_child: Child) -> None:
    over = time.monotonic() + 2 * quick_child.silence
    while time.monotonic() < over:
        assert quick_child.verdict(State.WORKING, over + 60) == ""
        time.sleep(0.1)
    assert quick_child.verdict(State.WORKING, over) == OVERRUN


@quick_both
def test_one_that_is_stopped_is_frozen_whatever_it_does(quick_child: Child) -> None:
    quick_child.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: quick_child.verdict(State.WORKING, time.monotonic() + 60) == STOPPED, "it to be found out")
    assert quick_child.silent_for() > quick_child.silence


@asleep
def test_one_that_was_stopped_for_a_moment_is_not(child: Child) -> None:
    child.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: not child.verdict() and child.silent_for() > 2, "it to be looked at")
    child.process.send_signal(signal.SIGCONT)
    over = time.monotonic() + SILENCE
    while time.monotonic() < over:
        assert child.verdict(State.WORKING, over + 60) == ""
        time.sleep(0.1)


@quick_asleep
def test_outside_of_an_attempt_one_that_does_nothing_is_frozen(quick_child: Child) -> None:
    wait_for(lambda: quick_child.verdict() == SILENT, "it to be found out")
    assert quick_child.silent_for() > quick_child.silence


@busy
def test_outside_of_an_attempt_one_that_uses_the_cpu_has_more_time_but_not_without_end(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a busy machine it gets far less than it asks for
    monkeypatch.setattr(health, "BUSY_SHARE", 0.01)
    wait_for(lambda: child.verdict() == SILENT, "it to be found out")
    assert child.silent_for() > MAX_SILENCE


@quick_asleep
def test_a_heartbeat_makes_it_well_again(quick_child: Child) -> None:
    wait_for(lambda: quick_child.verdict() == SILENT, "it to be found out")
    quick_child.beat = time.monotonic()
    assert quick_child.verdict() == ""
