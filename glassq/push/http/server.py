"""Runs the app under gunicorn. Settings are checked before anything uses them, at the start and at a reload."""

from __future__ import annotations

import importlib
import os
import resource
import socket
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application

from glassq import __version__, log
from glassq.errors import SettingsError
from glassq.http.arbiter import TendingArbiter
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.gunicorn_worker import BufferingWorker
from glassq.http.listen import try_bind
from glassq.in_effect import InEffect
from glassq.log import fields
from glassq.push.client import Client
from glassq.push.http.adding import TaskAdder
from glassq.push.http.app import create_app
from glassq.push.http.door import METRICS, Doorkeeper
from glassq.push.http.metrics import ROWS, WORKERS, TaskCounters, shared_counters
from glassq.push.http.resources import MAX_REQUEST
from glassq.push.http.search import SEARCHES, RecentJobs, TaskSearch
from glassq.push.http.targets import Targets
from glassq.settings import TASK_SERVER, load
from glassq.startcheck import Finding, found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import falcon

    from glassq.metrics import SharedCounters
    from glassq.settings import Settings
    from glassq.values import Address

_log = log.logger("glassq.push")

PROGRAM = "glassq-tasks"
# Threads of a worker for all that takes long: searches, and as many named tasks at a time.
THREADS = 2 * SEARCHES
# Connections of a worker; gunicorn needs more of them than threads.
MAX_CONNECTIONS = 2_000
# Descriptors that are no clients': the queue's, the log's, those of searches.
_SPARE_DESCRIPTORS = 100
# Seconds between tries to listen on a metrics address that is not free.
METRICS_RETRY = 30.0
# The socket lets in the user and the group, whatever the mask of whoever starts us.
_UMASK = 0o117


class TaskWorker(BufferingWorker):
    """The worker of glassq/http; no body goes to disk."""

    max_body = MAX_REQUEST


