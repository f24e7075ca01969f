"""glassq's programs, forked where everything is imported, not started anew: that is most of their CPU time.

What a program does and says is the same: it has a process, standard streams and an environment of its own. What is
about Python's start (a closed stream, the locale, the command's path, what is imported) needs a real start.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from glassq.cli.main import COMMANDS
from tests import left_running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Longer than this, a command hangs; in seconds.
PATIENCE = 60.0
#: the module of each program of bin/, and of a pool for tests, with its `main`
MODULES = {
    "glassq": "glassq.cli.main",
    "glassq-console": "glassq.programs.console",
    "glassq-web": "glassq.programs.web",
    "glassq-worker": "glassq.programs.worker",
    "glassq-syncer": "glassq.programs.syncer",
    "glassq-tasks": "glassq.programs.tasks",
    "impatient": "tests.worker.impatient",
}
_BIN = Path(__file__).parent.parent / "bin"
# This server forks; as it has one thread, what it forks is whole. It ends with the process that uses it.
_SERVER = get_context("forkserver")
# what the programs import where they need it, and many tests do
_LATER = [
    *(f"glassq.queues.beanstalk.{role}" for role in ("inspector", "local", "producer", "prover", "receiver")),
    *("cryptography.fernet", "cryptography.x509", "encodings.idna", "gunicorn_h1c", "sqlalchemy.dialects.sqlite"),
    *("glassq.ledger.sql", "glassq.metrics.server", "glassq.push.dispatch", "glassq.push.taskqueue"),
    *("glassq.queues.beanstalk.syncer.prepare", "multiprocessing.popen_fork"),
]
_SERVER.set_forkserver_preload(
    [__name__, *MODULES.values(), *(place.partition(":")[0] for place, _ in COMMANDS.values()), *_LATER]
)


class Forked:
    """A program that was forked. It has those methods of Popen that the tests use."""

    def __init__(
        self, name: str, arguments: Sequence[str], streams: Sequence[int], env: Mapping[str, str], cwd: Path | None
    ) -> None:
        """Runs `name` of bin/, or "-c" the code that is the first argument, as Python would do.

        `streams` are its standard input, output and error.
        """
        # a Connection is what multiprocessing hands over with the descriptor in it, whatever that is
        handed = [Connection(os.dup(number)) for number in streams]
        place = str(cwd or Path.cwd())
        self._process = _SERVER.Process(target=_run, args=(name, list(arguments), dict(env), place, handed))
        self._process.start()
        for stream in handed:
            stream.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        left_running.note(self)

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
            return process.wait(PATIENCE), text(out), text(err)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"glassq {' '.join(arguments)} was not done after {PATIENCE:g} s") from None


class _Popen(subprocess.Popen[bytes]):
    """In a forked program; a program of ours that it starts is forked from it, too. Any other is started as ever."""

    def _execute_child(self, args: Any, *how: Any) -> None:
        """Takes the place of what forks and executes, with the arguments that CPython 3.11 to 3.14 hand over."""
        *_, pass_fds, cwd, env = how[:6]
        *files, _restore, _gid, _gids, _uid, _umask, start_new_session, _group = how[9:]
        words = [] if isinstance(args, str) else [os.fsdecode(word) for word in args]
        if (found := _ours(words)) is None:
            super()._execute_child(args, *how)  # type: ignore[misc]
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with _ctrl_c_later():
            self.pid = os.fork()
        if not self.pid:
            theirs = [files[0], files[3], files[5]]
            _be(*found, theirs, pass_fds, cwd, env, start_new_session=start_new_session)
        self._child_created = True
        self._close_pipe_fds(*files)  # type: ignore[attr-defined]


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Handles a SIGINT after the fork: what is raised in a hook at a fork, as those of `logging`, Python ignores."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(came[0], None)


def _ours(words: list[str]) -> tuple[str, list[str]] | None:
    """The module with the program's `main`, and the program's arguments; None for a program that is not ours."""
    match words:
        case [sys.executable, "-P", "-m", module, *arguments] if module in MODULES.values():
            return module, arguments
        case [sys.executable, "-P", "-c", code, *arguments] if "from glassq.cli.main import main;" in code:
            return MODULES["glassq"], arguments
    return None


def _be(
    module: str,
    arguments: list[str],
    streams: Sequence[int],
    pass_fds: Sequence[int],
    cwd: str | None,
    env: Mapping[str, str] | None,
    *,
    start_new_session: bool,
) -> NoReturn:
    """What a process is after `exec`, as far as a program notices."""
    code = 1
    try:
        if start_new_session:
            os.setsid()
        for number, stream in enumerate(streams):
            if stream not in (-1, number):
                os.dup2(stream, number)
        _let_go(pass_fds)
        _open_streams()
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        if cwd is not None:
            os.chdir(cwd)
        sys.argv = [module, *arguments]
        code = importlib.import_module(module).main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # the starting program's own cleanup is not for this process
        for output in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                output.flush()
        os._exit(code)


def _let_go(but: Sequence[int] = ()) -> None:
    """Closes all files but the standard streams and these.

    Their numbers stay taken: objects of who has forked this process may close them at any time.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3, 64):
        if number not in (nothing, *but) and _is_open(number):
            os.dup2(nothing, number, inheritable=False)


def _open_streams() -> None:
    """As at the start of a Python: those that are there know of other files."""
    sys.stdin = os.fdopen(0, closefd=False)
    # lines are written at once at a terminal
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _run(name: str, arguments: list[str], env: dict[str, str], directory: str, streams: list[Connection]) -> None:
    # a collection would look at all that was imported before, and copy the pages of it
    gc.freeze()
    subprocess.Popen = _Popen  # type: ignore[misc]
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    # what ties a process to this server would tie those that a pool leaves behind, too
    _let_go()
    _open_streams()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    if name == "-c":
        code, *sys.argv[1:] = arguments
        sys.exit(exec(compile(code, "<string>", "exec"), {"__name__": "__main__"}))
    sys.argv = [str(_BIN / name), *arguments]
    sys.exit(importlib.import_module(MODULES[name]).main())


def text(stream: IO[bytes]) -> str:
    stream.seek(0)
    with io.TextIOWrapper(stream) as reading:
        return reading.read()
