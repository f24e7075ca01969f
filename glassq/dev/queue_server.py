"""The queue's server of a stack: what has to be done before it starts, its processes, and when it is ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol

from glassq.dev.postgres import PostgresServer, require_postgres
from glassq.dev.server_process import ServerProcess
from glassq.errors import StackError
from glassq.values import MAX_SOCKET_PATH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.settings import Settings

# places of beanstalkd that PATH may lack
ELSEWHERE = ("/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin")
_SYNCER = (sys.executable, "-P", "-m", "glassq.programs.syncer")
# beanstalkd's exit code if another one uses its directory
_DIRECTORY_IN_USE = 10


class QueueServer(Protocol):
    """The server that keeps the jobs of a stack."""

    def prepare(self) -> None:
        """Does what has to be done before each start. Raises StackError."""
        ...

    def processes(self) -> list[ServerProcess]:
        """Its processes, in the order of their start; none if somebody else runs it."""
        ...

    def wait(self, check: Callable[[], None]) -> None:
        """Waits until it can be used, if that takes long. Raises StackError, also what `check` raises meanwhile."""
        ...

    def close(self) -> None:
        """Lets go of what its processes needed; they have ended."""
        ...


def queue_server(settings: Settings, directory: Path) -> QueueServer:
    """The server of the stack in `directory`. Raises StackError if its programs are missing."""
    known = {own.engine: own.server for own in ENGINES.values()}
    return known.get(settings.queue.url.engine, ForeignServer)(settings, directory)


class ForeignServer:
    """The server of an engine that no stack starts."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        pass

    def prepare(self) -> None:
        pass

    def processes(self) -> list[ServerProcess]:
        return []

    def wait(self, check: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        pass


class BeanstalkServer:
    """beanstalkd and its syncer; their files are in `directory`/binlog."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._binlog = directory / "binlog"
        self._program = require_beanstalkd()

    def prepare(self) -> None:
        command = [*_SYNCER, "--binlog", str(self._binlog), "--prepare"]
        self._binlog.mkdir(exist_ok=True)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise StackError(done.stderr.strip())

    def processes(self) -> list[ServerProcess]:
        in_use = f"another beanstalkd uses {self._directory}: end it, or choose another --dir"
        server = ServerProcess("beanstalkd", self._beanstalkd(), meanings={_DIRECTORY_IN_USE: in_use})
        syncer = self._syncer()
        return [server, ServerProcess("syncer", syncer, restarts=True)] if syncer else [server]

    def wait(self, check: Callable[[], None]) -> None:
        # who needs it waits for it
        pass

    def close(self) -> None:
        pass

    def _beanstalkd(self) -> list[str]:
        settings = self._settings
        address = settings.queue.url.address
        if isinstance(address, str):
            if len(os.fsencode(address)) > MAX_SOCKET_PATH:
                most = f"the path of a socket has at most {MAX_SOCKET_PATH} bytes"
                raise StackError(f"{settings.file}: [queue] url: {most}")
            listen = ["-l", f"unix:{address}"]
        else:
            listen = ["-l", address[0], "-p", str(address[1])]
        # The syncer syncs for everybody, so beanstalkd's own interval is for clients that do not ask; its files are
        # small, because each new one is zeros that the next sync must write. Without a syncer each command is synced
        # by itself.
        syncs = ["-f1000", "-s", "1048576"] if settings.queue.syncer_address else ["-f0"]
        # -z allows App Engine's tasks of 100 KB
        return [self._program, *listen, "-b", str(self._binlog), *syncs, "-z", "131072"]

    def _syncer(self) -> list[str]:
        """The syncer's command; [] if the settings say that there is none."""
        address = self._settings.queue.syncer_address
        if address is None:
            return []
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        listen = f"unix:{address}" if isinstance(address, str) else f"{host}:{address[1]}"
        return [*_SYNCER, "--binlog", str(self._binlog), "--queue", self._settings.queue.url, "--listen", listen]


def require_beanstalkd() -> str:
    """The path of beanstalkd. Raises StackError, with the command that installs it, if it is missing."""
    # tools/setup-beanstalkd unpacks it into the last place
    places = [os.environ.get("PATH", ""), *ELSEWHERE, f"{sys.prefix}/beanstalkd/usr/bin"]
    program = shutil.which("beanstalkd", path=":".join(places))
    if program is None:
        raise StackError(
            "beanstalkd is not installed: apt install beanstalkd (Debian, Ubuntu), brew install beanstalkd (macOS), "
            "or make setup in a clone of glassq"
        )
    return program


class OwnServer(NamedTuple):
    """An engine whose server a stack can start; `engine` is that of its URL, `name` is for people.

    `require` raises StackError, with the command that installs them, if its programs are missing here. `create`
    prepares a directory for a server on a port, and returns its URL; without it, the settings name one by themselves.
    """

    name: str
    engine: str
    require: Callable[[], object]
    server: Callable[[Settings, Path], QueueServer]
    create: Callable[[Path, int], str] | None = None


# By the name that their users know.
ENGINES = {
    "beanstalkd": OwnServer("beanstalkd", "beanstalk", require_beanstalkd, BeanstalkServer),
    "postgres": OwnServer("PostgreSQL", "postgres", require_postgres, PostgresServer, PostgresServer.create),
}
