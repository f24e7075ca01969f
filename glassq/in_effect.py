"""Which settings a running program works with. It writes that down; `glassq status`, `doctor` and a reload read it.

The record lies in the program's runtime directory (systemd's RuntimeDirectory=). It holds fingerprints, no values.
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

PROGRAMS = ("glassq-web", "glassq-worker")
# Under it systemd makes runtime directories.
RUN = Path("/run")
_NAME = "in-effect.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What one process works with.

    `parts` are the files that it read, with a fingerprint of each; of `file`, the settings, only the sections `uses`
    count. `since` is in seconds since 1970. `reloads` counts those that have ended, `error` is why the last one failed.
    """

    program: str
    pid: int
    file: str
    uses: tuple[str, ...]
    since: float
    parts: dict[str, str]
    reloads: int = 0
    error: str = ""

    def changed(self) -> list[Path]:
        """The files that are not as this process has read them; one that cannot be looked at is left out."""
        return [Path(path) for path, before in self.parts.items() if _fingerprint(path, self) not in (before, None)]

    def lives(self) -> bool:
        """Whether the process is still there: one that was killed leaves its record."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


class InEffect:
    """Writes the record of this process into `directory`; does nothing where there is none.

    `directory` is the environment's RUNTIME_DIRECTORY, `uses` the sections of the settings that the program reads.
    """

    def __init__(self, program: str = "", uses: Collection[str] = (), directory: str | None = None) -> None:
        # systemd separates several by a colon; ours has one
        self._file = Path(directory.partition(":")[0], _NAME) if directory else None
        self._record = Record(program=program, pid=0, file="", uses=tuple(sorted(uses)), since=0, parts={})

    def read(self, settings: Settings) -> Record:
        """What these settings are made of, for `accept`."""
        record = msgspec.structs.replace(self._record, file=str(Path(settings.file).resolve()), error="")
        prints = {path: _fingerprint(path, record) for path in _parts(settings, record)}
        return msgspec.structs.replace(record, parts={path: found for path, found in prints.items() if found})

    def start(self, read: Record) -> None:
        """The process works with these from its start on."""
        self._write(msgspec.structs.replace(read, pid=os.getpid(), since=time.time()))

    def accept(self, read: Record) -> None:
        """A reload has brought these into effect."""
        reloads = self._record.reloads + 1
        self._write(msgspec.structs.replace(read, pid=os.getpid(), since=time.time(), reloads=reloads))

    def refuse(self, why: str) -> None:
        """A reload has failed: what was in effect stays."""
        self._write(msgspec.structs.replace(self._record, reloads=self._record.reloads + 1, error=why))

    def _write(self, record: Record) -> None:
        self._record = record
        if self._file is None:
            return
        new = self._file.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(record))
            new.replace(self._file)
        except OSError as error:
            log.warning("which settings are in effect cannot be written down %s", fields(why=error))


def read_record(directory: Path) -> Record | None:
    """The record in a runtime directory; None where there is none that can be read."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((directory / _NAME).read_bytes(), type=Record)
    return None


def records(file: Path) -> Iterator[tuple[Record, bool]]:
    """The records of living processes that work with this settings file, and whether each is a unit of systemd's."""
    file = file.resolve()
    for place in dict.fromkeys([RUN, file.parent / "run"]):
        for program in PROGRAMS:
            record = read_record(place / program)
            if record is not None and record.file == str(file) and record.lives():
                yield record, place == RUN


def _parts(settings: Settings, record: Record) -> Iterator[str]:
    """The files: settings, queue.yaml, and the modules of handlers that lie beside the settings."""
    yield record.file
    if "push" in record.uses and settings.push is not None and settings.push.queue_yaml:
        yield str(Path(settings.push.queue_yaml).absolute())
    if "routes" not in record.uses:
        return
    home = Path(record.file).parent
    modules = [route.handler.partition(":")[0] for route in settings.routes if not route.handler.is_url]
    modules += settings.push.deferred if settings.push is not None else ()
    names = {module.partition(".")[0] for module in modules}
    for name in sorted(names):
        yield from map(str, [home / f"{name}.py", *sorted((home / name).rglob("*.py"))])


def _fingerprint(path: str, record: Record) -> str | None:
    """The fingerprint of a file's content, "" where it is gone; None where it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return hashlib.sha256(_used(content, record.uses) if path == record.file else content).hexdigest()


def _used(content: bytes, uses: Collection[str]) -> bytes:
    """The part of a settings file that a program reads, so that no comment and no other section counts."""
    try:
        document: Mapping[str, object] = tomllib.loads(content.decode("utf-8-sig"))
    except ValueError:
        return content
    used = {name: value for name, value in document.items() if name in uses}
    worker = document.get("worker")
    if isinstance(worker, dict):
        # whoever puts jobs gives them a lease that outlasts it
        used["lease"] = worker.get("deadline")
    return json.dumps(used, sort_keys=True, default=str).encode()
