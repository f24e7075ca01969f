"""What was put of each schedule: a table in the ledger's database, so that hosts that share it put each time once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from glassq.database.engine import ReopeningEngine, open_engine, open_read_only, parse_url, reason_of, sqlite_file
from glassq.database.schema import Moment, Needs, checked_version, write_version
from glassq.errors import LedgerError
from glassq.ledger import schema as ledger
from glassq.schedules.state import ScheduleState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy.engine import URL, Connection, Engine

T = TypeVar("T")

# When you change the table below: raise VERSION, and let `_prepare` bring a database of the previous version to the new
# one (it runs in a transaction that no other process can enter).
VERSION = 1
_KEY = "[ledger] url"
# Rows of schedules that the settings no longer name are deleted after this time.
KEEP = timedelta(days=400)
# How old `seen` may be before it is written again.
SEEN = timedelta(days=1)

metadata = sa.MetaData()

# `last` is the latest time that was put, or is being put (state "claimed"), or was passed over. `delivery`, `claimed`
# and `host` say which delivery that was, when, and who put it; `paused` since when nothing is put; `seen` is
# about when the settings named it last.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("last", Moment, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("delivery", sa.String(64), nullable=False),
    sa.Column("claimed", Moment),
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("paused", Moment),
    sa.Column("seen", Moment, nullable=False),
)
_COLUMNS = schedules.c
NEEDS = Needs((schedules.name,), "schedules", VERSION)


class ScheduleTable:
    """The table, for one thread. Each method is one transaction, and raises LedgerError if that fails."""

    def __init__(self, url: str) -> None:
        """`url` is [ledger] url. Raises SettingsError if it cannot be used; nothing is connected yet."""
        self._url = parse_url(url, _KEY)
        self._database = ReopeningEngine(self._url, _open, "ledger file")

    def enter(self, names: Iterable[str], now: datetime) -> dict[str, ScheduleState]:
        """The states of these schedules. One that is new is due from `now` on."""
        wanted = list(names)

        def act(connection: Connection) -> dict[str, ScheduleState]:
            known = _states(connection)
            for name in wanted:
                if name not in known:
                    known[name] = _insert(connection, name, now)
            stale = connection.execute(sa.select(_COLUMNS.name).where(_COLUMNS.seen < now - SEEN)).scalars().all()
            if stale:
                connection.execute(schedules.update().where(_COLUMNS.name.in_(wanted)).values(seen=now))
                connection.execute(schedules.delete().where(_COLUMNS.seen < now - KEEP))
            return {name: known[name] for name in wanted}

        return self._run(act)

    def claim(self, before: ScheduleState, after: ScheduleState) -> bool:
        """Takes a time: the row becomes `after`, unless it is no longer as it was `before`, or paused."""
        columns = ("last", "state", "delivery", "claimed", "host")
        return self._change(before, _COLUMNS.paused.is_(None), **{name: getattr(after, name) for name in columns})

    def confirm(self, claimed: ScheduleState) -> bool:
        """Records that the delivery of the claim is in the queue."""
        return self._change(claimed, state="put")

    def pass_over(self, before: ScheduleState, until: datetime) -> bool:
        """Nothing is put for what was due up to this time."""
        return self._change(before, last=until)

    def pause(self, name: str, now: datetime) -> None:
        """From now on nothing is put for this schedule."""

        def act(connection: Connection) -> None:
            state = _states(connection).get(name) or _insert(connection, name, now)
            if state.paused is None:
                connection.execute(schedules.update().where(_COLUMNS.name == name).values(paused=now))

        self._run(act)

    def resume(self, name: str, now: datetime) -> None:
        """The schedule goes on. What was due while it was paused is passed over."""

        def act(connection: Connection) -> None:
            state = _states(connection).get(name)
            if state is not None and state.paused is not None:
                changes = {"paused": None, "last": max(now, state.last)}
                connection.execute(schedules.update().where(_COLUMNS.name == name).values(changes))

        self._run(act)

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        self._database.close()

    def _change(self, before: ScheduleState, *also: sa.ColumnElement[bool], **changes: object) -> bool:
        same = [_COLUMNS[name] == getattr(before, name) for name in ("name", "last", "state", "delivery")]
        query = schedules.update().where(*same, *also).values(changes)
        return self._run(lambda connection: connection.execute(query).rowcount == 1)

    def _run(self, act: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine().begin() as connection:
                return act(connection)
        except (SQLAlchemyError, OSError) as error:
            # the next call opens it anew
            self._database.close()
            raise LedgerError(f'{_KEY} = "{self._url}": schedules cannot be recorded: {reason_of(error)}') from error


def read_states(url: str) -> dict[str, ScheduleState]:
    """The states of all schedules, without changing or creating anything; none where there is no table yet.

    Raises SettingsError or LedgerError.
    """
    parsed = parse_url(url, _KEY)
    file = sqlite_file(parsed)
    if file is not None and not file.exists():
        return {}
    engine = open_read_only(parsed)
    try:
        with engine.connect() as connection:
            return _states(connection) if sa.inspect(connection).has_table(schedules.name) else {}
    except (SQLAlchemyError, OSError) as error:
        raise LedgerError(f'{_KEY} = "{parsed}": schedules cannot be read: {reason_of(error)}') from error
    finally:
        engine.dispose()


def _open(url: URL) -> Engine:
    return open_engine(url, _prepare)


def _prepare(connection: Connection, url: URL) -> None:
    """Creates what is missing, inside the caller's transaction."""
    # whoever reads the ledger expects its own table in a database that is there
    ledger.prepare(connection, url)
    metadata.create_all(connection)
    checked_version(connection, "schedules", VERSION, url, _KEY)
    write_version(connection, "schedules", VERSION, oldest=VERSION)


def _states(connection: Connection) -> dict[str, ScheduleState]:
    columns = [_COLUMNS[name] for name in ScheduleState.__struct_fields__]
    return {row.name: ScheduleState(*row) for row in connection.execute(sa.select(*columns))}


def _insert(connection: Connection, name: str, now: datetime) -> ScheduleState:
    state = ScheduleState(name, now)
    try:
        with connection.begin_nested():
            connection.execute(schedules.insert().values({**msgspec.structs.asdict(state), "seen": now}))
    except IntegrityError:
        # another host was quicker
        return _states(connection)[name]
    return state
