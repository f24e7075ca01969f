"""The ledger in an SQL database: SQLite by default, which several processes write at once.

`record` only appends to a list in memory. One daemon thread per process, started by the first entry (so after any
fork), writes in batches. If it cannot write, the work goes on: entries wait, and beyond a limit the oldest are dropped
and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import astuple, replace
from sqlalchemy.exc import IntegrityError

from glassq import backoff, descriptors
from glassq.database.engine import ReopeningEngine, reason_of
from glassq.database.plain import stamp
from glassq.database.pruning import Pruning
from glassq.delivery import encode_evidence
from glassq.ledger.activity_writer import row_of
from glassq.ledger.duplicates import DuplicateLookup
from glassq.ledger.entry import Entry
from glassq.ledger.schema import activities, deliveries, open_for_writing, parse_url
from glassq.ledger.texts import storable
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import URL

    from glassq.delivery import Evidence
    from glassq.ledger.activity import Activity
    from glassq.settings import LedgerSettings

log = logger("glassq.ledger")

# A transaction takes at most BATCH entries, or those of LINGER seconds; of SOON seconds, if a delivery of one of them
# is still in the queue: a process that its handler kills takes the entries that wait with it.
BATCH, LINGER, SOON = 200, 0.2, 0.02
# Maximum number of entries that wait in memory (about 1 KiB each without their bodies).
MAX_WAITING = 10_000
# Maximum bytes of bodies, labels and stories that wait in memory. Entries beyond it are recorded without theirs: a
# record of all deliveries is worth more than the bodies of some.
MAX_BODIES = 16 << 20
# As so many bytes each failed attempt of a story counts: texts of this length are rare.
_EVIDENCE = 4_096
# Retries after a failure come after between RETRY and RETRY_CAP seconds, with full jitter.
RETRY, RETRY_CAP = 0.5, 10.0
# After `close` no further try begins later than LAST_TRY, and `close` waits CLOSE for the last one, in seconds.
LAST_TRY, CLOSE = 2.0, 4.5
# Deliveries in these states are still in the queue.
_OPEN = ("retrying", "buried")
# Maximum lengths in characters: of the columns for ids, and of texts, which are for people.
MAX_KEY, MAX_TEXT = 64, 2_000


def open_ledger(settings: LedgerSettings) -> SqlLedger:
    """The ledger of the settings. Nothing is connected or started before the first entry.

    Raises SettingsError if the URL cannot be used, but not if the database is missing.
    """
    return SqlLedger(parse_url(settings.url), retention=settings.retention, keep_bodies=settings.keep_bodies)


class SqlLedger:
    """Writes entries from a thread of its own. See `glassq.ledger.Ledger`."""

    def __init__(
        self,
        url: URL,
        *,
        retention: float,
        keep_bodies: bool = True,
        bound: int = MAX_WAITING,
        bodies: int = MAX_BODIES,
    ) -> None:
        """`retention` is in seconds, `bound` in entries, `bodies` in bytes."""
        self._url = url
        self._retention = retention
        self._bound = bound
        self._keep_bodies = keep_bodies
        # how many more bytes of bodies may wait, and how many entries lost theirs since bodies last fitted
        self._room = bodies
        self._bare = 0
        self._waiting: deque[Entry] = deque()
        self._marks: deque[Activity] = deque()
        self._dropped = 0
        self._in_hand = 0
        # how many unwritten entries are of open deliveries; and whether the last try to write failed
        self._owed = 0
        self._failing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._close_at: float | None = None
        self._duplicates = DuplicateLookup(url)

    def record(self, entry: Entry) -> None:
        with self._changed:
            self._waiting.append(self._fitting(entry))
            self._owed += entry.state in _OPEN
            self._trim()
            # the thread waits for the first one, for a full batch, or for the first that is soon to be written
            if len(self._waiting) in (1, BATCH) or (entry.state in _OPEN and self._owed == 1):
                self._changed.notify_all()
            if self._thread is None:
                self._start()

    def mark(self, activity: Activity) -> None:
        """Takes what the pool itself did, to be written soon, unless another process has written this one (its id)."""
        with self._changed:
            self._marks.append(activity)
            self._changed.notify_all()
            if self._thread is None:
                self._start()

    def done_since(self, fingerprint: str, after: datetime, *, but: str) -> str:
        return self._duplicates.by_fingerprint(fingerprint, after, datetime.now(UTC), but)

    def event_done(self, event: str, since: datetime, *, but: str) -> str:
        return self._duplicates.by_event(event, since, but)

    def catch_up(self, behind: int, *, within: float) -> None:
        """Returns once at most so many entries are unwritten, or writing fails, or after this number of seconds."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) + self._in_hand <= behind or self._failing, within)

    def settle(self, patience: float) -> None:
        if self._owed:
            with self._changed:
                self._changed.wait_for(lambda: not self._owed or self._failing, patience)

    def close(self) -> None:
        self._duplicates.close()
        with self._changed:
            self._close_at = time.monotonic()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE)
        left = len(self._waiting) + self._in_hand
        if left or self._dropped:
            log.error("ledger closed with entries unwritten %s", fields(entries=left, dropped=self._dropped))

    def _fitting(self, entry: Entry) -> Entry:
        """The entry, without its body and labels if those do not fit."""
        if not self._keep_bodies:
            entry = replace(entry, body=None, labels=None, kept=None)
        weight = _weight(entry)
        if weight <= self._room:
            self._room -= weight
            return entry
        if self._keep_bodies:
            if not self._bare:
                log.warning("ledger is behind: bodies are not kept, and cannot be replayed %s", fields(bytes=weight))
            self._bare += 1
        return replace(entry, body=None, labels=None, kept=None, story=())

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # out of memory or of processes; the next entry tries again
            log.error("ledger cannot start its thread %s", fields(error=error))
            return
        self._thread = thread

    def _run(self) -> None:
        writer = _Writer(self._url, self._retention)
        failures = 0
        while self._wait(writer.pruning.due_at):
            batch = self._take()
            try:
                writer.write(batch)
                self._write_marks(writer)
                writer.prune()
            except Exception as error:
                failures += 1
                # one failure may be another process's long transaction; two in a row are trouble
                if failures == 2:
                    log.error(
                        "ledger cannot be written; the work goes on %s", fields(url=self._url, error=reason_of(error))
                    )
                writer.close()
                self._put_back(batch)
                if not self._pause(failures):
                    return
            else:
                self._written(batch, failures)
                failures = 0
        writer.close()

    def _wait(self, prune_at: float) -> bool:
        """Waits for something to do; False if the ledger is closed and no entry waits."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._marks or self._close_at is not None,
                max(0.0, prune_at - time.monotonic()),
            )
            self._changed.wait_for(
                lambda: len(self._waiting) >= BATCH or self._owed or self._close_at is not None, LINGER
            )
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._close_at is not None, SOON)
            return bool(self._waiting or self._marks) or self._close_at is None

    def _write_marks(self, writer: _Writer) -> None:
        """A role that may write entries alone is no reason to hold these up."""
        while self._marks:
            activity = self._marks.popleft()
            try:
                writer.mark(activity)
            except Exception as error:
                why = fields(did=activity.did, url=self._url, error=reason_of(error))
                log.warning("ledger cannot be written: it will not know of this %s", why)
                writer.close()

    def _take(self) -> list[Entry]:
        with self._changed:
            self._in_hand = min(BATCH, len(self._waiting))
            return [self._waiting.popleft() for _ in range(self._in_hand)]

    def _written(self, batch: list[Entry], failures: int) -> None:
        """Updates the counts; logs that writing works again, if its failures were logged."""
        with self._changed:
            self._in_hand, self._failing = 0, False
            self._owed -= sum(entry.state in _OPEN for entry in batch)
            self._changed.notify_all()
            self._room += sum(map(_weight, batch))
            bare, self._bare = self._bare, 0
        if failures > 1 or bare:
            log.info("ledger is written again %s", fields(url=self._url, dropped=self._dropped, without_body=bare))
            self._dropped = 0

    def _put_back(self, batch: list[Entry]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._in_hand, self._failing = 0, True
            self._changed.notify_all()
            self._trim()

    def _pause(self, failures: int) -> bool:
        """Waits before the next try; False if the ledger is closed and there is no time for another."""
        with self._changed:
            if self._close_at is None:
                wait = backoff.between(RETRY, backoff.ceiling(failures, RETRY, RETRY_CAP))
                self._changed.wait_for(lambda: self._close_at is not None, wait)
                return True
        time.sleep(LINGER)
        return time.monotonic() - self._close_at < LAST_TRY

    def _trim(self) -> None:
        while len(self._waiting) > self._bound:
            dropped = self._waiting.popleft()
            self._room += _weight(dropped)
            self._owed -= dropped.state in _OPEN
            self._dropped += 1


class _Writer:
    """Writes to the database, for one thread."""

    def __init__(self, url: URL, retention: float) -> None:
        self._database = ReopeningEngine(url, open_for_writing, "ledger file")
        # a timedelta overflows at a billion days, and thirty years are for ever
        self._retention = timedelta(seconds=min(retention, 1e9))
        self.pruning = Pruning()

    def write(self, entries: list[Entry]) -> None:
        """Writes the entries in one transaction; an entry never replaces a newer one of its delivery."""
        rows = _rows(entries)
        if not rows:
            return
        # not into what a handler has put in the place of the file
        descriptors.check()
        with self._database.engine().begin() as connection:
            if connection.dialect.name == "sqlite":
                # Without SQLAlchemy's work for each value, which takes twice as long as SQLite's for all of them; and
                # as one statement: with one a row, this thread and the worker's would change places twice a row.
                marks = ", ".join([_MARKS] * len(rows))
                connection.exec_driver_sql(_UPSERT.replace(_MARKS, marks), tuple(chain.from_iterable(rows)))
            elif connection.dialect.driver == "psycopg":
                # no work waits for it: a crash of the server may lose what came in the last moment, and no standby is
                # waited for
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off").close()
                connection.exec_driver_sql(_UPSERT.replace("?", "%s"), rows)
            else:
                values = [dict(zip(_PARAMETER_NAMES, row, strict=True)) for row in rows]
                connection.execute(_UPDATE, values)
                connection.execute(_INSERT, values)

    def mark(self, activity: Activity) -> None:
        """Writes the activity, unless it is there."""
        descriptors.check()
        with suppress(IntegrityError), self._database.engine().begin() as connection:
            connection.execute(activities.insert(), row_of(activity))

    def prune(self) -> None:
        """Deletes some rows that are past retention, if that is due."""
        self.pruning.run_if_due(self._delete_old)

    def close(self) -> None:
        """Closes the connection; the next write opens another."""
        self._database.close()

    def _delete_old(self, limit: int) -> int:
        before = datetime.now(UTC) - self._retention
        with self._database.engine().begin() as connection:
            connection.execute(_PRUNE_ACTIVITIES, {"before": before})
            return connection.execute(_PRUNE, {"before": before, "rows": limit}).rowcount


# "Insert or update, but never back in time", portably: two statements in one transaction. If another process inserts
# the same row between them, the primary key is violated and the batch is written again.
_NAMES = [column.name for column in deliveries.columns]
_PARAMETER_NAMES = [f"new_{name}" for name in Entry.__struct_fields__]
_PARAMETERS = {column.name: sa.bindparam(f"new_{column.name}", type_=column.type) for column in deliveries.columns}
_UPDATE = (
    deliveries.update()
    .where(deliveries.c.delivery == _PARAMETERS["delivery"], deliveries.c.updated <= _PARAMETERS["updated"])
    # `replayed` stays as `glassq replay` has set it
    .values({name: value for name, value in _PARAMETERS.items() if name not in ("delivery", "replayed")})
)
_INSERT = deliveries.insert().from_select(
    _NAMES,
    sa.select(*_PARAMETERS.values()).where(
        ~sa.exists().where(deliveries.c.delivery == _PARAMETERS["delivery"]),
    ),
)
# The same in one statement, for SQLite and PostgreSQL; its parameters are the fields of Entry, in their order.
_ALL = ", ".join(Entry.__struct_fields__)
_MARKS = f"({', '.join('?' for _ in Entry.__struct_fields__)})"
_CHANGES = ", ".join(
    f"{name} = excluded.{name}" for name in Entry.__struct_fields__ if name not in ("delivery", "replayed")
)
_UPSERT = (
    f"INSERT INTO deliveries ({_ALL}) VALUES {_MARKS} "  # noqa: S608 - names of columns
    f"ON CONFLICT (delivery) DO UPDATE SET {_CHANGES} WHERE deliveries.updated <= excluded.updated"
)
_OLDEST = (
    sa.select(deliveries.c.delivery)
    .where(deliveries.c.updated < sa.bindparam("before"))
    .limit(sa.bindparam("rows", type_=sa.Integer))
    .subquery()
)
_PRUNE_ACTIVITIES = activities.delete().where(activities.c.at < sa.bindparam("before"))
_PRUNE = deliveries.delete().where(deliveries.c.delivery.in_(sa.select(_OLDEST.c.delivery)))


def _rows(entries: list[Entry]) -> list[tuple[Any, ...]]:
    """The values of Entry's fields as any database takes them, of the newest entry of each delivery.

    They are in the order in which every process locks rows.
    """
    newest: dict[str, Entry] = {}
    for entry in entries:
        known = newest.get(entry.delivery)
        if known is None or known.updated <= entry.updated:
            newest[entry.delivery] = entry
    return sorted(map(_row, newest.values()), key=itemgetter(0))


def _row(entry: Entry) -> tuple[Any, ...]:
    values: list[Any] = list(astuple(entry))
    for place, store in _STORED:
        # most fields of most entries are empty
        if (value := values[place]) is not None and value != "":
            values[place] = store(value)
    return tuple(values)


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(value).decode()


def _key(value: str) -> str:
    return storable(value)[:MAX_KEY]


def _text(value: str) -> str:
    return storable(value)[:MAX_TEXT]


def _story(evidence: tuple[Evidence, ...]) -> str | None:
    return encode_evidence(evidence) if evidence else None


# How fields of Entry are stored that are not empty; the others are as they are.
_STORES: dict[str, Callable[[Any], Any]] = {
    "delivery": _key,
    "source": _key,
    "received": stamp,
    "updated": stamp,
    "started": stamp,
    "labels": _json,
    "kept": _json,
    "story": _story,
    **dict.fromkeys(("job", "result", "reason", "state", "tube"), _text),
}
_STORED = [(place, _STORES[name]) for place, name in enumerate(Entry.__struct_fields__) if name in _STORES]


def _weight(entry: Entry) -> int:
    """Bytes of its body, labels and story, which count against MAX_BODIES."""
    labels = sum(map(len, (*entry.labels, *entry.labels.values()))) if entry.labels else 0
    return len(entry.body or b"") + labels + (_EVIDENCE * len(entry.story) if entry.story else 0)
