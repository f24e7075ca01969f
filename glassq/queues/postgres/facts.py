"""What PostgreSQL tells of itself, what of it is wrong, and what to do about it: for status and doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database.rights import init_command
from glassq.errors import NoProof, NotDurable, QueueError
from glassq.queues.base import Fact
from glassq.queues.postgres.tables import quoted
from glassq.queues.postgres.troubles import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.postgres.changing import FormChanger
    from glassq.queues.postgres.server import ServerState
    from glassq.values import QueueUrl

# Before it, autovacuum does not visit a table that only grows (autovacuum_vacuum_insert_threshold came with 13), and a
# long backlog is slow to count.
OLDEST = 13
# Clocks that are this far apart are not synchronised, in seconds.
MAX_AHEAD = 2.0
# A transaction this old has kept vacuum from removing many rows; one much older is forgotten. In seconds.
LONG_TRANSACTION, FORGOTTEN_TRANSACTION = 300.0, 3600.0
# So many dead rows make a reserve slower, where they are most of the table.
MANY_DEAD = 100_000
# Unused slots that keep so much WAL fill the disk sooner or later, in bytes.
MUCH_WAL = 1 << 30
# A table of this size is mostly empty where a job has so many pages of 8 KiB for itself.
LARGE_HEAP, MANY_PAGES = 256 << 20, 4

_POSTGRESQL_CONF = "in postgresql.conf, then SELECT pg_reload_conf()"


def version(state: ServerState, url: QueueUrl) -> Fact:
    said = f"PostgreSQL {state.version} at {url}"
    if state.number < OLDEST * 10_000:
        return Fact("queue", False, f"{said} is older than {OLDEST}", f"upgrade it to {OLDEST} or later")
    return Fact("queue", True, said)


def of_server(state: ServerState, needs: int, url: str) -> Iterator[Fact]:
    """How the server at `url` keeps what it is given, and whether it takes it. `needs`: see PostgresInspector."""
    yield durability(state)
    if state.durable and not state.in_recovery:
        yield from standbys(state)
    yield from taking(state, url)
    yield connections(state, needs)
    yield from vacuum(state)
    yield from transactions(state)
    yield from slots(state)
    yield clock(state)


def durability(state: ServerState) -> Fact:
    if state.synchronous_commit == "off":
        said = f"synchronous_commit is off for {state.role}: a crash loses what was answered with 200 a moment ago"
        todo = f"ALTER ROLE {quoted(state.role)} SET synchronous_commit = on, or set it on {_POSTGRESQL_CONF}"
        return Fact("durability", False, said, todo)
    for name, is_on in (("fsync", state.fsync), ("full_page_writes", state.full_page_writes)):
        if not is_on:
            said = f"{name} is off: after a crash of the host the database may be damaged, or its last jobs gone"
            return Fact("durability", False, said, f"set {name} = on {_POSTGRESQL_CONF}")
    if state.default_commit == "off":
        said = f"synchronous_commit is off for {state.role}: the queue's sessions set it on, the ledger's do not"
        return Fact("durability", None, said, f"ALTER ROLE {quoted(state.role)} SET synchronous_commit = on")
    said = f"synchronous_commit is {state.synchronous_commit}: a job is on the server's disk when it is taken"
    return Fact("durability", True, said)


def standbys(state: ServerState) -> Iterator[Fact]:
    needed = state.standbys_needed
    if not state.standby_names:
        said = "no synchronous standby is named: what is taken survives a crash, and not the loss of the server's disk"
        yield Fact("standbys", True, said)
        return
    if not needed:
        said = f"synchronous_commit is local for {state.role}: no commit waits for {state.standby_names}"
        todo = f"ALTER ROLE {quoted(state.role)} SET synchronous_commit = on"
        yield Fact("standbys", False, f"{said}, so a lost server loses jobs", todo)
        return
    if not state.sees_all:
        said = f"role {state.role} cannot see whether the standbys of {state.standby_names} are connected"
        yield Fact("standbys", None, said, f"GRANT pg_read_all_stats TO {quoted(state.role)}")
        return
    if state.unproven:
        todo = "start the standbys, or look at their logs; intake keeps pings in its journal until then"
        yield Fact("standbys", False, f"{state.unproven}: nothing is taken ({state.standby_names})", todo)
        return
    yield Fact("standbys", True, _replicated(state))
    if state.synchronous_commit == "remote_write":
        said = "synchronous_commit is remote_write: a standby may lose jobs if its host crashes with the server's"
        yield Fact("standbys", None, said, "set it on")


def _replicated(state: ServerState) -> str:
    said = f"a commit waits for {state.standbys_needed} of {state.in_sync} synchronous standbys"
    asynchronous = state.standbys - state.in_sync
    more = f"; {asynchronous} more are asynchronous" if asynchronous > 0 else ""
    return f"{said}{more}; the slowest is {(state.lag or 0) >> 10} KiB behind"


def taking(state: ServerState, url: str) -> Iterator[Fact]:
    if state.in_recovery:
        said = "this server is a standby, which takes no jobs"
        todo = "name the primary in [queue] url, or all hosts with target_session_attrs=read-write; or promote this one"
        yield Fact("primary", False, said, todo)
    elif state.read_only:
        said = f"the server is read-only for {state.role} (default_transaction_read_only)"
        todo = f"end what made it so, or ALTER ROLE {quoted(state.role)} SET default_transaction_read_only = off"
        yield Fact("primary", False, said, todo)
    elif state.lacks:
        nothing = "" if state.may_insert else ", so nothing is taken"
        said = f"role {state.role} lacks {state.lacks}{nothing}"
        yield Fact("rights", False, said, f"{init_command(state.role, url)} grants it")


def connections(state: ServerState, needs: int) -> Fact:
    left = state.connections_left
    said = f"{state.connections} of {state.max_connections} connections are used ({state.ours} by glassq), {left} left"
    if left + state.ours < needs:
        todo = f"raise max_connections (and the role's CONNECTION LIMIT) by {needs - left - state.ours} or more"
        return Fact("connections", False, f"{said}; this host's glassq may open {needs}", todo)
    if left < state.max_connections // 20:
        return Fact("connections", None, said, "raise max_connections, or look at who uses them: pg_stat_activity")
    return Fact("connections", True, said)


def vacuum(state: ServerState) -> Iterator[Fact]:
    if not state.autovacuum:
        said = "autovacuum (or track_counts) is off: the table of jobs grows, and each reserve becomes slower"
        yield Fact("vacuum", False, said, f"set autovacuum = on and track_counts = on {_POSTGRESQL_CONF}")
    live, dead = state.live_rows, state.dead_rows
    if live is None or dead is None:
        return
    size = f"{live} live and {dead} dead rows in {state.table_bytes >> 20} MiB"
    if dead > MANY_DEAD and dead > 2 * live:
        todo = "VACUUM glassq_jobs; if that helps little, an old transaction or a slot keeps them"
        yield Fact("vacuum", None, f"the table of jobs has {size}", todo)
    elif state.heap_bytes > LARGE_HEAP and live * MANY_PAGES * 8192 < state.heap_bytes:
        todo = "VACUUM FULL glassq_jobs gives the room back; stop the pool for it, intake keeps pings meanwhile"
        yield Fact("vacuum", None, f"the table of jobs is mostly empty: {size}", todo)
    elif state.autovacuum:
        yield Fact("vacuum", True, f"the table of jobs has {size}")


def transactions(state: ServerState) -> Iterator[Fact]:
    if state.prepared:
        said = f"{state.prepared} prepared transactions wait for their end: they keep dead rows, and survive a restart"
        yield Fact("transactions", None, said, "COMMIT PREPARED or ROLLBACK PREPARED them (see pg_prepared_xacts)")
    if not state.sees_all or state.oldest_transaction < LONG_TRANSACTION:
        return
    forgotten = state.oldest_transaction > FORGOTTEN_TRANSACTION
    said = f"a transaction of process {state.oldest_pid} is {int(state.oldest_transaction)} s old"
    todo = f"end it: SELECT pg_terminate_backend({state.oldest_pid})"
    yield Fact("transactions", False if forgotten else None, f"{said}: vacuum removes nothing younger", todo)


def slots(state: ServerState) -> Iterator[Fact]:
    if not state.slots_hold:
        return
    said = f"replication slots that nobody uses ({state.idle_slots}) keep {state.slots_hold >> 20} MiB of WAL"
    todo = "start their standbys, or SELECT pg_drop_replication_slot('NAME')"
    full = state.slots_hold > MUCH_WAL
    yield Fact("slots", False if full else None, f"{said}{', and fill the disk' if full else ''}", todo)


def clock(state: ServerState) -> Fact:
    if abs(state.ahead) < MAX_AHEAD:
        return Fact("clock", True, "the server's clock and this host's agree")
    which = "ahead of" if state.ahead > 0 else "behind"
    said = f"the server's clock is {abs(state.ahead):.0f} s {which} this host's"
    todo = "synchronise both; delays and leases go by the server's, the ledger's times by this host's"
    return Fact("clock", None, said, todo)


def job_size(max_job: int, needed: int) -> Fact:
    said = f"it takes jobs of up to {max_job} bytes"
    if max_job >= needed:
        return Fact("job size", True, said)
    return Fact("job size", False, f"{said}; a delivery with its story has up to {needed}", "make deliveries smaller")


def tried(changer: FormChanger, url: QueueUrl) -> Iterator[Fact]:
    """Whether a job that is put now is kept. One is put and taken out again in one transaction."""
    try:
        changer.probe()
    except (NotDurable, NoProof) as error:
        yield Fact("durability", False, str(error), "look at the standbys, and at the server's log")
    except QueueError as error:
        yield explained(error, url)
