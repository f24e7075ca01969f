"""Puts, changes and deletes jobs for operators: a batch in one transaction, which is durable when it is committed.

A job is changed only if it is as it was seen: in its state and tube, with the same body. A new body or another tube
makes a new form of the delivery, which gets a new id, as a put would: so what is newer than a mark was put, or changed,
after it.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import JobNotFound, QueueError
from glassq.queues.key import key_of
from glassq.queues.postgres.limits import LIMITS
from glassq.queues.postgres.producer import try_to_put
from glassq.queues.postgres.statements import FREE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from glassq.database.postgres import PostgresSession
    from glassq.queues.base import Change, Job, NewForm, State
    from glassq.queues.postgres.waking import Waker

# What the column `state` holds.
NUMBERS: Mapping[State, int] = {"ready": 0, "delayed": 0, "reserved": 1, "buried": 2}


class _New(msgspec.Struct):
    """A row to insert; `place` is that of its form in the batch. The names of the columns are those of the fields."""

    place: int
    new_state: int
    delay: float
    new_tube: str
    key: str
    body: bytes


class _Seen(msgspec.Struct):
    """A row as it was seen, and what becomes of it. `digest` is the SHA-256 of its body."""

    place: int
    id: int
    state: int
    tube: str
    digest: bytes
    new_state: int = 0
    delay: float = 0.0
    kick: bool = False
    new_tube: str = ""
    body: bytes = b""


_TYPES = {
    "place": "int",
    "id": "bigint",
    "state": "smallint",
    "tube": "text",
    "digest": "bytea",
    "new_state": "smallint",
    "delay": "float8",
    "kick": "bool",
    "new_tube": "text",
    "key": "text",
    "body": "bytea",
}


def _table(*columns: str) -> str:
    """The rows of a batch as a table of its parameters: one array for each column."""
    return f"unnest({', '.join(f'%({name})s::{_TYPES[name]}[]' for name in columns)}) AS form ({', '.join(columns)})"


_DUE = "statement_timestamp() + make_interval(secs => form.delay)"
_INSERT = f"""
INSERT INTO glassq_jobs (tube, state, due, key, body) SELECT new_tube, new_state, {_DUE}, key, body
FROM {_table("place", "new_state", "delay", "new_tube", "key", "body")} ORDER BY place RETURNING id
"""
_WAS = ("place", "id", "state", "tube", "digest")
_AS_SEEN = "job.id = form.id AND job.state = form.state AND job.tube = form.tube AND sha256(job.body) = form.digest"
_FREE = "token = job.token + 1, holder = NULL, lease_until = NULL"
_IN_PLACE = f"""
UPDATE glassq_jobs AS job SET state = form.new_state, {_FREE},
    -- what is ready already keeps its place
    due = CASE WHEN form.kick AND job.state = 0 THEN least(job.due, statement_timestamp()) ELSE {_DUE} END,
    kicked = job.kicked OR (form.kick AND (job.state = 2 OR job.due > statement_timestamp()))
FROM {_table(*_WAS, "new_state", "delay", "kick")} WHERE {_AS_SEEN} RETURNING form.place, job.id
"""
_ANEW = f"""
UPDATE glassq_jobs AS job SET id = DEFAULT, tube = form.new_tube, state = form.new_state, body = form.body,
    put_at = statement_timestamp(), due = {_DUE}, {_FREE}, losses = 0, kicked = false