class TaskServer(Application):  # type: ignore[misc]
    """The application in gunicorn's parent process: reads settings and tokens, and passes both to the workers."""

    cfg: Any
    # what the worker needs to know; its bodies are all in memory
    inline = MAX_REQUEST
    body_limits: Mapping[str, int] = MappingProxyType({})
    aside = frozenset({METRICS})
    foreign: frozenset[str] = frozenset()

    def __init__(self, file: str | None) -> None:
        """`file` is the settings file; if None, `glassq.settings.load` finds it. Raises SettingsError."""
        self.settings, self._tokens = read(file)
        self._shared = shared_counters()
        self._row = 0
        self._retry_at = 0.0
        self.request_log = _log
        if self.settings.metrics.tasks:
            # imported before the fork, so that the workers share its memory
            importlib.import_module("glassq.metrics.exposition")
        # systemd has opened the socket
        self._handed_over = "LISTEN_FDS" in os.environ
        #: the worker listens there as well
        self.listeners: list[socket.socket] = []
        self._in_effect = InEffect(PROGRAM, TASK_SERVER, os.environ.get("RUNTIME_DIRECTORY"))
        super().__init__(prog=PROGRAM)

    def do_load_config(self) -> None:
        """gunicorn calls it at the start and at a reload."""
        self.load_default_config()
        self.load_config()

    def load_config(self) -> None:
        """What gunicorn is to do; its files and its command line are not asked."""
        tasks = self.settings.tasks
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for name, value in {
            "bind": [str(tasks.bind)],
            "workers": tasks.workers,
            "threads": THREADS,
            "worker_class": TaskWorker,
            "worker_connections": max(THREADS + 1, min(MAX_CONNECTIONS, descriptors - _SPARE_DESCRIPTORS)),
            "backlog": 1024,
            "umask": _UMASK,
            "http_parser": "auto",
            "keepalive": 60,
            "graceful_timeout": 10,
            "timeout": 30,
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: PTH112, S108
            "control_socket_disable": True,
            "limit_request_fields": 100,
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "accesslog": None,
            "proc_name": PROGRAM,
            "logger_class": GunicornLog,
            "pre_fork": self._before_fork,
            "child_exit": self._after_exit,
        }.items():
            self.cfg.set(name, value)

    def check_address(self) -> None:
        """Raises OSError if the server cannot listen there. Sockets from systemd take precedence."""
        if not self._handed_over:
            try_bind(self.settings.tasks.bind)

    def run(self) -> None:
        """Serves until it is stopped; then raises SystemExit."""
        self._in_effect.start(self._in_effect.read(self.settings))
        for remark in (*self.settings.ignored, *self.settings.outdated):
            _log.warning("settings are wrong or outdated %s", fields(why=remark))
        self._open_metrics()
        try:
            TendingArbiter(self).run()
        except RuntimeError as error:
            _log.error("cannot start %s", fields(why=error))
            raise SystemExit(1) from None

    def load(self) -> falcon.App[Any, Any]:
        """The app, in a worker. It reads no file but queue.yaml."""
        log.setup(self.settings.log.level, form=self.settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        #: for the worker too, which refuses what never becomes a request
        self.counters = TaskCounters(self._shared.row(self._row))
        client, recent = Client(self.settings), RecentJobs()
        adder = TaskAdder(client, self.counters, recent)
        self.keep, self.close = adder.keep, client.close
        assert self.settings.push is not None
        targets = Targets(self.settings.push.targets, self.settings.file)
        metrics = self.settings.metrics.tasks
        pages = {METRICS: TaskMetricsResource(self._shared)} if metrics else {}
        door = Doorkeeper(self._tokens, metrics)
        return create_app(client, adder, TaskSearch(client, recent), targets, self.counters, door, pages)

    def begin_body(self, size: int) -> Any:
        """Never called: no body is larger than `inline`."""
        raise NotImplementedError

    def forsake(self, items: Sequence[Any]) -> None:
        """Nothing was begun for these."""

    def reload(self) -> None:
        """Reads everything again at SIGHUP. If there is a mistake, the log names it, and the old settings stay."""
        old = self.settings, self._tokens, self.cfg
        try:
            settings, tokens = read(self.settings.file)
            before = self.settings.tasks.bind, self.settings.metrics.tasks
            if (settings.tasks.bind, settings.metrics.tasks) != before:
                raise SettingsError(f"{settings.file}: another [tasks] bind or [metrics] tasks needs a restart")
            self.settings, self._tokens = settings, tokens
            super().reload()
        except (SettingsError, OSError) as error:
            self.settings, self._tokens, self.cfg = old
            _log.error("not reloaded, the old settings stay %s", fields(why=error))
            self._in_effect.refuse(str(error))
            return
        self._in_effect.accept(self._in_effect.read(settings))

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        taken = {other.row for other in arbiter.WORKERS.values()}
        self._row = worker.row = next((row for row in range(1, ROWS) if row not in taken), ROWS - 1)
        self._shared.row(0).set(WORKERS, len(arbiter.WORKERS) + 1)

    def _after_exit(self, arbiter: Any, worker: Any) -> None:
        self._shared.row(0).set(WORKERS, len(arbiter.WORKERS))

    def tend_metrics(self, arbiter: TendingArbiter) -> None:
        """Opens the metrics listener once that is possible. The arbiter calls it once a second."""
        if self.settings.metrics.tasks is None or self.listeners or time.monotonic() < self._retry_at:
            return
        self._open_metrics()
        if self.listeners:
            arbiter.renew_workers()

    def _open_metrics(self) -> None:
        """Listens for Prometheus. Tasks do not depend on it."""
        if (address := self.settings.metrics.tasks) is None:
            return
        try:
            self.listeners.append(_listening(address))
        except OSError as error:
            todo = f"free the address or change [metrics] tasks; it is tried again every {METRICS_RETRY:g} s"
            _log.error("metrics are not served: %s %s", error.strerror or error, fields(address=address, todo=todo))
            self._retry_at = time.monotonic() + METRICS_RETRY
        else:
            _log.info("serving metrics %s", fields(address=address))


class TaskMetricsResource:
    """GET /metrics: the counters of all workers."""

    def __init__(self, shared: SharedCounters) -> None:
        self._shared = shared

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200, also while the queue is down."""
        from glassq.metrics import exposition

        resp.content_type = exposition.CONTENT_TYPE
        resp.data = exposition.text(self._shared, {}, __version__)


def read(file: str | None) -> tuple[Settings, list[str]]:
    """The settings and the tokens. Raises SettingsError."""
    settings = load(file, os.environ, TASK_SERVER)
    # whatever it would refuse in a worker
    Client(settings).close()
    return settings, settings.secret("tasks.token_file") if settings.tasks.token_file is not None else []


def check(file: str | None) -> Iterator[Finding]:
    """What `TaskServer` would refuse, without its addresses."""
    try:
        load(file, os.environ, TASK_SERVER)
    except SettingsError as error:
        yield Finding("settings", problem=str(error))
        return
    yield found("tasks", lambda: read(file))


def _listening(address: Address) -> socket.socket:
    host, port = address.parts
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family)
    sock.setblocking(False)
    return sock
