"""The app under gunicorn. Settings are read before anything runs on them, at the start and at a reload."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.glogging import Logger

from glassq import log
from glassq.errors import SettingsError, SpoolError
from glassq.in_effect import InEffect
from glassq.intake.app import create_app
from glassq.intake.enqueue import Enqueue
from glassq.intake.listen import addresses, missing, move
from glassq.intake.metrics import ROWS, SPOOLING, WORKERS, Doors, Meter, Metrics, new_board
from glassq.intake.safekeeping import Safekeeping
from glassq.intake.spool import Spool
from glassq.log import kv
from glassq.queues import open_queue
from glassq.settings import INTAKE, installed_file, load
from glassq.sources import open_sources

if TYPE_CHECKING:
    import falcon

    from glassq.metrics import Board
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
        self._conf = installed_file("gunicorn.conf.py", self.settings)
        # gunicorn.conf.py reads the same file
        os.environ["GLASSQ_CONFIG"] = self.settings.file
        self._in_effect = InEffect("glassq-web", INTAKE, os.environ.get("RUNTIME_DIRECTORY"))
        super().__init__(prog="glassq-web")

    def do_load_config(self) -> None:
        """What gunicorn is to do. Raises SettingsError, where gunicorn itself would end the process."""
        self.load_default_config()
        try:
            self.load_config()
            self.cfg.validate()
        except (Exception, SystemExit) as error:
            raise SettingsError(f"{self._conf}: cannot be used: {type(error).__name__}: {error}") from error

    def load_config(self) -> None:
        """All of it comes from gunicorn.conf.py: no command line, no GUNICORN_CMD_ARGS."""
        spec = importlib.util.spec_from_file_location("__config__", self._conf)
        assert spec is not None
        assert spec.loader is not None
        conf = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(conf)
        for name, value in vars(conf).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)
        self.cfg.set("pre_fork", self._before_fork)
        self.cfg.set("child_exit", self._after_exit)

    def run(self) -> None:
        """Serves until it is stopped."""
        self._in_effect.start(self._in_effect.read(self.settings))
        self._warn()
        super().run()

    def _warn(self) -> None:
        for mistake in self.settings.ignored:
            log.logger("glassq.intake").warning("settings of another program are wrong %s", kv(why=mistake))

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        taken = {each.row for each in arbiter.WORKERS.values()}
        self._row = worker.row = next((row for row in range(1, ROWS) if row not in taken), ROWS - 1)
        self._board.row(0).set(WORKERS, len(arbiter.WORKERS) + 1)
        inside = self.settings.metrics.intake
        if worker.age == 1 and self._handed_over and inside and missing(inside, arbiter.LISTENERS):
            todo = "systemctl daemon-reload && systemctl restart glassq.target"
            words = "metrics are not told: systemd does not listen there %s"
            log.logger("glassq.intake").error(words, kv(address=inside, todo=todo))

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
        old = self.settings, self._sources, self.cfg
        try:
            settings, sources = read(self.settings.file)
            move(self.settings, settings, handed_over=self._handed_over)
            self.settings, self._sources = settings, sources
            super().reload()
        except (SettingsError, OSError) as error:
            self.settings, self._sources, self.cfg = old
            log.logger("glassq.intake").error("not reloaded, the old settings stay %s", kv(why=error))
            self._in_effect.refuse(str(error))
            return
        self._warn()
        self._in_effect.accept(self._in_effect.read(settings))


def read(file: str | None) -> tuple[Settings, list[Source]]:
    """The settings and the sources they name, of which there must be one. Raises SettingsError."""
    settings = load(file, os.environ, INTAKE)
    sources = open_sources(settings)
    if not sources:
        raise SettingsError(f"{settings.file}: no source of pings: expected a section such as [sources.mirror]")
    open_spool(settings)
    return settings, sources


def get_app(settings: Settings, sources: list[Source], board: Board, meter: Meter) -> falcon.App[Any, Any]:
    """The app as the settings have it; for one process, made after the fork."""
    intake, queue = settings.intake, settings.queue
    durable = intake.require_durable
    enqueue = Enqueue(lambda: open_queue(queue, require_durable=durable))
    spool = open_spool(settings)
    keeping = Safekeeping(enqueue, spool, require_durable=durable, spooling=meter.spooling)
    keeping.start()
    inside = settings.metrics.intake
    metrics = Metrics(board, keeping, spool) if inside else None
    doors = Doors(inside) if inside and len(addresses(settings)) > 1 else None
    return create_app(sources, keeping, meter, metrics, doors, max_body=intake.max_body)


def open_spool(settings: Settings) -> Spool:
    """The spool of the settings, with its directory made. Raises SettingsError where that cannot be."""
    intake = settings.intake
    try:
        return Spool(Path(intake.spool), max_size=intake.spool_max, min_free=intake.spool_min_free)
    except SpoolError as error:
        raise SettingsError(f'{settings.file}: [intake] spool = "{intake.spool}": {error}') from None
