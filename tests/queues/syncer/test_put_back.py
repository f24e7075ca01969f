"""Jobs that beanstalkd loses when it ends between removing a file and writing the last copy out of it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from glassq.errors import PrepareError
from glassq.queues.beanstalk.syncer.prepare import prepare
from glassq.queues.beanstalk.syncer.regular import numbered
from tests.conftest import Process, wait_for
from tests.queues.syncer.plain import jobs_on, ping, plain_beanstalkd

if TYPE_CHECKING:
    from collections.abc import Iterator

    import greenstalk

OLD = 30


def keep(binlog: Path) -> None:
    """What the syncer does as soon as it sees a file."""
    kept = numbered(binlog, "kept")
    for number, path in numbered(binlog, "binlog").items():
        if number not in kept:
            os.link(path, binlog / f"kept.{number}")


def churn(client: greenstalk.Client, binlog: Path) -> int:
    """Puts a job and works it off, until beanstalkd dies. Returns how many were done."""
    client.use("churn")
    client.watch("churn")
    client.ignore("default")
    done = 0
    try:
        while True:
            keep(binlog)
            client.put(b"y" * 300)
            client.delete(client.reserve(timeout=5))
            done += 1
    except (OSError, AssertionError, ValueError):
        return done


def gone(binlog: Path) -> int:
    """How many files beanstalkd has removed."""
    return len(numbered(binlog, "kept").keys() - numbered(binlog, "binlog").keys())


def kill_once_gone(process: Process, tracer: Process, binlog: Path, number: int) -> None:
    while process.running() and gone(binlog) < number:
        time.sleep(0.002)
    process.send(signal.SIGKILL)
    # which holds it
    tracer.end(signal.SIGKILL)


@contextmanager
def traced(process: Process, log: Path, inject: str) -> Iterator[Process]:
    """Injects into beanstalkd's unlink."""
    command = ["strace", "-qq", "-p", str(process.pid), "-e", "trace=unlink", "-e", f"inject=unlink:{inject}"]
    tracer = Process(command, log)
    try:
        status = Path(f"/proc/{process.pid}/status")
        wait_for(lambda: "TracerPid:\t0" not in status.read_text() or not tracer.running(), "strace to attach")
        if not tracer.running():
            pytest.skip("strace may not attach here")
        yield tracer
    finally:
        process.end(signal.SIGKILL)
        tracer.end(signal.SIGKILL)


def killed_at_unlink(binlog: Path, number: int, when: str) -> int:
    """30 old jobs; beanstalkd is killed before or after it removes its `number`th file. How many others were done."""
    binlog.mkdir()
    # strace kills before the call is made; afterwards it holds beanstalkd for as long as the test needs to kill it
    inject = f"signal=KILL:when={number}" if when == "before" else f"delay_exit=20000000:when={number}"
    with plain_beanstalkd(binlog) as (process, client):
        client.use("old")
        for old in range(OLD):
            client.put(ping(old, 100))
            keep(binlog)
        with traced(process, binlog.with_name("strace.log"), inject) as tracer:
            killer = Thread(target=kill_once_gone, args=(process, tracer, binlog, gone(binlog) + number))
            killer.start()
            done = churn(client, binlog)
            killer.join()
    return done


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_unlink_loses_no_old_job_and_brings_no_done_one_back(tmp_path: Path, when: str) -> None:
    lost = 0
    for number in range(1, 7):
        binlog = tmp_path / f"unlink-{number}"
        done = killed_at_unlink(binlog, number, when)
        assert done > 10
        lost += OLD - sum(tube == "old" for tube, _, _ in jobs_on(binlog).values())

        assert list(prepare(binlog, "boot")) or when == "before"
        jobs = jobs_on(binlog)
        assert [job for job, (tube, _, _) in jobs.items() if tube == "old"] == list(range(1, OLD + 1)), number
        assert sum(tube == "churn" for tube, _, _ in jobs.values()) <= 1, f"unlink {number}: done ones are back"
    assert lost, "nothing was lost without the kept files: this test proves nothing"


def file(binlog: Path, name: str, text: str = "") -> Path:
    (binlog / name).write_text(text)
    return binlog / name


def test_only_files_whose_binlog_is_gone_are_put_back_and_they_stay_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        file(tmp_path, f"kept.{number}", str(number))
    os.link(tmp_path / "kept.3", tmp_path / "binlog.3")
    assert list(prepare(tmp_path, "boot")) == ["put back: binlog.1, binlog.2"]
    for number in (1, 2, 3):
        assert (tmp_path / f"binlog.{number}").samefile(tmp_path / f"kept.{number}")
    assert list(prepare(tmp_path, "boot")) == []


def test_a_running_beanstalkd_is_left_alone(tmp_path: Path) -> None:
    binlog = tmp_path / "binlog"
    binlog.mkdir()
    with plain_beanstalkd(binlog):
        before = sorted(path.name for path in binlog.iterdir())
        file(binlog, "kept.7", "never put back")
        with pytest.raises(PrepareError, match="beanstalkd is running on it"):
            list(prepare(binlog, "boot"))
        assert sorted(path.name for path in binlog.iterdir()) == sorted([*before, "kept.7"])
    (binlog / "kept.7").unlink()
    assert list(prepare(binlog, "boot")) == []


def remove(files: list[Path]) -> None:
    for path in files:
        path.unlink()


def test_a_syncer_that_removes_proven_files_meanwhile_leaves_no_gap(tmp_path: Path) -> None:
    """A gap brings done jobs back: the files that say so are missing."""
    for turn in range(30):
        directory = tmp_path / str(turn)
        directory.mkdir()
        kept = [file(directory, f"kept.{number}", str(number)) for number in range(1, 40)]
        syncer = Thread(target=remove, args=(kept[: 5 + turn],))
        syncer.start()
        list(prepare(directory, "boot"))
        syncer.join()
        back = list(numbered(directory, "binlog"))
        assert back == list(range(40 - len(back), 40))
        assert len(back) >= 34 - turn
