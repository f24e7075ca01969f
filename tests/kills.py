"""SIGKILL at each step: an act runs in a forked process, again and again, each time killed one step later.

A step is what others can see, and a kill cannot take back: a file that gets a name, another one, or none; a time; a
sync; a command that changes the queue. The process is killed just before it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FILES = {"fsync", "fdatasync", "rename", "replace", "link", "unlink", "utime"}
_SENDS = {"sendall", "send"}
_COMMANDS = (b"put ", b"delete ", b"bury ", b"release ", b"kick-job ")


def killed_before(step: int, act: Callable[[], object]) -> bool:
    """Runs `act` in a process of its own, which is killed just before its step of this number, from 0.

    Returns whether it had so many steps; else the act was done.
    """
    pid = os.fork()
    if pid == 0:
        _be_killed_before(step)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), "the act has failed"
    return code != 0


def _be_killed_before(step: int) -> None:
    left = [step]

    def watch(frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and _is_step(frame, function):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    threading.setprofile(watch)
    sys.setprofile(watch)


def _is_step(frame: Any, function: Any) -> bool:
    if function.__module__ == "posix":
        return function.__name__ in _FILES
    if function.__name__ not in _SENDS:
        return False
    texts = [value for value in frame.f_locals.values() if isinstance(value, bytes)]
    return any(command in text for text in texts for command in _COMMANDS)
