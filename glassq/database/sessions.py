"""Connections to a PostgreSQL database for what lives there beside the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.connections import ConnectionPool
from glassq.database.postgres import PostgresSession

if TYPE_CHECKING:
    from glassq.values import QueueUrl

# Seconds to connect.
CONNECT = 2.0
# Connections that stay open while nobody uses them, and for how many seconds.
MOST_IDLE, IDLE = 2, 60.0


def session_pool(url: QueueUrl, name: str, timeout: float) -> ConnectionPool[PostgresSession]:
    """`name` is what the server shows; `timeout` is for one statement, in seconds. Connects to nothing."""

    def session() -> PostgresSession:
        return PostgresSession(url, name=name, connect_timeout=CONNECT, timeout=timeout)

    return ConnectionPool(session, most_idle=MOST_IDLE, idle_for=IDLE)
