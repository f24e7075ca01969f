"""The app under gunicorn. Settings are read before anything runs on them, at the start and at a reload."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.util import parse_address

from glassq import log
from glassq.errors import SettingsError, SpoolError
from glassq.intake.app import create_app
from glassq.intake.enqueue import Enqueue
from glassq.intake.safekeeping import Safekeeping
from glassq.intake.spool import Spool
from glassq.log import kv
from glassq.queues import open_queue
from glassq.settings import installed_file, load
from glassq.sources import open_sources

if TYPE_CHECKING:
    import falcon

    from glassq.settings import Settings
    from glassq.sources import Source
    from glassq.values import Bind


class Server(Application):  # type: ignore[misc]
    """gunicorn's parent process: reads settings and secrets, and hands both to its workers."""

    def __init__(self, file: str | None) -> None:
        """`file` is the settings file; without it, `glassq.settings.load` finds it. Raises SettingsError."""
        self.settings, self._sources = read(file)
        self._conf = installed_file("gunicorn.conf.py", self.settings)
        # gunicorn.conf.py reads the same file
        os.environ["GLASSQ_CONFIG"] = self.settings.file
        super().__init__(prog="glassq-web")

    def load_config(self) -> None:
        """All of it comes from gunicorn.conf.py: no command line, no GUNICORN_CMD_ARGS."""
        self.load_config_from_file(str(self._conf))

    def load(self) -> falcon.App[Any, Any]:
        """The app, in a worker. It reads no file: one that is being edited cannot stop a worker that is replaced."""
        log.setup(self.settings.log.level, form=self.settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        return get_app(self.settings, self._sources)

    def reload(self) -> None:
        """At SIGHUP. A mistake in what is read is named in the log, and the old settings stay."""
        try:
            settings, sources = read(self.settings.file)
            if settings.intake.bind != self.settings.intake.bind:
                try_bind(settings.intake.bind)
        except (SettingsError, OSError) as error:
            logging.getLogger("glassq.intake").error("not reloaded, the old settings stay %s", kv(why=error))
            return
        self.settings, self._sources = settings, sources
        super().reload()


def read(file: str | None) -> tuple[Settings, list[Source]]:
    """The settings and the sources they name, of which there must be one. Raises SettingsError."""
    settings = load(file, os.environ)
    sources = open_sources(settings)
    if not sources:
        raise SettingsError(f"{settings.file}: no source of pings: expected a section such as [sources.mirror]")
    open_spool(settings)
    return settings, sources


def get_app(settings: Settings, sources: list[Source]) -> falcon.App[Any, Any]:
    """The app as the settings have it; for one process, made after the fork."""
    intake, queue = settings.intake, settings.queue
    durable = intake.require_durable
    enqueue = Enqueue(lambda: open_queue(queue, require_durable=durable))
    keeping = Safekeeping(enqueue, open_spool(settings), require_durable=durable)
    keeping.start()
    return create_app(sources, keeping, max_body=intake.max_body)


def open_spool(settings: Settings) -> Spool:
    """The spool of the settings, with its directory made. Raises SettingsError where that cannot be."""
    intake = settings.intake
    try:
        return Spool(Path(intake.spool), max_size=intake.spool_max, min_free=intake.spool_min_free)
    except SpoolError as error:
        raise SettingsError(f'{settings.file}: [intake] spool = "{intake.spool}": {error}') from None


def try_bind(bind: Bind) -> None:
    """Listens for a moment. Raises OSError, for which gunicorn would say the same ten times in five seconds."""
    address = parse_address(bind)
    if isinstance(address, tuple):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        socket.create_server(address, family=family).close()
    elif isinstance(address, str):
        _try_socket(Path(address))


def _try_socket(path: Path) -> None:
    # gunicorn removes what lies there: that must not be the socket of one who still listens
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            if not path.is_socket() or sock.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if not os.access(path.parent, os.W_OK):
        code = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(code, f"{path.parent}: {os.strerror(code)}")
