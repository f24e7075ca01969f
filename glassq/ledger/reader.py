"""Reading the ledger, for people: it changes nothing and creates nothing.

An SQLite file, which is the usual ledger, is read with Python's own module: loading SQLAlchemy takes longer than most
commands. So the questions are plain SQL, the same for every database.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from glassq.ledger.entry import Entry
from glassq.ledger.url import file_of, unreadable
from glassq.ledger.version import JOBS_ARE_TEXT, VERSION, check, missing, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.settings import Ledger as LedgerSettings

_NAMES = tuple(field.name for field in fields(Entry))
# What is asked for apart: it is large, and nobody looks at it in a list.
_CONTENT = frozenset({"body", "labels"})
_MOMENTS = ("received", "updated", "started")

_EXACTLY = "SELECT {columns} FROM deliveries WHERE delivery = :delivery"
_PREFIX = "SELECT {columns} FROM deliveries WHERE delivery LIKE :prefix ESCAPE '/' ORDER BY delivery"
_RECENT = "SELECT {columns} FROM deliveries ORDER BY updated DESC"
_RECENT_OF = "SELECT {columns} FROM deliveries WHERE state = :state ORDER BY updated DESC"
_SINCE = "SELECT {columns} FROM deliveries WHERE updated >= :since{wanted} ORDER BY updated DESC"
_JOBS = "SELECT job FROM deliveries WHERE state = :state AND job NOT IN ('', '0')"
_NUMBERED_JOBS = "SELECT job FROM deliveries WHERE state = :state AND job > 0"
_COUNTS = "SELECT state, count(*) FROM deliveries WHERE updated >= :since GROUP BY state"
# As the index of `schema.prepare` has it, word for word: so the open ones are found without a look at all others.
# One that was replayed is waited for under its new id.
_OPEN_COUNTS = (
    "SELECT state, count(*) FROM deliveries WHERE state IN ('buried', 'retrying') AND replayed = '' GROUP BY state"
)
_OPEN_ONES = (
    "SELECT delivery, source, received, state, job, updated FROM deliveries"
    " WHERE state IN ('buried', 'retrying') AND replayed = '' ORDER BY updated"
)
_BODY = "SELECT source, labels, body, replayed FROM deliveries WHERE delivery = :delivery"
_OLDEST = (
    "SELECT delivery, source, received, result, reason, replayed, body IS NOT NULL FROM deliveries"
    " WHERE state = :state AND received >= :since AND received < :before{originals} ORDER BY received, delivery"
)
# A replay stands for the one that it repeats, and that one is asked instead.
_ORIGINALS = " AND (labels IS NULL OR labels NOT LIKE :replay ESCAPE '/')"


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery, as far as it says whether it is to be replayed.

    `kept` says whether its body is there; `replayed` is what it was put again as before ("": it was not).
    """

    delivery: str
    source: str
    received: datetime
    result: str
    reason: str
    replayed: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Open:
    """A delivery that is not over: the queue holds it, in `job` as far as the ledger knows ("": it does not)."""

    delivery: str
    source: str
    received: datetime
    state: str
    job: str
    updated: datetime


@dataclass(frozen=True, slots=True)
class Content:
    """What a delivery is made of, beside its story."""

    source: str
    labels: dict[str, str]
    body: bytes
    replayed: str


