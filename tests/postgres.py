"""A PostgreSQL server for tests: a port and a directory of its own, on loopback only; ended by pid."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from glassq.dev.postgres_programs import reachable, require_programs, server_user
from glassq.errors import StackError
from glassq.values import QueueUrl
from tests import left_running
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

# The owner of the databases: the server's own rights would hide what an ordinary role may not.
ROLE = "glassq"
# How long a server may take to start, to stop or to answer, in seconds. Only a hang takes so long.
PATIENCE = 60.0
# The variable that names a directory of all test processes of a run.
SHARED = "GLASSQ_TESTS_SHARED"
_BINARIES = ("initdb", "postgres", "pg_basebackup")


class PostgresServer:
    """A server with its data in `directory`/data, or in a directory of its own where the server must not run as root.

    `options` are further settings: {"wal_level": "replica"}. It keeps what the disk has promised, unless told not to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        options: dict[str, str] | None = None,
        port: int = 0,
        home: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """`home` is a directory that holds the data of a server already; `env` is added to the environment."""
        self._env = {**os.environ, **(env or {})}
        self.port = port or free_port()
        self.directory = home or given(directory / f"postgres-{self.port}")
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            # nothing is left of it outside the directory after a SIGKILL
            "dynamic_shared_memory_type": "mmap",
            # after a crash it would sync a thousand files, one by one
            "recovery_init_sync_method": "syncfs",
            **(options or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        # whatever becomes of the test
        owner = os.getpid()
        atexit.register(lambda: os.getpid() == owner and self.stop())
        if not self.data.exists():
            shutil.copytree(_template(), self.data, copy_function=shutil.copyfile)
            _hand_over(self.data)
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it with what it had; returns when it answers."""
        given = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        command = [binary("postgres"), "-D", str(self.data), "-p", str(self.port), *given]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                **runs_as(),
            )
        left_running.guard(self._process.pid)
        wait(self._answers, f"PostgreSQL does not answer: {self.log}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ends it; by default at once, whoever is connected (a "fast" shutdown)."""
        if self._process is None:
            return
        children = self.children()
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._process = None
        wait(lambda: not any(map(_runs, children)), "its children stay")

    def kill(self) -> None:
        """Ends it and all its processes by SIGKILL, as the loss of its machine would."""
        assert self._process is not None
        children = self.children()
        for pid in (self._process.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        wait(lambda: not any(map(_runs, children)), "its children stay")

    def children(self) -> list[int]:
        """Its processes besides the first one."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listed.read_text().split()]

    def remove(self) -> None:
        """Ends it at once, as nobody needs its files any more, and removes them."""
        if self.running():
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres", *, user: str = ROLE, port: int = 0) -> QueueUrl:
        """The URL of a database; through a proxy's `port` where one is given."""
        return QueueUrl(f"postgres://{user}@127.0.0.1:{port or self.port}/{database}")

    def database(self, template: str = "template1") -> str:
        """A new database that belongs to ROLE, empty or a copy of another one; its name."""
        name = f"test{next(self._names)}"
        # wal_log copies without a checkpoint
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return name

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Runs a statement as the server's own user; its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str = "postgres", *, user: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url(database, user=user).whole, autocommit=True, connect_timeout=10)

    def configure(self, **settings: str | None) -> None:
        """Sets or resets (None) settings for all sessions from now on, also for those that are open."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        # the server has told its open sessions before it begins one that knows
        for name, value in settings.items():
            wait(
                lambda name=name, value=value: (
                    value is None  # type: ignore[misc]
                    or self.execute(f"SELECT current_setting('{name}')") == [(value,)]
                ),
                f"{name} is not {value}",
            )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended: {self.log.read_text()[-2000:]}")
        # as pg_ctl sees it
        with suppress(OSError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return (lines[0], lines[7:8]) == (str(self.pid), ["ready   "])
        return False


def missing() -> str:
    """What is missing on this machine to run a server; "" if nothing is."""
    try:
        require_programs(_BINARIES)
    except StackError as error:
        return str(error)
    return ""


def binary(name: str) -> str:
    return str(_programs() / name)


@cache
def _programs() -> Path:
    """The directory of the programs, where the server's user can come to it."""
    kept, owner = ExitStack(), os.getpid()
    atexit.register(lambda: os.getpid() == owner and kept.close())
    return kept.enter_context(reachable(require_programs(_BINARIES)))


@cache
def _template() -> Path:
    """The files of a fresh server with ROLE in it: to copy them takes a tenth of the time.

    All test processes of a run share them.
    """
    shared = os.environ.get(SHARED)
    data = (Path(shared) if shared else _scratch("glassq-postgres-")) / "postgres" / "data"
    with data.parent.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not data.exists():
            _make(given(data.parent) / "new")
            data.with_name("new").rename(data)
    return data


def _make(data: Path) -> None:
    options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--wal-segsize=1")
    role = f"CREATE ROLE {ROLE} LOGIN\n".encode()
    for command, said in (
        ([binary("initdb"), "-D", data, *options], b""),
        ([binary("postgres"), "--single", "-D", data, "-c", "fsync=off", "postgres"], role),
    ):
        subprocess.run(command, input=said, check=True, capture_output=True, cwd=data.parent, **runs_as())


def _scratch(prefix: str) -> Path:
    """A directory of this process, removed at its end."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(made, ignore_errors=True))
    made.chmod(0o755)
    return made


def given(directory: Path) -> Path:
    """The directory, or one of its own where the server's user cannot come to it; it belongs to the server's user."""
    if not os.geteuid() and not all(parent.stat().st_mode & 0o001 for parent in directory.parents):
        directory = _scratch("glassq-postgres-") / directory.name
    directory.mkdir(exist_ok=True)
    _hand_over(directory)
    return directory


def _hand_over(directory: Path) -> None:
    """PostgreSQL wants its directory for itself, and to be no root."""
    directory.chmod(0o700)
    if (user := server_user()) is not None:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, *user)


def runs_as() -> dict[str, object]:
    if (user := server_user()) is None:
        return {}
    return {"user": user[0], "group": user[1], "extra_groups": []}


def _runs(pid: int) -> bool:
    """Whether the process runs: a dead one may wait for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait(condition: Callable[[], object], what: str) -> None:
    """Returns once the condition is true. Raises AssertionError after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.01)
