"""PostgreSQL."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession
from glassq.queues.postgres import schema
from glassq.queues.postgres.inspector import PostgresInspector
from glassq.queues.postgres.producer import PostgresProducer
from glassq.queues.postgres.receiver import PostgresReceiver
from glassq.queues.postgres.waking import Waker
from tests import postgres
from tests.conftest import wait_for
from tests.postgres import PostgresServer
from tests.queues.conformance.engine import LEASE, TIMEOUT, Engine
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Reservation
    from glassq.values import QueueUrl


class PostgresEngine(Engine):
    """PostgreSQL, with a database of its own that belongs to an ordinary role."""

    name = "postgres"
    kind = "PostgreSQL"
    shortest_lease = 1

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        super().__init__(directory, careless=careless)
        self._server = PostgresServer(directory)
        self._database = self._server.database()
        session = self._session("glassq tables", 0, TIMEOUT)
        schema.upgrade(session)
        session.close()

    @staticmethod
    def missing() -> str:
        return postgres.missing()

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def end(self) -> None:
        self._server.remove()

    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return PostgresProducer(
            lambda: self._session("glassq producer", port, timeout, schema.check), self._waker(timeout)
        )

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        session = self._session("glassq receiver", port, timeout, lambda session: made.prepare(session))
        made = PostgresReceiver(session, self._waker(timeout), lease=lease)
        return made

    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        session = self._session("glassq inspector", port, timeout, schema.check)
        return PostgresInspector(session, self._url(port), self._waker(timeout))

    def section(self) -> str:
        return queue_section(self._url(0))

    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        inspector = self.inspector()
        wait_for(lambda: inspector.get(held.ref).state == "ready", "the lease to end")
        inspector.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """As on a full disk: nothing new, and what is there can be moved about."""
        rights = "state, due, token, holder, lease_until, losses, kicked"
        self._run(f"REVOKE INSERT, UPDATE ON glassq_jobs FROM {postgres.ROLE}")
        self._run(f"GRANT UPDATE ({rights}) ON glassq_jobs TO {postgres.ROLE}")
        try:
            yield
        finally:
            self._run(f"GRANT INSERT, UPDATE ON glassq_jobs TO {postgres.ROLE}")

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        self._server.configure(fsync="off")
        try:
            yield
        finally:
            self._server.configure(fsync=None)

    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        with self._server.connect(self._database) as connection:
            connection.execute(
                "INSERT INTO glassq_jobs (tube, body) SELECT (%s::text[])[number %% %s + 1], %s "
                "FROM generate_series(0, %s) AS number",
                [list(tubes), len(tubes), body, jobs - 1],
            )

    def _run(self, statement: str) -> None:
        self._server.execute(statement, self._database)

    def _url(self, port: int) -> QueueUrl:
        return self._server.url(self._database, port=port)

    def _waker(self, timeout: float) -> Waker:
        """It goes through no proxy: what it says is no message of a role's."""
        return Waker(self._session("glassq notify", 0, timeout))

    def _session(
        self, name: str, port: int, timeout: float, prepare: Callable[[PostgresSession], None] | None = None
    ) -> PostgresSession:
        return PostgresSession(self._url(port), name=name, connect_timeout=timeout, timeout=timeout, prepare=prepare)
