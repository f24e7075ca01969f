"""The real servers that are measured. Each measurement has its own beanstalkd, with `-b DIR -f0`."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import greenstalk

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
TOKEN = "bench-verify-token"
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


@contextmanager
def beanstalkd(directory: Path) -> Iterator[int]:
    """Yields the port of a beanstalkd that writes each put to disk before it answers."""
    program = shutil.which("beanstalkd")
    if program is None:
        sys.exit("bench: beanstalkd is missing; run it as `make bench`")
    port = free_port()
    (directory / "binlog").mkdir(parents=True)
    command = [program, "-l", "127.0.0.1", "-p", str(port), "-b", str(directory / "binlog"), "-f0", "-z", "131072"]
    with process(command, directory / "beanstalkd.log"):
        wait_for_port(port)
        yield port


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


def settings(directory: Path, queue_port: int, web_port: int, *, handler: str, processes: int, push: str = "") -> Path:
    """Writes a glassq.toml: defaults except for addresses, files, the handler and the [push] part."""
    (directory / "tokens").write_text(f"{TOKEN}\n")
    (directory / "client-secret").write_text("bench\n")
    (directory / "credentials-key").write_text(base64.urlsafe_b64encode(bytes(32)).decode() + "\n")
    file = directory / "glassq.toml"
    file.write_text(f"""
[queue]
url = "beanstalk://127.0.0.1:{queue_port}"
[intake]
bind = "127.0.0.1:{web_port}"
workers = {WEB_WORKERS}
threads = {WEB_THREADS}
journal = "{directory}/spool"
[sources.mirror]
verify_tokens_file = "{directory}/tokens"
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


WEB_WORKERS = 2
WEB_THREADS = 8


@contextmanager
def intake(directory: Path) -> Iterator[tuple[int, int]]:
    """Yields the ports of glassq's intake and of its beanstalkd."""
    with ExitStack() as stack:
        queue_port = stack.enter_context(beanstalkd(directory))
        port = free_port()
        file = settings(directory, queue_port, port, handler="handlers:noop", processes=1)
        command = [sys.executable, str(ROOT / "bin/glassq-web"), "--config", str(file)]
        stack.enter_context(process(command, directory / "web.log"))
        wait_for_port(port)
        yield port, queue_port


@contextmanager
def plain_app(directory: Path, app: str) -> Iterator[tuple[int, int]]:
    """Yields the ports of an app of apps.py and of its beanstalkd.

    It runs under plain gunicorn with as many processes and threads as the intake.
    """
    with ExitStack() as stack:
        queue_port = stack.enter_context(beanstalkd(directory))
        port = free_port()
        command = [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--bind", f"127.0.0.1:{port}"),
            *("--workers", str(WEB_WORKERS), "--threads", str(WEB_THREADS), "--no-control-socket", f"apps:{app}"),
        ]
        env = {"PYTHONPATH": str(Path(__file__).parent), "BENCH_QUEUE_PORT": str(queue_port)}
        stack.enter_context(process(command, directory / f"{app}.log", **env))
        wait_for_port(port)
        yield port, queue_port


@contextmanager
def pool(
    directory: Path, queue_port: int, processes: int, handler: str = "handlers:noop", *, push: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts glassq's pool. Yields when all its children reserve."""
    file = settings(directory, queue_port, free_port(), handler=handler, processes=processes, push=push)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(directory / "notify"))
        ready.settimeout(START_TIMEOUT)
        command = [sys.executable, str(ROOT / "bin/glassq-worker"), "--config", str(file)]
        with process(command, directory / "worker.log", NOTIFY_SOCKET=str(directory / "notify")) as started:
            try:
                while b"READY=1" not in ready.recv(4096).splitlines():
                    pass
            except TimeoutError:
                sys.exit(f"bench: the pool does not start\n{(directory / 'worker.log').read_text()}")
            yield started


def client(queue_port: int, tube: str = "glassq") -> greenstalk.Client[bytes]:
    return greenstalk.Client(("127.0.0.1", queue_port), encoding=None, use=tube, watch=tube)
