"""Runs the app under gunicorn. Settings are checked before anything uses them, at the start and at a reload."""

from __future__ import annotations

import importlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.config import Config

from glassq import log
from glassq.errors import SettingsError
from glassq.http.arbiter import TendingArbiter
from glassq.http.gunicorn_conf import apply_conf
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.large import place
from glassq.http.listen import open_listener
from glassq.http.liveness import LivenessResource
from glassq.in_effect import InEffect
from glassq.intake import large_bodies
from glassq.intake.app import ReadinessResource, create_app
from glassq.intake.large_bodies import body_limits
from glassq.intake.listen import AbsentListener, addresses, check_move, missing, raise_descriptors
from glassq.intake.metrics import (
    JOURNALING,
    ROWS,
    WORKERS,
    IntakeCounters,
    MetricsResource,
    shared_counters,
)
from glassq.intake.pages import METRICS, ListenerFilter, SourcesResource, open_report_socket
from glassq.intake.peers import check_allowed
from glassq.intake.process import IntakeProcess, can_open_journal, open_journal
from glassq.intake.report import PATH, report_socket
from glassq.intake.source_counters import SharedSourceCounters
from glassq.log import fields
from glassq.settings import INTAKE, installed_file, load
from glassq.sources import open_sources
from glassq.sources.opening import open_source
from glassq.startcheck import Finding, found
from glassq.values import Bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    import falcon

    from glassq.settings import Settings
    from glassq.sources.base import Source


_log = log.logger("glassq.intake")

# The name in the last release's gunicorn.conf.py; to be removed after one release.
Lines = GunicornLog


