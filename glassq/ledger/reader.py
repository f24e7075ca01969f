"""Reads the ledger, for people; changes nothing and creates nothing.

The usual ledger, an SQLite file, is read with Python's own module, because loading SQLAlchemy takes longer than most
commands. So the queries are plain SQL, the same for every database.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from glassq.database.plain import oldest_of, stamp
from glassq.database.sqlite_file import connect, plain_file_of
from glassq.delivery import decode_evidence
from glassq.errors import LedgerError
from glassq.ledger.activity import COLUMNS, Activity
from glassq.ledger.entry import Entry
from glassq.ledger.figures import CONTENTS, CONTENTS_NEED, MINUTES, TIMINGS, TIMINGS_NEED, Content, Timing
from glassq.ledger.version import ACTIVITIES, JOBS_ARE_TEXT, VERSION, check, missing, unreadable
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.delivery import Evidence
    from glassq.settings import LedgerSettings

_NAMES = Entry.__struct_fields__
# Large columns, which no list shows: `recorded_ping` and `story` read them.
_LARGE = frozenset({"body", "labels", "kept", "story"})
_MOMENTS = ("received", "updated", "started")
_LOWEST = "00000000-0000-0000-0000-000000000000"
_UUID_PART = 8
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_EXACTLY = "SELECT {columns} FROM deliveries WHERE delivery = :delivery"
_PREFIX = "SELECT {columns} FROM deliveries WHERE {range}delivery LIKE :prefix ESCAPE '/' ORDER BY delivery"
# By the index, which LIKE alone does not use.
_RANGE = "delivery BETWEEN :first AND :last AND "
_RECENT = "SELECT {columns} FROM deliveries ORDER BY updated DESC"
_RECENT_OF = "SELECT {columns} FROM deliveries WHERE {open}state = :state ORDER BY updated DESC"
_SINCE = "SELECT {columns} FROM deliveries WHERE updated >= :since{wanted} ORDER BY updated DESC"
# When the latest of all were updated; its rows are those of the index alone.
_AMONG = "SELECT updated FROM deliveries ORDER BY updated DESC LIMIT 1 OFFSET :among"
_JOBS = "SELECT job FROM deliveries WHERE {open}state = :state AND job NOT IN ('', '0')"
_NUMBERED_JOBS = "SELECT job FROM deliveries WHERE {open}state = :state AND job > 0"
_COUNTS = "SELECT state, count(*) FROM deliveries WHERE updated >= :since GROUP BY state"
# The condition is that of the index in `schema.py`, word for word, so that a database reads open rows only.
_OPEN_STATES = ("buried", "retrying")
_OPEN = "state IN ('buried', 'retrying') AND "
# A delivery that was replayed is open under its new id instead.
_OPEN_COUNTS = (
    "SELECT state, count(*) FROM deliveries WHERE state IN ('buried', 'retrying') AND replayed = '' GROUP BY state"
)
_OPEN_ONES = (
    "SELECT delivery, source, received, state, job, updated FROM deliveries"
    " WHERE state IN ('buried', 'retrying') AND replayed = '' ORDER BY updated"
)
_BODY = "SELECT source, labels, body, replayed, {kept} FROM deliveries WHERE delivery = :delivery"
_STORY = "SELECT story FROM deliveries WHERE delivery = :delivery"
_OLDEST = (
    "SELECT delivery, source, received, result, reason, replayed, body IS NOT NULL, tube, labels FROM deliveries"
    " WHERE state = :state AND received >= :since AND received < :before{originals} ORDER BY received, delivery"
)
_LABELLED = (
    "SELECT delivery, source, labels FROM deliveries"
    " WHERE labels LIKE :label ESCAPE '/' OR labels LIKE :escaped ESCAPE '/'"
)
# Leaves out replays: the delivery that they repeat is listed instead.
_ORIGINALS = " AND (labels IS NULL OR labels NOT LIKE :replay ESCAPE '/')"
_ACTIVITY = tuple(COLUMNS.get(name, name) for name in Activity.__struct_fields__)
_ACTIVITIES = f"SELECT {', '.join(_ACTIVITY)} FROM glassq_activity WHERE at >= :since"  # noqa: S608 - names of columns
_BY = {
    # as "anna", and as "anna (as root)"
    "who": "(actor = :who OR actor LIKE :as_whom ESCAPE '/')",
    "did": "did = :did",
    "cause": "cause = :cause",
    "state": "state = :state",
    "id": "id = :id",
    "run": "run = :run",
}


@dataclass(frozen=True, slots=True)
class FinishedDelivery:
    """What decides whether a delivery is replayed.

    `kept`: the ledger has its body. `replayed`: the id under which it was put again before ("": it was not).
    """

    delivery: str
    source: str
    received: datetime
    result: str
    reason: str
    replayed: str
    kept: bool
    tube: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Open:
    """A delivery that is still in the queue, in the job `job` when the ledger last heard of it ("": unknown)."""

    delivery: str
    source: str
    received: datetime
    state: str
    job: str
    updated: datetime


@dataclass(frozen=True, slots=True)
class RecordedPing:
    """A delivery's body and labels, from which it can be put again. `kept` is as in Entry."""

    source: str
    labels: dict[str, str]
    body: bytes
    replayed: str
    kept: dict[str, Any]


