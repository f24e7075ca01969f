"""The spool in the form of a journal: batches in, packets out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobTooBig, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from glassq.intake.spool import Spool, Spooled


class Record(NamedTuple):
    """A delivery's id, and its encoded form."""

    key: str
    body: bytes


class SpoolJournal:
    """See `journal.Journal`."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def start(self) -> None:
        """Call it after the fork."""

    def write(self, records: Sequence[Record]) -> None:
        """On return all of them are on disk. Raises SpoolError: none of them is promised."""
        for record in records:
            self._spool.write(record.key, record.body)

    def check_room(self, more: int) -> None:
        """Raises SpoolError if `more` bytes do not fit."""
        self._spool.check_room(more)

    def retire(self, keys: Collection[str]) -> None:
        """These need not be moved on any more."""
        for key in keys:
            (self._spool.directory / f"{key}.job").unlink(missing_ok=True)

    def move_on(self, put: Callable[[Sequence[Record]], Mapping[str, QueueError]], *, seconds: float) -> int:
        """Puts what is there, oldest first, for about so many seconds; how many. Raises QueueError, SpoolError."""

        def put_one(key: str, body: bytes) -> None:
            for error in put([Record(key, body)]).values():
                raise error if isinstance(error, JobTooBig) else QueueError(str(error))

        return self._spool.drain(put_one, seconds=seconds)

    def look(self) -> Spooled:
        """What is there now. Raises SpoolError."""
        return self._spool.look()

    def close(self) -> None:
        """Nothing is written any more."""
