"""Runs the console under gunicorn: one worker, so that runs and samples live in one process, with a few threads.

Whole requests reach the threads alone (glassq/http): a slow client holds none of them.
"""

from __future__ import annotations

import os
import resource
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application

from glassq import log
from glassq.console.app import create_app
from glassq.console.console import Console
from glassq.console.guard import HEADERS, MAX_BODY
from glassq.console.keys import open_key, state_directory
from glassq.errors import SettingsError
from glassq.heaps import limit_heaps
from glassq.http.arbiter import TendingArbiter
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.gunicorn_worker import BufferingWorker
from glassq.http.listen import try_bind
from glassq.in_effect import InEffect
from glassq.log import fields
from glassq.settings import SECTIONS, load
from glassq.startcheck import Finding, found

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import falcon

    from glassq.settings import Settings
    from glassq.values import Bind

_log = log.logger("glassq.console")

PROGRAM = "glassq-console"
THREADS = 8
MAX_CONNECTIONS = 200
_SPARE_DESCRIPTORS = 100
# A head of a request, beside its body: cookies of other tunnels come with it.
_HEAD = 32 << 10
# The socket lets in its user and group alone.
_UMASK = 0o117


class ConsoleWorker(BufferingWorker):
    """The worker of glassq/http; no body goes to disk."""

    max_body = MAX_BODY + _HEAD
    # what the app never sees is answered with them, too
    early_headers = tuple(f"{name}: {value}\r\n" for name, value in HEADERS.items())


class _Everything(frozenset[str]):
    """The paths whose requests are worked by threads: all."""

    def __contains__(self, path: object) -> bool:
        return True


class ConsoleServer(Application):  # type: ignore[misc]
    """The application in gunicorn's parent process."""

    cfg: Any
    # what the worker needs to know
    inline = MAX_BODY + _HEAD
    body_limits: Mapping[str, int] = MappingProxyType({})
    aside: Collection[str] = _Everything()
    foreign: Collection[str] = frozenset()
    #: there is no listener beside the console's own
    listeners: Sequence[Any] = ()

    def __init__(
        self, file: str | None, bind: Bind | None = None, ready: Callable[[ConsoleServer], None] | None = None
    ):
        """`file` is the settings file; if None, `glassq.settings.load` finds it. `bind` stands for [console] bind.

        `ready` is called once the console answers. Raises SettingsError.
        """
        self._file = file
        self.settings = read(file)
        self.bind = bind or self.settings.console.bind
        self._ready = ready
        self._handed_over = "LISTEN_FDS" in os.environ
        self._console: Console | None = None
        self.counters, self.request_log = _NoCounters(), _log
        self._in_effect = InEffect(PROGRAM, SECTIONS, os.environ.get("RUNTIME_DIRECTORY"))
        super().__init__(prog=PROGRAM)

    def do_load_config(self) -> None:
        """gunicorn calls it at the start and at a reload."""
        self.load_default_config()
        self.load_config()

    def load_config(self) -> None:
        """What gunicorn is to do; its files and its command line are not asked."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for name, value in {
            "bind": [str(self.bind)],
            "workers": 1,
            "threads": THREADS,
            "worker_class": ConsoleWorker,
            "worker_connections": max(THREADS + 1, min(MAX_CONNECTIONS, descriptors - _SPARE_DESCRIPTORS)),
            "backlog": 128,
            "umask": _UMASK,
            "http_parser": "auto",
            "keepalive": 60,
            "graceful_timeout": 20,
            "timeout": 60,
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: PTH112, S108
            "control_socket_disable": True,
            "limit_request_fields": 100,
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "accesslog": None,
            "proc_name": PROGRAM,
            "logger_class": GunicornLog,
            "post_worker_init": self._in_worker,
        }.items():
            self.cfg.set(name, value)

    def check_address(self) -> None:
        """Raises OSError if the server cannot listen there. A socket from systemd takes precedence."""
        if not self._handed_over:
            try_bind(self.bind)

    def run(self) -> None:
        """Serves until it is stopped; then raises SystemExit."""
        self._in_effect.start(self._in_effect.read(self.settings))
        for remark in (*self.settings.ignored, *self.settings.outdated):
            _log.warning("settings are wrong or outdated %s", fields(why=remark))
        # its threads take turns at the interpreter anyway; what they free in heaps of their own would be a fifth of it
        limit_heaps(1)
        try:
            TendingArbiter(self).run()
        except RuntimeError as error:
            _log.error("cannot start %s", fields(why=error))
            raise SystemExit(1) from None

    def load(self) -> falcon.App[Any, Any]:
        """The app, in the worker."""
        log.setup(self.settings.log.level, form=self.settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        # the unit has put the credentials in place of all secrets
        self._console = Console(self.settings, self._file, confined="CREDENTIALS_DIRECTORY" in os.environ)
        self._console.renderer.compile_all()
        self._console.start()
        return create_app(self._console)

    def close(self) -> None:
        """The worker ends: runs stop between two jobs."""
        if self._console is not None:
            self._console.close()

    def reload(self) -> None:
        """Reads everything again at SIGHUP. If there is a mistake, the log names it, and the old settings stay."""
        old = self.settings, self.cfg
        try:
            settings = read(self._file)
            if settings.console.bind != self.settings.console.bind:
                raise SettingsError(f"{settings.file}: another [console] bind needs a restart of {PROGRAM}")
            self.settings = settings
            super().reload()
        except (SettingsError, OSError) as error:
            self.settings, self.cfg = old
            _log.error("not reloaded, the old settings stay %s", fields(why=error))
            self._in_effect.refuse(str(error))
            return
        self._in_effect.accept(self._in_effect.read(settings))

    def tend_metrics(self, arbiter: TendingArbiter) -> None:
        """It has none."""

    def begin_body(self, size: int) -> Any:
        """Never called: no body is larger than `inline`."""
        raise NotImplementedError

    def refuses(self, environ: Mapping[str, Any]) -> bool:
        """Nothing that is received is refused before it is whole."""
        return False

    def not_received(self, path: str, reason: str) -> None:
        """Nothing was begun for it."""

    def forsake(self, items: Sequence[Any]) -> None:
        """Nothing was begun for these."""

    def keep(self, items: Sequence[Any]) -> Sequence[bool]:
        """Nothing is held until it is kept."""
        return [True for _ in items]

    def _in_worker(self, worker: Any) -> None:
        if self._ready is not None:
            self._ready(self)
            # a worker that replaces this one has nothing to say
            self._ready = None


class _NoCounters:
    """Nobody counts the console's requests."""

    def refused(self, status: int) -> None:
        """See gathering.Counters."""

    def crowded(self) -> None:
        """See gathering.Counters."""


def read(file: str | None) -> Settings:
    """The settings. Raises SettingsError, also where the key of sessions cannot be used."""
    settings = load(file, os.environ)
    open_key(state_directory(settings))
    return settings


def check(file: str | None) -> Iterator[Finding]:
    """What `ConsoleServer` would refuse, without its address."""
    yield found("console", lambda: read(file))
