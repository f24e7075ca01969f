"""Handlers that do the worst: each costs its own attempt, and its neighbour in the pool works on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import QueueRefused
from glassq.worker.room import room_for_lanes
from glassq.worker.scoreboard import Scoreboard
from tests import forked
from tests.conftest import Beanstalkd, program, wait_for
from tests.worker.conftest import jobs, only
from tests.worker.pools import HANDLERS, PoolRun, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")

Make = "Callable[..., PoolRun]"

# `once` runs the rest of the name's act at the first attempt only; the second is good.
HAVOC = (
    HANDLERS
    + """
import ctypes, multiprocessing, random, signal, sys
from glassq import Retry

def once(name, act):
    marker = HERE / f"{name}.done"
    if not marker.exists():
        marker.touch()
        act()

def exits(name):
    once(name, lambda: os._exit(7))

def is_killed(name):
    once(name, lambda: os.kill(os.getpid(), signal.SIGKILL))

def crashes(name):
    once(name, lambda: ctypes.string_at(0))

def freezes(name):
    once(name, lambda: os.kill(os.getpid(), signal.SIGSTOP))

def hangs_in_c(name):
    # PyDLL keeps the interpreter's lock: no other thread of the process runs
    once(name, lambda: ctypes.PyDLL(None).sleep(1000))

def swallows(name):
    def act():
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    once(name, act)

def blocks_signals(name):
    def act():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)
    once(name, act)

def dies_then_asks_again(name):
    is_killed(name)
    raise Retry("the second attempt", delay=600)

def spoils_signals(name):
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

def returns_twice(name):
    os.fork()

def leaves_a_process(name):
    if os.fork() == 0:
        tell("left", name)
        hold(name)
        os._exit(0)

def has_a_helper(name):
    helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    helper.start()
    helper.terminate()
    helper.join()
    assert helper.exitcode == -signal.SIGTERM, helper.exitcode

def shouts(name):
    for _ in range(256):
        sys.stdout.write("x" * (1 << 20))

def naps(name):
    time.sleep(random.uniform(0, 0.3))

def stays_once(name):
    once(name, lambda: hold(name))

def kills_then_stays(name):
    once(name, lambda: os._exit(7))
    hold(name)

LEAK = []
def leaks(name):
    LEAK.append(bytearray(os.urandom(1 << 20) * 300))
