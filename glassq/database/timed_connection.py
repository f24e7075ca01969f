"""psycopg's connection, whose calls end in time: what is late is cancelled, so that a commit that hangs says so."""

from __future__ import annotations

import math
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from glassq import descriptors
from glassq.database.libpq import Int8BinaryDumper, Opened, psycopg
from glassq.database.quick import READ, WRITE, QuickStatements

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import PQGen

RV = TypeVar("RV")

# How long before the end of its time a call is cancelled, in seconds: a commit that waits for a standby then says so,
# and the server's process is free again. At most this part of the time that the call had.
CANCEL_BEFORE, CANCEL_PART = 0.3, 0.25


class TimedConnection(Opened):
    """A connection for one thread. `warning` is that of the last call ("": none)."""

    def __init__(self, pgconn: Any, row_factory: Any = psycopg.rows.tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        descriptors.own(self, "a connection to the database", shared=False)
        self.warning = ""
        self._until = math.inf
        self._cancel_at = math.inf
        self._meanwhile: Callable[[], None] | None = None
        # else each size of number would be a statement to prepare
        self.adapters.register_dumper(int, Int8BinaryDumper)
        # it keeps how each value is said
        self._cursor = self.cursor(binary=True)
        # by what is waited for
        self._polls: dict[int, select.poll] = {}
        self.quick = QuickStatements(self.pgconn, self._ready, self._hear)
        # those that came with the answer to something else
        self._payloads: list[str] = []
        self.add_notice_handler(self._noticed)
        self.add_notify_handler(lambda notify: self._payloads.append(notify.payload))

    @property
    def broken(self) -> bool:
        """Whether it ended, or a call is half done."""
        unusable = (psycopg.pq.TransactionStatus.ACTIVE, psycopg.pq.TransactionStatus.UNKNOWN)
        return self.closed or self.pgconn.transaction_status in unusable

    def answered(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        """The rows of a prepared statement; none where it has no rows."""
        self._cursor.execute(sql, params, prepare=True)
        result = self._cursor.pgresult
        # `description` would describe each column
        return self._cursor.fetchall() if result is not None and result.nfields else []

    def begin(self, until: float, meanwhile: Callable[[], None] | None) -> None:
        """What comes ends at this time (monotonic); `meanwhile` is called at its first wait."""
        self.warning = ""
        self._until, self._meanwhile = until, meanwhile
        left = until - time.monotonic()
        self._cancel_at = until - min(CANCEL_BEFORE, left * CANCEL_PART)

    def wait(self, gen: PQGen[RV], interval: float = 0, timeout: float | None = None) -> RV:
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted))
        except StopIteration as over:
            result: RV = over.value
            return result

    def notified(self, until: float, wake: int) -> list[str]:
        """The payloads of the NOTIFYs that came before this time, or before the descriptor `wake` can be read."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(wake, select.POLLIN)
        while not self._payloads:
            left = until - time.monotonic()
            ready = poll.poll(math.ceil(left * 1000)) if left > 0 else []
            if not ready or any(descriptor == wake for descriptor, _ in ready):
                break
            self.pgconn.consume_input()
            self._hear()
        came, self._payloads = self._payloads, []
        return came

    def _ready(self, wanted: int) -> int:
        """Waits until the socket is as it is wanted: READ, WRITE, or either."""
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        poll = self._polls.get(wanted)
        if poll is None:
            poll = self._polls[wanted] = select.poll()
            poll.register(
                self.fileno(), (select.POLLIN if wanted & READ else 0) | (select.POLLOUT if wanted & WRITE else 0)
            )
        while True:
            left = self._cancel_at - time.monotonic()
            ready = poll.poll(None if math.isinf(left) else max(0, math.ceil(left * 1000)))
            if ready:
                [(_, events)] = ready
                found = (READ if events & ~select.POLLOUT else 0) | (WRITE if events & select.POLLOUT else 0)
                return found & wanted or wanted
            self._late()

    def _late(self) -> None:
        """The time is nearly over: cancels, once. Then it is over."""
        if self._cancel_at >= self._until:
            raise psycopg.OperationalError("no answer in time")
        self._cancel_at = self._until
        left = max(0.01, self._until - time.monotonic())
        if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=left / 2)

    def _hear(self) -> None:
        while (notify := self.pgconn.notifies()) is not None:
            self._payloads.append(notify.extra.decode())

    def _noticed(self, diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warning = diagnostic.message_primary or "a warning"