FROM {_table(*_WAS, "new_state", "delay", "new_tube", "body")} WHERE {_AS_SEEN} RETURNING form.place, job.id
"""
_DELETE = f"DELETE FROM glassq_jobs AS job USING {_table(*_WAS)} WHERE {_AS_SEEN} RETURNING form.place"


class FormChanger:
    """Changes jobs in batches. `free` and `probe` raise QueueError; the others return what happened to each job."""

    def __init__(self, session: PostgresSession, waker: Waker | None) -> None:
        """Without a waker, receivers that wait find what is ready at their next look."""
        self._session = session
        self._waker = waker

    def insert(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        """Puts these jobs; for each its reference, or why it is not there."""
        results: dict[int, str | QueueError] = {}
        rows: list[_New] = []
        for place, form in enumerate(forms):
            delay = float(form.delay) if form.state == "delayed" else 0.0
            if error := LIMITS.fault(form.body, form.tube, delay):
                results[place] = error
            else:
                rows.append(_New(place, NUMBERS[form.state], delay, form.tube, key_of(form.body), form.body))
        try:
            ids = self._session.rows(_INSERT, _parameters(rows)) if rows else []
            results |= {row.place: str(number) for row, (number,) in zip(rows, ids, strict=True)}
        except QueueError as error:
            results |= dict.fromkeys((row.place for row in rows), error)
        self._wake(row.new_tube for row in rows if not (row.new_state or row.delay))
        return [results[place] for place in range(len(forms))]

    def change(self, changes: Sequence[Change], ids: Sequence[int]) -> list[str | QueueError]:
        """Changes these jobs, whose ids are `ids`; for each its new reference, or why it is as it was."""
        results: dict[int, str | QueueError] = {}
        batches: dict[str, list[_Seen]] = {_IN_PLACE: [], _ANEW: []}
        for place, (change, number) in enumerate(zip(changes, ids, strict=True)):
            row = _seen(place, change.job, number)
            row.body = change.job.body if change.body is None else change.body
            row.new_tube, row.new_state = change.tube or change.job.tube, NUMBERS[change.state]
            row.kick = change.state == "ready"
            row.delay = float(change.delay) if change.state == "delayed" else 0.0
            if error := LIMITS.fault(row.body, row.new_tube, row.delay):
                results[place] = error
                continue
            same = (row.body, row.new_tube) == (change.job.body, change.job.tube)
            batches[_IN_PLACE if same else _ANEW].append(row)
        found, failed = self._each_as_seen(batches)
        self._wake(row.new_tube for rows in batches.values() for row in rows if row.place in found and row.kick)
        results |= {place: str(number) for place, number in found.items()}
        return [results.get(place) or failed or _gone(change.job) for place, change in enumerate(changes)]

    def delete(self, jobs: Sequence[Job], ids: Sequence[int]) -> list[QueueError | None]:
        """Deletes these jobs, whose ids are `ids`: for each None, or why it is still there."""
        rows = [_seen(place, job, number) for place, (job, number) in enumerate(zip(jobs, ids, strict=True))]
        found, failed = self._each_as_seen({_DELETE: rows})
        return [None if place in found else failed or _gone(job) for place, job in enumerate(jobs)]

    def free(self) -> None:
        """Makes ready what nobody holds any more: so it is shown, and counted, as it is. Raises QueueError.

        A server that takes no writes shows it as it was.
        """
        if not self._session.connected:
            self._session.connect()
        if self._session.read_only:
            return
        self._wake(tube for (tube,) in self._session.rows(FREE))

    def probe(self) -> None:
        """Raises QueueError if the database takes no jobs now, or does not keep them."""
        try_to_put(self._session)

    def _each_as_seen(self, batches: Mapping[str, Sequence[_Seen]]) -> tuple[dict[int, int], QueueError | None]:
        """Runs these statements in one transaction; by place the ids that they changed, and why it failed."""
        wanted = {statement: rows for statement, rows in batches.items() if rows}
        found: dict[int, int] = {}
        try:
            with self._session.transaction() if len(wanted) > 1 else nullcontext():
                for statement, rows in wanted.items():
                    changed = self._session.rows(statement, _parameters(rows))
                    found |= {place: next(iter(rest), 0) for place, *rest in changed}
        except QueueError as error:
            return {}, error
        return found, None

    def _wake(self, tubes: Iterable[str]) -> None:
        if self._waker is not None and (named := set(tubes)):
            self._waker.tell(named)


def _seen(place: int, job: Job, number: int) -> _Seen:
    # nobody but its consumer changes what is reserved: no row has the state -1
    state = -1 if job.state == "reserved" else NUMBERS[job.state]
    return _Seen(place, number, state, job.tube, hashlib.sha256(job.body).digest())


def _gone(job: Job) -> JobNotFound:
    return JobNotFound(f"job {job.ref} is gone, or no longer as it was seen")


def _parameters(rows: Sequence[_New] | Sequence[_Seen]) -> dict[str, list[Any]]:
    """An array for each column."""
    return {name: [getattr(row, name) for row in rows] for name in rows[0].__struct_fields__} if rows else {}