"""
)


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    made: list[PoolRun] = []

    def make(**worker: object) -> PoolRun:
        made.append(PoolRun(tmp_path, beanstalkd, look, **worker))
        made[-1].write_handlers(HAVOC)
        return made[-1]

    yield make
    for run in made:
        run.let_go()
        run.__exit__()


def works_on(run: PoolRun, name: str) -> int:
    """Has it work another delivery; returns the pid of the child that did."""
    run.put(name)
    wait_for(lambda: any(done == name for done, _, _ in run.story("end")), f"{name} to be worked\n{run.log()}")
    return next(pid for done, pid, _ in run.story("end") if done == name)


# -- each costs one attempt -----------------------------------------------------------------------------------------

WAYS = {
    "exits": ("exit 7", {}),
    "is_killed": ("SIGKILL", {}),
    "crashes": ("SIGSEGV", {}),
    "freezes": ("SIGKILL", {}),
    "hangs_in_c": ("SIGKILL", {"deadline": "3s", "grace": "1s"}),
    "swallows": ("SIGKILL", {"deadline": "3s", "grace": "1s"}),
    "blocks_signals": ("SIGKILL", {"deadline": "3s", "grace": "1s"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_handler_does_costs_its_own_attempt_alone(make: Make, look: Queue, way: str) -> None:
    how, worker = WAYS[way]
    run = make(processes=2, **worker).start_impatient().ready()
    before = set(run.children())
    delivery = run.put("bad", way)
    wait_for(lambda: run.story("start"), "it to be begun")
    (_, culprit, _) = run.story("start")[0]
    neighbour = works_on(run, "meanwhile")
    wait_for(lambda: not jobs(look), f"everything to be worked\n{run.log()}")
    assert [name for name, _, _ in run.story("start")].count("bad") == 2
    assert [name for name, _, _ in run.story("end")].count("bad") == 1
    wait_for(lambda: "child died" in run.log(), "its death to be told")
    (line,) = [line for line in run.log().splitlines() if "child died" in line]
    assert (how in line, delivery.id in line, f"pid={culprit}" in line) == (True, True, True)
    wait_for(lambda: len(run.children()) == 2, "the child to be replaced")
    assert before - set(run.children()) == {culprit}
    assert neighbour != culprit


def test_who_works_a_delivery_next_tells_what_killed_the_one_before(make: Make, look: Queue) -> None:
    run = make(processes=2).start().ready()
    delivery = run.put("bad", "dies_then_asks_again")
    wait_for(lambda: look.stats_tube().delayed == 1, f"the second attempt\n{run.log()}")
    _, kept = only(look)
    assert [(each.outcome, each.signal, each.attempt) for each in kept.evidence] == [
        ("lost", "SIGKILL", 1),
        ("retry", "", 1),
    ]
    assert kept.evidence[0].message == "killed by SIGKILL"
    assert kept.lost == 1
    code, shown, said = forked.run(["--config", str(run.config), "show", delivery.id])
    assert code == 0, said
    assert "signal SIGKILL" in shown


def test_a_delivery_that_kills_every_child_is_buried_with_each_death(make: Make, look: Queue) -> None:
    run = make().start().ready()
    run.put("deadly", "die")
    wait_for(lambda: look.stats_tube().buried == 1, f"the delivery to be buried\n{run.log()}")
    _, delivery = only(look)
    assert [(each.outcome, each.error) for each in delivery.evidence] == [("lost", "exit 7")] * 3


def test_what_a_pool_was_at_when_all_of_it_was_killed_is_worked_by_the_next(make: Make, look: Queue) -> None:
    run = make(processes=8).start().ready()
    wait_for(lambda: len(run.children()) == 8, "all children")
    busy = run.holding()
    children = run.children()
    # as systemd does it: one by one, and whoever is not dead yet may get the job of one who is
    run.send(signal.SIGKILL)
    for pid in sorted(children, key=lambda pid: pid != busy):
        os.kill(pid, signal.SIGKILL)
    run.ended()
    wait_for(lambda: look.stats_tube().ready == 1, "the job to be free")
    run.let_go()
    run.start().ready()
    wait_for(lambda: not jobs(look), f"it to be worked\n{run.log()}")


def kill_whole(run: PoolRun, look: Queue) -> Counter[str]:
    """Kills the pool of 8, and returns how often its children had begun each delivery that is in the queue.

    One by one, as systemd does it: whoever is not dead yet may get the job of one who is.
    """
    # nobody is about to be born, who would live on
    wait_for(lambda: len(run.children()) == 8, f"all children\n{run.log()}")
    children = run.children()
    run.send(signal.SIGKILL)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    run.ended()
    wait_for(lambda: look.stats_tube().reserved == 0, "the jobs to be free")
    with TemporaryDirectory() as copy:
        shutil.copy(run.dir / "run" / "scoreboard", copy)
        crashes = Scoreboard(directory=copy, **room_for_lanes(8)).crashes
    begun: Counter[str] = Counter()
    for stats in jobs(look):
        delivery = envelope.decode(look.peek(stats.id).body)
        begun[delivery.id] += len(crashes.of(str(stats.id), delivery.id))
    return begun


def test_poison_is_found_and_nothing_else_taken_for_it_though_the_pool_is_killed_whole(make: Make, look: Queue) -> None:
    """Twice, amid 40 deliveries and one that first kills its child, and is at work at both kills."""
    run = make(processes=8, max_lost=3)
    (run.dir / "run").mkdir()
    run.start(RUNTIME_DIRECTORY=str(run.dir / "run")).ready()
    good: dict[str, str] = {}
    begun: Counter[str] = Counter()

    def put_good(count: int) -> None:
        for number in range(len(good), len(good) + count):
            good[f"good-{number}"] = run.put(f"good-{number}", "stays_once" if number in (12, 27) else "naps").id

    def stays(name: str, starts: int) -> bool:
        pids = [pid for each, pid, _ in run.story("start") if each == name]
        return len(pids) >= starts and pids[-1] in run.children()

    put_good(5)
    run.put("deadly", "kills_then_stays")
    put_good(5)
    for kill in range(2):
        wait_for(lambda starts=kill + 2: stays("deadly", starts), f"the deadly one to be at work\n{run.log()}")  # type: ignore[misc]
        worked = len(run.story("end"))
        put_good(15)
        wait_for(lambda least=worked + 4: len(run.story("end")) >= least, f"some to be worked\n{run.log()}")  # type: ignore[misc]
        wait_for(lambda name=f"good-{12 + 15 * kill}": stays(name, 1), f"a good one to stay\n{run.log()}")  # type: ignore[misc]
        begun += kill_whole(run, look)
        run.start(RUNTIME_DIRECTORY=str(run.dir / "run")).ready()
    wait_for(lambda: len(jobs(look)) == 1 and look.stats_tube().buried == 1, f"all to be worked\n{run.log()}")
    stats, poison = only(look)
    assert (stats.state, json.loads(poison.body)["name"], poison.lost) == ("buried", "deadly", 3)
    assert [each.error for each in poison.evidence] == ["exit 7", "with its pool", "with its pool"]
    assert [name for name, _, _ in run.story("start")].count("deadly") == 3
    assert {name for name, _, _ in run.story("end")} == good.keys()
    found = re.findall(r"an attempt was lost job=\d+ lost=(\d+) delivery=(\S+)", run.log())
    told = {delivery: int(lost) for lost, delivery in found}
    assert [told.get(good[name]) for name in ("good-12", "good-27")] == [1, 1]
    assert [name for name, delivery in good.items() if told.get(delivery, 0) > begun[delivery]] == []


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("where", ["nothing may be written", "no room"])
def test_a_pool_whose_directory_takes_no_scoreboard_works_without_it(make: Make, look: Queue, where: str) -> None:
    run = make(max_lost=1)
    command = [*program("glassq-worker"), "--config", str(run.config)]
    if where == "no room":
        run.start([sys.executable, "-c", LIMITED, *command], RUNTIME_DIRECTORY=str(run.dir))
    else:
        run.start(command, RUNTIME_DIRECTORY="/proc")
    run.ready()
    run.put("deadly", "die")
    wait_for(lambda: look.stats_tube().buried == 1, f"it to be buried\n{run.log()}")
    works_on(run, "next")
    assert run.log().count("what this pool works is not kept for the next one") == 1
    assert not list(run.dir.glob("scoreboard*"))


def test_the_parent_says_why_it_killed(make: Make, look: Queue) -> None:
    run = make(deadline="3s", grace="1s", max_lost=1).start().ready()
    run.put("bad", "swallows")
    wait_for(lambda: look.stats_tube().buried == 1, f"it to be buried\n{run.log()}")
    (evidence,) = only(look)[1].evidence
    assert evidence.message == "killed by SIGKILL: it overran its hard deadline"
    assert evidence.duration >= 2


HOOK = """
class Hanging:
    def __init__(self, settings):
        pass

    def after(self, report):
        if json.loads(report.delivery.body)["name"] == "hooked":
            tell("hangs", "hooked")
            time.sleep(1000)
