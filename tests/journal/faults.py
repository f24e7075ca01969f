"""A forked process whose calls of the operating system fail, or in which it is killed, at a chosen step."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# What changes files, and what reads them back: (module, name).
CALLS = (
    (os, "open"), (os, "pwrite"), (os, "fdatasync"), (os, "fsync"), (os, "rename"), (os, "unlink"), (os, "mkdir"),
    (os, "pread"), (os, "scandir"), (fcntl, "flock"),
)  # fmt: skip
KILL, EIO, ENOSPC = "kill", "EIO", "ENOSPC"
# All further calls fail, too.
EIO_FOR_EVER = "EIO for ever"
# It is done, and then the process is killed.
KILL_AFTER = "kill after"
KINDS = (KILL, KILL_AFTER, EIO, ENOSPC, EIO_FOR_EVER)


class Steps:
    """Counts the calls, and does at number `at` what `kind` says; 0: nothing."""

    def __init__(self, kind: str, at: int) -> None:
        self.done = 0
        self._kind = kind
        self._at = at

    def wrap(self) -> None:
        """Wraps the calls of this process, for good."""
        for module, name in CALLS:
            setattr(module, name, self._wrapped(getattr(module, name), name))

    def _wrapped(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def stepped(*args: Any, **named: Any) -> Any:
            self.done += 1
            here = self.done == self._at or (self._kind == EIO_FOR_EVER and 0 < self._at <= self.done)
            if not here:
                return call(*args, **named)
            if self._kind == KILL_AFTER:
                call(*args, **named)
            if self._kind in (KILL, KILL_AFTER):
                os.kill(os.getpid(), signal.SIGKILL)
            code = errno.ENOSPC if self._kind == ENOSPC else errno.EIO
            raise OSError(code, os.strerror(code), name)

        return stepped


class Forked:
    """What a forked process said, in lines; how many steps it took, None if it was killed before its end."""

    def __init__(self, run: Callable[[Callable[[str], None]], None], kind: str = KILL, at: int = 0) -> None:
        """`run` gets what says a line. An exception in it fails the test."""
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receiving)
            self._run(run, Steps(kind, at), sending)
        os.close(sending)
        with os.fdopen(receiving) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        self.lines = text.splitlines()
        self.steps: int | None = None
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return
        assert os.WEXITSTATUS(status) == 0, text
        self.steps = int(self.lines.pop().removeprefix("steps "))

    @staticmethod
    def _run(run: Callable[[Callable[[str], None]], None], steps: Steps, sending: int) -> None:
        code = 1
        with suppress(BaseException):
            try:
                steps.wrap()
                run(lambda line: (os.write(sending, f"{line}\n".encode()), None)[1])
                os.write(sending, f"steps {steps.done}\n".encode())
                code = 0
            except BaseException as error:
                import traceback

                os.write(sending, "".join(traceback.format_exception(error)).encode())
        os._exit(code)
