"""The app under gunicorn. Settings are read before anything runs on them, at the start and at a reload."""

from __future__ import annotations

import errno
import importlib
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger

from glassq import log
from glassq.errors import SettingsError, SpoolError
from glassq.in_effect import InEffect
from glassq.intake.app import create_app
from glassq.intake.conf import use as use_conf
from glassq.intake.enqueue import Enqueue
from glassq.intake.listen import Absent, addresses, missing, move, open_listener
from glassq.intake.metrics import ROWS, SPOOLING, WORKERS, Doors, Meter, Metrics, new_board
from glassq.intake.safekeeping import Safekeeping
from glassq.intake.spool import Spool
from glassq.log import fields
from glassq.queues import open_queue
from glassq.settings import INTAKE, installed_file, load
from glassq.sources import open_sources
from glassq.startcheck import Finding, found
from glassq.values import Bind

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    import falcon

    from glassq.metrics import SharedCounters
    from glassq.settings import Settings
    from glassq.sources import Source


class Lines(Logger):  # type: ignore[misc]
    """gunicorn's own lines go where ours go."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn before it says anything."""
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
            logger.addFilter(_without_own_pid)


def _without_own_pid(record: logging.LogRecord) -> bool:
    """Every line says already which process writes it; gunicorn's words say it again."""
    pid = os.getpid()
    # one whose words and values do not fit together is told as it is
    with suppress(TypeError, ValueError):
        words = re.sub(rf"(?: with pid: {pid}| \((?:pid: ?)?{pid}\))$", "", record.getMessage())
        record.msg, record.args = words, ()
    return True


class Parent(Arbiter):  # type: ignore[misc]
    """gunicorn's parent process, which looks after the metrics' listener as well."""

    def murder_workers(self) -> None:
        """Called by gunicorn about once a second."""
        super().murder_workers()
        self.app.tend_metrics(self)


