"""A connection to PostgreSQL: no call takes longer than its time, no commit is less than durable, errors are words.

Session locks, LISTEN and the settings of a session are used, so a pooler that lends a server's session for one
transaction (pgbouncer's transaction mode) is refused. The import raises SettingsError where psycopg is not installed.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from glassq.database.libpq import has_many_hosts, opening, psycopg, seconds_for_each
from glassq.database.timed_connection import TimedConnection
from glassq.errors import JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable, WrongTables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.values import QueueUrl

# A client that is gone with its machine is noticed after so many seconds: idle, then between three questions.
_KEEPALIVE = (10, 5, 3)
# What `synchronous_commit` may be, for the server's settings; with less, ours is "on" (its default).
_SAFE = ("on", "remote_apply", "remote_write")
# One round trip at the start of a session. Plans must not hang on statistics that may be old: see the queue's indexes.
_LOOK = """
SELECT pg_backend_pid(), pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
    current_setting('fsync'), current_setting('synchronous_commit'),
    set_config('jit', 'off', false), set_config('tcp_keepalives_idle', %s, false),
    set_config('tcp_keepalives_interval', %s, false), set_config('tcp_keepalives_count', %s, false),
    (SELECT count(set_config(name, '0', false)) FROM pg_settings WHERE name = ANY(%s) AND setting <> '0')
