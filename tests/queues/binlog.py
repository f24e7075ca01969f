"""A beanstalkd whose binlog can be made to fail, as a full or broken disk does, without one."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
        wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {real} \"$@\"\n")
        wrapper.chmod(0o755)
    return wrapper


@contextmanager
def failing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    """One that can be broken, found by that name by whatever else starts one meanwhile."""
    program = breakable_program(directory / "bin")
    if program.exists():
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    server = Beanstalkd(directory)
    try:
        yield server
    finally:
        server.stop()


def break_binlog(server: Beanstalkd) -> None:
    """From now on no write to its binlog succeeds."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