class _Database(Protocol):
    #: of its schema
    version: int

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        """Names of columns, and rows. Raises SettingsError."""

    def each(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        """The rows, read as they are asked for. Raises SettingsError."""

    def close(self) -> None:
        """Closes the connection."""


class LedgerReader:
    """The ledger of the settings as it is now. A ledger that nobody has written yet is empty, and says so.

    Every call, and making one, raises SettingsError where the ledger is there but cannot be read.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        file = None if "?" in settings.url else file_of(settings.url)
        #: why there is nothing to read, in words; "" where there is
        self.absent = ""
        self.keeps_bodies = True
        self._columns = ""
        self._database: _Database | None = None
        if file is None:
            from glassq.ledger.schema import Readable

            self._database = Readable.open(settings.url)
        elif not _exists(file, settings.url):
            self.absent = f"no ledger at {file} yet"
            return
        else:
            self._database = _File.open(file, settings.url)
        if self._database is None:
            self.absent = f"the ledger at {settings.url} is still empty"
            return
        absent = missing(self._database.version)
        #: whether it is of a version that keeps bodies
        self.keeps_bodies = "body" not in absent
        self._columns = ", ".join(name for name in _NAMES if name not in absent | _CONTENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, delivery: str) -> Entry | None:
        """The entry of a delivery id, or of a prefix that only one has; else None."""
        found = self.find(delivery, limit=2)
        return found[0] if len(found) == 1 else None

    def find(self, prefix: str, limit: int = 11) -> list[Entry]:
        """The entries whose delivery ids begin so, by id; an id that is exactly so comes alone."""
        exactly = self.exactly(prefix)
        return [exactly] if exactly else self._entries(_PREFIX, limit, prefix=re.sub("([/%_])", r"/\1", prefix) + "%")

    def exactly(self, delivery: str) -> Entry | None:
        """The entry of this very id, which is found without a search."""
        found = self._entries(_EXACTLY, 1, delivery=delivery)
        return found[0] if found else None

    def recent(self, limit: int, state: str | None = None) -> list[Entry]:
        """The `limit` entries updated last, newest first; of one state if it is given."""
        return self._entries(_RECENT, limit) if state is None else self._entries(_RECENT_OF, limit, state=state)

    def since(
        self, moment: datetime | None = None, wanted: Mapping[str, str] | None = None, limit: int | None = None
    ) -> list[Entry]:
        """The entries updated at `moment` or later, or the `limit` latest of them; the latest last.

        `wanted` says what the columns `state`, `source` and `tube` must hold, as far as it names them.
        """
        wanted = wanted or {}
        if self._database is None or wanted.keys() & missing(self._database.version):
            return []
        query = _SINCE.replace("{wanted}", "".join(f" AND {name} = :{name}" for name in sorted(wanted)))
        return self._entries(query, limit, since=stamp(moment) if moment else "", **wanted)[::-1]

    def jobs(self, state: str) -> list[str]:
        """The references of the jobs that held the deliveries of this state when it was written."""
        numbers = self._database is not None and self._database.version < JOBS_ARE_TEXT
        return [_ref(row[0]) for row in self._rows(_NUMBERED_JOBS if numbers else _JOBS, state=state)[1]]

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """How many deliveries are in which state; only those updated at `since` or later if it is given."""
        return {row[0]: row[1] for row in self._rows(_COUNTS, since=stamp(since) if since else "")[1]}

    def open_counts(self) -> dict[str, int]:
        """How many deliveries are "buried" and "retrying", those left out that were replayed."""
        return {row[0]: row[1] for row in self._open_rows(_OPEN_COUNTS)}

    def open_ones(self) -> list[Open]:
        """These deliveries, those first of which the ledger has not heard for longest."""
        return [
            Open(delivery, source, datetime.fromisoformat(received), state, _ref(job), datetime.fromisoformat(updated))
            for delivery, source, received, state, job, updated in self._open_rows(_OPEN_ONES)
        ]

    def _open_rows(self, query: str) -> list[Any]:
        # a ledger of an older version has nothing replayed
        return self._rows(query if self.keeps_bodies else query.replace(" AND replayed = ''", ""))[1]

    def settled(
        self, state: str, *, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[Settled]:
        """The deliveries of this state that were received in this time, the oldest first.

        Of what is "done" or "dropped", those that are replays themselves are left out. They are read as they are asked
        for. A ledger that keeps no bodies yet has none.
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
            # no value can hold this: in JSON a quote within one has a backslash before it
            values["replay"] = '%"replay/_of":%'
        query = _OLDEST.replace("{originals}", originals)
        for delivery, source, received, result, reason, replayed, kept in self._database.each(query, values):
            moment = datetime.fromisoformat(received)
            yield Settled(delivery, source, moment, result, reason, replayed, bool(kept))

    def content(self, delivery: str) -> Content | None:
        """What the delivery with exactly this id is made of; None where that is not kept."""
        rows = self._rows(_BODY, 1, delivery=delivery)[1] if self.keeps_bodies else []
        if not rows or rows[0][2] is None:
            return None
        source, labels, body, replayed = rows[0]
        return Content(source, json.loads(labels or "{}"), bytes(body), replayed)

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


class _File:
    """An SQLite file."""

    def __init__(self, connection: sqlite3.Connection, url: str) -> None:
        self._connection = connection
        self._url = url
        self.version = VERSION

    @classmethod
    def open(cls, file: Path, url: str) -> Self | None:
        """None for a database without any table (yet). Raises SettingsError."""
        try:
            # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
            made = cls(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True), url)
        except sqlite3.Error as error:
            raise unreadable(url, error) from None
        try:
            if not made.rows("SELECT name FROM sqlite_master", {}, 1)[1]:
                made.close()
                return None
            versions = made.rows("SELECT value FROM meta WHERE name = 'schema'", {}, 1)[1]
            made.version = versions[0][0] if versions else VERSION
            check(made.version, url)
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

    def each(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        try:
            with closing(self._connection.execute(query, values)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise unreadable(self._url, error) from None

    def close(self) -> None:
        self._connection.close()


def _exists(file: Path, url: str) -> bool:
    try:
        return file.exists()
    except OSError as error:
        # where a directory on the way may not be entered
        raise unreadable(url, error.strerror) from None


def _ref(job: object) -> str:
    """A job's reference; "" for none. A ledger of an older version has numbers, and 0 for none."""
    return str(job) if job and job != "0" else ""


def _entry(row: dict[str, Any]) -> Entry:
    """What is not in the row keeps its default."""
    if "job" in row:
        row["job"] = _ref(row["job"])
    for name in _MOMENTS:
        if isinstance(row.get(name), str):
            row[name] = datetime.fromisoformat(row[name])
    return Entry(**{name: value for name, value in row.items() if name in _NAMES})
