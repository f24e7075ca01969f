"""Keys that a child works, held by its connection: whatever ends the child or its host frees them.

A lock of a session (pg_try_advisory_lock) for each place of a key; no row, no write, nothing to clean up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database import locks
from glassq.errors import QueueError
from glassq.log import fields, logger

if TYPE_CHECKING:
    from glassq.database.postgres import PostgresSession

log = logger("glassq.worker")

_TAKE = f"""
SELECT place FROM generate_series(1, %s::int) AS place
WHERE pg_try_advisory_lock({locks.KEY.format(place="place")}) LIMIT 1
"""
_FREE = f"SELECT pg_advisory_unlock({locks.KEY.format(place='%s::int')})"


class KeyLocks:
    """The key of one child; it has one at most. Single-threaded. Connects with the first one."""

    def __init__(self, session: PostgresSession) -> None:
        """The session is for nothing else."""
        self._session = session
        # the key that is held, and which of its places
        self._held: tuple[str, int] | None = None

    def take(self, key: str, most: int) -> bool:
        """Holds the key, unless so many others hold it, on all hosts. False too while the database does not answer."""
        self.free()
        try:
            found = self._session.rows(_TAKE, [most, key])
        except QueueError as error:
            log.debug("a key cannot be asked for %s", fields(why=error))
            return False
        self._held = (key, found[0][0]) if found else None
        return bool(found)

    def free(self) -> None:
        """Others may have what is held."""
        held, self._held = self._held, None
        if held is None or not self._session.connected:
            # a connection that broke has freed it
            return
        try:
            self._session.rows(_FREE, list(held))
        except QueueError as error:
            log.debug("a key goes with its connection %s", fields(why=error))
            self._session.close()

    def close(self) -> None:
        """Frees all, with the connection."""
        self._held = None
        self._session.close()