"""


def test_a_hook_that_hangs_ends_with_its_process_at_the_hard_deadline(make: Make, look: Queue) -> None:
    run = make(deadline="3s", grace="1s", max_lost=1, hooks=["handlers:Hanging"])
    run.write_handlers(HAVOC + HOOK)
    run.write_settings()
    run.start().ready()
    run.put("hooked")
    wait_for(lambda: run.story("hangs"), f"the hook to be called\n{run.log()}")
    # its work is done, and the queue knows it
    assert jobs(look) == []
    works_on(run, "next")
    assert "it overran its hard deadline" in run.log()
    assert [name for name, _, _ in run.story("start")] == ["hooked", "next"]


# -- signals --------------------------------------------------------------------------------------------------------


def test_a_handler_that_spoils_the_signals_does_so_for_itself_alone(make: Make, look: Queue) -> None:
    run = make(deadline="30s", grace="28s").start().ready()
    pid = works_on(run, "before")
    run.put("spoiler", "spoils_signals")
    run.put("late", "hold_stubbornly")
    wait_for(lambda: look.stats_tube().delayed == 1, f"the deadline to end the next one\n{run.log()}")
    assert only(look)[1].evidence[0].message == "the handler overran its deadline"
    assert {one for _, one, _ in run.story("start")} == {pid}
    run.put("spoiler-again", "spoils_signals")
    wait_for(lambda: len(run.story("end")) == 3, "it to be worked")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    assert "killed" not in run.log()


# -- processes of its own -------------------------------------------------------------------------------------------


def test_a_process_that_a_handler_left_does_not_keep_its_job(make: Make, look: Queue) -> None:
    """Nor any other job of its parent: it has no copy of the connection."""
    run = make().start().ready()
    run.put("parent", "leaves_a_process")
    wait_for(lambda: run.story("left") and not jobs(look), "the process to be left")
    (_, left, _) = run.story("left")[0]
    os.kill(run.holding(), signal.SIGKILL)
    wait_for(lambda: len(run.story("start")) == 3, f"the job to come back\n{run.log()}")
    assert processes()[left][1] != "Z", "the process lives while the job is worked again"
    run.let_go()
    wait_for(lambda: not jobs(look), "it to be done")
    wait_for(lambda: processes().get(left, (0, "Z"))[1] == "Z", "the process to end")


def test_a_handler_that_comes_back_twice_is_one_attempt_and_one_consumer(make: Make, look: Queue) -> None:
    run = make().start().ready()
    run.put("forks", "returns_twice")
    wait_for(lambda: len(run.story("end")) == 2 and not jobs(look), f"both to come back\n{run.log()}")
    (worker,) = run.children()
    other = next(pid for _, pid, _ in run.story("end") if pid != worker)
    wait_for(lambda: processes().get(other, (0, "Z"))[1] == "Z", "the other process to end")
    assert works_on(run, "next") == worker
    wait_for(lambda: run.log().count(" done ") == 2, f"both to be told of\n{run.log()}")
    assert "no longer ours" not in run.log()


def test_a_helper_process_can_be_terminated_as_ever(make: Make, look: Queue) -> None:
    run = make().start().ready()
    run.put("helped", "has_a_helper")
    wait_for(lambda: run.story("end"), f"the helper to end\n{run.log()}")
    wait_for(lambda: not jobs(look), "it to be done")


# -- too much -------------------------------------------------------------------------------------------------------


def test_hundreds_of_megabytes_on_standard_output_holds_up_nobody(make: Make, look: Queue, tmp_path: Path) -> None:
    run = make(processes=2)
    fifo = tmp_path / "out"
    os.mkfifo(fifo)
    passed = []

    def read() -> None:
        with fifo.open("rb", buffering=0) as out:
            while data := out.read(1 << 20):
                passed.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    command = [*program("glassq-worker"), "--config", str(run.config)]
    run.start(["sh", "-c", 'exec "$@" >"$OUT"', "sh", *command], OUT=str(fifo)).ready()
    run.put("loud", "shouts")
    wait_for(lambda: run.story("start"), "it to be begun")
    assert works_on(run, "meanwhile") != run.story("start")[0][1]
    wait_for(lambda: not jobs(look), f"everything to be worked\n{run.log()}")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    reader.join(30)
    assert sum(passed) == 1 << 28


def test_output_that_nobody_takes_ends_with_the_attempt(make: Make, look: Queue, tmp_path: Path) -> None:
    run = make(deadline="30s", grace="28s")
    fifo = tmp_path / "out"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    try:
        command = [*program("glassq-worker"), "--config", str(run.config)]
        run.start(["sh", "-c", 'exec "$@" >"$OUT"', "sh", *command], OUT=str(fifo)).ready()
        run.put("loud", "shouts")
        wait_for(lambda: look.stats_tube().delayed == 1, f"the attempt to be cut off\n{run.log()}")
        assert only(look)[1].evidence[0].message == "the handler overran its deadline"
        works_on(run, "next")
    finally:
        os.close(keep)


def test_a_leak_costs_the_process_and_no_delivery(make: Make, look: Queue) -> None:
    run = make(max_rss="250MiB").start().ready()
    run.put("leaky", "leaks")
    wait_for(lambda: run.story("end") and not jobs(look), "it to be worked")
    (_, leaky, _) = run.story("end")[0]
    assert works_on(run, "next") != leaky
    assert "died" not in run.log()


MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group (version 1) whose processes have 150 MiB in all."""
    group = MEMORY / f"glassq-{tmp_path.name}-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(150 << 20))
    except OSError:
        pytest.skip("needs a memory control group that we may write")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "its processes to be gone")
    group.rmdir()


