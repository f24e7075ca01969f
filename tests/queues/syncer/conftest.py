"""A beanstalkd with small files and a syncer, and a client that asks that syncer."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.conftest import PATIENCE, Beanstalkd, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

# For an answer that must not come, in seconds.
SOON = 0.3


class Asking:
    """A connection to a syncer."""

    def __init__(self, address: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE)
        self._sock.connect(address)
        self._lines = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def line(self) -> str:
        """The next answer; "" if the syncer has cut us off."""
        try:
            return self._lines.readline().decode().rstrip("\n")
        except ConnectionResetError:
            return ""

    def prove(self) -> str:
        self.send(b"prove\n")
        return self.line()

    def is_silent(self) -> bool:
        """Whether nothing comes for a while."""
        self._sock.settimeout(SOON)
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self._sock.settimeout(PATIENCE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Beanstalkd]:
    started = Beanstalkd(tmp_path, options=("-s", "8192"))
    yield started
    started.stop()


@pytest.fixture
def asking(server: Beanstalkd) -> Iterator[Asking]:
    with Asking(server.syncer.address) as opened:
        yield opened


def prove(server: Beanstalkd) -> str:
    """The answer to one question, on a connection of its own."""
    with Asking(server.syncer.address) as asking:
        return asking.prove()


def status(server: Beanstalkd) -> Any:
    with Asking(server.syncer.address) as asking:
        asking.send(b"status\n")
        return json.loads(asking.line())


def server_id(server: Beanstalkd) -> str:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock, sock.makefile("rb") as replies:
        sock.sendall(b"stats\r\n")
        size = int(replies.readline().split()[1])
        lines = replies.read(size).decode("ascii", "replace").splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("id: "))


def numbers(server: Beanstalkd, kind: str) -> list[int]:
    """The numbers of the files binlog.N, or of another kind, in beanstalkd's directory."""
    return sorted(int(path.suffix[1:]) for path in server.dir.glob(f"{kind}.[0-9]*"))


@contextmanager
def injected(pid: int, call: str, what: str, path: Path | None = None) -> Iterator[None]:
    """Injects a fault into a system call of a process (strace's -e inject); skips where that is not possible."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    where = ["-P", str(path)] if path else []
    command = ["strace", "-f", "-p", str(pid), *where, "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        if "ttached" not in first:
            pytest.skip(f"strace cannot attach: {first}")
        os.set_blocking(tracer.stderr.fileno(), False)
        threads = [int(path.name) for path in _threads(pid)]
        wait_for(lambda: all(_traced(pid, thread) for thread in threads), "strace to attach to all threads")
        yield
    finally:
        tracer.terminate()
        tracer.wait(PATIENCE)
        tracer.stderr.close()


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _traced(pid: int, thread: int) -> bool:
    status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
    return "TracerPid:\t0\n" not in status
