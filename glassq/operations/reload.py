"""A reload whose outcome is known."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.daemons import problems_of, request_reload
from glassq.errors import SettingsError
from glassq.in_effect import read_record

if TYPE_CHECKING:
    from glassq.in_effect import Record

# A reload may take at most this long, in seconds. A child that does not come up is killed after 60; systemd gives up
# after 90.
TIMEOUT = 75.0
# Beside a program's record: while it is there, a reload only checks.
CHECK_ONLY = "check-only"


def reload(program: str, pid: int, config: str | None, runtime_directory: str) -> bool:
    """Checks what the program would read, has process `pid` read it, and waits until that is in effect.

    `runtime_directory` is systemd's RUNTIME_DIRECTORY of the program. Returns False where it only checks, as CHECK_ONLY
    is there. Raises SettingsError where the reload fails; the program then goes on with what it had.
    """
    directory = Path(runtime_directory.partition(":")[0] or os.devnull)
    before = read_record(directory)
    if problems := problems_of(program, config or (before.file if before else None)):
        raise SettingsError("\n".join(problems))
    if (directory / CHECK_ONLY).exists():
        return False
    try:
        request_reload(pid)
    except OSError as error:
        raise SettingsError(f"process {pid} of glassq-{program} cannot be signalled: {error.strerror}") from None
    # A program of an older version keeps no record.
    if before is not None and before.pid == pid:
        wait_for_outcome(program, directory, before)
    return True


def wait_for_outcome(program: str, directory: Path, before: Record) -> None:
    """Returns once a reload is in effect; `before` is the program's record before it. Raises SettingsError if not."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        now = read_record(directory)
        if now is None or now.pid != before.pid or not now.lives():
            raise SettingsError(f"glassq-{program} ended while it reloaded; its log says why")
        if now.reloads > before.reloads:
            if now.error:
                raise SettingsError(now.error)
            return
        time.sleep(0.05)
    raise SettingsError(f"glassq-{program} has not reloaded within {TIMEOUT:g} s; its log says what it waits for")
