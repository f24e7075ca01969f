"""The real servers that are measured. Each measurement has its own queue: beanstalkd, and the syncer beside it."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import greenstalk
from disk import AS_IT_IS, Disk

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
TOKEN = "bench-verify-token"
WEB_WORKERS = 2
WEB_THREADS = 8
# How long a server may take to start, in seconds.
START_TIMEOUT = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def process(command: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a process, and ends it with the block."""
    with log.open("ab") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@dataclass(frozen=True)
class Queue:
    """The ports of a beanstalkd and of its syncer."""

    port: int
    syncer: int


@contextmanager
def queue(directory: Path, disk: Disk = AS_IT_IS) -> Iterator[Queue]:
    """Yields a queue that runs as in glassq-beanstalkd.service and glassq-syncer.service."""
    found = Queue(free_port(), free_port())
    binlog = directory / "binlog"
    binlog.mkdir(parents=True)
    own = [sys.executable, str(ROOT / "bin/glassq-syncer"), "--binlog", str(binlog)]
    own += ["--queue", f"beanstalk://127.0.0.1:{found.port}", "--listen", f"127.0.0.1:{found.syncer}"]
    options = ["-f1000", "-s", "1048576", "-z", "131072"]
    with (
        beanstalkd(found.port, binlog, *options, disk=disk),
        process(own, directory / "syncer.log", **disk.env),
    ):
        wait_for_port(found.syncer)
        yield found


@contextmanager
def plain_queue(directory: Path, disk: Disk = AS_IT_IS) -> Iterator[int]:
    """Yields the port of a beanstalkd without a syncer: it writes each put to disk before it answers."""
    port = free_port()
    (directory / "binlog").mkdir(parents=True)
    with beanstalkd(port, directory / "binlog", "-f0", "-z", "131072", disk=disk):
        yield port


@contextmanager
def beanstalkd(port: int, binlog: Path, *options: str, disk: Disk) -> Iterator[None]:
    """Runs a beanstalkd."""
    program = shutil.which("beanstalkd")
    if program is None:
        sys.exit("bench: beanstalkd is missing; run it as `make bench`")
    command = [program, "-l", "127.0.0.1", "-p", str(port), "-b", str(binlog), *options]
    with process(command, binlog.parent / "beanstalkd.log", **disk.env):
        wait_for_port(port)
        yield


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"bench: nothing listens on port {port}")
            time.sleep(0.02)


def settings(directory: Path, queue: Queue, web_port: int, *, handler: str, processes: int, push: str = "") -> Path:
    """Writes a glassq.toml: defaults except for addresses, files, the handler and the [push] part."""
    (directory / "tokens").write_text(f"{TOKEN}\n")
    (directory / "client-secret").write_text("bench\n")
    (directory / "credentials-key").write_text(base64.urlsafe_b64encode(bytes(32)).decode() + "\n")
    file = directory / "glassq.toml"
    file.write_text(f"""
[queue]
url = "beanstalk://127.0.0.1:{queue.port}"
syncer = "127.0.0.1:{queue.syncer}"
[intake]
bind = "127.0.0.1:{web_port}"
workers = {WEB_WORKERS}
threads = {WEB_THREADS}
journal = "{directory}/spool"
[sources.mirror]
verify_tokens_file = "{directory}/tokens"
[sources.github]
secrets_file = "{directory}/tokens"
[bodies]
url = "file://{directory}/bodies"
[worker]
processes = {processes}
[glass]
client_id = "bench"
client_secret_file = "{directory}/client-secret"
credentials = "{directory}/credentials"
credentials_key_file = "{directory}/credentials-key"
[storage]
url = "file://{directory}/photos"
[ledger]
url = "sqlite:///{directory}/ledger.db"
[[routes]]
source = "mirror"
handler = "{handler}"
{push}""")
    shutil.copy(Path(__file__).parent / "handlers.py", directory)
    return file


@contextmanager
def intake(directory: Path, disk: Disk = AS_IT_IS) -> Iterator[tuple[int, Queue]]:
    """Yields the port of glassq's intake, and its queue."""
    with queue(directory, disk) as found:
        port = free_port()
        file = settings(directory, found, port, handler="handlers:noop", processes=1)
        command = [sys.executable, str(ROOT / "bin/glassq-web"), "--config", str(file)]
        # its journal is on the same disk
        with process(command, directory / "web.log", **disk.env):
            wait_for_port(port)
            yield port, found


@contextmanager
def plain_app(directory: Path, app: str, disk: Disk = AS_IT_IS, *, threads: int = WEB_THREADS) -> Iterator[int]:
    """Yields the port of an app of apps.py, which runs under plain gunicorn with as many processes as the intake."""
    with plain_queue(directory, disk) as queue_port:
        port = free_port()
        command = [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--bind", f"127.0.0.1:{port}"),
            *("--workers", str(WEB_WORKERS), "--threads", str(threads), "--no-control-socket", f"apps:{app}"),
        ]
        env = {"PYTHONPATH": str(Path(__file__).parent), "BENCH_QUEUE_PORT": str(queue_port)}
        with process(command, directory / f"{app}.log", **env):
            wait_for_port(port)
            yield port


@contextmanager
def pool(
    directory: Path, queue: Queue, processes: int, handler: str = "handlers:noop", *, push: str = "", wait: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts glassq's pool. Yields when all its children reserve; at once without `wait`."""
    file = settings(directory, queue, free_port(), handler=handler, processes=processes, push=push)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(directory / "notify"))
        ready.settimeout(START_TIMEOUT)
        command = [sys.executable, str(ROOT / "bin/glassq-worker"), "--config", str(file)]
        with process(command, directory / "worker.log", NOTIFY_SOCKET=str(directory / "notify")) as started:
            try:
                while wait and b"READY=1" not in ready.recv(4096).splitlines():
                    pass
            except TimeoutError:
                sys.exit(f"bench: the pool does not start\n{(directory / 'worker.log').read_text()}")
            # a pool waits for whoever listens and does not read
            threading.Thread(target=_read_on, args=[ready], daemon=True).start()
            yield started


def _read_on(ready: socket.socket) -> None:
    ready.settimeout(None)
    with suppress(OSError):
        while True:
            ready.recv(4096)


def client(queue_port: int, tube: str = "glassq") -> greenstalk.Client[bytes]:
    return greenstalk.Client(("127.0.0.1", queue_port), encoding=None, use=tube, watch=tube)