def test_a_handler_that_the_kernel_kills_for_its_memory_says_so_in_its_story(
    little_memory: Path, make: Make, look: Queue
) -> None:
    run = make(max_lost=1, max_rss="1GiB")
    command = [*program("glassq-worker"), "--config", str(run.config)]
    run.start(["sh", "-c", 'echo $$ >"$GROUP" && exec "$@"', "sh", *command], GROUP=str(little_memory / "cgroup.procs"))
    run.ready()
    run.put("hungry", "leaks")
    wait_for(lambda: look.stats_tube().buried == 1, f"it to be buried\n{run.log()}")
    (evidence,) = only(look)[1].evidence
    assert evidence.message == "killed by SIGKILL: it ran out of memory"
    works_on(run, "next")
    run.__exit__()


# -- the queue goes away --------------------------------------------------------------------------------------------


def test_an_attempt_whose_lease_went_with_the_queue_is_cut_off_and_worked_again(
    make: Make, beanstalkd: Beanstalkd, look: Queue
) -> None:
    run = make()
    run.write_settings(queue='ttr = "5s"')
    run.start().ready()
    run.holding()
    look.close()
    beanstalkd.stop(signal.SIGKILL)
    beanstalkd.start()
    wait_for(lambda: len(run.story("start")) == 2, f"it to be worked again\n{run.log()}")
    assert "lease lost" in run.log()
    assert run.story("end") == []
    run.let_go()
    wait_for(lambda: not jobs(look), "it to be done")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "frozen"])
