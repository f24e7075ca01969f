"""Handlers that hold the interpreter lock: no heartbeat, no touch, and yet they work."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.settings import LEASE_MARGIN, QueueSettings
from glassq.values import Duration
from tests import forked
from tests.conftest import wait_for
from tests.queues.raw import open_queue
from tests.worker.conftest import jobs, only
from tests.worker.pools import HANDLERS, PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked at in /proc")

Make = "Callable[..., PoolRun]"
# How long a child may be silent here, and how long the lease is that the settings ask for, in seconds.
SILENCE, TTR = 1.5, 5
# Longer than either.
LONG = 7

# Holds the interpreter lock for so many seconds, busy for a fifth of them: all is done within one call of `sum`, which
# never lets another thread run, nor a signal's handler.
BURN = """
import ctypes, itertools

def burn(seconds):
    sum(map(ctypes.PyDLL(None).usleep, map(max, itertools.repeat(range(-30_000, 3001), int(seconds / 0.003)))))
"""
BUSY = (
    HANDLERS
    + BURN
    + f"""
import signal

def burns(name):
    burn({LONG})

def burns_shortly(name):
    burn({SILENCE} * 2)

def burns_for_ever(name):
    sum(range(10**15))

def sleeps_with_the_lock(name):
    ctypes.PyDLL(None).sleep(1000)

def fail(name):
    raise ValueError("no")

def stops_itself(name):
    os.kill(os.getpid(), signal.SIGSTOP)
"""
)
# Its last step is one call in C, which the soft deadline passes.
BURNS_TO_THE_END = f"{BURN}\ndef handle(delivery):\n    burn({SILENCE} * 2)\n"


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    made: list[PoolRun] = []

    def make(**worker: object) -> PoolRun:
        made.append(PoolRun(tmp_path, beanstalkd, look, **worker))
        made[-1].write_handlers(BUSY)
        made[-1].write_settings(queue=f'ttr = "{TTR}s"')
        return made[-1]

    yield make
    for run in made:
        run.__exit__()


def put(run: PoolRun, name: str, do: str) -> str:
    """As an operator puts it: with the lease that the settings ask for. Returns the delivery's id."""
    body = json.dumps({"name": name, "do": do})
    file = run.dir / "ping"
    file.write_text(body)
    code, out, err = forked.run(["--config", str(run.config), "put", "--source", "mirror", "--no-check", str(file)])
    assert code == 0, err
    return out.split()[0]


def test_a_handler_that_holds_the_lock_for_longer_than_silence_and_lease_is_done_once(make: Make, look: Queue) -> None:
    run = make(processes=2)
    run.start_impatient(SILENCE).ready()
    put(run, "busy", "burns")
    wait_for(lambda: run.story("start"), "it to be begun")
    wait_for(lambda: "holds the interpreter lock" in run.log(), f"the log to tell of it\n{run.log()}")
    fed = run.notified.count("WATCHDOG")
    wait_for(lambda: run.notified.count("WATCHDOG") > fed or run.story("end"), "the watchdog to be fed meanwhile")
    assert not run.story("end")
    wait_for(lambda: not jobs(look), f"it to be done\n{run.log()}")
    assert [name for name, _, _ in run.story("start")] == [name for name, _, _ in run.story("end")] == ["busy"]
    (line,) = [line for line in run.log().splitlines() if "holds the interpreter lock" in line]
    assert all(f" {field}=" in line for field in ("delivery", "attempt", "silent", "cpu", "deadline_in"))
    assert "killed" not in run.log()
    assert "lease lost" not in run.log()


@pytest.mark.parametrize("do", ["sleeps_with_the_lock", "stops_itself"])
def test_one_that_never_comes_back_is_ended_by_the_deadline_and_its_story_is_true(
    make: Make, look: Queue, do: str
) -> None:
    run = make(deadline="3s", grace="1s", max_lost=1).start().ready()
    run.put("stuck", do)
    wait_for(lambda: look.stats_tube().buried == 1, f"it to be ended\n{run.log()}")
    (evidence,) = only(look)[1].evidence
    assert evidence.message == "killed by SIGKILL: it overran its hard deadline"
    assert evidence.duration >= 2


def test_one_that_is_stopped_is_ended_long_before_a_long_deadline(make: Make, look: Queue) -> None:
    run = make(max_lost=1).start_impatient(SILENCE).ready()
    run.put("stopped", "stops_itself")
    wait_for(lambda: look.stats_tube().buried == 1, f"it to be ended\n{run.log()}")
    (evidence,) = only(look)[1].evidence
    assert evidence.message == "killed by SIGKILL: it is silent: a signal has stopped it"


def test_work_that_is_finished_counts_as_done_though_the_soft_deadline_has_passed_meanwhile(
    make: Make, look: Queue
) -> None:
    run = make(deadline="30s", grace="29s")
    run.write_handlers(BURNS_TO_THE_END)
    run.start().ready()
    run.put("late")
    wait_for(lambda: " delivery=" in run.log(), "it to come to an end")
    assert " done delivery=" in run.log()
    assert not jobs(look)


def test_a_stop_waits_for_it(make: Make, look: Queue) -> None:
    run = make().start_impatient(SILENCE).ready()
    run.put("busy", "burns_shortly")
    wait_for(lambda: run.story("start"), "it to be begun")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    assert run.story("end")
    assert not jobs(look)
    assert "killed" not in run.log()


def test_a_stop_at_once_ends_it_and_frees_its_job(make: Make, look: Queue) -> None:
    run = make().start().ready()
    run.put("stuck", "burns_for_ever")
    wait_for(lambda: run.story("start"), "it to be begun")
    run.send(signal.SIGQUIT)
    assert run.ended() == 0
    wait_for(lambda: look.stats_tube().ready == 1, "the job to be free")


def test_a_job_with_a_shorter_lease_than_the_settings_ask_for_is_renewed_in_time(
    make: Make, beanstalkd: Beanstalkd, look: Queue
) -> None:
    run = make()
    run.write_settings(queue='ttr = "2m"')
    run.start().ready()
    old = open_queue(QueueSettings(url=beanstalkd.url, ttr=Duration(TTR)))
    body = json.dumps({"name": "old", "do": "hold"}).encode()
    job = old.put(envelope.encode(envelope.new("mirror", body, {})))
    old.close()
    wait_for(lambda: run.story("start"), "it to be begun")
    wait_for(lambda: look.stats_job(job).time_left < TTR - 1, "some of the lease to pass")
    wait_for(lambda: look.stats_job(job).time_left >= TTR - 1, "the lease to be renewed")
    run.let_go()
    wait_for(lambda: not jobs(look), "it to be done")


def test_every_job_that_is_put_has_a_lease_that_outlasts_the_longest_attempt(make: Make, look: Queue) -> None:
    run = make(deadline="20m")
    put(run, "new", "fail")
    (stats,) = jobs(look)
    assert stats.ttr == 20 * 60 + LEASE_MARGIN
    run.start().ready()
    wait_for(lambda: look.stats_tube().delayed == 1, f"it to be put again\n{run.log()}")
    assert only(look)[0].ttr == 20 * 60 + LEASE_MARGIN
