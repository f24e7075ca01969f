"""Bodies that are too large for a job, as the intake sees them: received, then stored with their delivery, or dropped.

The body is durable in the store before its delivery is handed over to be kept. Where that is kept nowhere, the body
goes again, unless the queue may have taken the delivery all the same: then it is left to the sweep.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from glassq.bodies import INLINE, ReceivedBody, open_bodies
from glassq.delivery import new_id
from glassq.errors import BodyError, SettingsError
from glassq.log import fields, logger
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from glassq.bodies import BodyStore
    from glassq.bodies.waiting import WaitingBodies
    from glassq.delivery import StoredBody
    from glassq.intake.state import IntakeState
    from glassq.settings import Settings
    from glassq.sources import Source
    from glassq.sources.base import Body

log = logger("glassq.intake")


class LargeBodies:
    """The large bodies of one process; for all its threads."""

    def __init__(self, store: BodyStore | WaitingBodies, state: IntakeState, *, inline: int = INLINE) -> None:
        """Bodies of up to `inline` bytes are in their jobs."""
        self._inline = inline
        self._store = store
        self._state = state

    def begin(self, size: int) -> ReceivedBody:
        """A body of this size that is about to be received. Raises BodyError if its ping would not be kept."""
        if not self._state.ready:
            raise BodyError(f"{self._state.queue_trouble}; {self._state.journal_trouble}")
        return ReceivedBody(self._store.begin(new_id(), size))

    def store(self, body: Body, environ: Mapping[str, Any]) -> tuple[str, StoredBody | None]:
        """Stores the body of a genuine ping, if it is too large for a job; its key and what was stored.

        Our own worker has received it into the store already (`glassq.body`). Raises BodyError.
        """
        if len(body) <= self._inline:
            return "", None
        received: ReceivedBody | None = environ.get("glassq.body")
        try:
            if received is None:
                received = self.begin(len(body))
                received.write(memoryview(body))
            return received.key, received.keep()
        except BodyError:
            if received is not None:
                received.close()
            raise

    def drop(self, keys: Iterable[str]) -> None:
        """The deliveries of these bodies are kept nowhere."""
        for key in keys:
            try:
                self._store.delete(key)
            except BodyError as error:
                log.error("a body stays until it is swept %s", fields(delivery=key, why=error))


def body_limits(sources: Iterable[Source]) -> dict[str, int]:
    """The largest body that each source takes, in bytes, by its path."""
    return {f"/hooks/{source.name}": source.max_body for source in sources}


def prepare(settings: Settings, sources: Iterable[Source]) -> None:
    """Makes the store, if a source takes large bodies. Raises SettingsError if that fails."""
    if _needed(settings, sources) and settings.bodies.url.directory is not None:
        # one that is far away is made with its first body: it may be down now, and pings are taken all the same
        try:
            open_bodies(settings).prepare()
        except BodyError as error:
            raise _refused(settings, str(error)) from None


def can_prepare(settings: Settings, sources: Iterable[Source]) -> None:
    """Raises SettingsError where `prepare` would, as far as one can see without creating anything."""
    if not _needed(settings, sources):
        return
    path = settings.bodies.url.directory
    if path is None:
        # what is far away may be back any moment, but a library that is missing is not
        open_bodies(settings)
        return
    if why := cannot_be_made(path, ("live",)):
        raise _refused(settings, f"bodies {path}: cannot be written: {why}")


def cannot_be_made(path: Path, names: Iterable[str]) -> str:
    """Why a directory with these in it cannot be made, as far as one can see without making it; "" if it can be."""
    if all(os.access(path / name, os.F_OK) for name in names):
        return ""
    nearest = next(place for place in (path, *path.absolute().parents) if os.access(place, os.F_OK))
    if not nearest.is_dir():
        return os.strerror(errno.ENOTDIR)
    return "" if os.access(nearest, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def _needed(settings: Settings, sources: Iterable[Source]) -> bool:
    return any(source.max_body > settings.queue.url.inline for source in sources)


def _refused(settings: Settings, why: str) -> SettingsError:
    url = without_password(settings.bodies.url)
    return SettingsError(f'{settings.file}: [bodies] url = "{url}": {why}')
