"""The app under gunicorn. Settings are read before anything runs on them, at the start and at a reload."""

from __future__ import annotations

import errno
import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.glogging import Logger

from glassq import log
from glassq.errors import SettingsError, SpoolError
from glassq.intake.app import create_app
from glassq.intake.enqueue import Enqueue
from glassq.intake.listen import addresses, missing, move
from glassq.intake.metrics import ROWS, SPOOLING, WORKERS, Doors, Meter, Metrics, new_board
from glassq.intake.safekeeping import Safekeeping
from glassq.intake.spool import Spool
from glassq.log import kv
from glassq.queues import open_queue
from glassq.settings import installed_file, load
from glassq.sources import open_sources
from glassq.startcheck import Finding, found

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        super().__init__(prog="glassq-web")

    def load_config(self) -> None:
        """All of it comes from gunicorn.conf.py: no command line, no GUNICORN_CMD_ARGS."""
        self.load_config_from_file(str(self._conf))
        self.cfg.set("pre_fork", self._before_fork)
        self.cfg.set("child_exit", self._after_exit)

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        taken = {each.row for each in arbiter.WORKERS.values()}
        self._row = worker.row = next((row for row in range(1, ROWS) if row not in taken), ROWS - 1)
        self._board.row(0).set(WORKERS, len(arbiter.WORKERS) + 1)
        inside = self.settings.metrics.intake
        if worker.age == 1 and self._handed_over and inside and missing(inside, arbiter.LISTENERS):
            todo = "systemctl daemon-reload && systemctl restart glassq.target"
            words = "metrics are not told: systemd does not listen there %s"
            logging.getLogger("glassq.intake").error(words, kv(address=inside, todo=todo))

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
        try:
            settings, sources = read(self.settings.file)
            move(self.settings, settings, handed_over=self._handed_over)
        except (SettingsError, OSError) as error:
            logging.getLogger("glassq.intake").error("not reloaded, the old settings stay %s", kv(why=error))
            return
        self.settings, self._sources = settings, sources
        super().reload()


def read(file: str | None) -> tuple[Settings, list[Source]]:
    """The settings and the sources they name, of which there must be one. Raises SettingsError."""
    settings = load(file, os.environ)
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
        settings = load(file, os.environ)
    except SettingsError as error:
        yield Finding("settings", problem=str(error))
        return
    yield found("sources", lambda: named_sources(settings))
    yield found("spool", lambda: _can_open_spool(settings))
    yield found("gunicorn", lambda: installed_file("gunicorn.conf.py", settings))


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
