"""Faults while beanstalkd copies jobs out of its oldest file, with the real syncer beside it. Needs strace."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Self

import greenstalk
import pytest

from glassq.errors import NoProof, NotDurable
from glassq.queues.beanstalk.prover import SyncerProver
from glassq.queues.beanstalk.syncer.regular import numbered
from tests.conftest import Beanstalkd, Process, wait_for
from tests.queues.binlog import break_binlog, breakable_program
from tests.queues.syncer.plain import jobs_on, ping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")

OLD = 30
# Enough for dozens of files, and for all old jobs to be copied several times.
ROUNDS = 400


class Worker:
    """Puts jobs, proves them and works them off, as a client of ours does; stops at the first fault."""

    def __init__(self, server: Beanstalkd) -> None:
        self._client = greenstalk.Client(("127.0.0.1", server.port), encoding=None)
        self._prover = SyncerProver(server.syncer.address, connect_timeout=5)
        self._run = str(self._client.stats()["id"])
        self._client.watch("churn")
        self._client.ignore("default")
        self.old: list[int] = []
        #: what was proven and is not done
        self.acknowledged: set[int] = set()
        self.done: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._prover.close()

    def prepare(self) -> None:
        self._client.use("old")
        self.old = [self._client.put(ping(number, 100)) for number in range(OLD)]
        for number in self.old[::3]:
            self._client.bury(self._client.reserve_job(number))
        self._prove()
        self._client.use("churn")

    def churn(self, rounds: int = ROUNDS) -> None:
        try:
            for _ in range(rounds):
                job_id = self._client.put(b"y" * 300)
                self._prove()
                self.acknowledged.add(job_id)
                job = self._client.reserve(timeout=5)
                self.acknowledged.discard(job.id)
                self.done.add(job.id)
                self._client.delete(job)
        except (OSError, AssertionError, ValueError, greenstalk.Error, NoProof, NotDurable):
            return

    def _prove(self) -> None:
        self._prover.prove(self._run, deadline=time.monotonic() + 20)


@contextmanager
def injected(server: Beanstalkd, log: Path, *options: str) -> Iterator[Process]:
    """Injects a fault into a system call of beanstalkd; kills it in the end."""
    tracer = Process(["strace", "-qq", "-p", str(server.pid), *options], log)
    try:
        status = Path(f"/proc/{server.pid}/status")
        wait_for(lambda: "TracerPid:\t0" not in status.read_text() or not tracer.running(), "strace to attach")
        if not tracer.running():
            pytest.skip("strace may not attach here")
        yield tracer
    finally:
        server.stop(signal.SIGKILL, syncer=False)
        tracer.end(signal.SIGKILL)


def check(server: Beanstalkd, worker: Worker) -> int:
    """After a restart all is there, and at most one that was done is back. Returns how many would be lost otherwise."""
    expected = {*worker.old, *worker.acknowledged}
    blind = len(expected - jobs_on(server.dir).keys())
    server.start()
    with greenstalk.Client(("127.0.0.1", server.port), encoding=None) as client:
        states = {}
        for job_id in (*expected, *worker.done):
            with suppress(greenstalk.NotFoundError):
                states[job_id] = client.stats_job(job_id)["state"]
    assert not expected - states.keys(), "these are lost"
    assert {states[job] for job in worker.old[::3]} == {"buried"}
    # its delete may have been the write that failed
    assert len(worker.done & states.keys()) <= 1, "done ones are back"
    return blind


def oldest(binlog: Path) -> int:
    return min(numbered(binlog, "binlog"))


def once_gone(tracer: Process, binlog: Path, last: int, act: Callable[[], object]) -> None:
    """Acts as soon as beanstalkd has removed its file `last`, while strace holds it."""
    while tracer.running() and oldest(binlog) <= last:
        time.sleep(0.002)
    act()


@contextmanager
def small_files(directory: Path) -> Iterator[tuple[Beanstalkd, Worker]]:
    directory.mkdir()
    program = breakable_program(directory / "bin")
    server = Beanstalkd(directory, options=("-s", "8192", "-f", "1000"), program=str(program))
    try:
        with Worker(server) as worker:
            worker.prepare()
            yield server, worker
    finally:
        server.stop()


def fault(directory: Path, number: int, how: str, act: Callable[[Beanstalkd, Process], object]) -> int:
    """A fault in or right after beanstalkd's unlink of this number. Returns how many jobs would be lost otherwise."""
    with small_files(directory) as (server, worker):
        last = oldest(server.dir) + number - 1
        options = ("-e", "trace=unlink", "-e", f"inject=unlink:{how}:when={number}")
        with injected(server, directory / "strace.log", *options) as tracer:
            actor = Thread(target=once_gone, args=(tracer, server.dir, last, lambda: act(server, tracer)))
            actor.start()
            worker.churn()
            actor.join()
        assert 5 < len(worker.done) < ROUNDS
        return check(server, worker)


def kill(server: Beanstalkd, tracer: Process) -> None:
    server.send(signal.SIGKILL)
    # which holds it
    tracer.end(signal.SIGKILL)


def test_a_kill_at_any_unlink_loses_nothing(tmp_path: Path) -> None:
    # strace kills before the call is made; afterwards it holds beanstalkd for as long as the test needs to kill it
    cases = list(product(range(1, 7), ("signal=KILL", "delay_exit=20000000")))
    blind = [fault(tmp_path / f"{number}-{how[0]}", number, how, kill) for number, how in cases]
    assert sum(blind), "nothing was lost without the kept files: this test proves nothing"


def test_a_failed_write_of_a_copy_loses_nothing(tmp_path: Path) -> None:
    """The first write after the unlink of the file that the job stood in."""
    blind = [
        fault(tmp_path / f"{number}", number, "delay_exit=1000000", lambda server, _: break_binlog(server))
        for number in range(1, 7)
    ]
    assert sum(blind), "nothing was lost without the kept files: this test proves nothing"


def test_a_failed_write_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    for first in (1, 2, 3, 4, 5, *range(150, 160)):
        with small_files(tmp_path / f"{first}") as (server, worker):
            files = [option for number in range(100) for option in ("-P", f"{server.dir}/binlog.{number}")]
            options = ("-e", "trace=write", "-e", f"inject=write:error=EIO:when={first}", *files)
            with injected(server, tmp_path / "strace.log", *options):
                worker.churn()
            assert len(worker.done) < ROUNDS, "it went on without its log"
            check(server, worker)
