"""Who waits for jobs: a receiver that waits names its session so, with its tubes, and whoever looks reads the names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.database.postgres import PostgresSession

# How the name begins. The tubes follow; a name that was cut ends in dots.
WAITS = "glassq receiver waits"
_TUBES, _CUT = f"{WAITS}: ", ".."
# PostgreSQL keeps so many bytes of a name.
_MAX_NAME = 63
_ALL = f"""
SELECT application_name, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE '{_TUBES}%%' GROUP BY 1
"""


def waiting_name(tubes: Sequence[str]) -> str:
    """The name of a session that waits for a job of these tubes."""
    name = f"{_TUBES}{','.join(tubes)}"
    return name if len(name.encode()) <= _MAX_NAME else f"{name[: _MAX_NAME - len(_CUT)]}{_CUT}"


class Waiters:
    """How many receivers wait for a job of a tube now."""

    def __init__(self, session: PostgresSession) -> None:
        """Asks. Raises QueueError."""
        self._any = 0
        self._by_tube: dict[str, int] = {}
        for name, count in session.rows(_ALL):
            tubes = name.removeprefix(_TUBES)
            if tubes.endswith(_CUT):
                # which tubes were cut off is not known: it may wait for any
                self._any += count
                continue
            for tube in tubes.split(","):
                self._by_tube[tube] = self._by_tube.get(tube, 0) + count

    @property
    def tubes(self) -> set[str]:
        """The tubes that somebody is known to wait for."""
        return set(self._by_tube)

    def of(self, tube: str) -> int:
        return self._any + self._by_tube.get(tube, 0)