class Server(Application):  # type: ignore[misc]
    """gunicorn's parent process: reads settings and secrets, and hands both to its workers."""

    cfg: Any

    def __init__(self, file: str | None) -> None:
        """`file` is the settings file; without it, `glassq.settings.load` finds it. Raises SettingsError."""
        self.settings, self._sources = read(file)
        #: what all workers count; a worker's own row is chosen before it is forked
        self._board = new_board()
        self._row = 0
        if self.settings.metrics.intake:
            # here, so that the workers share its memory
            importlib.import_module("glassq.metrics.exposition")
        # whose address is systemd's to choose
        self._handed_over = "LISTEN_FDS" in os.environ
        #: the metrics' address while nobody can listen there; and the one that gunicorn does not know of
        self._absent: Absent | None = None
        self._apart = ""
        self._conf = installed_file("gunicorn.conf.py", self.settings)
        # gunicorn.conf.py reads the same file
        os.environ["GLASSQ_CONFIG"] = self.settings.file
        self._in_effect = InEffect("glassq-web", INTAKE, os.environ.get("RUNTIME_DIRECTORY"))
        super().__init__(prog="glassq-web")

    def do_load_config(self) -> None:
        """Called by gunicorn at the start and at a reload. Raises SettingsError, where it would end the process."""
        self.load_default_config()
        self.load_config()

    def load_config(self) -> None:
        """All of it comes from gunicorn.conf.py."""
        use_conf(self._conf, self.cfg)
        self._leave_out()
        self.cfg.set("pre_fork", self._before_fork)
        self.cfg.set("child_exit", self._after_exit)

    def _warn(self) -> None:
        for mistake in self.settings.ignored:
            log.logger("glassq.intake").warning("settings of another program are wrong %s", fields(why=mistake))

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        taken = {each.row for each in arbiter.WORKERS.values()}
        self._row = worker.row = next((row for row in range(1, ROWS) if row not in taken), ROWS - 1)
        self._board.row(0).set(WORKERS, len(arbiter.WORKERS) + 1)
        inside = self.settings.metrics.intake
        if worker.age == 1 and self._handed_over and inside and missing(inside, arbiter.LISTENERS):
            self._absent = Absent(Bind(inside), "systemd does not listen there", time.monotonic(), handed_over=True)

    def without_metrics(self, bind: Bind, error: OSError) -> None:
        """Called before `run` where the metrics' address cannot be listened on: pings do not depend on it."""
        self._absent = Absent(bind, error.strerror or str(error), time.monotonic(), handed_over=False)
        self._apart = str(bind)
        self._leave_out()

    def _leave_out(self) -> None:
        # At a reload gunicorn binds all addresses anew where one has changed; so it must never hear of this one.
        self.cfg.set("bind", [bind for bind in self.cfg.bind if bind != self._apart])

    def run(self) -> None:
        """Serves until it is stopped; ends with SystemExit."""
        self._in_effect.start(self._in_effect.read(self.settings))
        self._warn()
        try:
            Parent(self).run()
        except RuntimeError as error:
            log.logger("glassq.intake").error("cannot start %s", fields(why=error))
            raise SystemExit(1) from None

    def tend_metrics(self, arbiter: Parent) -> None:
        """Called now and then: listens for who reads metrics once that is possible."""
        if self._absent is None or not self._absent.due(time.monotonic()):
            return
        try:
            listener = open_listener(self._absent.bind, self.cfg, arbiter.log)
        except OSError as error:
            self._absent.failed(error)
            return
        log.logger("glassq.intake").info("serving metrics %s", fields(address=self._absent.bind))
        self._absent = None
        arbiter.LISTENERS.append(listener)
        # new workers know of it; the old ones finish what they answer
        for _ in range(arbiter.num_workers):
            arbiter.spawn_worker()
        arbiter.manage_workers()

    def _after_exit(self, arbiter: Any, worker: Any) -> None:
        self._board.row(worker.row).set(SPOOLING, 0)
        self._board.row(0).set(WORKERS, len(arbiter.WORKERS))

    def load(self) -> falcon.App[Any, Any]:
        """The app, in a worker. It reads no file: one that is being edited cannot stop a worker that is replaced."""
        log.setup(self.settings.log.level, form=self.settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        #: for the gate too, which refuses what never becomes a request
        self.meter = Meter(self._board.row(self._row))
        return get_app(self.settings, self._sources, self._board, self.meter)

    def reload(self) -> None:
        """At SIGHUP. A mistake in what is read is named in the log, and the old settings stay."""
        old = self.settings, self._sources, self.cfg, self._absent, self._apart
        try:
            settings, sources = read(self.settings.file)
            move(self.settings, settings, handed_over=self._handed_over)
            if addresses(settings) != addresses(self.settings):
                self._absent, self._apart = None, ""
            self.settings, self._sources = settings, sources
            super().reload()
        except (SettingsError, OSError) as error:
            self.settings, self._sources, self.cfg, self._absent, self._apart = old
            log.logger("glassq.intake").error("not reloaded, the old settings stay %s", fields(why=error))
            self._in_effect.refuse(str(error))
            return
        self._warn()
        self._in_effect.accept(self._in_effect.read(settings))


def read(file: str | None) -> tuple[Settings, list[Source]]:
    """The settings and the sources they name, of which there must be one. Raises SettingsError."""
    settings = load(file, os.environ, INTAKE)
    sources = named_sources(settings)
    open_spool(settings)
    return settings, sources


def named_sources(settings: Settings) -> list[Source]:
    """The sources of the settings. Raises SettingsError where there is none, or a secret cannot be read."""
    sources = open_sources(settings)
    if not sources:
        raise SettingsError(f"{settings.file}: no source of pings: expected a section such as [sources.mirror]")
    return sources


def check(file: str | None) -> Iterator[Finding]:
    """What `Server` would refuse, except for its addresses: whether it may listen there, its unit decides.

    Nothing is made: the spool's directory would belong to whoever asks.
    """
    try:
        settings = load(file, os.environ, INTAKE)
    except SettingsError as error:
        yield Finding("settings", problem=str(error))
        return
    yield found("sources", lambda: named_sources(settings))
    yield found("spool", lambda: _can_open_spool(settings))
    # gunicorn.conf.py reads the same file
    os.environ["GLASSQ_CONFIG"] = settings.file
    yield found("gunicorn", lambda: use_conf(installed_file("gunicorn.conf.py", settings), Config()))


def get_app(settings: Settings, sources: list[Source], board: SharedCounters, meter: Meter) -> falcon.App[Any, Any]:
    """The app as the settings have it; for one process, made after the fork."""
    durable = settings.intake.require_durable
    enqueue = Enqueue(lambda: open_queue(settings.queue, lease=settings.lease, require_durable=durable))
    spool = open_spool(settings)
    keeping = Safekeeping(enqueue, spool, require_durable=durable, spooling=meter.spooling)
    keeping.start()
    inside = settings.metrics.intake
    metrics = Metrics(board, keeping, spool) if inside else None
    doors = Doors(inside) if inside and len(addresses(settings)) > 1 else None
    return create_app(sources, keeping, meter, metrics, doors, max_body=settings.intake.max_body)


def open_spool(settings: Settings) -> Spool:
    """The spool of the settings, with its directory made. Raises SettingsError where that cannot be."""
    intake = settings.intake
    try:
        return Spool(Path(intake.spool), max_size=intake.spool_max, min_free=intake.spool_min_free)
    except SpoolError as error:
        raise _no_spool(settings, str(error)) from None


def _can_open_spool(settings: Settings) -> None:
    """Raises SettingsError where `open_spool` would, as far as can be seen without making anything."""
    path = Path(settings.intake.spool)
    damaged = path / "damaged"
    there = next(place for place in (damaged, path, *path.absolute().parents) if os.access(place, os.F_OK))
    if there == damaged:
        return
    if not there.is_dir():
        code = errno.EEXIST if there == path else errno.ENOTDIR
    elif not os.access(there, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return
    raise _no_spool(settings, f"spool {path}: cannot be made: {os.strerror(code)}")


def _no_spool(settings: Settings, why: str) -> SettingsError:
    return SettingsError(f'{settings.file}: [intake] spool = "{settings.intake.spool}": {why}')
