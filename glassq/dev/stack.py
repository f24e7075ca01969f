"""A private beanstalkd with its syncer, intake, pool and the server of tasks on this machine, as real processes.

A queue that is PostgreSQL is somebody else's: it is not started here.

All state is in one directory, including the settings. `glassq dev` writes them once; from then on they are the user's.
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
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from glassq import daemons
from glassq.dev.door import Door
from glassq.errors import QueueError, StackError
from glassq.queues import open_tables
from glassq.settings import load, parse, secret_files, toml_value
from glassq.stop_signals import defer_signals
from glassq.values import MAX_SOCKET_PATH, url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from glassq.settings import Settings

# Deadline for a process to start, in seconds; Python on a slow disk takes a few.
START = 30.0
# Deadlines for a graceful shutdown and for an immediate one, in seconds; in the latter the pool gives children 5 s.
STOP, STOP_COLD = 30.0, 10.0
# A process that lives shorter than this is not started again at once; in seconds.
RESTART_PAUSE = 1.0
# places of beanstalkd that PATH may lack
ELSEWHERE = ("/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin")
_SYNCER = (sys.executable, "-P", "-m", "glassq.programs.syncer")
# beanstalkd's exit code if another one uses its directory
_DIRECTORY_IN_USE = 10


class Stack:
    """The servers of `directory`, which has a glassq.toml. A context manager: the servers run inside it.

    With `logs` each server logs to directory/log/NAME.log, otherwise to the terminal.
    """

    def __init__(self, directory: Path, *, logs: bool) -> None:
        self.directory = directory.resolve()
        self.config = self.directory / "glassq.toml"
        self._logs = logs
        #: the intake's address, while it runs
        self.door: Door
        #: that of glassq-tasks, while it runs
        self.tasks_door: Door | None = None
        self._cleanup = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # a process that was stopped is not started again
        self._stopping = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._cleanup = cleanup
            settings = load(str(self.config), {})
            self.door = Door(settings.intake.bind)
            self.door.check_free()
            self._start_queue(settings)
            with _notify_socket() as (path, notifications):
                self._start("worker", daemons.command("worker", self.config), {"NOTIFY_SOCKET": path})
                self._start("web", daemons.command("web", self.config), descriptors=self.door.descriptors)
                self._wait_for(self.door, "web")
                _wait_for_ready(notifications, self.check)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def check(self) -> None:
        """Raises StackError if one of the processes has ended."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None or name == "syncer":
                continue
            if name == "beanstalkd" and code == _DIRECTORY_IN_USE:
                raise StackError(f"another beanstalkd uses {self.directory}: end it, or choose another --dir")
            how = f"ended with exit code {code}" if code >= 0 else f"was killed ({signal.Signals(-code).name})"
            raise StackError(f"{name} {how}, so everything was stopped{self._log_tail(name)}")

    def runtime_directory(self, name: str) -> Path:
        """What systemd would make for it: there it writes which settings are in effect."""
        return self.directory / "run" / f"glassq-{name}"

    def reload(self, name: str) -> None:
        """Tells "web", "worker" or "tasks" to reload its settings."""
        self._running[name].send_signal(signal.SIGHUP)

    def tend_tasks(self, settings: Settings) -> str:
        """Starts or stops glassq-tasks, so that it runs where these settings have [push].

        Returns why it cannot run, else "": nothing else depends on it. Raises StackError as `check` does.
        """
        if settings.push is None and self.tasks_door is not None:
            self._stop("tasks")
            self.tasks_door = None
        elif settings.push is not None and self.tasks_door is None:
            if problems := daemons.problems_of("tasks", str(self.config)):
                return "; ".join(problems)
            try:
                door = Door(settings.tasks.bind, "[tasks] bind")
                door.check_free()
            except StackError as error:
                return str(error)
            self._start("tasks", daemons.command("tasks", self.config), descriptors=door.descriptors)
            self._wait_for(door, "tasks")
            self.tasks_door = door
        return ""

    def _start_queue(self, settings: Settings) -> None:
        """beanstalkd with its syncer; or the tables in a database that is somebody else's to start."""
        if settings.queue.url.engine != "beanstalk":
            _make_tables(settings)
            return
        _prepare(self.directory)
        self._start("beanstalkd", _beanstalkd(settings, self.directory))
        if syncer := _syncer(settings, self.directory):
            self._start("syncer", syncer)

    def _start(
        self, name: str, command: list[str], env: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        output = None
        if self._logs:
            path = self._log(name)
            path.parent.mkdir(exist_ok=True)
            output = self._cleanup.enter_context(path.open("ab"))
        place = self.runtime_directory(name)
        place.mkdir(parents=True, exist_ok=True)
        environment = {**handlers_env(), "RUNTIME_DIRECTORY": str(place), **(env or {})}

        def spawn() -> None:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=descriptors,
                # keeps a Ctrl-C from the servers: this process stops them in order
                start_new_session=True,
            )

        with defer_signals():
            spawn()
            self._cleanup.callback(self._stop, name)
        if name == "syncer":
            threading.Thread(target=self._restart, args=(name, spawn), daemon=True).start()

    def _restart(self, name: str, spawn: Callable[[], None]) -> None:
        """Starts a process again whenever it ends, until the stack stops it."""
        while (process := self._running.get(name)) is not None:
            began = time.monotonic()
            process.wait()
            # one that cannot start is not started without a pause
            if time.monotonic() - began < RESTART_PAUSE:
                time.sleep(RESTART_PAUSE)
            with self._stopping:
                if self._running.get(name) is process:
                    spawn()

    def _stop(self, name: str) -> None:
        with self._stopping:
            process = self._running.pop(name, None)
        if process is None:
            # stopped before
            return
        try:
            _end(process, signal.SIGTERM, STOP)
        finally:
            # Too slow, or a second Ctrl-C. QUIT stops each of them at once.
            if process.poll() is None and not _end(process, signal.SIGQUIT, STOP_COLD):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_for(self, door: Door, name: str) -> None:
        deadline = time.monotonic() + START
        while not door.is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"{name} is not ready in time{self._log_tail(name)}")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    def _log_tail(self, name: str) -> str:
        if not self._logs:
            return ""
        with suppress(OSError):
            lines = self._log(name).read_text(errors="replace").splitlines()
            return "".join(f"\n    {line}" for line in lines[-5:]) + f"\n    (whole log: {self._log(name)})"
        return ""


