"""The queues of queue.yaml, for a process that runs while the file is edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.push import queue_yaml

if TYPE_CHECKING:
    from glassq.push.queue_yaml import PushQueue

log = logger("glassq.push")


class KnownQueues:
    """Reads the file again when it has changed. If the new one cannot be used, the earlier queues stay."""

    def __init__(self, path: str | None) -> None:
        """`path` None: only the default queue. Raises SettingsError if the file cannot be used."""
        self._path = path
        self._seen = self._stat()
        self._known = queue_yaml.load(path)

    def find(self, name: str) -> PushQueue | None:
        """The queue of this name; None if the file does not have it."""
        self._look()
        return self._known.get(name)

    def all(self) -> list[PushQueue]:
        """All queues, by name."""
        self._look()
        return [queue for _, queue in sorted(self._known.items())]

    def _look(self) -> None:
        seen = self._stat()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._known = queue_yaml.load(self._path)
        except SettingsError as error:
            log.error("queue.yaml cannot be used; the earlier queues stay %s", fields(error=error))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = Path(self._path).stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None
