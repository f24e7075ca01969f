"""What `glassq doctor` looks at on this machine: files, clock, handlers, intake.

A new check is a function of the App that yields what it saw, and a line in HERE.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.cli.checks import Check, barrier, belongs, directory, exists, me, mount, nearest
from glassq.cli.config import check_secret, load_push, secrets_in_use, takes_pings
from glassq.cli.not_in_effect import not_in_effect
from glassq.cli.programs import ask_web, ask_worker
from glassq.cli.status import look_at_spool
from glassq.cli.systemd import leaves_out_intake
from glassq.errors import LedgerError, SettingsError
from glassq.final_response import reading_final
from glassq.routes import TASKS
from glassq.settings import StorageSettings
from glassq.startcheck import found

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


def in_effect(app: App) -> Iterator[Check]:
    for said, todo in not_in_effect(app):
        yield Check("in effect", None, said, todo)


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
    if not takes_pings(app.settings) and not exists(path):
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
    if not _works_glass(app.settings) and url == StorageSettings().url:
        return
    if url.directory:
        yield directory("photos", url.directory)
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
        except (LedgerError, SettingsError) as error:
            found = Check("ledger", False, str(error), "mend it, or name another; the work goes on without a record")
    yield found


def task_names(app: App) -> Iterator[Check]:
    if app.settings.push is not None:
        yield _database("task names", app.settings.push.names, "[push] names", "named tasks cannot be added until then")


def _database(name: str, url: str, key: str, meanwhile: str) -> Check:
    """Whether it can be written. A file that is missing is not made: it would be that of whoever asks."""
    from glassq.database.engine import parse_url, sqlite_file, write_problem

    try:
        file = sqlite_file(parse_url(url, key))
        if file is not None:
            place = directory(name, file.parent)
            if not place.ok or not exists(file):
                return place
            if closed := barrier(file, write=True):
                return Check(name, False, *closed)
        problem = write_problem(url, key)
    except SettingsError as error:
        problem = str(error)
    if problem is not None:
        return Check(name, False, problem, f"mend it, or name another; {meanwhile}")
    return Check(name, True, "can be written" if file is None else f"{file} can be written")


def clock(app: App) -> Iterator[Check]:
    yield clock_at(datetime.now(UTC))


def clock_at(now: datetime) -> Check:
    """A clock that is years off breaks TLS, and gives deliveries ids that do not sort."""
    sane = now.year in YEARS
    return Check("clock", sane, f"{now:%Y-%m-%d %H:%M:%S} UTC", "" if sane else "set it (timedatectl set-ntp true)")


def handlers(app: App) -> Iterator[Check]:
    """Each handler, and what else glassq-worker refuses at its start, where no other check tells it."""
    # several routes may have one handler
    findings = {finding.name: finding for finding in ask_worker(app) if finding.what in ("handler", "start")}
    for name, finding in findings.items():
        if name == TASKS.handler and not finding.problem:
            continue
        # the place in the file is told by `config check`
        said = finding.problem.partition(f'handler = "{name.partition(" (queue ")[0]}": ')[2] or finding.problem
        todo = "mend it, or the route; until then glassq-worker does not start" if finding.problem else ""
        yield Check("handler", not finding.problem, ": ".join(filter(None, (name, said))), todo)


def push(app: App) -> Iterator[Check]:
    if app.settings.push is not None:
        problem = found("push", lambda: load_push(app.settings)).problem
        yield Check("push", not problem, problem or "its queues are right", "mend that" if problem else "")


def intake(app: App) -> Iterator[Check]:
    bind = app.settings.intake.bind
    if not takes_pings(app.settings):
        yield Check("intake", True, "nobody sends pings ([sources] and [[routes]] name nobody), so it is not asked")
        return
    if leaves_out_intake():
        yield Check("intake", True, "glassq-web is disabled on this machine, so it is not asked")
        return
    if refused := _refused_by_web(app):
        yield from refused
        return
    place = bind.place
    if place is None:
        yield Check("intake", None, f"listens on {bind}, a socket of systemd's that only it knows: not asked")
        return
    try:
        status, said = _ask(place, "/readyz")
    except (OSError, HTTPException) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        closed = barrier(Path(str(place)), write=True) if isinstance(error, PermissionError) else None
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


def metrics(app: App) -> Iterator[Check]:
    found = app.settings.metrics
    for key, address, program in (("intake", found.intake, "glassq-web"), ("pool", found.pool, "glassq-worker")):
        if address is None:
            continue
        place = f"[metrics] {key} = {address}"
        try:
            status, said = _ask(address.parts, "/metrics")
        except (OSError, HTTPException) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            yield Check("metrics", False, f"{place}: nobody answers: {words}", f"start {program}, or look at its log")
            continue
        ours = status == 200 and said.startswith("# HELP glassq_")
        said = "answers" if ours else f"answers {status}: that is not {program}"
        yield Check(
            "metrics", ours, f"{place}: {said}", "" if ours else "end what listens there, or change the address"
        )


HERE: list[Callable[[App], Iterator[Check]]] = [
    settings,
    in_effect,
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
    metrics,
]


def _works_glass(settings: Settings) -> bool:
    return any(route.handler.startswith("glassq.glass.") for route in settings.routes)


def _refused_by_web(app: App) -> list[Check]:
    """What glassq-web refuses at its start, where no other check tells it."""
    # a source's secret that cannot be read is a line of its own
    told = (
        {"spool", "sources"} if any(key.startswith("sources.") for key in secrets_in_use(app.settings)) else {"spool"}
    )
    problems = [finding.problem for finding in ask_web(app) if finding.problem and finding.what not in told]
    return [Check("intake", False, problem, "mend it; until then glassq-web does not start") for problem in problems]


def _ask(place: tuple[str, int] | str, path: str) -> tuple[int, str]:
    """What is answered to GET `path`: the status, and the beginning of its words."""
    with closing(reading_final(HTTPConnection)("localhost", timeout=PATIENT)) as connection:
        connection.sock = _connected(place)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER).decode("utf-8", "replace").strip()


def _connected(place: tuple[str, int] | str) -> socket.socket:
    if isinstance(place, tuple):
        host, port = place
        return socket.create_connection((_LOOPBACK.get(host, host), port), PATIENT)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENT)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock
