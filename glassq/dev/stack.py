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
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

from glassq.dev.door import Door
from glassq.errors import StackError
from glassq.settings import load, parse, toml_value
from glassq.values import MAX_SOCKET_PATH, url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.settings import Settings

# A process has this long to come up, in seconds; Python on a slow disk takes a few.
START = 30.0
# How long one may take to end, and to end at once, in seconds; the pool gives its children 5 s for the latter.
STOP, STOP_COLD = 30.0, 10.0
# where beanstalkd may be and PATH may not lead
ELSEWHERE = ("/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin")
# what asks us to end
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        #: where the intake listens, while it runs
        self.door: Door
        self._cleanup = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._cleanup = cleanup
            settings = load(str(self.config), {})
            self.door = Door(settings.intake.bind)
            self.door.check_free()
            self._start("beanstalkd", _beanstalkd(settings, self.directory))
            with _notify_socket() as (path, notifications):
                self._start("worker", daemon("worker", self.config), {"NOTIFY_SOCKET": path})
                self._start("web", daemon("web", self.config), descriptors=self.door.descriptors)
                self._wait_for_web()
                _wait_for_ready(notifications, self.check)
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

    def reload(self, name: str) -> None:
        """Has "web" or "worker" read its settings anew."""
        self._running[name].send_signal(signal.SIGHUP)

    def _start(
        self, name: str, command: list[str], env: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        output = None
        if self._logs:
            path = self._log(name)
            path.parent.mkdir(exist_ok=True)
            output = self._cleanup.enter_context(path.open("ab"))
        # where systemd would make it: `glassq status` reads there which settings are in effect
        place = self.directory / "run" / f"glassq-{name}"
        place.mkdir(parents=True, exist_ok=True)
        with _undisturbed():
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**handlers_env(), "RUNTIME_DIRECTORY": str(place), **(env or {})},
                pass_fds=descriptors,
                # a Ctrl-C is ours: we stop them in order
                start_new_session=True,
            )
            self._cleanup.callback(self._stop, name)

    def _stop(self, name: str) -> None:
        process = self._running.pop(name)
        try:
            _end(process, signal.SIGTERM, STOP)
        finally:
            # It was too slow, or there was a second Ctrl-C. All three take QUIT for a stop at once.
            if process.poll() is None and not _end(process, signal.SIGQUIT, STOP_COLD):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_for_web(self) -> None:
        over = time.monotonic() + START
        while not self.door.is_ready():
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

    Nothing that exists is overwritten. Raises SettingsError for a value that cannot be used, and StackError where the
    directory cannot be; in both cases the directory has no settings then.
    """
    file = directory / "glassq.toml"
    text = _settings_text(directory, sections, route)
    parse(text, str(file))
    try:
        for name in ("", "binlog", "credentials", "photos"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        write_new(directory / "mirror-verify-tokens", f"{secrets.token_urlsafe(24)}\n", mode=0o600)
        write_new(file, text)
    except OSError as error:
        raise StackError(f"{error.filename or directory}: {error.strerror}") from None


def check_name(directory: Path) -> None:
    """Raises StackError where settings cannot name the directory."""
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise StackError(f"{directory}: settings cannot name it, as it is not UTF-8: choose another --dir") from None


def _settings_text(directory: Path, sections: Mapping[str, Mapping[str, object]], route: str) -> str:
    check_name(directory)
    place = url_path(directory)
    socket_path = directory / "beanstalkd.sock"
    fits = len(os.fsencode(socket_path)) <= MAX_SOCKET_PATH
    common: dict[str, dict[str, object]] = {
        "queue": {"url": f"beanstalk://{url_path(socket_path)}" if fits else f"beanstalk://127.0.0.1:{free_port()}"},
        "intake": {"spool": directory / "spool"},
        "sources.mirror": {"verify_tokens_file": directory / "mirror-verify-tokens"},
        "storage": {"url": f"file://{place}/photos"},
        "ledger": {"url": f"sqlite:///{place}/ledger.db"},
    }
    lines = ["# Written by glassq once; yours to change. All keys are explained in conf/glassq.toml."]
    for section in dict.fromkeys([*common, *sections]):
        values = {**common.get(section, {}), **sections.get(section, {})}
        lines += ["", f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    lines += ["", "[[routes]]", 'source = "mirror"', f"handler = {toml_value(route)}", ""]
    return "\n".join(lines)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that is not there yet, whole or not at all; one that is there stays as it is."""
    if path.exists():
        return
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    aside.rename(path)


def require_beanstalkd() -> str:
    """The path of beanstalkd. Raises StackError, with what to do, where it is not installed."""
    # the last one is where tools/setup-beanstalkd unpacks it
    places = [os.environ.get("PATH", ""), *ELSEWHERE, f"{sys.prefix}/beanstalkd/usr/bin"]
    program = shutil.which("beanstalkd", path=":".join(places))
    if program is None:
        raise StackError(
            "beanstalkd is not installed: apt install beanstalkd (Debian, Ubuntu), brew install beanstalkd (macOS), "
            "or make setup in a clone of glassq"
        )
    return program


def handlers_env() -> dict[str, str]:
    """The environment for processes that load handlers.

    Without compiled files: an edit in the same second, to the same length, would be taken for what is compiled.
    """
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def _beanstalkd(settings: Settings, directory: Path) -> list[str]:
    address = settings.queue.url.address
    if isinstance(address, str):
        if len(os.fsencode(address)) > MAX_SOCKET_PATH:
            raise StackError(f"{settings.file}: [queue] url: the path of a socket has at most {MAX_SOCKET_PATH} bytes")
        listen = ["-l", f"unix:{address}"]
    else:
        listen = ["-l", address[0], "-p", str(address[1])]
    # -f0: a put is on disk before it is acknowledged; -z: tasks may have App Engine's 100 KB
    return [require_beanstalkd(), *listen, "-b", str(directory / "binlog"), "-f0", "-z", "131072"]


def daemon(name: str, config: str | Path | None) -> list[str]:
    """The command line of "web" or "worker". -P: modules in the working directory are nothing of ours."""
    command = [sys.executable, "-P", "-m", f"glassq.programs.{name}"]
    return [*command, "--config", str(config)] if config else command


def _end(process: subprocess.Popen[bytes], number: signal.Signals, patience: float) -> bool:
    process.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    return process.poll() is not None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals come afterwards: in the middle of a start they would leave a process that nobody ends."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
    for number in came:
        signal.raise_signal(number)


@contextmanager
def _notify_socket() -> Iterator[tuple[str, socket.socket]]:
    """Where the pool says READY=1 (sd_notify): path and socket.

    It is closed once that is heard: a socket that nobody reads fills up, and then holds up whoever writes to it.
    """
    place = tempfile.gettempdir()
    fits = len(os.fsencode(place)) < MAX_SOCKET_PATH // 2
    short = "/tmp"  # noqa: S108 - for a directory of mode 0700
    with (
        tempfile.TemporaryDirectory(prefix="glassq-", dir=place if fits else short) as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
    ):
        notifications.bind(f"{directory}/notify")
        notifications.settimeout(0.2)
        yield f"{directory}/notify", notifications


def _wait_for_ready(notifications: socket.socket, check: Callable[[], None]) -> None:
    over = time.monotonic() + START
    while time.monotonic() < over:
        with suppress(TimeoutError):
            if b"READY=1" in notifications.recv(4096).splitlines():
                return
        check()
    raise StackError("worker does not become ready: see its log")
