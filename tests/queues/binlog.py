"""A beanstalkd whose binlog can be made to fail, as a full or broken disk does, without one."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueRefused
from tests.conftest import Beanstalkd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


def breakable_program(directory: Path) -> Path:
    """A beanstalkd whose writes beyond a limit answer EFBIG, where others would die of SIGXFSZ."""
    real = shutil.which("beanstalkd")
    directory.mkdir()
    wrapper = directory / "beanstalkd"
    if real is not None:
        wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {shlex.quote(real)} \"$@\"\n")
        wrapper.chmod(0o755)
    return wrapper


@contextmanager
def failing(directory: Path, monkeypatch: pytest.MonkeyPatch, *, file_size: int = 1 << 20) -> Iterator[Beanstalkd]:
    """One that can be broken, found by that name by whatever else starts one meanwhile."""
    program = breakable_program(directory / "bin")
    if program.exists():
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    server = Beanstalkd(directory, options=("-s", str(file_size)))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def forgotten(server: Beanstalkd) -> Iterator[None]:
    """What is answered meanwhile is on no disk when the power fails, at the end. Then the server is back."""
    copy = server.dir.with_name("copy")
    shutil.copytree(server.dir, copy)
    yield
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.dir)
    copy.rename(server.dir)
    server.start()


@contextmanager
def without_memory(server: Beanstalkd) -> Iterator[None]:
    """It can make no further tube meanwhile."""
    with closing(server.queue()) as queue:
        queue.connect()
        resource.prlimit(server.pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
        with suppress(QueueRefused):
            for number in count():
                queue.put(b"", tube=f"elsewhere.{number}", delay=3600)
        yield
        resource.prlimit(server.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def break_binlog(server: Beanstalkd) -> None:
    """From now on no write to its binlog succeeds."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


def fill_disk(server: Beanstalkd, *, file_size: int) -> None:
    """From now on it can make no further binlog file, and the last one has room for no further record."""
    with closing(server.queue()) as queue:
        # a kick is a smaller record than a put
        small = [queue.put(b"", tube="elsewhere", delay=3600) for _ in range(20)]
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (file_size - 1, resource.RLIM_INFINITY))
        with suppress(QueueRefused):
            while True:
                queue.put(b"", tube="elsewhere", delay=3600)
        with suppress(JobNotFound):
            while True:
                queue.kick(small.pop())
