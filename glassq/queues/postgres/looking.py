"""Reads jobs, and changes none."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from glassq.queues.base import Job, State, WaitingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.database.postgres import PostgresSession

# So many jobs a search reads at once, and about so many bytes of them.
MAX_BATCH, BATCH_BYTES = 500, 4 << 20

_COLUMNS = """
SELECT id, tube, state, body, extract(epoch FROM statement_timestamp() - put_at)::float8,
    extract(epoch FROM due - statement_timestamp())::float8,
    extract(epoch FROM lease_until - statement_timestamp())::float8, losses, kicked, token
FROM glassq_jobs
"""
_BY_ID = f"{_COLUMNS} WHERE id = ANY(%(ids)s) ORDER BY id DESC"
_BODIES = "SELECT id, body FROM glassq_jobs WHERE id = ANY(%(ids)s)"
_IN_STATE = {
    "ready": "state = 0 AND due <= statement_timestamp()",
    "delayed": "state = 0 AND due > statement_timestamp()",
    "reserved": "state = 1",
    "buried": "state = 2",
}
_FIRST = {
    state: f"{_COLUMNS} WHERE {_IN_STATE[state]} AND tube = %(tube)s ORDER BY {order} LIMIT 1"
    for state, order in {"ready": "due, id", "delayed": "due, id", "buried": "id"}.items()
}
_STATES: dict[int, State] = {1: "reserved", 2: "buried"}


def first(session: PostgresSession, state: WaitingState, tube: str) -> Job | None:
    """The tube's first job in this state."""
    return next((_job(*row) for row in session.rows(_FIRST[state], {"tube": tube})), None)


def by_id(session: PostgresSession, ids: Sequence[int]) -> dict[str, Job]:
    """The jobs with these ids that are there, newest first."""
    jobs = (_job(*row) for row in session.rows(_BY_ID, {"ids": list(ids)}))
    return {job.ref: job for job in jobs}


def still(session: PostgresSession, ids: Sequence[int], state: State) -> frozenset[int]:
    """Those of these jobs that are in this state."""
    statement = f"SELECT id FROM glassq_jobs WHERE id = ANY(%(ids)s) AND {_IN_STATE[state]}"
    return frozenset(number for (number,) in session.rows(statement, {"ids": list(ids)}))


def bodies(session: PostgresSession, ids: Sequence[int]) -> dict[int, bytes]:
    """The bodies of those of these jobs that are there."""
    return dict(session.rows(_BODIES, {"ids": list(ids)}))


def newest(session: PostgresSession) -> int:
    """The newest id of those that are there: what is put later has a higher one."""
    [(number,)] = session.rows("SELECT coalesce(max(id), 0) FROM glassq_jobs")
    return int(number)


def find(
    session: PostgresSession,
    states: frozenset[State],
    tubes: Sequence[str],
    since: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Job]:
    """The jobs of these tubes in these states with ids above `since`, newest first.

    It reads the ids in one go, and then the jobs in batches by their ids: so no transaction stays open, which would
    hold back vacuum, and the caller may change what it gets between two jobs.
    """
    ids = _ids(session, states, tubes, since)
    done, many = 0, MAX_BATCH // 10
    while done < len(ids):
        batch = ids[done : done + many].tolist()
        size = 0
        for job in by_id(session, batch).values():
            size += len(job.body)
            if job.state in states and job.tube in tubes:
                yield job
        done += len(batch)
        if progress is not None and done < len(ids):
            progress(done, len(ids))
        many = max(1, min(MAX_BATCH, 2 * many, len(batch) * BATCH_BYTES // max(size, 1)))


def _ids(session: PostgresSession, states: frozenset[State], tubes: Sequence[str], since: int) -> array[int]:
    """The ids of all that matches now, newest first: 8 bytes each."""
    conditions = {_IN_STATE[state] for state in states}
    if states >= {"ready", "delayed"}:
        conditions = conditions - {_IN_STATE["ready"], _IN_STATE["delayed"]} | {"state = 0"}
    # one query for each: each has a partial index of its own
    queries = [f"SELECT id FROM glassq_jobs WHERE {condition} AND {_CHOSEN}" for condition in sorted(conditions)]
    if not queries or not tubes:
        return array("q")
    statement = f"{' UNION ALL '.join(queries)} ORDER BY id DESC"
    rows = session.rows(statement, {"tubes": list(tubes), "since": since})
    return array("q", (number for (number,) in rows))


_CHOSEN = "tube = ANY(%(tubes)s) AND id > %(since)s"


def _job(
    number: int,
    tube: str,
    state: int,
    content: bytes,
    age: float,
    until_due: float,
    lease_left: float | None,
    losses: int,
    kicked: bool,
    token: int,
) -> Job:
    named = _STATES.get(state) or ("delayed" if until_due > 0 else "ready")
    left = {"delayed": until_due, "reserved": lease_left or 0.0}.get(named, 0.0)
    return Job(
        ref=str(number),
        tube=tube,
        state=named,
        body=content,
        age=max(0.0, age),
        time_left=max(0.0, left),
        ready_for=max(0.0, -until_due) if named == "ready" else None,
        losses=losses,
        kicked=kicked,
        counters={"changes": token},
    )
