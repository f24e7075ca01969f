"""A private beanstalkd, the intake and the pool on this machine, as the real processes they are.

All state lies under one directory, settings included: what `glassq dev` wrote there once is the user's to change.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Self

from glassq.errors import StackError
from glassq.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A process has this long to come up, in seconds; Python on a slow disk takes a few.
START = 30.0
# sun_path is 104 to 108 bytes, by system
_MAX_SOCKET_PATH = 100
# where beanstalkd may be and PATH may not lead
ELSEWHERE = ("/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin")
# beanstalkd's exit code when another one uses its directory
_DIRECTORY_IN_USE = 10


class Stack:
    """The three servers of `directory`, which has a glassq.toml. A context manager: they run inside it.

    With `logs` each writes to directory/log/NAME.log; without, to the terminal.
    """

    def __init__(self, directory: Path, *, logs: bool) -> None:
        self.directory = directory.resolve()
        self.config = self.directory / "glassq.toml"
        self._logs = logs
        self._cleanup = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._cleanup = cleanup
            settings = load(str(self.config), {})
            _check_free(settings)
            self._start("beanstalkd", _beanstalkd(settings, self.directory))
            ready = self._start_worker()
            self._start("web", [sys.executable, script("glassq-web"), "--config", str(self.config)])
            self._wait_for_web(settings)
            _wait_for_ready(ready, self.check)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def check(self) -> None:
        """Raises StackError where one of the processes has ended."""
        for name, process in self._running.items():
            code = process.poll()
            if code is None:
                continue
            if name == "beanstalkd" and code == _DIRECTORY_IN_USE:
                raise StackError(f"another beanstalkd works in {self.directory}: end it, or choose another --dir")
            raise StackError(f"{name} ended with exit code {code}{self._last_words(name)}")

    def _start(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> None:
        output = None
        if self._logs:
            path = self._log(name)
            path.parent.mkdir(exist_ok=True)
            output = self._cleanup.enter_context(path.open("ab"))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            # a Ctrl-C is ours: we stop them in order
            start_new_session=True,
        )
        self._running[name] = process
        self._cleanup.callback(self._stop, name)

    def _stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start_worker(self) -> socket.socket:
        """Starts the pool; returns the socket on which it says READY=1 (sd_notify)."""
        place = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="glassq-"))
        ready = self._cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        ready.bind(f"{place}/notify")
        ready.settimeout(0.2)
        command = [sys.executable, script("glassq-worker"), "--config", str(self.config)]
        self._start("worker", command, {"NOTIFY_SOCKET": f"{place}/notify"})
        return ready

    def _wait_for_web(self, settings: Settings) -> None:
        over = time.monotonic() + START
        while not _is_ready(settings.intake.bind):
            self.check()
            if time.monotonic() > over:
                raise StackError(f"web does not become ready{self._last_words('web')}")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    def _last_words(self, name: str) -> str:
        if not self._logs:
            return ""
        with suppress(OSError):
            lines = self._log(name).read_text(errors="replace").splitlines()
            return "".join(f"\n    {line}" for line in lines[-5:]) + f"\n    (all of it: {self._log(name)})"
        return ""


def write_settings(directory: Path, sections: Mapping[str, Mapping[str, object]], route: str) -> None:
    """Makes `directory` a place for a Stack: glassq.toml with these sections and one route, and the secrets it names.

    Paths in the sections are taken as they are. Nothing that exists is overwritten.
    """
    for name in ("", "binlog", "credentials", "photos"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    socket_path = directory / "beanstalkd.sock"
    url = (
        f"beanstalk://{socket_path}"
        if len(str(socket_path)) < _MAX_SOCKET_PATH
        else f"beanstalk://127.0.0.1:{free_port()}"
    )
    _write_secret(directory / "mirror-verify-tokens", secrets.token_urlsafe(24))
    common: dict[str, dict[str, object]] = {
        "queue": {"url": url},
        "intake": {"spool": directory / "spool"},
        "sources.mirror": {"verify_tokens_file": directory / "mirror-verify-tokens"},
        "storage": {"url": f"file://{directory}/photos"},
        "ledger": {"url": f"sqlite:///{directory}/ledger.db"},
    }
    lines = ["# Written by glassq once; yours to change. All keys are explained in conf/glassq.toml."]
    for section in dict.fromkeys([*common, *sections]):
        values = {**common.get(section, {}), **sections.get(section, {})}
        lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    lines += ["", "[[routes]]", 'source = "mirror"', f'handler = "{route}"', ""]
    write_new(directory / "glassq.toml", "\n".join(lines))


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def _write_secret(path: Path, secret: str) -> None:
    write_new(path, f"{secret}\n", mode=0o600)


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that is not there yet; one that is there stays as it is."""
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _beanstalkd(settings: Settings, directory: Path) -> list[str]:
    # the last one is where tools/setup-beanstalkd unpacks it for somebody who is not root
    places = [os.environ.get("PATH", ""), *ELSEWHERE, f"{sys.prefix}/beanstalkd/usr/bin"]
    program = shutil.which("beanstalkd", path=":".join(places))
    if program is None:
        raise StackError("beanstalkd is not installed: make setup, or install your distribution's package")
    where = settings.queue.url.removeprefix("beanstalk://")
    if where.startswith("/"):
        listen = ["-l", f"unix:{where}"]
    else:
        host, _, port = where.rstrip("/").rpartition(":")
        listen = ["-l", host, "-p", port]
    # -f0: a put is on disk before it is acknowledged; -z: tasks may have App Engine's 100 KB
    return [program, *listen, "-b", str(directory / "binlog"), "-f0", "-z", "131072"]


def script(name: str) -> str:
    """The path of one of bin/: in the source tree, else where it was installed, beside the interpreter.

    Raises StackError.
    """
    for place in (Path(__file__).parent.parent.parent / "bin" / name, Path(sys.executable).parent / name):
        if place.is_file():
            return str(place)
    raise StackError(f"{name} is not installed beside {sys.executable}")


def _check_free(settings: Settings) -> None:
    """Raises StackError where somebody else listens on the intake's port: a clearer word than gunicorn's retries."""
    host, _, port = settings.intake.bind.rpartition(":")
    if not port.isdigit():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise StackError(
                f"cannot listen on {settings.intake.bind}: {error.strerror}; "
                "does another glassq dev run? Else choose another bind"
            ) from None


def _is_ready(bind: str) -> bool:
    host, _, port = bind.rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _wait_for_ready(notifications: socket.socket, check: Callable[[], None]) -> None:
    over = time.monotonic() + START
    while time.monotonic() < over:
        with suppress(TimeoutError):
            if b"READY=1" in notifications.recv(4096).splitlines():
                return
        check()
    raise StackError("worker does not become ready: see its log")