def write_settings(
    directory: Path, sections: Mapping[str, Mapping[str, object]], routes: Mapping[str, str] | str
) -> None:
    """Prepares `directory` for a Stack: writes glassq.toml with these sections, and the secrets that sources name.

    `routes` has the handler of each source; a handler alone is that of every source. Overwrites nothing. Raises
    SettingsError for a value that cannot be used, and StackError for a directory that cannot be used; in both cases it
    writes no settings.
    """
    file = directory / "glassq.toml"
    text = _settings_text(directory, sections, routes)
    settings = parse(text, str(file))
    try:
        for name in ("", "binlog", "credentials", "photos"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        for key in secret_files(settings):
            if key.startswith("sources."):
                write_new(Path(settings.secret_path(key)), f"{secrets.token_urlsafe(24)}\n", mode=0o600)
        write_new(file, text)
    except OSError as error:
        raise StackError(f"{error.filename or directory}: {error.strerror}") from None


def check_name(directory: Path) -> None:
    """Raises StackError if glassq.toml cannot hold the directory's name."""
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise StackError(f"{directory}: settings cannot name it, as it is not UTF-8: choose another --dir") from None


def _settings_text(
    directory: Path, sections: Mapping[str, Mapping[str, object]], routes: Mapping[str, str] | str
) -> str:
    check_name(directory)
    place = url_path(directory)
    socket_path = directory / "beanstalkd.sock"
    fits = len(os.fsencode(socket_path)) <= MAX_SOCKET_PATH
    common: dict[str, dict[str, object]] = {
        "queue": {"url": f"beanstalk://{url_path(socket_path)}"} if fits else _tcp_queue(),
        "intake": {"journal": directory / "spool", "key_cache": directory / "keys"},
        "bodies": {"url": f"file://{place}/bodies"},
        "sources.mirror": {"verify_tokens_file": directory / "mirror-verify-tokens"},
        "storage": {"url": f"file://{place}/photos"},
        "ledger": {"url": f"sqlite:///{place}/ledger.db"},
    }
    lines = ["# glassq wrote this file once; change it as you like. conf/glassq.toml explains all keys."]
    for section in dict.fromkeys(["queue", "intake", *sections, *common]):
        values = {**common.get(section, {}), **sections.get(section, {})}
        lines += ["", f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    if isinstance(routes, str):
        routes = dict.fromkeys(_sources({**sections, **common}), routes)
    for source, handler in routes.items():
        lines += ["", "[[routes]]", f"source = {toml_value(source)}", f"handler = {toml_value(handler)}"]
    return "\n".join([*lines, ""])


def _sources(sections: Iterable[str]) -> list[str]:
    return [name.removeprefix("sources.") for name in sections if name.startswith("sources.")]


def _tcp_queue() -> dict[str, object]:
    return {"url": f"beanstalk://127.0.0.1:{free_port()}", "syncer": f"127.0.0.1:{free_port()}"}


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a new file, whole or not at all; does nothing if the file exists."""
    if path.exists():
        return
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    aside.rename(path)


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


def handlers_env() -> dict[str, str]:
    """The environment for processes that load handlers.

    Python writes no compiled files: an edit in the same second, to the same length, would not invalidate them.
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
    # The syncer syncs for everybody, so beanstalkd's own interval is for clients that do not ask; its files are small,
    # because each new one is zeros that the next sync must write. Without a syncer each command is synced by itself.
    syncs = ["-f1000", "-s", "1048576"] if settings.queue.syncer_address else ["-f0"]
    # -z allows App Engine's tasks of 100 KB
    return [require_beanstalkd(), *listen, "-b", str(directory / "binlog"), *syncs, "-z", "131072"]


def _prepare(directory: Path) -> None:
    """What has to be done before each start of beanstalkd. Raises StackError."""
    command = [*_SYNCER, "--binlog", str(directory / "binlog"), "--prepare"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise StackError(done.stderr.strip())


def _make_tables(settings: Settings) -> None:
    """Makes the queue's tables, or those of this version. Raises StackError."""
    tables = open_tables(settings, settings.queue.url)
    if tables is None:
        return
    with closing(tables):
        try:
            tables.upgrade()
        except QueueError as error:
            raise StackError(str(error)) from None


def _syncer(settings: Settings, directory: Path) -> list[str]:
    """The syncer's command; [] if the settings say that there is none."""
    address = settings.queue.syncer_address
    if address is None:
        return []
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    listen = f"unix:{address}" if isinstance(address, str) else f"{host}:{address[1]}"
    return [*_SYNCER, "--binlog", str(directory / "binlog"), "--queue", settings.queue.url, "--listen", listen]


def _end(process: subprocess.Popen[bytes], number: signal.Signals, patience: float) -> bool:
    process.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    return process.poll() is not None


@contextmanager
def _notify_socket() -> Iterator[tuple[str, socket.socket]]:
    """A socket on which the pool reports READY=1 (sd_notify): its path, and the socket.

    It closes once the pool is ready: a full socket without a reader would block the pool.
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
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            if b"READY=1" in notifications.recv(4096).splitlines():
                return
        check()
    raise StackError("worker is not ready in time: see its log")
