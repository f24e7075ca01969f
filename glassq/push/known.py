"""The queues of queue.yaml, for a process that goes on while the file is edited."""

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
    """Reads the file anew when it was changed; what cannot be used then leaves the queues of before."""

    def __init__(self, path: str | None) -> None:
        """`path` None: there is the default queue alone. Raises SettingsError."""
        self._path = path
        self._seen = self._look()
        self._known = queue_yaml.load(path)

    def find(self, name: str) -> PushQueue | None:
        """The queue of this name; None where the file has none."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._known = queue_yaml.load(self._path)
            except SettingsError as error:
                log.error("queue.yaml cannot be used; the queues of before stay %s", fields(error=error))
        return self._known.get(name)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = Path(self._path).stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None
