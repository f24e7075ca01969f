"""The SQL statements of the queue. Times are the server's.

A reserve looks at one job of each tube: a query over all of them would sort the whole backlog. It begins at the job
that was reserved last (`since`): what was reserved before lies dead at the head of the index until vacuum comes.
"""

from __future__ import annotations

from functools import cache

from glassq.database.locks import HOLDERS
from glassq.queues.postgres.waiters import WAITS

# The channel on which receivers hear of new jobs; the payload is the tube.
CHANNEL = "glassq_jobs"

# The plan of a statement must not change with what the planner believes of the table's size.
RECEIVER_SESSION = f"""
SELECT pg_try_advisory_lock({HOLDERS}, %b::int), set_config('enable_seqscan', 'off', false),
    set_config('enable_bitmapscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('synchronous_commit', 'off', false)
"""

# Nothing is put where a crash would lose it. In order, as the ids are given in order.
PUT = """
INSERT INTO glassq_jobs (tube, key, body, due)
SELECT tube, key, body, now() + delay * interval '1 second'
FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::float8[]) WITH ORDINALITY AS new (tube, key, body, delay, number)
WHERE current_setting('fsync') = 'on' AND current_setting('synchronous_commit') NOT IN ('off', 'local')
ORDER BY number
RETURNING id
"""
SAFE = """
SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('transaction_read_only')::bool
"""
# Its commit waits for the disk and for standbys, as that of a put does; one that is rolled back waits for neither.
COMMIT_NOTHING = "SELECT pg_logical_emit_message(true, 'glassq', '')"
WITHDRAW = "DELETE FROM glassq_jobs WHERE id = %b AND state = 0 AND token = 0 RETURNING id"

# The first jobs of the tubes together, so many of each and of all.
_FIRST = """
    SELECT first.id
    FROM unnest(%b::text[], %b::timestamptz[]) AS wanted (tube, since)
    CROSS JOIN LATERAL (
        SELECT id, due
        FROM glassq_jobs
        WHERE state = 0 AND tube = wanted.tube AND due >= wanted.since AND due <= now()
        ORDER BY due, id
        LIMIT {many}
        FOR UPDATE SKIP LOCKED
    ) AS first
    WHERE NOT EXISTS (SELECT FROM glassq_tubes WHERE name = wanted.tube AND paused_until > now())
    ORDER BY first.due, first.id
    LIMIT {many}
"""
_RESERVE = """
UPDATE glassq_jobs
SET state = 1, token = token + 1, holder = %b, lease_until = clock_timestamp() + %b * interval '1 second'
WHERE id = {first}
RETURNING id, tube, body, token, losses, kicked, due
"""
RESERVE = _RESERVE.format(first=f"({_FIRST.format(many=1)})")
_RESERVE_SEVERAL = _RESERVE.format(first=f"ANY(ARRAY({_FIRST.format(many='%b::bigint')}))")
# The job is ours: its number and its token are as they were at our reserve.
_OURS = "id = %b AND token = %b AND state = 1"
# A commit of this statement waits for the disk, and for the standbys.
_DURABLY = "set_config('synchronous_commit', %b, true) IS NOT NULL"
_FREE = "holder = NULL, lease_until = NULL, token = token + 1"

COMPLETE = f"DELETE FROM glassq_jobs WHERE {_OURS} RETURNING id"
# Several that are as they were at our reserve: their numbers, their tokens, and the numbers again.
COMPLETE_ALL = """
DELETE FROM glassq_jobs
WHERE id = ANY(%b::bigint[]) AND token = (%b::bigint[])[array_position(%b::bigint[], id)]
RETURNING id
"""
RETRY = f"""
UPDATE glassq_jobs
SET id = DEFAULT, state = 0, body = %b, tube = %b, due = now() + %b * interval '1 second', put_at = now(),
    losses = 0, kicked = false, {_FREE}
WHERE {_OURS} AND {_DURABLY}
RETURNING id
"""
BURY = f"""
UPDATE glassq_jobs
SET id = DEFAULT, state = 2, body = %b, put_at = now(), losses = 0, kicked = false, {_FREE}
WHERE {_OURS} AND {_DURABLY}
RETURNING id
"""
BURY_AS_IT_IS = f"UPDATE glassq_jobs SET state = 2, {_FREE} WHERE {_OURS} AND {_DURABLY} RETURNING id"
RELEASE = f"UPDATE glassq_jobs SET state = 0, {_FREE} WHERE {_OURS} RETURNING tube"
# Several of those, as COMPLETE_ALL.
RELEASE_ALL = f"""
UPDATE glassq_jobs SET state = 0, {_FREE}
WHERE id = ANY(%b::bigint[]) AND token = (%b::bigint[])[array_position(%b::bigint[], id)] AND state = 1
RETURNING tube
"""
EXTEND = f"""
UPDATE glassq_jobs SET lease_until = clock_timestamp() + %b * interval '1 second' WHERE {_OURS} RETURNING id
"""
EXAMINE = f"SELECT tube, losses, kicked FROM glassq_jobs WHERE {_OURS}"


