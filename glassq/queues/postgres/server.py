"""What the server tells of itself, by one question."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from glassq.database.postgres import PostgresSession

_ROLE_SEES = "pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
# Another one's transaction that keeps dead rows alive.
_HOLDS = "xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
# Every field of ServerState but `ahead`, and what to ask for it.
_ASKED = {
    "version": "current_setting('server_version')",
    "number": "current_setting('server_version_num')::int",
    "role": "current_user",
    "uptime": "extract(epoch FROM statement_timestamp() - pg_postmaster_start_time())::float8",
    "clock": "extract(epoch FROM clock_timestamp())::float8",
    "in_recovery": "pg_is_in_recovery()",
    "read_only": "current_setting('transaction_read_only') = 'on'",
    "may_insert": "coalesce(has_table_privilege(to_regclass('glassq_jobs'), 'INSERT'), false)",
    "lacks": "(SELECT coalesce(string_agg(kind || ' on ' || name, ', ' ORDER BY name, kind), '') "
    "FROM unnest(ARRAY['glassq_jobs', 'glassq_tubes']) AS name, "
    "unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind "
    "WHERE NOT has_table_privilege(to_regclass(name), kind))",
    "synchronous_commit": "current_setting('synchronous_commit')",
    # ours is set by each session itself
    "default_commit": "(SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit')",
    "standby_names": "current_setting('synchronous_standby_names')",
    "fsync": "current_setting('fsync') = 'on'",
    "full_page_writes": "current_setting('full_page_writes') = 'on'",
    "autovacuum": "current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on'",
    "sees_all": _ROLE_SEES,
    "standbys": "(SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')",
    "in_sync": "(SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
    "AND sync_state IN ('sync', 'quorum'))",
    "lag": "CASE WHEN pg_is_in_recovery() THEN NULL ELSE (SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)) "
    "FROM pg_stat_replication)::bigint END",
    "slots_hold": "CASE WHEN pg_is_in_recovery() THEN NULL ELSE (SELECT "
    "max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM pg_replication_slots WHERE NOT active)::bigint END",
    "idle_slots": "(SELECT coalesce(string_agg(slot_name, ', ' ORDER BY slot_name), '') "
    "FROM pg_replication_slots WHERE NOT active)",
    "oldest_transaction": "coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) "
    f"FROM pg_stat_activity WHERE {_HOLDS}), 0)::float8",
    "oldest_pid": f"(SELECT pid FROM pg_stat_activity WHERE {_HOLDS} ORDER BY xact_start LIMIT 1)",
    "prepared": "(SELECT count(*) FROM pg_prepared_xacts)",
    "max_connections": "current_setting('max_connections')::int",
    "reserved_connections": "current_setting('superuser_reserved_connections')::int "
    "+ coalesce(current_setting('reserved_connections', true)::int, 0)",
    "connections": "(SELECT sum(numbackends) FROM pg_stat_database)::int",
    "role_limit": "(SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)",
    "role_connections": "(SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)",
    "ours": "(SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'glassq %%')",
    "consumers": "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name LIKE 'glassq receiver%%')",
    "live_rows": "(SELECT n_live_tup FROM pg_stat_all_tables WHERE relid = to_regclass('glassq_jobs'))",
    "dead_rows": "(SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = to_regclass('glassq_jobs'))",
    "vacuumed": "(SELECT extract(epoch FROM statement_timestamp() - greatest(last_vacuum, last_autovacuum)) "
    "FROM pg_stat_all_tables WHERE relid = to_regclass('glassq_jobs'))::float8",
    "table_bytes": "coalesce(pg_total_relation_size(to_regclass('glassq_jobs')), 0)",
    "heap_bytes": "coalesce(pg_relation_size(to_regclass('glassq_jobs')), 0)",
}
_QUESTION = "SELECT " + ", ".join(f"{expression} AS {name}" for name, expression in _ASKED.items())
_NUMBER_OF = re.compile(r"(?:(?:any|first)\s*)?(\d+)\s*\(", re.IGNORECASE)


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """The server at one moment. Times and ages are in seconds; what a role may not see is None, or 0.

    `ahead` is the server's clock minus ours. `lag` is how many bytes the slowest standby is behind, `slots_hold` how
    many bytes of WAL the replication slots that nobody uses keep on disk. `ours` are connections of glassq's programs,
    on all hosts. `lacks` are the rights on the queue's tables that our role does not have, in words.
    """

    version: str
    number: int
    role: str
    uptime: float
    clock: float
    in_recovery: bool
    read_only: bool
    may_insert: bool
    lacks: str
    synchronous_commit: str
    default_commit: str
    standby_names: str
    fsync: bool
    full_page_writes: bool
    autovacuum: bool
    sees_all: bool
    standbys: int
    in_sync: int
    lag: int | None
    slots_hold: int | None
    idle_slots: str
    oldest_transaction: float
    oldest_pid: int | None
    prepared: int
    max_connections: int
    reserved_connections: int
    connections: int
    role_limit: int
    role_connections: int
    ours: int
    consumers: int
    live_rows: int | None
    dead_rows: int | None
    vacuumed: float | None
    table_bytes: int
    heap_bytes: int
    ahead: float = 0.0

    @classmethod
    def read(cls, session: PostgresSession) -> ServerState:
        """Asks the server. Raises QueueError."""
        began = time.time()
        [row] = session.rows(_QUESTION)
        seen: dict[str, Any] = dict(zip(_ASKED, row, strict=True))
        # the answer was made somewhere between the question and now
        return cls(**seen, ahead=outside(seen["clock"], began, time.time()))

    @property
    def durable(self) -> bool:
        """Whether a commit is on a disk when it returns."""
        return self.synchronous_commit != "off" and self.fsync and self.full_page_writes

    @property
    def standbys_needed(self) -> int:
        """How many standbys a commit waits for."""
        return 0 if self.synchronous_commit in ("off", "local") else needed_of(self.standby_names)

    @property
    def unproven(self) -> str:
        """Why a commit would wait now, in words; "": it would not, as far as this role can see."""
        if not self.sees_all or self.in_sync >= self.standbys_needed:
            return ""
        return f"a commit waits for {self.standbys_needed} synchronous standbys, and {self.in_sync} are connected"

    @property
    def accepting(self) -> bool:
        """Whether it takes jobs, as far as that is known without a put."""
        return not self.in_recovery and not self.read_only and self.may_insert

    @property
    def connections_left(self) -> int:
        """How many more connections our role can open."""
        left = self.max_connections - self.reserved_connections - self.connections
        if self.role_limit >= 0:
            left = min(left, self.role_limit - self.role_connections)
        return max(0, left)

    def details(self) -> dict[str, object]:
        """What only this engine has, for machines."""
        names = ("synchronous_commit", "standby_names", "standbys", "in_sync", "lag", "in_recovery", "connections")
        more = ("max_connections", "oldest_transaction", "live_rows", "dead_rows", "table_bytes")
        return {name: getattr(self, name) for name in (*names, *more)}


def needed_of(names: str) -> int:
    """How many standbys synchronous_standby_names asks for (PostgreSQL's documentation of that setting)."""
    found = _NUMBER_OF.match(names.strip())
    return int(found[1]) if found else int(bool(names.strip()))


def outside(moment: float, began: float, ended: float) -> float:
    """How far a moment is after `ended`, or before `began` (negative); 0 if it is between them."""
    return max(0.0, moment - ended) + min(0.0, moment - began)
