"""What each host has of the limits of all hosts, in a table of the queue's PostgreSQL (worker/host_shares.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database import locks
from glassq.database.schema_parts import SchemaPart, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.database.postgres import PostgresSession

# How long a share is valid, in seconds, unless its host takes it anew.
VALID = 3.0
_VERSION_1 = (
    """
    CREATE TABLE IF NOT EXISTS glassq_shares (
        tube text COLLATE "C" NOT NULL,
        host text COLLATE "C" NOT NULL,
        rate double precision NOT NULL,
        slots int NOT NULL,
        used_rate double precision NOT NULL,
        used_slots int NOT NULL,
        hungry boolean NOT NULL,
        until timestamptz NOT NULL,
        PRIMARY KEY (tube, host)
    ) WITH (fillfactor = 50)
    """,
)
SCHEMA = SchemaPart("limits", tables=("glassq_shares",), steps=(_VERSION_1,))
# host, rate, slots, used_rate, used_slots, hungry
Row = tuple[str, float, int, float, int, bool]


class ShareTable:
    """The table, on one connection."""

    def __init__(self, session: PostgresSession, host: str) -> None:
        """`host` is the name of ours, which no other has."""
        self._session = session
        self._host = host
        self._prepared = False

    def exchange(self, tubes: Sequence[str], act: Callable[[Mapping[str, list[Row]]], Mapping[str, Row]]) -> None:
        """Calls `act` with the valid rows of the other hosts, by tube, while no other host changes any.

        What it returns is ours from then on. Raises QueueError: then nothing has changed, or it runs out.
        """
        session = self._session
        if not self._prepared:
            prepare(session, SCHEMA)
            self._prepared = True
        with session.transaction():
            # a share that a crash of the server forgets is taken anew within a second
            session.rows("SET LOCAL synchronous_commit = off")
            session.rows(f"SELECT pg_advisory_xact_lock({locks.SHARES})")
            found: dict[str, list[Row]] = {tube: [] for tube in tubes}
            for tube, *row in session.rows(
                "SELECT tube, host, rate, slots, used_rate, used_slots, hungry FROM glassq_shares "
                "WHERE tube = ANY(%s) AND host <> %s AND until > clock_timestamp()",
                [list(tubes), self._host],
            ):
                found[tube].append(tuple(row))
            for tube, ours in act(found).items():
                session.rows(
                    """
                    INSERT INTO glassq_shares VALUES
                        (%s, %s, %s::float8, %s::int, %s::float8, %s::int, %s, clock_timestamp() + %s * interval '1 s')
                    ON CONFLICT (tube, host) DO UPDATE SET rate = excluded.rate, slots = excluded.slots,
                        used_rate = excluded.used_rate, used_slots = excluded.used_slots, hungry = excluded.hungry,
                        until = excluded.until
                    """,
                    [tube, *ours, VALID],
                )
            session.rows("DELETE FROM glassq_shares WHERE until < clock_timestamp() - interval '1 hour'")
