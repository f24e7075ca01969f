"""A private queue, intake, pool and the server of tasks on this machine, as real processes.

A queue that is PostgreSQL is somebody else's, unless its data is in the directory: it is not started here.

All state is in one directory, including the settings. `glassq dev` writes them once; from then on they are the user's.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from glassq import daemons
from glassq.dev.door import Door
from glassq.dev.in_use import in_use
from glassq.dev.queue_server import queue_server
from glassq.dev.server_process import ServerProcess
from glassq.errors import StackError
from glassq.settings import TASK_SOURCE, load, parse, secret_files, toml_value
from glassq.stop_signals import defer_signals
from glassq.values import MAX_SOCKET_PATH, Bind, url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from glassq.settings import Settings

# Deadline for a process to start, in seconds; Python on a slow disk takes a few.
START = 30.0
# Deadlines for a graceful shutdown and for an immediate one, in seconds; in the latter the pool gives children 5 s.
STOP, STOP_COLD = 30.0, 10.0
# Where the console listens, unless another one does.
CONSOLE_PORT = 8099
# A process that lives shorter than this is not started again at once; in seconds.
RESTART_PAUSE = 1.0


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
        #: that of glassq-console, while it runs
        self.console_door: Door | None = None
        self._cleanup = ExitStack()
        self._started: dict[str, ServerProcess] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # a process that was stopped is not started again
        self._stopping = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._cleanup = cleanup
            cleanup.enter_context(in_use(self.directory))
            settings = load(str(self.config), {})
            self.door = Door(settings.intake.bind)
            self.door.check_free()
            queue = cleanup.enter_context(closing(queue_server(settings, self.directory)))
            queue.prepare()
            for process in queue.processes():
                self._start(process)
            queue.wait(self.check)
            with _notify_socket() as (path, notifications):
                self._start(
                    ServerProcess("worker", daemons.command("worker", self.config), env={"NOTIFY_SOCKET": path})
                )
                self._start(
                    ServerProcess("web", daemons.command("web", self.config), descriptors=self.door.descriptors)
                )
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
            started = self._started[name]
            if code is None or started.restarts:
                continue
            if meaning := started.meanings.get(code):
                raise StackError(meaning)
            how = f"ended with exit code {code}" if code >= 0 else f"was killed ({signal.Signals(-code).name})"
            raise StackError(f"{name} {how}, so everything was stopped{self._log_tail(name)}")

    def runtime_directory(self, name: str) -> Path:
        """What systemd would make for it: there it writes which settings are in effect."""
        return self.directory / "run" / f"glassq-{name}"

    def reload(self, name: str) -> None:
        """Tells "web", "worker" or "tasks" to reload its settings."""
        self._running[name].send_signal(signal.SIGHUP)

    def tend_tasks(self, settings: Settings) -> str:
        """Starts or stops glassq-tasks, so that it runs, where [tasks] bind says, while a task has somewhere to go.

        Returns why it cannot run, else "": nothing else depends on it. Raises StackError as `check` does.
        """
        if self.tasks_door is not None and not (_takes_tasks(settings) and self.tasks_door.bind == settings.tasks.bind):
            self._stop("tasks")
            self.tasks_door = None
        if _takes_tasks(settings) and self.tasks_door is None:
            if problems := daemons.problems_of("tasks", str(self.config)):
                return "; ".join(problems)
            try:
                door = Door(settings.tasks.bind, "[tasks] bind")
                door.check_free()
            except StackError as error:
                return str(error)
            self._start(ServerProcess("tasks", daemons.command("tasks", self.config), descriptors=door.descriptors))
            self._wait_for(door, "tasks")
            self.tasks_door = door
        return ""

    def start_console(self, port: int | None = None) -> str:
        """Starts glassq-console on this port of 127.0.0.1; None: on CONSOLE_PORT, or another free one.

        Returns why it cannot run, else "": nothing else depends on it.
        """
        try:
            _console_door(port or CONSOLE_PORT).check_free()
        except StackError as error:
            if port:
                return str(error)
            port = free_port()
        port = port or CONSOLE_PORT
        command = [*daemons.command("console", self.config), "--foreground", str(port), "--life", "0"]
        server = ServerProcess("console", command, stop=signal.SIGTERM)
        spawn = self._start(server)
        door = _console_door(port)
        try:
            self._wait_for(door, "console")
        except StackError as error:
            self._stop("console")
            return str(error)
        self.console_door = door
        # from now on it may die, and nothing else ends with it
        self._started["console"] = replace(server, restarts=True)
        self._keep("console", spawn)
        return ""

    def console_link(self, life: float) -> str:
        """A link that signs in to the console, once, within so many seconds; "" where it does not run."""
        if self.console_door is None:
            return ""
        from glassq.console.keys import open_key, state_directory
        from glassq.console.links import new_code

        key = open_key(state_directory(load(str(self.config), {})))
        return f"{self.console_door.url}/login?code={new_code(key, _who(), time.time(), life)}"

    def _start(self, server: ServerProcess) -> Callable[[], None]:
        """Starts it; returns what starts it once more."""
        name = server.name
        output = None
        if self._logs:
            path = self._log(name)
            path.parent.mkdir(exist_ok=True)
            output = self._cleanup.enter_context(path.open("ab"))
        place = self.runtime_directory(name)
        place.mkdir(parents=True, exist_ok=True)
        environment = {**handlers_env(), "RUNTIME_DIRECTORY": str(place), **server.env}
        user, group = server.user or (None, None)

        def spawn() -> None:
            self._running[name] = subprocess.Popen(
                server.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=server.directory,
                pass_fds=server.descriptors,
                user=user,
                group=group,
                extra_groups=None if user is None else (),
                # keeps a Ctrl-C from the servers: this process stops them in order
                start_new_session=True,
            )

        with defer_signals():
            self._started[name] = server
            spawn()
            self._cleanup.callback(self._stop, name)
        if server.restarts:
            self._keep(name, spawn)
        return spawn

    def _keep(self, name: str, spawn: Callable[[], None]) -> None:
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
            _end(process, self._started[name].stop, STOP)
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


def _console_door(port: int) -> Door:
    return Door(Bind(f"127.0.0.1:{port}"), "--console-port")


def _who() -> str:
    """Who has started the stack."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def _takes_tasks(settings: Settings) -> bool:
    """Whether a task can go somewhere: to a target of [push.targets], or to the handler of a route."""
    if settings.push is None:
        return False
    return bool(settings.push.targets) or any(route.source == TASK_SOURCE for route in settings.routes)


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
        for name in ("", "credentials", "photos"):
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
    common: dict[str, dict[str, object]] = {
        "intake": {"journal": directory / "spool", "key_cache": directory / "keys"},
        "sources.mirror": {"verify_tokens_file": directory / "mirror-verify-tokens"},
        "storage": {"url": f"file://{place}/photos"},
    }
    if "url" not in sections.get("queue", {}):
        # a database keeps them beside the queue
        common["queue"] = _queue(directory)
        common["bodies"] = {"url": f"file://{place}/bodies"}
        common["ledger"] = {"url": f"sqlite:///{place}/ledger.db"}
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


def _queue(directory: Path) -> dict[str, object]:
    path = directory / "beanstalkd.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return {"url": f"beanstalk://{url_path(path)}"}
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


def handlers_env() -> dict[str, str]:
    """The environment for processes that load handlers.

    Python writes no compiled files: an edit in the same second, to the same length, would not invalidate them.
    """
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


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
