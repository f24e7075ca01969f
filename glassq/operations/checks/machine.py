"""What glassq has on this machine: settings, secrets, journal and files.

A new check is a function of the Operations that yields what it saw, and a line in MACHINE.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.bodies.base import NO_LIMIT
from glassq.bodies.sweep import SAFE_AGE, SCAN_EVERY
from glassq.errors import BodyError, SettingsError
from glassq.operations.bodies import view
from glassq.operations.checks.access import barrier, belongs, directory, exists, me, mount, nearest
from glassq.operations.checks.base import Check
from glassq.operations.checks.configuration import check_secret, secrets_in_use, takes_pings, works_glass
from glassq.operations.checks.in_effect import no_room, not_in_effect, not_shared
from glassq.operations.journal import GONE_TODO, gone
from glassq.operations.sources import snapshot
from glassq.operations.status import journal_state
from glassq.operations.words import span
from glassq.settings import MAX_BODY, StorageSettings, remarks_on_shared
from glassq.values import is_postgres, without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.operations import Operations

# glassq is younger than the first of these years, and nobody runs it after the last.
YEARS = range(2024, 2100)


def settings(operations: Operations) -> Iterator[Check]:
    yield Check("settings", True, f"{operations.settings.file}, read as {me()}")
    for remark in operations.settings.outdated:
        yield Check("settings", None, remark, "write it as conf/glassq.toml of this version has it")
    for remark in remarks_on_shared(operations.settings):
        yield Check("settings", None, remark, "right where only this host works the queue")


def in_effect(operations: Operations) -> Iterator[Check]:
    yield from not_in_effect(Path(operations.settings.file))


def shared_memory(operations: Operations) -> Iterator[Check]:
    yield from not_shared(Path(operations.settings.file))
    yield from no_room(Path(operations.settings.file))


def clock(operations: Operations) -> Iterator[Check]:
    yield clock_at(datetime.now(UTC))


def clock_at(now: datetime) -> Check:
    """A clock that is years off breaks TLS, and gives deliveries ids that do not sort."""
    sane = now.year in YEARS
    return Check("clock", sane, f"{now:%Y-%m-%d %H:%M:%S} UTC", "" if sane else "set it (timedatectl set-ntp true)")


def secret_files(operations: Operations) -> Iterator[Check]:
    """Each file once, however many sources share it."""
    yield from dict.fromkeys(_secret_files(operations))


def _secret_files(operations: Operations) -> Iterator[Check]:
    for key in secrets_in_use(operations.settings):
        path = Path(operations.settings.secret_path(key))
        try:
            check_secret(operations.settings, key)
        except SettingsError as error:
            wanted = "mend that file" if exists(path) else "put it there, one secret per line"
            _, todo = barrier(path, write=False) or ("", wanted)
            if key == "glass.credentials_key_file" and not exists(path):
                todo = "`glassq users new-key` writes one"
            yield Check("secret file", False, str(error), todo)
            continue
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Check("secret file", False, f"everybody may use it: {belongs(path)}", f"chmod o= {path}")
        else:
            yield Check("secret file", True, str(path))


def sources(operations: Operations) -> Iterator[Check]:
    """What would refuse every ping of a source, and what the running intake says of clocks, signatures and secrets."""
    seen, unreadable = snapshot(operations), set(_unreadable_secrets(operations))
    for row in seen.rows:
        if row.problem and row.problem not in unreadable:
            yield Check("source", False, row.problem, "until that is mended glassq-web does not start with it")
        elif not row.problem:
            yield Check("source", True, f"{row.name}, of kind {row.kind}, at {row.path}")
    for hint in seen.hints:
        yield Check("source", None, hint.words, f"`glassq {hint.command}`" if hint.command else "")


def _unreadable_secrets(operations: Operations) -> Iterator[str]:
    for key in secrets_in_use(operations.settings):
        try:
            check_secret(operations.settings, key)
        except SettingsError as error:
            yield str(error)


def journal(operations: Operations) -> Iterator[Check]:
    intake = operations.settings.intake
    path = Path(intake.journal).absolute()
    if not takes_pings(operations.settings) and not exists(path):
        return
    if not exists(path) and (words := gone(operations)):
        yield Check("journal", False, words, GONE_TODO)
        return
    found = directory("journal", path)
    disk = os.statvfs(nearest(path))
    free = disk.f_bavail * disk.f_frsize
    where = f"on the disk at {mount(nearest(path))}, which has {free >> 20} MiB free"
    if not found.ok:
        yield found
    elif free < intake.journal_min_free or (disk.f_files and not disk.f_favail):
        said = f"{path}: {where}, of which [intake] journal_min_free keeps {intake.journal_min_free}"
        yield Check("journal", False, said, "make room there; until then pings get 503 while the queue is down")
    else:
        yield Check("journal", True, f"{found.said}, {where}")


def journaled(operations: Operations) -> Iterator[Check]:
    found, words = journal_state(operations)
    if found is None:
        return
    with os.scandir(operations.settings.intake.journal) as entries:
        wrong = sorted(entry.path for entry in entries if entry.name.endswith(".job") and entry.is_dir())
    for path in wrong:
        yield Check("journaled", False, f"{path} is a directory, no delivery", "move it out of the journal")
    if found.damaged:
        todo = f"`glassq journal check` says what is in them, {operations.settings.intake.journal}/damaged"
        yield Check("journaled", False, f"{found.damaged} files were damaged and set aside", todo)
    if found.refused:
        place = operations.settings.intake.journal
        todo = f"look at them in {place}/refused; once the queue takes such jobs, move them back into {place}"
        yield Check("journaled", False, f"{found.refused} deliveries are too big for the queue and set aside", todo)
    if found.count:
        todo = "glassq-web puts them in when the queue takes them; `glassq journal move-on` tries now"
        yield Check("journaled", None, words, todo)
    elif not (found.damaged or found.refused or wrong):
        yield Check("journaled", True, "nothing waits in the journal")


def bodies(operations: Operations) -> Iterator[Check]:
    """The store of large bodies, and what in it looks forgotten."""
    kept = operations.settings.bodies
    where, path = without_password(kept.url), kept.url.directory and kept.url.directory.absolute()
    if path is not None:
        if not exists(path):
            return
        found = directory("bodies", path)
        if not found.ok:
            yield found
            return
        where = found.said
    try:
        seen = view(operations)
    except BodyError as error:
        yield Check("bodies", False, str(error), "see whether it is up, and who may read it")
        return
    if not seen.exists:
        # the first body makes it
        return
    held, size = seen.found, seen.found.live_bytes + seen.found.done_bytes
    said = f"{where}: {held.live} of jobs, {held.done} done, {size >> 20} MiB in all"
    if seen.room != NO_LIMIT:
        said += f", room for {seen.room >> 20} MiB"
    if seen.room < MAX_BODY:
        said = f"{path}: no room for a body of {MAX_BODY} beside [bodies] min_free = {kept.min_free}"
        yield Check("bodies", False, said, "make room there; until then large pings get 503")
    elif seen.found.oldest > SAFE_AGE + 2 * SCAN_EVERY:
        todo = "usual for what lies buried; `glassq bodies sweep` finds out whether a job still names it"
        yield Check("bodies", None, f"{said}; the oldest was touched {span(seen.found.oldest)} ago", todo)
    else:
        yield Check("bodies", True, said)


def photos(operations: Operations) -> Iterator[Check]:
    url = operations.settings.storage.url
    if not works_glass(operations.settings) and url == StorageSettings().url:
        return
    if url.directory:
        yield directory("photos", url.directory)
    else:
        yield Check("photos", None, f"{url}: not asked")


def credentials(operations: Operations) -> Iterator[Check]:
    place = operations.settings.glass.credentials
    if not works_glass(operations.settings):
        return
    if not is_postgres(place):
        yield directory("credentials", Path(place))


MACHINE: list[Callable[[Operations], Iterator[Check]]] = [
    settings,
    in_effect,
    shared_memory,
    clock,
    secret_files,
    sources,
    journal,
    journaled,
    bodies,
    photos,
    credentials,
]
