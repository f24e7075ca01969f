"""A PostgreSQL server of a stack's own: on loopback, with a password, and its data in the stack's directory.

PostgreSQL does not run as root: for root it runs as nobody.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glassq.dev.postgres_programs import reachable, require_programs, server_user
from glassq.dev.server_process import ServerProcess
from glassq.errors import QueueError, QueueUnavailable, StackError, WrongTables
from glassq.queues import open_tables
from glassq.values import url_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.engine import EngineTables
    from glassq.settings import Settings

# Deadline for the server to start, and to make its files, in seconds; either takes a second or two.
START = 60.0
_ROLE, _DATABASE = "glassq", "glassq"
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    # nothing is left of it outside the directory after a SIGKILL
    "dynamic_shared_memory_type": "mmap",
}


class PostgresServer:
    """The server of the database at [queue] url, with glassq's tables in it.

    If `create` made the URL, the server is `directory`'s own, with its data in `directory`/postgres. Else somebody
    else runs it.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._data = directory / "postgres"
        self._passwords = directory / "postgres-password"
        self._cleanup = ExitStack()
        self._ours = settings.queue.url.endswith(_passfile(self._passwords))
        self._programs = require_postgres() if self._ours else Path()

    @staticmethod
    def create(directory: Path, port: int) -> str:
        """Prepares `directory` for a server of its own, which its first start makes; its URL."""
        file = directory / "postgres-password"
        line = f"127.0.0.1:{port}:*:{_ROLE}:{secrets.token_urlsafe(24)}\n"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as passwords:
            passwords.write(line)
        return f"postgres://{_ROLE}@127.0.0.1:{port}/{_DATABASE}{_passfile(file)}"

    def prepare(self) -> None:
        if not self._ours:
            return
        self._programs = self._cleanup.enter_context(reachable(self._programs))
        if (self._data / "PG_VERSION").exists():
            return
        self._data.mkdir(mode=0o700, exist_ok=True)
        if (user := server_user()) is not None:
            os.chown(self._data, *user)
        self._run("initdb", "-U", _ROLE, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        # for whoever else is on this machine, loopback is as near as it is for us
        (self._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        password = self._passwords.read_text().strip().rpartition(":")[2]
        statements = f"ALTER ROLE {_ROLE} PASSWORD '{password}'\nCREATE DATABASE {_DATABASE}\n"
        self._run("postgres", "--single", "postgres", statements=statements)

    def processes(self) -> list[ServerProcess]:
        if not self._ours:
            return []
        port = urlsplit(self._settings.queue.url).port
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        place, descriptors = self._place()
        command = [str(self._programs / "postgres"), "-D", place, "-p", str(port), *options]
        # INT ends it in order, whoever is connected
        stop, anywhere = signal.SIGINT, "/"
        return [
            ServerProcess(
                "postgres", command, descriptors=descriptors, user=server_user(), directory=anywhere, stop=stop
            )
        ]

    def wait(self, check: Callable[[], None]) -> None:
        tables = open_tables(self._settings, self._settings.queue.url)
        assert tables is not None
        deadline = time.monotonic() + START
        with closing(tables):
            while True:
                try:
                    self._prepare(tables)
                except QueueError as error:
                    check()
                    starts = self._ours and isinstance(error, QueueUnavailable)
                    if not starts or time.monotonic() > deadline:
                        raise StackError(str(error)) from None
                    time.sleep(0.05)
                else:
                    return

    def _prepare(self, tables: EngineTables) -> None:
        """Makes the tables, or upgrades them; in somebody else's database only if these cannot be used as they are."""
        try:
            if not self._ours:
                tables.check()
                return
        except WrongTables as wrong:
            try:
                tables.upgrade()
            except QueueError:
                # it says who can make them
                raise wrong from None
        else:
            tables.upgrade()

    def close(self) -> None:
        self._cleanup.close()

    def _place(self) -> tuple[str, tuple[int, ...]]:
        """The data's place, as the server can name it, and the descriptors that this needs."""
        if server_user() is None or sys.platform != "linux":
            return str(self._data), ()
        # nobody may not come to the stack's directory: by way of a descriptor it need not
        descriptor = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY)
        self._cleanup.callback(os.close, descriptor)
        return f"/proc/self/fd/{descriptor}", (descriptor,)

    def _run(self, program: str, *arguments: str, statements: str = "") -> None:
        """Runs one of its programs on the data. Raises StackError with what it said if it fails."""
        place, descriptors = self._place()
        user, group = server_user() or (None, None)
        try:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                input=statements,
                capture_output=True,
                text=True,
                timeout=START,
                cwd="/",
                env={**os.environ, "PGDATA": place},
                pass_fds=descriptors,
                user=user,
                group=group,
                extra_groups=None if user is None else (),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"PostgreSQL cannot be set up: {error}") from None
        if done.returncode:
            raise StackError(f"PostgreSQL cannot be set up: {done.stderr.strip()}")


def _passfile(file: Path) -> str:
    return f"?passfile={url_path(file)}"


def require_postgres() -> Path:
    """As `require_programs`, and raises StackError if psycopg is missing."""
    if find_spec("psycopg") is None:
        raise StackError(
            "psycopg is not installed: pip install 'glassq[postgres]', or make demo ENGINE=postgres in a clone"
        )
    return require_programs()
