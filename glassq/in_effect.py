"""Records the settings in effect in a running program; `glassq status`, `doctor` and a reload read the record.

The record is in the program's runtime directory (systemd's RuntimeDirectory=). It holds fingerprints, no values.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from glassq.settings import Settings

log = logger("glassq")

TASK_SERVER = "glassq-tasks"
CONSOLE = "glassq-console"
PROGRAMS = ("glassq-web", "glassq-worker", TASK_SERVER, CONSOLE)
# The parent of systemd's runtime directories.
RUN = Path("/run")
_NAME = "in-effect.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in effect in one process.

    `parts` maps each file that the process read to a fingerprint; of `file`, the settings, only the sections in `uses`
    count. `since` is in seconds since 1970. `reloads` counts finished reloads, `error` is why the last one failed.
    `not_shared` is what the pool's children cannot share with each other, so that each loads its handlers itself.
    `lacking` is what the settings want of a pool that has no room for it until it is restarted.
    `replaced`: no child of before the last reload takes jobs any more; those that work one finish it.
    """

    program: str
    pid: int
    file: str
    uses: tuple[str, ...]
    since: float
    parts: dict[str, str]
    reloads: int = 0
    error: str = ""
    not_shared: str = ""
    lacking: str = ""
    replaced: bool = True

    def changed(self) -> list[Path]:
        """The files that changed since this process read them; files that cannot be read now are left out."""
        return [Path(path) for path, before in self.parts.items() if _fingerprint(path, self) not in (before, None)]

    @property
    def needs_restart(self) -> bool:
        """Whether the last reload failed because only a restart can do it: no other one will succeed."""
        return " need a restart of " in self.error or "systemctl restart " in self.error

    def lives(self) -> bool:
        """Whether the process still runs: a killed process leaves its record behind."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


class InEffect:
    """Writes the record of this process into `directory`; does nothing if `directory` is None.

    `directory` is the environment's RUNTIME_DIRECTORY; `uses` names the sections that the program reads.
    """

    def __init__(self, program: str = "", uses: Collection[str] = (), directory: str | None = None) -> None:
        # systemd separates several by a colon; our units have one
        self._file = Path(directory.partition(":")[0], _NAME) if directory else None
        self._record = Record(program=program, pid=0, file="", uses=tuple(sorted(uses)), since=0, parts={})

    def read(self, settings: Settings) -> Record:
        """The record for these settings and their files, for `start` or `accept`."""
        record = msgspec.structs.replace(self._record, file=str(Path(settings.file).resolve()), error="")
        prints = {path: _fingerprint(path, record) for path in _parts(settings, record)}
        return msgspec.structs.replace(record, parts={path: found for path, found in prints.items() if found})

    def start(self, read: Record) -> None:
        """Writes the record of a process that starts with these settings."""
        self._write(msgspec.structs.replace(read, pid=os.getpid(), since=time.time()))

    def accept(self, read: Record, not_shared: str = "", lacking: str = "", *, replaced: bool = True) -> None:
        """Writes the record after a reload that brought these settings into effect."""
        new = {"since": time.time(), "reloads": self._record.reloads + 1, "replaced": replaced}
        said = {"not_shared": not_shared, "lacking": lacking}
        self._write(msgspec.structs.replace(read, pid=os.getpid(), **new, **said))

    def refuse(self, why: str) -> None:
        """Writes down that a reload failed; the settings in effect stay."""
        self._write(msgspec.structs.replace(self._record, reloads=self._record.reloads + 1, error=why))

    def note(self, not_shared: str) -> None:
        """Writes down what the children of the pool cannot share."""
        self._write(msgspec.structs.replace(self._record, not_shared=not_shared))

    def replace(self) -> None:
        """Writes down that no child of before the reload takes jobs any more."""
        if not self._record.replaced:
            self._write(msgspec.structs.replace(self._record, replaced=True))

    def _write(self, record: Record) -> None:
        self._record = record
        if self._file is None:
            return
        try:
            # it has no values
            publish(self._file, msgspec.json.encode(record))
        except OSError as error:
            log.warning("cannot record which settings are in effect %s", fields(why=error))


def publish(file: Path, content: bytes) -> None:
    """Writes a file of a runtime directory at once as a whole, for the operators in the directory's group.

    Its mode is the same whatever the umask is. Raises OSError.
    """
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o640)
    new.replace(file)


def read_record(directory: Path) -> Record | None:
    """The record in a runtime directory; None if there is none, or it cannot be read."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((directory / _NAME).read_bytes(), type=Record)
    return None


def records(file: Path) -> Iterator[tuple[Record, bool]]:
    """The records of running processes with this settings file, each with whether systemd runs it."""
    file = file.resolve()
    for place in dict.fromkeys([RUN, file.parent / "run"]):
        for program in PROGRAMS:
            record = read_record(place / program)
            if record is not None and record.file == str(file) and record.lives():
                yield record, place == RUN


def runtime_directories(program: str, file: Path) -> Iterator[Path]:
    """The runtime directories of running processes of this program with this settings file."""
    file = file.resolve()
    for place in dict.fromkeys([RUN / program, file.parent / "run" / program]):
        record = read_record(place)
        if record is not None and record.file == str(file) and record.lives():
            yield place


def _parts(settings: Settings, record: Record) -> Iterator[str]:
    """The files that count: settings, queue.yaml, and the modules of handlers beside the settings."""
    yield record.file
    if record.program == CONSOLE:
        # it runs no handler, and reads queue.yaml when somebody looks
        return
    if "push" in record.uses and settings.push is not None and settings.push.queue_yaml:
        yield str(Path(settings.push.queue_yaml).absolute())
    if "routes" not in record.uses:
        return
    home = Path(record.file).parent
    modules = [handler.module for route in settings.routes for handler in route.handlers if handler.module]
    modules += settings.push.deferred if settings.push is not None else ()
    names = {module.partition(".")[0] for module in modules}
    for name in sorted(names):
        yield from map(str, [home / f"{name}.py", *sorted((home / name).rglob("*.py"))])


def _fingerprint(path: str, record: Record) -> str | None:
    """The fingerprint of a file's content; "" if the file is gone, None if it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return hashlib.sha256(_used(content, record.uses) if path == record.file else content).hexdigest()


def _used(content: bytes, uses: Collection[str]) -> bytes:
    """The part of a settings file that a program reads, without comments and other sections."""
    try:
        document: Mapping[str, object] = tomllib.loads(content.decode("utf-8-sig"))
    except ValueError:
        return content
    used = {name: value for name, value in document.items() if name in uses}
    worker = document.get("worker")
    if isinstance(worker, dict):
        # every program that puts jobs needs it: the lease must last longer
        used["lease"] = worker.get("deadline")
    return json.dumps(used, sort_keys=True, default=str).encode()
