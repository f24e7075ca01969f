"""Bodies that a store far away does not take now: they wait beside the intake journal, and their deliveries in it.

JOURNAL/bodies/KEY     whole and on disk; it is stored before the delivery KEY moves on from the journal into the queue
JOURNAL/bodies/.KEY    on its way: received, and perhaps about to be stored

All of it counts as the journal's, with its limits ([intake] journal_max, journal_min_free).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Self

from glassq.bodies.base import UPLOAD, checked
from glassq.bodies.opening import open_remote
from glassq.bodies.writer import FileWriter
from glassq.errors import BodyError, BodyUnstored, JournalError
from glassq.files import AsideFile, make_directory, sync_directory
from glassq.journal import BODIES
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.bodies.base import RemoteBodyStore
    from glassq.errors import QueueError
    from glassq.journal import Journal, JournalRecord
    from glassq.settings import Settings

    Put = Callable[[Sequence[JournalRecord]], Mapping[str, QueueError]]

log = logger("glassq.intake")

# How long the store has for a body while its sender waits, and how long bodies wait at once after one that it did not
# take: no sender finds out anew. In seconds.
PATIENCE, AGAIN = 2.0, 10.0
# A file that nobody needs is younger than this, in seconds, where somebody may still be about to need it.
GRACE = 3600.0
# How often those are looked for, in seconds.
TIDY = 600.0


class WaitingBodies:
    """What an intake process has between its senders and a store far away. For all its threads."""

    def __init__(self, store: RemoteBodyStore, journal: Journal) -> None:
        """Touches nothing."""
        self._store = store
        self._journal = journal
        self._directory = journal.directory / BODIES
        # the keys of bodies that wait here, whose deliveries are not in the journal yet
        self._apart: set[str] = set()
        # on time.monotonic()
        self._away_until = 0.0
        self._tidy_at = time.monotonic() + TIDY

    @classmethod
    def of(cls, settings: Settings, journal: Journal) -> Self | None:
        """That of the settings; None where the store is a directory, which takes bodies itself."""
        remote = settings.bodies.url.directory is None
        return cls(open_remote(settings.bodies.url), journal) if remote else None

    def begin(self, key: str, size: int = 0) -> FileWriter:
        """See BodyStore. It is received here, and finished where it can be."""
        path = self._directory / f".{checked(key)}"
        try:
            self._journal.check_room(size)
            make_directory(self._directory)
            file = AsideFile(path)
        except JournalError as error:
            raise BodyError(f"bodies: no room for one on its way: {error}") from error
        except OSError as error:
            raise self._refused(error) from error
        return FileWriter(key, file, lambda size: self._keep(key, file, size), self._refused)

    def is_apart(self, key: str) -> bool:
        """Whether the body waits here, so that its delivery must go into the journal: True once for each."""
        if key not in self._apart:
            return False
        self._apart.discard(key)
        return True

    def delete(self, key: str) -> None:
        """The delivery of this body is kept nowhere. Raises BodyError."""
        self._apart.discard(key)
        with self._errors():
            if (self._directory / checked(key)).exists():
                (self._directory / key).unlink(missing_ok=True)
                return
        self._store.delete(key)

    def erase(self, key: str) -> bool:
        """Removes a body that waits here, if there is one; whether there was. Raises BodyError."""
        place = self._directory / checked(key)
        with self._errors():
            if not place.exists():
                return False
            place.unlink(missing_ok=True)
            sync_directory(self._directory)
        return True

    def open(self, key: str) -> BinaryIO:
        """The body, whether it waits here or is in the store. Raises BodyError; the caller closes it."""
        with self._errors(), suppress(FileNotFoundError):
            return (self._directory / checked(key)).open("rb")
        return self._store.open(key)

    def first(self, put: Put) -> Put:
        """`put`, for `Journal.move_on`, where bodies that wait are stored first; what they are of stays meanwhile."""

        def bodies_and_put(records: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
            waiting = self._waiting()
            stay: dict[str, QueueError] = {}
            for record in records:
                if record.key in waiting and (error := self._stored(record.key)) is not None:
                    stay[record.key] = BodyUnstored(str(error))
            rest = [record for record in records if record.key not in stay]
            return {**stay, **put(rest)} if rest else stay

        return bodies_and_put

    def tend(self) -> None:
        """Removes what dead processes have left, if it is time to look for that."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + TIDY
        try:
            with self._errors():
                self._tidy(time.time() - GRACE)
        except (BodyError, JournalError) as error:
            log.warning("bodies that wait cannot be looked through %s", fields(why=error))

    def _tidy(self, before: float) -> None:
        old = [name for name, written in self._files() if written < before]
        if not old:
            return
        found = self._journal.look()
        named = {record.key for record in (*self._journal.waiting(), *self._journal.refused())}
        for name in old:
            # a damaged file of the journal may name any
            if name[0] == "." or not (found.damaged or name in named):
                log.warning("a body that nothing names is removed %s", fields(delivery=name.removeprefix(".")))
                (self._directory / name).unlink(missing_ok=True)

    def _keep(self, key: str, file: AsideFile, size: int) -> None:
        """Stores a body, or has it wait here; on return it is durable."""
        if time.monotonic() >= self._away_until:
            try:
                self._store.put(key, file.file, size, PATIENCE)
            except BodyError as error:
                self._is_away(error)
            else:
                self._is_back()
                return
        with self._errors():
            file.publish(self._directory / key)
        self._apart.add(key)

    def _stored(self, key: str) -> BodyError | None:
        """Stores a body that waits; why that failed."""
        if time.monotonic() < self._away_until:
            return BodyError("its body waits: the store of bodies does not take it")
        try:
            with self._errors(), (self._directory / key).open("rb") as file:
                self._store.put(key, file, os.fstat(file.fileno()).st_size, UPLOAD)
            with self._errors():
                (self._directory / key).unlink(missing_ok=True)
                sync_directory(self._directory)
        except BodyError as error:
            self._is_away(error)
            return error
        self._is_back()
        return None

    def _is_away(self, error: BodyError) -> None:
        if not self._away_until:
            log.error("large bodies wait with the journal: their store does not take them %s", fields(why=error))
        self._away_until = time.monotonic() + AGAIN

    def _is_back(self) -> None:
        if self._away_until:
            log.info("large bodies are stored again")
        self._away_until = 0.0

    def _waiting(self) -> set[str]:
        return {name for name, _ in self._files() if name[0] != "."}

    def _files(self) -> Iterator[tuple[str, float]]:
        """All files, with when they were written."""
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> BodyError:
        return BodyError(f"bodies {self._directory}: cannot be written: {error.strerror}")
