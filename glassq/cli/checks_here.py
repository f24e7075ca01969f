"""What `glassq doctor` looks at on this machine: files, clock, handlers, intake.

A new check is a function of the App that yields what it saw, and a line in HERE.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from glassq.cli.checks import Check, barrier, belongs, directory, exists, me, mount, nearest
from glassq.cli.config import check_secret, load_push, load_routes, secrets_in_use
from glassq.cli.status import look_at_spool
from glassq.errors import SettingsError
from glassq.push.request import SOURCE
from glassq.settings import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.cli.app import App
    from glassq.settings import Settings

# Intake answers at once, or something is wrong with it; in seconds.
PATIENT = 2.0
# glassq is younger than the first, and nobody runs it after the second.
YEARS = range(2024, 2100)
# Of what intake answers, so much is read, in bytes.
_ANSWER = 300
# Where a server listens on all addresses, it can be asked on this machine's own.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def settings(app: App) -> Iterator[Check]:
    yield Check("settings", True, f"{app.settings.file}, read as {me()}")


def secret_files(app: App) -> Iterator[Check]:
    for key in secrets_in_use(app.settings):
        path = Path(attrgetter(key)(app.settings))
        try:
            check_secret(app.settings, key)
        except SettingsError as error:
            wanted = "mend that file" if exists(path) else "put it there, one secret per line"
            _, todo = barrier(path, write=False) or ("", wanted)
            if key == "glass.credentials_key_file" and not exists(path):
                todo = f"{app.command('users new-key')} writes one"
            yield Check("secret file", False, str(error), todo)
            continue
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Check("secret file", False, f"everybody may use it: {belongs(path)}", f"chmod o= {path}")
        else:
            yield Check("secret file", True, str(path))


def spool(app: App) -> Iterator[Check]:
    intake = app.settings.intake
    path = Path(intake.spool).absolute()
    if not _takes_pings(app.settings) and not exists(path):
        return
    found = directory("spool", path)
    disk = os.statvfs(nearest(path))
    free = disk.f_bavail * disk.f_frsize
    where = f"on the disk at {mount(nearest(path))}, which has {free >> 20} MiB free"
    if not found.ok:
        yield found
    elif free < intake.spool_min_free or (disk.f_files and not disk.f_favail):
        said = f"{path}: {where}, of which [intake] spool_min_free keeps {intake.spool_min_free}"
        yield Check("spool", False, said, "make room there; until then nothing is spooled while the queue is down")
    else:
        yield Check("spool", True, f"{found.said}, {where}")


def spooled(app: App) -> Iterator[Check]:
    found, words = look_at_spool(app)
    if found is None:
        return
    if found.damaged:
        todo = f"look at them in {app.settings.intake.spool}/damaged, and move them back once mended"
        yield Check("spooled", False, f"{found.damaged} deliveries were damaged and set aside", todo)
    if found.count:
        todo = f"glassq-web puts them in when the queue takes them; {app.command('spool drain')} tries now"
        yield Check("spooled", None, words, todo)
    elif not found.damaged:
        yield Check("spooled", True, "nothing waits in the spool")


def photos(app: App) -> Iterator[Check]:
    url = app.settings.storage.url
    if not _works_glass(app.settings) and url == Storage().url:
        return
    parts = urlsplit(url)
    if parts.scheme == "file":
        yield directory("photos", Path(parts.path))
    else:
        yield Check("photos", None, f"{url}: not asked")


def credentials(app: App) -> Iterator[Check]:
    if _works_glass(app.settings):
        yield directory("credentials", Path(app.settings.glass.credentials))


def ledger(app: App) -> Iterator[Check]:
    found = _database("ledger", app.settings.ledger.url, "[ledger] url", "the work goes on without a record")
    if found.ok:
        try:
            app.ledger().close()
        except SettingsError as error:
            found = Check("ledger", False, str(error), "mend it, or name another; the work goes on without a record")
    yield found


def task_names(app: App) -> Iterator[Check]:
    if app.settings.push is not None:
        yield _database("task names", app.settings.push.names, "[push] names", "named tasks cannot be added until then")


def _database(name: str, url: str, key: str, meanwhile: str) -> Check:
    """Whether it can be written. A file that is missing is not made: it would be that of whoever asks."""
    from glassq.ledger.schema import parse_url, sqlite_file, try_write

    try:
        file = sqlite_file(parse_url(url, key))
        if file is not None:
            place = directory(name, file.parent)
            if not place.ok or not exists(file):
                return place
            if closed := barrier(file, write=True):
                return Check(name, False, *closed)
        try_write(url, key)
    except SettingsError as error:
        return Check(name, False, str(error), f"mend it, or name another; {meanwhile}")
    return Check(name, True, "can be written" if file is None else f"{file} can be written")


def clock(app: App) -> Iterator[Check]:
    yield clock_at(datetime.now(UTC))


def clock_at(now: datetime) -> Check:
    """A clock that is years off breaks TLS, and gives deliveries ids that do not sort."""
    sane = now.year in YEARS
    return Check("clock", sane, f"{now:%Y-%m-%d %H:%M:%S} UTC", "" if sane else "set it (timedatectl set-ntp true)")


def handlers(app: App) -> Iterator[Check]:
    # one URL may be that of several queues
    routes = {(route.handler, route.queue): route for route in app.settings.routes}
    usable = not _problem(load_push, app.settings)
    for (handler, queue), route in routes.items():
        if not usable and handler.is_url:
            # `push` says why, once
            continue
        one = msgspec.structs.replace(app.settings, routes=(route,), push=app.settings.push if usable else None)
        problem = _problem(load_routes, one)
        # the place is that of a file with one route
        said = problem.partition(f'handler = "{handler}": ')[2] or problem
        todo = "mend it, or the route; until then glassq-worker does not start"
        shown = f"{handler} (queue {queue})" if queue else handler
        yield Check("handler", not problem, f"{shown}: {said}" if said else shown, todo if problem else "")
    if not routes and app.settings.push is None:
        problem = _problem(load_routes, app.settings)
        yield Check("handler", False, problem, "until there is one glassq-worker does not start")


def push(app: App) -> Iterator[Check]:
    if app.settings.push is not None:
        problem = _problem(load_push, app.settings)
        yield Check("push", not problem, problem or "its queues are right", "mend that" if problem else "")


def intake(app: App) -> Iterator[Check]:
    bind = app.settings.intake.bind
    if not _takes_pings(app.settings):
        yield Check("intake", True, "nobody sends pings ([sources] and [[routes]] name nobody), so it is not asked")
        return
    if bind.startswith("fd://"):
        yield Check("intake", None, f"listens on {bind}, a socket of systemd's that only it knows: not asked")
        return
    try:
        status, said = _ask_ready(bind)
    except (OSError, HTTPException) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        closed = barrier(Path(bind.removeprefix("unix:")), write=True) if isinstance(error, PermissionError) else None
        todo = closed[1] if closed else "start glassq-web, or look at its log"
        yield Check("intake", False, f"nobody answers at {bind}: {words}", todo)
        return
    if status == 200 and said == "ready":
        yield Check("intake", True, f"{bind} says: {said}")
    elif status == 200 and said.startswith("ready"):
        yield Check("intake", False, f"{bind} says: {said}", "pings are safe in the spool; mend the queue")
    elif status == 503:
        todo = "pings are not taken: mend queue and spool; its log says what is wrong"
        yield Check("intake", False, f"{bind} says that it is not ready", todo)
    else:
        yield Check("intake", False, f"{bind} answers {status}: that is not glassq-web", "end what listens there")


HERE: list[Callable[[App], Iterator[Check]]] = [
    settings,
    clock,
    secret_files,
    spool,
    spooled,
    photos,
    credentials,
    ledger,
    task_names,
    handlers,
    push,
    intake,
]


def _works_glass(settings: Settings) -> bool:
    return any(route.handler.startswith("glassq.glass.") for route in settings.routes)


def _takes_pings(settings: Settings) -> bool:
    named = any(getattr(settings.sources, name) is not None for name in settings.sources.__struct_fields__)
    return named or any(route.source != SOURCE for route in settings.routes)


def _problem(load: Callable[[Settings], None], settings: Settings) -> str:
    try:
        # what a handler's module prints is no part of a document
        with redirect_stdout(sys.stderr):
            load(settings)
    except SettingsError as error:
        return str(error)
    return ""


def _ask_ready(bind: str) -> tuple[int, str]:
    """What intake answers to GET /readyz: the status, and the beginning of its words."""
    with closing(HTTPConnection("localhost", timeout=PATIENT)) as connection:
        connection.sock = _connected(bind)
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER).decode("utf-8", "replace").strip()


def _connected(bind: str) -> socket.socket:
    if not bind.startswith("unix:"):
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        return socket.create_connection((_LOOPBACK.get(host, host), int(port)), PATIENT)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENT)
        sock.connect(bind.removeprefix("unix:"))
    except BaseException:
        sock.close()
        raise
    return sock
