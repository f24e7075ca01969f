"""glassq's programs, forked where everything is imported, not started anew: that is most of their CPU time.

What a program does and says is the same: it has a process, standard streams and an environment of its own. What is
about Python's start (a closed stream, the locale, the command's path, what is imported) needs a real start.
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING

from glassq import daemons
from glassq.cli.main import COMMANDS

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

# Longer than this, a command hangs; in seconds.
PATIENCE = 60.0
#: the module of each program of bin/, and of a pool for tests, with its `main`
MODULES = {
    "glassq": "glassq.cli.main",
    "glassq-web": "glassq.programs.web",
    "glassq-worker": "glassq.programs.worker",
    "glassq-syncer": "glassq.programs.syncer",
    "glassq-tasks": "glassq.programs.tasks",
    "impatient": "tests.worker.impatient",
}
_BIN = Path(__file__).parent.parent / "bin"
# This server forks; as it has one thread, what it forks is whole. It ends with the process that uses it.
_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(
    [__name__, *MODULES.values(), *(place.partition(":")[0] for place, _ in COMMANDS.values()), "glassq.ledger.sql"]
)


class Forked:
    """A program that was forked. It has those methods of Popen that the tests use."""

    def __init__(
        self, name: str, arguments: Sequence[str], streams: Sequence[int], env: Mapping[str, str], cwd: Path | None
    ) -> None:
        """Runs `name` of bin/; `streams` are its standard input, output and error."""
        # a Connection is what multiprocessing hands over with the descriptor in it, whatever that is
        handed = [Connection(os.dup(number)) for number in streams]
        place = str(cwd or Path.cwd())
        self._process = _SERVER.Process(target=_run, args=(name, list(arguments), dict(env), place, handed))
        self._process.start()
        for stream in handed:
            stream.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Its exit code, that of a signal is negative. Raises TimeoutExpired."""
        wait([self._process.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(
    arguments: Sequence[str],
    env: Mapping[str, str] = os.environ,
    standard_input: int = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> tuple[int, str, str]:
    """Exit code (that of a signal is negative), standard output and standard error of `glassq ARGUMENTS`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        given = nothing.fileno() if standard_input == subprocess.DEVNULL else standard_input
        process = Forked("glassq", arguments, (given, out.fileno(), err.fileno()), env, cwd)
        try:
            return process.wait(PATIENCE), _text(out), _text(err)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"glassq {' '.join(arguments)} was not done after {PATIENCE:g} s") from None


class _Check:
    """What `glassq.daemons` starts to have intake or pool check their settings; here it is forked, too."""

    def __init__(self, command: Sequence[str], *, stdin: int, stdout: IO[bytes], start_new_session: bool) -> None:
        module, *arguments = command[command.index("-m") + 1 :]
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            assert start_new_session
            os.setsid()
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), 0)
            os.dup2(stdout.fileno(), 1)
            sys.argv = [module, *arguments]
            code = importlib.import_module(module).main()
        except BaseException:
            traceback.print_exc()
        finally:
            # the command's own cleanup is not for this process
            os._exit(code)

    def wait(self, timeout: float = PATIENCE) -> int:
        over = time.monotonic() + timeout
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > over:
                raise subprocess.TimeoutExpired("check", timeout)
            else:
                time.sleep(0.005)
        return self._code


def _run(name: str, arguments: list[str], env: dict[str, str], directory: str, streams: list[Connection]) -> None:
    daemons.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=_Check, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    # what ties a process to this server would tie those that a pool leaves behind, too
    os.closerange(3, 64)
    # multiprocessing has replaced it
    sys.stdin = os.fdopen(0, closefd=False)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.argv = [str(_BIN / name), *arguments]
    sys.exit(importlib.import_module(MODULES[name]).main())


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    with io.TextIOWrapper(stream) as text:
        return text.read()
