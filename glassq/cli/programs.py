"""The settings as each program takes them at its start, without starting it; and a reload whose outcome is known."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.in_effect import read_record
from glassq.settings import POOL, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.in_effect import Record

# A reload may take so long, in seconds. A child that does not come up is killed after 60, systemd gives up after 90.
PATIENCE = 75.0
# Beside a program's record: while it is there, a reload only checks.
CHECK_ONLY = "check-only"


def check_web(config: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What glassq-web does before it listens. Raises SettingsError; returns mistakes that do not concern it."""
    from glassq.intake.wsgi import Server

    return Server(config).settings.ignored


def check_worker(config: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What glassq-worker and its first child do before they reserve. Else as `check_web`."""
    from glassq import routes
    from glassq.ledger.schema import parse_url
    from glassq.push import queue_yaml
    from glassq.push.dispatch import Desk
    from glassq.push.endpoints import endpoints

    settings = load(config, environ, POOL)
    push, context = settings.push, routes.Context(settings)
    queues = queue_yaml.load(push.queue_yaml, push.targets) if push is not None else {}
    if push is not None:
        context.keep(Desk.open, Desk.open(settings, queues))
    # what a handler's module prints is no part of a document
    with redirect_stdout(sys.stderr):
        routes.load(settings, endpoints(settings, queues)).prepare(context)
    parse_url(settings.ledger.url)
    return settings.ignored


CHECKS: dict[str, Callable[[str | None, Mapping[str, str]], tuple[str, ...]]] = {
    "web": check_web,
    "worker": check_worker,
}


def reload(program: str, pid: int, config: str | None, environ: Mapping[str, str]) -> None:
    """Checks what the program would read, has process `pid` read it, and waits until that is in effect.

    Raises SettingsError where it is not; the program then goes on with what it had.
    """
    directory = Path(environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or os.devnull)
    before = read_record(directory)
    CHECKS[program](config or (before.file if before else None), environ)
    if (directory / CHECK_ONLY).exists():
        return
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise SettingsError(f"process {pid} of glassq-{program} cannot be told to reload: {error.strerror}") from None
    # one of an older version keeps no record
    if before is not None and before.pid == pid:
        _wait_for_outcome(program, directory, before)


def _wait_for_outcome(program: str, directory: Path, before: Record) -> None:
    over = time.monotonic() + PATIENCE
    while time.monotonic() < over:
        now = read_record(directory)
        if now is None or now.pid != before.pid or not now.lives():
            raise SettingsError(f"glassq-{program} ended while it reloaded; its log says why")
        if now.reloads > before.reloads:
            if now.error:
                raise SettingsError(now.error)
            return
        time.sleep(0.05)
    raise SettingsError(f"glassq-{program} has not reloaded within {PATIENCE:g} s; its log says what it waits for")