def test_a_cold_stop_ends_though_the_job_cannot_be_given_back(
    make: Make, beanstalkd: Beanstalkd, look: Queue, number: signal.Signals
) -> None:
    run = make()
    run.write_settings(timeout="1s")
    run.start().ready()
    run.holding()
    look.close()
    beanstalkd.send(number)
    run.send(signal.SIGQUIT)
    assert run.ended(60) == 0
    beanstalkd.stop(signal.SIGKILL)
    beanstalkd.start()
    wait_for(lambda: look.stats_tube().ready == 1, "the job to be there still")


def test_a_touch_that_hangs_does_not_make_its_child_look_dead(make: Make, beanstalkd: Beanstalkd) -> None:
    run = make()
    run.write_settings(timeout="2s", queue='ttr = "5s"')
    run.start().ready()
    held = run.holding()
    beanstalkd.send(signal.SIGSTOP)
    wait_for(lambda: "lease lost with the connection" in run.log(), "the touch to fail")
    beanstalkd.send(signal.SIGCONT)
    wait_for(lambda: len(run.story("start")) == 2, f"the job to be worked again\n{run.log()}")
    assert run.children() == [held]
    assert "child killed" not in run.log()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True)
    if done.returncode:
        pytest.skip("needs to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_while_the_disk_of_the_queue_is_full_failures_are_given_back_and_the_pool_waits(
    small_disk: Path, tmp_path: Path
) -> None:
    server = Beanstalkd(small_disk)
    look = server.queue()
    run = PoolRun(tmp_path, server, look, processes=2, backoff="1s")
    run.write_handlers(HANDLERS + "\ndef fails(name):\n    assert (HERE / 'let-go').exists()\n")
    try:
        for number in range(4):
            run.put(f"failing-{number}", "fails")
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 100)
        with filler.open("ab") as file:
            while True:
                try:
                    os.write(file.fileno(), b"x" * 4096)
                except OSError:
                    break
        _fill_binlog(look)
        run.start().ready()
        wait_for(lambda: "queue takes no puts" in run.log(), f"the alarm\n{run.log()}")
        wait_for(lambda: len(run.story("start")) >= 4, "several tries")
        # each of the two children says it once
        assert run.log().count("queue takes no puts") <= 2
        assert look.stats_tube().buried == 0
        filler.unlink()
        run.let_go()
        wait_for(
            lambda: look.stats_tube().ready + look.stats_tube().reserved == 0, f"all to be worked\n{run.log()}", 90
        )
    finally:
        run.__exit__()
        look.close()
        server.stop()