"""
# Each call has a time of its own; a server that ends sessions which wait would take a job from who works it.
_TIMEOUTS = [
    *("statement_timeout", "lock_timeout", "transaction_timeout"),
    *("idle_session_timeout", "idle_in_transaction_session_timeout"),
]
_AWAY = ("08", "57P", "28", "3D")
_REFUSING = ("53", "42501", "54", "55")


class Unreplicated(NotDurable):
    """It is committed, and nobody knows whether anywhere but on the server that answered."""


class PostgresSession:
    """One connection for one thread. It connects at its first call, and again at the next one after it broke.

    Each statement is a transaction of its own, unless `transaction` says otherwise. Every call may raise QueueError,
    whose cause is psycopg's error. After QueueUnavailable nobody knows whether the statement took effect.
    """

    def __init__(
        self,
        url: QueueUrl,
        *,
        name: str,
        connect_timeout: float,
        timeout: float,
        prepare: Callable[[PostgresSession], None] | None = None,
    ) -> None:
        """`name` is what `pg_stat_activity` shows. `timeout` is how long an answer may take, in seconds.

        `connect_timeout` is for each host of the URL. `prepare` is called with each new connection.
        """
        self.url = url
        self.name = name
        #: what `synchronous_commit` is for statements that must be durable
        self.durable_commit = "on"
        #: whether a server that takes no writes will do, where no other is there
        self.only_reads = False
        #: whether the server that we are connected to takes no writes
        self.read_only = False
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._prepare = prepare
        self._deadline = math.inf
        self._connection: TimedConnection | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return self._connection is not None

    def connect(self) -> None:
        """Connects anew. Raises QueueUnavailable, or QueueRefused where the server is not as it must be."""
        self.close()
        with self._errors():
            try:
                self._connection = self._opened()
            except psycopg.OperationalError:
                if not self.only_reads or not has_many_hosts(self.url.whole):
                    raise
                self._connection = self._opened(writes=False)
        try:
            with self._errors():
                self._look(self._until(self._connect_timeout))
            if self._prepare is not None:
                self._prepare(self)
        except BaseException:
            self.close()
            raise

    def test(self) -> None:
        """Asks one cheap question. Raises QueueUnavailable if the connection broke."""
        self.rows("SELECT 1")

    def rows(
        self,
        sql: str,
        params: Sequence[object] | Mapping[str, object] = (),
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Runs a statement, prepared at its first use; its rows. `meanwhile` is called while the server works."""
        return self._ask(lambda connection: connection.answered(sql, params), meanwhile)

    def quick_rows(
        self, sql: str, values: Sequence[object], *, meanwhile: Callable[[], None] | None = None
    ) -> list[tuple[Any, ...]]:
        """As `rows`, in half the time, for a statement whose values and columns database/binary.py knows."""
        return self._ask(lambda connection: connection.quick.rows(sql, values), meanwhile)

    @contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """Makes one transaction of the calls in the block. An exception rolls it back, and so does not `keep`."""
        if self._connection is None:
            self.connect()
        with self._errors():
            connection = self._timed(self._until(self._timeout))
            with connection.transaction(force_rollback=not keep):
                yield
            self._check_warned()

    def run(self, statements: str) -> None:
        """Runs several statements, with semicolons between them, in one transaction."""
        if self._connection is None:
            self.connect()
        with self._errors():
            self._timed(self._until(self._timeout)).execute(statements)
            self._check_warned()

    def listen(self, until: float, wake: int) -> list[str]:
        """The payloads of the NOTIFYs that came; waits for one until this time (monotonic).

        It ends, too, when the descriptor `wake` can be read. Raises QueueUnavailable if the connection broke.
        """
        assert self._connection is not None
        with self._errors():
            return self._connection.notified(min(until, self._deadline), wake)

    def set_deadline(self, deadline: float) -> None:
        """From now on a call that is not done at `deadline` (time.monotonic()) raises QueueUnavailable."""
        self._deadline = deadline

    def close(self) -> None:
        """Closes the connection; what the session held is free."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close_inherited(self) -> None:
        """In a forked child: closes its copy of the socket, and says nothing to the server, whose client lives."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, connection.fileno())
            os.close(nothing)
            connection.close()

    def _opened(self, *, writes: bool = True) -> TimedConnection:
        url = self.url.whole
        seconds = seconds_for_each(url, self._connect_timeout, self._deadline - time.monotonic())
        if seconds <= 0:
            raise psycopg.OperationalError("no time is left to connect")
        return TimedConnection.within(seconds, opening(url, self.name, seconds, writes=writes))

    def _until(self, seconds: float) -> float:
        return min(time.monotonic() + seconds, self._deadline)

    def _timed(self, until: float, meanwhile: Callable[[], None] | None = None) -> TimedConnection:
        connection = self._connection
        assert connection is not None
        connection.begin(until, meanwhile)
        return connection

    def _look(self, until: float) -> None:
        connection = self._timed(until)
        row = connection.execute(_LOOK, [*map(str, _KEEPALIVE), _TIMEOUTS]).fetchone()
        assert row is not None
        pid, self.read_only, fsync, commit = row[:4]
        if pid != connection.info.backend_pid:
            raise QueueRefused(
                f"{self._place()}: a pooler (such as pgbouncer) stands between: session locks and LISTEN do not hold "
                "there. Connect to PostgreSQL itself"
            )
        if self.read_only and not self.only_reads:
            raise QueueUnavailable(
                f"{self._place()}: it takes no writes: it is a standby, or default_transaction_read_only is on"
            )
        if fsync != "on":
            raise NotDurable(f"{self._place()}: fsync is {fsync}: set it to on, as a crash loses what was committed")
        self.durable_commit = commit if commit in _SAFE else "on"
        if commit != self.durable_commit:
            connection.execute("SET synchronous_commit = on")

    def _check_warned(self) -> None:
        """A commit that was not waited for, or was cancelled while it waited for a standby, is a warning."""
        connection = self._connection
        if connection is not None and connection.warning:
            raise Unreplicated(f"{self._place()}: {connection.warning}")

    def _place(self) -> str:
        return f"PostgreSQL at {self.url}"

    def _ask(
        self, ask: Callable[[TimedConnection], list[tuple[Any, ...]]], meanwhile: Callable[[], None] | None
    ) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self.connect()
        with self._errors():
            found = ask(self._timed(self._until(self._timeout), meanwhile))
            self._check_warned()
            return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes ours of psycopg's errors. What leaves the connection in an unknown state closes it."""
        try:
            yield
        except psycopg.Error as error:
            raised = self._in_words(error)
            if isinstance(raised, QueueUnavailable) or self._is_broken():
                self.close()
            raise raised from error
        except QueueError:
            if self._is_broken():
                self.close()
            raise
        except BaseException:
            # interrupted between question and answer: the next one would get this one's answer
            self.close()
            raise

    def _is_broken(self) -> bool:
        return self._connection is not None and self._connection.broken

    def _in_words(self, error: psycopg.Error) -> QueueError:
        state = error.sqlstate or ""
        why = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
        said = f"{self._place()}: {why}"
        if state in ("42P01", "3F000"):
            return WrongTables(said, "`glassq queue init --url OWNER --grant ROLE` makes it, or says more")
        if state == "42703":
            return WrongTables(f"{said}: the tables are older", "`glassq queue upgrade`, as their owner (--url OWNER)")
        if state == "54000":
            return JobTooBig(said)
        if state.startswith(_REFUSING) and state != "53300":
            return QueueRefused(said)
        # 25006: the server became a standby
        if not state or state.startswith(_AWAY) or state in ("53300", "25006", "57014"):
            return QueueUnavailable(said)
        return QueueError(said)