class QueryRunner(Protocol):
    """An open database. Its methods raise LedgerError."""

    #: of the schema
    version: int
    #: whether texts are in the order of their bytes, and not in that of some language
    orders_bytes: bool

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        """Names of columns, and at most `limit` rows."""

    def iterate(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        """The rows, read from the database one by one."""

    def close(self) -> None:
        """Closes the connection."""


class LedgerReader:
    """The ledger of the settings as it is now. A ledger that does not exist yet is empty, and `absent` says why.

    Making one, and every call, raises LedgerError if the ledger exists but cannot be read. Making one also raises
    SettingsError, if the URL cannot be used or the schema is newer than ours.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        file = plain_file_of(settings.url)
        #: why there is nothing to read, in words; "" if there is something
        self.absent = ""
        self.keeps_bodies = True
        self._columns = self._body = ""
        self._database: QueryRunner | None = None
        if file is None:
            from glassq.ledger.sqlalchemy_reader import SqlAlchemyReader

            self._database = SqlAlchemyReader.open(settings.url)
        elif not _exists(file, settings.url):
            self.absent = f"no ledger at {file} yet"
            return
        else:
            self._database = _SqliteReader.open(file, settings.url)
        if self._database is None:
            self.absent = f"the ledger at {without_password(settings.url)} is still empty"
            return
        absent = missing(self._database.version)
        #: False for a schema from before bodies were kept
        self.keeps_bodies = "body" not in absent
        self._body = _BODY.replace("{kept}", "NULL" if "kept" in absent else "kept")
        self._columns = ", ".join(name for name in _NAMES if name not in absent | _LARGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def require(self) -> None:
        """Raises LedgerError if there is no ledger: for questions that an absent one must not answer with "nothing"."""
        if self.absent:
            raise LedgerError(self.absent)

    def get(self, delivery: str) -> Entry | None:
        """The entry whose id is `delivery`, or the only one whose id begins so; else None."""
        found = self.find(delivery, limit=2)
        return found[0] if len(found) == 1 else None

    def find(self, prefix: str, limit: int = 11) -> list[Entry]:
        """The entries whose ids begin with `prefix`, sorted by id; only that one if an id equals it."""
        if exactly := self.exactly(prefix):
            return [exactly]
        values = {"prefix": _literal(prefix) + "%"}
        if self._database is not None and self._database.orders_bytes:
            values |= {"first": prefix, "last": f"{prefix}\U0010ffff"}
        elif ends := _uuids_beginning(prefix):
            values |= {"first": ends[0], "last": ends[1]}
        return self._entries(_PREFIX.replace("{range}", _RANGE if "first" in values else ""), limit, **values)

    def exactly(self, delivery: str) -> Entry | None:
        """The entry with this id, found by the primary key."""
        found = self._entries(_EXACTLY, 1, delivery=delivery)
        return found[0] if found else None

    @property
    def version(self) -> int:
        """The version of its schema: ours, or that of an older glassq until the pool writes to it."""
        return self._database.version if self._database else VERSION

    def recent(self, limit: int, state: str | None = None) -> list[Entry]:
        """The `limit` entries updated last, newest first; only those in `state` if it is given."""
        if state is None:
            return self._entries(_RECENT, limit)
        return self._entries(_of_state(_RECENT_OF, state), limit, state=state)

    def since(
        self, moment: datetime | None = None, wanted: Mapping[str, str] | None = None, limit: int | None = None
    ) -> list[Entry]:
        """The entries updated at `moment` or later, or the `limit` latest of them; the latest last.

        `wanted` holds the values that the columns `state`, `source` and `tube` must have; each is optional.
        """
        wanted = wanted or {}
        if self._database is None or wanted.keys() & missing(self._database.version):
            return []
        query = _SINCE.replace("{wanted}", "".join(f" AND {name} = :{name}" for name in sorted(wanted)))
        return self._entries(query, limit, since=stamp(moment) if moment else "", **wanted)[::-1]

    def latest_since(self, count: int) -> datetime | None:
        """When the latest entries were updated, so many of all; None if there are no more than these."""
        rows = self._rows(_AMONG, 1, among=count)[1]
        return datetime.fromisoformat(rows[0][0]) if rows else None

    def jobs(self, state: str) -> list[str]:
        """The references of the jobs that held the deliveries in this state when their entries were written."""
        numbers = self._database is not None and self._database.version < JOBS_ARE_TEXT
        query = _of_state(_NUMBERED_JOBS if numbers else _JOBS, state)
        rows = self._database.iterate(query, {"state": state}) if self._database else ()
        return [_ref(row[0]) for row in rows]

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """The number of deliveries by state; only of those updated at `since` or later if it is given."""
        return {row[0]: row[1] for row in self._rows(_COUNTS, since=stamp(since) if since else "")[1]}

    def open_counts(self) -> dict[str, int]:
        """The number of deliveries that are "buried" and "retrying", without those that were replayed."""
        return {row[0]: row[1] for row in self._rows(self._of_open(_OPEN_COUNTS))[1]}

    def open_ones(self) -> Iterator[Open]:
        """The deliveries that `open_counts` counts, least recently updated first, read one by one."""
        rows = self._database.iterate(self._of_open(_OPEN_ONES), {}) if self._database else ()
        for delivery, source, received, state, job, updated in rows:
            times = datetime.fromisoformat(received), datetime.fromisoformat(updated)
            yield Open(delivery, source, times[0], state, _ref(job), times[1])

    def _of_open(self, query: str) -> str:
        # a ledger of an older version has nothing replayed
        return query if self.keeps_bodies else query.replace(" AND replayed = ''", "")

    def finished(
        self, state: str, *, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[FinishedDelivery]:
        """The deliveries in this state that were received in this time, oldest first, read one by one.

        "done" and "dropped" leave out deliveries that are replays themselves. A ledger from before bodies were kept
        has none.
        """
        if self._database is None or not self.keeps_bodies:
            return
        values = {
            "state": state,
            "since": stamp(since) if since else "",
            "before": stamp(before) if before else "9",
        }
        originals = _ORIGINALS if state in ("done", "dropped") else ""
        if originals:
            # matches the label's name only: inside a JSON string, a quote has a backslash before it
            values["replay"] = '%"replay/_of":%'
        query = _OLDEST.replace("{originals}", originals)
        for row in self._database.iterate(query, values):
            delivery, source, received, result, reason, replayed, kept, tube, labels = row
            yield FinishedDelivery(
                delivery,
                source,
                datetime.fromisoformat(received),
                result,
                reason,
                replayed,
                bool(kept),
                tube,
                json.loads(labels or "{}"),
            )

    def recorded_ping(self, delivery: str) -> RecordedPing | None:
        """Body and labels of the delivery with exactly this id; None if they are not kept."""
        rows = self._rows(self._body, 1, delivery=delivery)[1] if self.keeps_bodies else []
        if not rows or rows[0][2] is None:
            return None
        source, labels, body, replayed, kept = rows[0]
        return RecordedPing(source, json.loads(labels or "{}"), bytes(body), replayed, json.loads(kept or "{}"))

    def story(self, delivery: str) -> tuple[Evidence, ...]:
        """Why attempts of the delivery with exactly this id failed, as far as that is kept."""
        if self._database is None or "story" in missing(self._database.version):
            return ()
        rows = self._rows(_STORY, 1, delivery=delivery)[1]
        return decode_evidence(rows[0][0]) if rows and rows[0][0] else ()

    def activities(self, *, since: datetime | None = None, limit: int | None = None, **wanted: str) -> list[Activity]:
        """What was done since, or the `limit` latest of it, newest first.

        `wanted` are the values that the fields `did`, `cause`, `state`, `run` or `id` must have, and `who`, the actor.
        None of a ledger of an older version.
        """
        if self._database is None or self._database.version < ACTIVITIES:
            return []
        values = {name: value for name, value in wanted.items() if value}
        query = " AND ".join((_ACTIVITIES, *(_BY[name] for name in sorted(values)))) + " ORDER BY at DESC, id DESC"
        if "who" in values:
            values["as_whom"] = f"{_literal(values['who'])} (as %"
        rows = self._rows(query, limit, since=stamp(since) if since else "", **values)[1]
        return [_activity(dict(zip(Activity.__struct_fields__, row, strict=True))) for row in rows]

    def labelled(self, labels: Mapping[str, str], source: str | None = None) -> Iterator[str]:
        """The ids of deliveries that have all these labels, of which there is at least one, and this source.

        A row whose labels were not kept is not found.
        """
        if self._database is None or not self.keeps_bodies:
            return
        # as sql.py writes them, and wrote them up to the last release; databases differ in whether LIKE heeds the case
        label = dict([next(iter(labels.items()))])
        forms = (json.dumps(label, separators=(",", ":"), ensure_ascii=ascii_)[1:-1] for ascii_ in (False, True))
        plain, escaped = (f"%{_literal(form)}%" for form in forms)
        for delivery, of, found in self._database.iterate(_LABELLED, {"label": plain, "escaped": escaped}):
            if source in (None, of) and labels.items() <= json.loads(found).items():
                yield delivery

    def minutes(self, since: datetime) -> list[tuple[datetime, str, int]]:
        """How many deliveries came to which state, by the minute, since then."""
        rows = self._rows(MINUTES, since=stamp(since))[1]
        return [(datetime.fromisoformat(f"{minute}:00Z"), state, count) for minute, state, count in rows]

    def timings(self, since: datetime, limit: int) -> list[Timing]:
        """How long deliveries took that were updated since then, at most the `limit` latest."""
        if self._lacks(TIMINGS_NEED):
            return []
        rows = self._rows(TIMINGS, limit, since=stamp(since))[1]
        return [
            Timing(datetime.fromisoformat(received), datetime.fromisoformat(started) if started else None, took, n == 1)
            for received, started, took, n in rows
        ]

    def contents(self, since: datetime, before: datetime | None = None) -> Iterator[Content]:
        """All that was updated in this time, the latest first, read one by one."""
        if self._database is None or self._lacks(CONTENTS_NEED):
            return
        values = {"since": stamp(since), "before": stamp(before) if before else "9"}
        for delivery, source, tube, state, updated, why, result, labels, body in self._database.iterate(
            CONTENTS, values
        ):
            at, content = datetime.fromisoformat(updated), bytes(body or b"")
            yield Content(delivery, source, tube, state, at, why, result, labels or "", content)

    def _lacks(self, column: str) -> bool:
        return self._database is not None and column in missing(self._database.version)

    def close(self) -> None:
        """Closes the connection."""
        if self._database is not None:
            self._database.close()

    def _entries(self, query: str, limit: int | None, **values: Any) -> list[Entry]:
        names, rows = self._rows(query, limit, **values)
        return [_entry(dict(zip(names, row, strict=True))) for row in rows]

    def _rows(self, query: str, limit: int | None = None, **values: Any) -> tuple[Sequence[str], list[Any]]:
        if self._database is None:
            return (), []
        return self._database.rows(query.replace("{columns}", self._columns), values, limit)


class _SqliteReader:
    """The ledger in an SQLite file. See QueryRunner."""

    orders_bytes = True

    def __init__(self, connection: sqlite3.Connection, url: str) -> None:
        self._connection = connection
        self._url = url
        self.version = VERSION

    @classmethod
    def open(cls, file: Path, url: str) -> Self | None:
        """None for a database without any table (yet). Raises SettingsError for its version, and LedgerError."""
        try:
            made = cls(connect(file, "ro"), url)
        except sqlite3.Error as error:
            raise unreadable(url, error) from None
        try:
            if not made.rows("SELECT name FROM sqlite_master", {}, 1)[1]:
                made.close()
                return None
            names = {"schema": "schema", "oldest": oldest_of("schema")}
            found = dict(made.rows("SELECT name, value FROM meta WHERE name IN (:schema, :oldest)", names, 2)[1])
            version = found.get("schema", VERSION)
            check(version, url, found.get(names["oldest"]))
            made.version = min(version, VERSION)
        except BaseException:
            made.close()
            raise
        return made

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        try:
            with closing(self._connection.execute(query, values)) as cursor:
                names = [column[0] for column in cursor.description]
                return names, cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        except sqlite3.Error as error:
            raise unreadable(self._url, error) from None

    def iterate(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        try:
            with closing(self._connection.execute(query, values)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise unreadable(self._url, error) from None

    def close(self) -> None:
        self._connection.close()


def _of_state(query: str, state: str) -> str:
    """The query, so that a database can see that it may use the index of open rows."""
    return query.replace("{open}", _OPEN if state in _OPEN_STATES else "")


def _literal(text: str) -> str:
    """The text as LIKE takes it literally."""
    return re.sub("([/%_])", r"/\1", text)


def _uuids_beginning(prefix: str) -> tuple[str, str] | None:
    """The lowest and the highest UUID with this prefix, which are so in the order of any language.

    None where it is not the beginning of a UUID, its first part at least.
    """
    first, last = f"{prefix}{_LOWEST[len(prefix) :]}", f"{prefix}{_LOWEST[len(prefix) :].replace('0', 'f')}"
    return (first, last) if len(prefix) >= _UUID_PART and _UUID.fullmatch(first) else None


def _exists(file: Path, url: str) -> bool:
    try:
        return file.exists()
    except OSError as error:
        # a directory on the way may not be entered
        raise unreadable(url, error.strerror) from None


def _ref(job: object) -> str:
    """A job's reference; "" for none. A ledger of an older version has numbers, and 0 for none."""
    return str(job) if job and job != "0" else ""


def _activity(row: dict[str, Any]) -> Activity:
    for name in ("at", "ended"):
        if isinstance(row[name], str):
            row[name] = datetime.fromisoformat(row[name])
    return Activity(**row)


def _entry(row: dict[str, Any]) -> Entry:
    """The entry of a row; a field without a column keeps its default."""
    if "job" in row:
        row["job"] = _ref(row["job"])
    for name in _MOMENTS:
        if isinstance(row.get(name), str):
            row[name] = datetime.fromisoformat(row[name])
    return Entry(**{name: value for name, value in row.items() if name in _NAMES})