def _fill_binlog(look: Queue) -> None:
    """Puts until beanstalkd refuses; what was put is deleted, which gives no room back in this file."""
    put = []
    with pytest.raises(QueueRefused):
        while True:
            put.append(look.put(json.dumps("x" * 60_000).encode(), delay=3600))
    for job in put[:-1]:
        look.delete(job)


# -- clocks ---------------------------------------------------------------------------------------------------------

# Adds the seconds in a file to the wall clock, and leaves the monotonic one alone.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long step(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_STEP"), "r");
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (!result && id == CLOCK_REALTIME) at->tv_sec += step();
    return result;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    static int (*real)(struct timeval *restrict, void *restrict);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(at, zone);
    if (!result) at->tv_sec += step();
    return result;
}
"""


@pytest.fixture
def clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file with seconds to add to the wall clock, and the environment of processes that do so."""
    source, library, step = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "step"
    source.write_text(SHIM)
    step.write_text("0")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")
    env = {"LD_PRELOAD": str(library), "CLOCK_STEP": str(step)}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **env, "CLOCK_STEP": str(tmp_path / "none")}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    step.write_text("-86400")
    stepped = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **env}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if float(told) - float(stepped) < 80_000:
        pytest.skip("the clock of this Python cannot be stepped so")
    step.write_text("0")
    return step, env


@pytest.mark.parametrize("step", [86_400, -86_400], ids=["forward", "back"])
def test_a_step_of_the_clock_neither_kills_nor_cuts_off_nor_stops_the_pool(
    make: Make, look: Queue, clock: tuple[Path, dict[str, str]], step: int
) -> None:
    file, env = clock
    run = make(processes=2).start(WATCHDOG_USEC="1000000", **env).ready()
    before = set(run.children())
    run.holding()
    file.write_text(str(step))
    fed = run.notified.count("WATCHDOG")
    wait_for(lambda: run.notified.count("WATCHDOG") >= fed + 4, "the watchdog to be fed on")
    works_on(run, "after-the-step")
    run.let_go()
    wait_for(lambda: not jobs(look), f"everything to be worked\n{run.log()}")
    assert set(run.children()) == before
    assert [name for name, _, _ in run.story("end")].count("held") == 1
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    assert "died" not in run.log()