@cache
def and_next(settle: str) -> str:
    """The statement that settles a job and reserves the next one: what the first returned, then RESERVE's columns."""
    return f"""
    WITH settled AS ({settle}), next AS ({RESERVE})
    SELECT (SELECT id FROM settled), next.*
    FROM (SELECT) AS one LEFT JOIN next ON true
    """


# The end of several jobs with the reserve of several: the numbers of those that have ended, then RESERVE's columns.
COMPLETE_ALL_AND_NEXT = f"""
WITH settled AS ({COMPLETE_ALL}), next AS ({_RESERVE_SEVERAL})
SELECT (SELECT string_agg(id::text, ' ') FROM settled), next.*
FROM (SELECT) AS one LEFT JOIN next ON true
"""


# Frees what is reserved by nobody: its holder's session is gone, or the lease has ended. It is a lost attempt. Whoever
# has got the job meanwhile has another token.
FREE = f"""
WITH alive AS MATERIALIZED (
    SELECT objid::bigint AS holder
    FROM pg_locks
    WHERE locktype = 'advisory' AND classid = {HOLDERS} AND objsubid = 2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
), lost AS MATERIALIZED (
    SELECT id, token
    FROM glassq_jobs
    WHERE state = 1 AND (lease_until < clock_timestamp() OR holder NOT IN (SELECT holder FROM alive))
), ours AS (
    SELECT id
    FROM glassq_jobs JOIN lost USING (id, token)
    WHERE state = 1
    FOR UPDATE OF glassq_jobs SKIP LOCKED
)
UPDATE glassq_jobs SET state = 0, losses = losses + 1, {_FREE} WHERE id IN (SELECT id FROM ours) RETURNING tube
"""
# How many seconds until the next job of these tubes is due, or the next pause ends; and how many receivers wait.
IDLE = f"""
SELECT
    (
        SELECT extract(epoch FROM min(GREATEST(first.due, paused_until)) - clock_timestamp())::float8
        FROM unnest(%b::text[]) AS wanted (tube)
        CROSS JOIN LATERAL (
            SELECT due FROM glassq_jobs WHERE state = 0 AND tube = wanted.tube ORDER BY due LIMIT 1
        ) AS first
        LEFT JOIN glassq_tubes ON name = wanted.tube
    ),
    (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{WAITS}%%')
"""
# The tubes whose names are in a range and that hold jobs: from one to the next, by the index of each state.
_TUBES = """
(
    WITH RECURSIVE found AS (
        (SELECT tube FROM glassq_jobs WHERE state = {state} AND tube >= %(low)b ORDER BY tube LIMIT 1)
        UNION ALL
        SELECT (
            SELECT tube FROM glassq_jobs WHERE state = {state} AND tube > found.tube AND tube < %(high)b
            ORDER BY tube LIMIT 1
        )
        FROM found
        WHERE found.tube IS NOT NULL
    )
    SELECT tube FROM found WHERE tube < %(high)b
)
"""
FILLED = f"""
{_TUBES.format(state=0)} UNION {_TUBES.format(state=2)}
UNION SELECT tube FROM glassq_jobs WHERE state = 1 AND tube >= %(low)b AND tube < %(high)b
"""
NAMED = f"{FILLED} UNION SELECT name FROM glassq_tubes WHERE name >= %(low)b AND name < %(high)b"
PAUSED = "SELECT EXISTS (SELECT FROM glassq_tubes WHERE name = %b AND paused_until > now())"
