"""A directory of a trial that is in use: one process at a time runs the servers of its settings."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Whoever runs the servers holds a lock on this file, which has the id of that process.
FILE = ".running"


def check_unused(directory: Path) -> None:
    """Raises StackError where a process runs the servers of this directory."""
    if (directory / FILE).exists():
        with in_use(directory):
            pass


@contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Has the directory for this process alone. Raises StackError where another one has it."""
    try:
        file = (directory / FILE).open("a+")
    except OSError as error:
        raise StackError(f"{directory / FILE}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise StackError(f"glassq already runs in {directory} (process {holder}): stop it first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