class IntakeServer(Application):  # type: ignore[misc]
    """The application in gunicorn's parent process: reads settings and secrets, and passes both to the workers."""

    cfg: Any
    #: the worker stores larger bodies, in bytes
    inline: int
    #: these ask the queue, look at the journal's disk, or add up what all workers have counted
    aside = frozenset({METRICS, PATH, "/readyz"})

    def __init__(self, file: str | None) -> None:
        """`file` is the settings file; if None, `glassq.settings.load` finds it. Raises SettingsError."""
        self.settings, self._sources = read(file)
        self.inline = self.settings.queue.url.inline
        #: the counters of all workers; a worker's own row is chosen before the fork
        self._shared = shared_counters()
        self._shared_sources = SharedSourceCounters(self._sources, ROWS)
        self._row = 0
        #: the worker logs refused requests here
        self.request_log = _log
        if self.settings.metrics.intake:
            # imported before the fork, so that the workers share its memory
            importlib.import_module("glassq.metrics.exposition")
        # systemd has opened the sockets and chosen their addresses
        self._handed_over = "LISTEN_FDS" in os.environ
        #: the metrics address while we cannot listen there; and the address that is hidden from gunicorn
        self._absent: AbsentListener | None = None
        self._apart = ""
        self._conf = installed_file("gunicorn.conf.py", self.settings)
        # gunicorn.conf.py reads the same file
        os.environ["GLASSQ_CONFIG"] = self.settings.file
        directory = os.environ.get("RUNTIME_DIRECTORY")
        self._in_effect = InEffect("glassq-web", INTAKE, directory)
        self._report = report_socket(directory) if directory else None
        #: the worker listens there as well
        self.listeners: list[socket.socket] = []
        # gunicorn.conf.py asks how many there are
        raise_descriptors()
        super().__init__(prog="glassq-web")

    def do_load_config(self) -> None:
        """gunicorn calls it at the start and at a reload. Raises SettingsError where gunicorn would end the process."""
        self.load_default_config()
        self.load_config()

    def load_config(self) -> None:
        """Reads gunicorn.conf.py, and nothing else."""
        apply_conf(self._conf, self.cfg)
        self._leave_out()
        self.cfg.set("pre_fork", self._before_fork)
        self.cfg.set("child_exit", self._after_exit)

    def _warn(self) -> None:
        for mistake in self.settings.ignored:
            _log.warning("settings of another program are wrong %s", fields(why=mistake))
        for remark in self.settings.outdated:
            _log.warning("settings are outdated %s", fields(why=remark))

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        taken = {other.row for other in arbiter.WORKERS.values()}
        self._row = worker.row = next((row for row in range(1, ROWS) if row not in taken), ROWS - 1)
        self._shared.row(0).set(WORKERS, len(arbiter.WORKERS) + 1)
        metrics = self.settings.metrics.intake
        if worker.age == 1 and self._handed_over and metrics and missing(metrics, arbiter.LISTENERS):
            self._absent = AbsentListener(
                Bind(metrics), "systemd does not listen there", time.monotonic(), handed_over=True
            )

    def without_metrics(self, bind: Bind, error: OSError) -> None:
        """Goes on without the metrics address, on which we cannot listen. Call it before `run`."""
        self._absent = AbsentListener(bind, error.strerror or str(error), time.monotonic(), handed_over=False)
        self._apart = str(bind)
        self._leave_out()

    def _leave_out(self) -> None:
        # gunicorn must not know this address: at a reload it binds all of them again if one has changed
        self.cfg.set("bind", [bind for bind in self.cfg.bind if bind != self._apart])

    def run(self) -> None:
        """Serves until it is stopped; then raises SystemExit."""
        self._in_effect.start(self._in_effect.read(self.settings))
        self._warn()
        self._open_report()
        try:
            TendingArbiter(self).run()
        except RuntimeError as error:
            _log.error("cannot start %s", fields(why=error))
            raise SystemExit(1) from None

    def _open_report(self) -> None:
        if self._report is None:
            return
        try:
            self.listeners.append(open_report_socket(self._report))
        except OSError as error:
            _log.warning("the counters of sources cannot be read %s", fields(socket=self._report, why=error))

    def tend_metrics(self, arbiter: TendingArbiter) -> None:
        """Opens the metrics listener once that is possible. The arbiter calls it once a second."""
        if self._absent is None or not self._absent.due(time.monotonic()):
            return
        try:
            listener = open_listener(self._absent.bind, self.cfg, arbiter.log)
        except OSError as error:
            self._absent.failed(error)
            return
        _log.info("serving metrics %s", fields(address=self._absent.bind))
        self._absent = None
        arbiter.LISTENERS.append(listener)
        arbiter.renew_workers()

    def _after_exit(self, arbiter: Any, worker: Any) -> None:
        self._shared.row(worker.row).set(JOURNALING, 0)
        self._shared.row(0).set(WORKERS, len(arbiter.WORKERS))

    def load(self) -> falcon.App[Any, Any]:
        """The app, in a worker. It reads no file: a file that is being edited cannot stop a new worker."""
        log.setup(self.settings.log.level, form=self.settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        #: for the worker too, which refuses what never becomes a request
        self.counters = IntakeCounters(self._shared.row(self._row))
        process = IntakeProcess(self.settings, self.counters, self._shared_sources.row(self._row))
        process.start()
        self.keep, self.close = process.keeper.keep, process.close
        self.begin_body, self.forsake = process.bodies.begin, process.keeper.forsake
        self.body_limits = body_limits(self._sources)
        self.foreign = {f"/hooks/{source.name}" for source in self._sources if source.kind == "custom"}
        hooks = self._hooks = process.hooks(self.settings, self._sources)
        return create_app(hooks, self.counters, process.refusals, self._pages(process), self._listener_filter())

    def refuses(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request with a large body is refused by its head alone. The worker asks it in its loop."""
        hook = self._hooks.get(_source_in(place(environ["PATH_INFO"])))
        return hook is None or hook.refuses(environ)

    def not_received(self, path: str, reason: str) -> None:
        """A large body for this path was not received; the worker says why, as metrics count it."""
        if hook := self._hooks.get(_source_in(path)):
            hook.not_received(reason)

    def _pages(self, process: IntakeProcess) -> dict[str, object]:
        """What is served beside hooks, by path."""
        state, watcher, sources = process.state, process.watcher, self._shared_sources
        pages = {"/healthz": LivenessResource(), "/readyz": ReadinessResource(state, watcher)}
        if self._report is not None:
            pages[PATH] = SourcesResource(sources)
        if self.settings.metrics.intake:
            pages[METRICS] = MetricsResource(self._shared, sources, state, watcher, process.journal)
        return pages

    def _listener_filter(self) -> ListenerFilter:
        metrics = self.settings.metrics.intake
        return ListenerFilter(metrics if metrics and len(addresses(self.settings)) > 1 else None, self._report)

    def reload(self) -> None:
        """Reads everything again at SIGHUP. If there is a mistake, the log names it, and the old settings stay."""
        old = self.settings, self._sources, self.cfg, self._absent, self._apart
        try:
            settings, sources = read(self.settings.file)
            check_move(self.settings, settings, handed_over=self._handed_over)
            if addresses(settings) != addresses(self.settings):
                self._absent, self._apart = None, ""
            self.settings, self._sources = settings, sources
            super().reload()
        except (SettingsError, OSError) as error:
            self.settings, self._sources, self.cfg, self._absent, self._apart = old
            _log.error("not reloaded, the old settings stay %s", fields(why=error))
            self._in_effect.refuse(str(error))
            return
        # before the new workers are forked
        self._shared_sources.renew(sources)
        self._warn()
        self._in_effect.accept(self._in_effect.read(settings))


def _source_in(path: str) -> str:
    """The name in /hooks/NAME."""
    return path.removeprefix("/hooks/")


def read(file: str | None) -> tuple[Settings, list[Source]]:
    """The settings and their sources, of which there must be at least one. Raises SettingsError."""
    settings = load(file, os.environ, INTAKE)
    sources = named_sources(settings)
    open_journal(settings)
    large_bodies.prepare(settings, sources)
    return settings, sources


def named_sources(settings: Settings) -> list[Source]:
    """The sources of the settings. Raises SettingsError where there is none, or a secret cannot be read."""
    sources = open_sources(settings)
    if not sources:
        raise SettingsError(f"{settings.file}: no source of pings: expected a section such as [sources.mirror]")
    check_allowed(settings)
    return sources


def check(file: str | None) -> Iterator[Finding]:
    """What `IntakeServer` would refuse, without its addresses: the unit decides who may listen there.

    Nothing is created: the journal's directory would belong to the user who asks.
    """
    try:
        settings = load(file, os.environ, INTAKE)
    except SettingsError as error:
        yield Finding("settings", problem=str(error))
        return
    if not settings.sources:
        yield found("sources", lambda: named_sources(settings))
    for name in settings.sources:
        # each alone, so that one mistake hides no other
        yield found("sources", partial(open_source, settings, name))
    yield found("allow", lambda: check_allowed(settings))
    yield found("journal", lambda: can_open_journal(settings))
    yield found("bodies", lambda: large_bodies.can_prepare(settings, open_sources(settings)))
    # gunicorn.conf.py reads the same file
    os.environ["GLASSQ_CONFIG"] = settings.file
    yield found("gunicorn", lambda: apply_conf(installed_file("gunicorn.conf.py", settings), Config()))
