"""The engines that the conformance suite knows: one class each, and one row in ENGINES or in NOT_THERE.

An engine's class runs a real server of its own and opens the three roles on it. What a promise needs of a server in
trouble (killed, refusing, forgetting) it brings about as that engine would have it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, cast

from glassq.database.postgres import PostgresSession
from glassq.errors import JobNotFound
from glassq.queues.base import Job
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.queues.beanstalk.prover import SyncerProver
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.queues.postgres import schema
from glassq.queues.postgres.inspector import PostgresInspector
from glassq.queues.postgres.producer import PostgresProducer
from glassq.queues.postgres.receiver import PostgresReceiver
from glassq.queues.postgres.waking import Waker
from glassq.queues.shelf import Shelf
from glassq.queues.sqs.client import SqsClient
from glassq.queues.sqs.inspector import SqsInspector
from glassq.queues.sqs.messages import STORY, bytes_of, story_of
from glassq.queues.sqs.names import queue_name, tube_of
from glassq.queues.sqs.place import SqsPlace
from glassq.queues.sqs.producer import SqsProducer
from glassq.queues.sqs.receiver import SqsReceiver
from glassq.queues.sqs.tubes import ATTRIBUTES
from glassq.values import QueueUrl, Tube
from tests import postgres
from tests.conftest import Beanstalkd, wait_for
from tests.postgres import PostgresServer
from tests.queues.binlog import break_binlog, breakable_program
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import CREDENTIALS, REGION, SqsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Reservation, State

# How the names of queues at SQS begin, and a tube whose queue is always there.
PREFIX, KNOWN = "test", "known"
# How long a job is ours where a test says nothing else, in seconds.
LEASE = 60
# How long a call waits for its answer where a test says nothing else, in seconds: only a hang takes so long.
TIMEOUT = 20.0


class Engine(ABC):
    """A server of this kind, with a port and a directory of its own; tests share it, each in tubes of its own.

    The roles go to `port` where one is given: that of a proxy.
    """

    name: str
    # as the engine itself says it
    kind: str
    # the shortest lease that it can give, in seconds
    shortest_lease: int
    # so many jobs are many: more than one packet of it holds; and so many times a call is measured
    many, samples = 1000, 150

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        """Starts it. A `careless` one may be quicker than safe, for a test that fills it up."""
        self.directory = directory
        self.careless = careless

    @staticmethod
    def missing() -> str:
        """What is missing on this machine, in words; "" where it can be tried."""
        return ""

    @property
    @abstractmethod
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""

    @abstractmethod
    def start(self) -> None:
        """Starts it again with what it had; returns when it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it as an operator would."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it by SIGKILL."""

    def end(self) -> None:
        """Ends it for good."""
        self.stop()

    @abstractmethod
    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer: ...

    @abstractmethod
    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver: ...

    @abstractmethod
    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector: ...

    def make(self, tubes: Sequence[str]) -> None:
        """Makes these tubes, where they do not come by themselves."""
        return

    def find(self, inspector: Inspector, states: frozenset[State], tubes: Sequence[str]) -> list[Job]:
        """The jobs of these tubes in these states, newest first, whether an operator could see them or not."""
        return list(inspector.find(states, tubes))

    def job(self, inspector: Inspector, ref: str) -> Job:
        """The job with this reference, which is there, whether an operator could see it or not."""
        return inspector.get(ref)

    def remove(self, inspector: Inspector, job: Job) -> None:
        """Deletes a job, whether an operator could or not."""
        inspector.delete(job)

    def waiting(self, inspector: Inspector, tube: str) -> int:
        """How many consumers wait for a job of this tube."""
        return inspector.counts([tube])[0].waiting

    def let_go(self) -> None:
        """Closes what its roles share: a test is over."""
        return

    @abstractmethod
    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        """Returns when the lease has ended, by itself where the engine says that it does."""

    @abstractmethod
    def refusing(self) -> AbstractContextManager[None]:
        """Within it the engine takes no jobs, and gives those it has."""

    @abstractmethod
    def forgetting(self) -> AbstractContextManager[None]:
        """Within it the engine takes jobs, and would lose them in a crash."""

    @abstractmethod
    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        """Puts so many jobs in turn into these tubes, by the quickest way there is."""


class BeanstalkdEngine(Engine):
    """beanstalkd with a syncer. Its lease is given to a job with its put."""

    name = kind = "beanstalkd"
    shortest_lease = 1
    has_syncer = True

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        super().__init__(directory, careless=careless)
        program = breakable_program(directory / "bin")
        # the later option wins: never to sync, or at each command
        interval = ("-F",) if careless else () if self.has_syncer else ("-f0",)
        self._server = Beanstalkd(directory, program=str(program), options=interval)

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("beanstalkd") else "no program beanstalkd here"

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.stop(signal.SIGKILL)

    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return BeanstalkProducer(
            lambda: self._connection(lease, port, timeout, require_durable=True), self._prover(timeout)
        )

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        return BeanstalkReceiver(self._connection(lease, port, timeout), self._prover(timeout))

    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        return BeanstalkInspector(self._connection(lease, port, timeout), self._url(port), self._prover(timeout))

    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        connection = cast("BeanstalkReceiver", receiver)._connection

        def ended() -> bool:
            # A command of the connection that held it ends a lease which the timer has missed.
            connection.stats()
            return connection.stats_job(int(held.ref)).state == "ready"

        wait_for(ended, "the lease to end")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        inspector = self.inspector()
        self._server.send(signal.SIGUSR1)
        try:
            wait_for(lambda: not inspector.status().accepting, "beanstalkd to drain")
            yield
        finally:
            inspector.close()
            self.stop()
            self.start()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        break_binlog(self._server)
        try:
            yield
        finally:
            self.kill()
            self.start()

    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as sock, sock.makefile("rb") as replies:
            for number, tube in enumerate(tubes):
                left = len(range(number, jobs, len(tubes)))
                sock.sendall(b"use %b\r\n" % tube.encode())
                assert replies.readline().startswith(b"USING")
                while left:
                    # so many that their answers fit into the socket's buffers
                    batch = min(left, 500)
                    sock.sendall(b"put 65536 0 60 %d\r\n%b\r\n" % (len(body), body) * batch)
                    assert all(replies.readline().startswith(b"INSERTED") for _ in range(batch))
                    left -= batch

    def _prover(self, timeout: float) -> SyncerProver | None:
        return SyncerProver(self._server.syncer.address, connect_timeout=timeout) if self.has_syncer else None

    def _url(self, port: int) -> QueueUrl:
        return QueueUrl(f"beanstalk://127.0.0.1:{port or self.port}")

    def _connection(
        self, lease: int, port: int, timeout: float, *, require_durable: bool = False
    ) -> BeanstalkConnection:
        return BeanstalkConnection(
            self._url(port),
            "default",
            ttr=lease,
            connect_timeout=timeout,
            timeout=timeout,
            require_durable=require_durable,
        )


class LoneBeanstalkdEngine(BeanstalkdEngine):
    """beanstalkd with -f0 and no syncer: its answers are the proof."""

    name = "lone-beanstalkd"
    has_syncer = False


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


class SqsEngine(Engine):
    """Amazon SQS: moto behind a front that is as strict as the real service, with a queue for each tube.

    What is killed is the way to it: the service itself loses nothing, and goes on.
    """

    name = "sqs"
    kind = "Amazon SQS"
    shortest_lease = 2
    many, samples = 60, 30

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        super().__init__(directory, careless=careless)
        os.environ.update(CREDENTIALS)
        self._service = SqsService(directory)
        self._shelf = Shelf(f"sqlite:///{directory}/ledger.db")
        self._made: set[str] = set()
        self._clients: dict[tuple[int, float], SqsClient] = {}

    @staticmethod
    def missing() -> str:
        return "" if importlib.util.find_spec("moto") and importlib.util.find_spec("boto3") else "no boto3, or no moto"

    @property
    def port(self) -> int:
        return self._service.port

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def kill(self) -> None:
        self._service.stop()

    def end(self) -> None:
        self.let_go()
        self._shelf.close()
        self._service.end()

    def let_go(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._service.drop([queue_name(PREFIX, tube) for tube in self._made])
        self._made.clear()

    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer:
        return SqsProducer(self._client(port, timeout), self._shelf, tube=KNOWN)

    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver:
        return SqsReceiver(self._client(port, timeout), self._shelf, lease=lease)

    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector:
        return SqsInspector(self._client(port, timeout), self._shelf, tube=KNOWN)

    def make(self, tubes: Sequence[str]) -> None:
        for tube in {KNOWN, *tubes} - self._made:
            if _is_tube(tube):
                self._made.add(tube)
                name = queue_name(PREFIX, tube)
                self._client(0, TIMEOUT).call("create_queue", QueueName=name, Attributes=ATTRIBUTES)

    def find(self, inspector: Inspector, states: frozenset[State], tubes: Sequence[str]) -> list[Job]:
        jobs = [job for job in self._messages() if job.state in states and job.tube in tubes]
        return [*jobs, *inspector.find(states & inspector.capabilities.lists, tubes)]

    def job(self, inspector: Inspector, ref: str) -> Job:
        if inspector.is_ref(ref):
            return inspector.get(ref)
        found = [job for job in self._messages() if job.ref == ref]
        if not found:
            raise JobNotFound(ref)
        return found[0]

    def remove(self, inspector: Inspector, job: Job) -> None:
        if inspector.is_ref(job.ref):
            inspector.delete(job)
        else:
            self._service.remove(job.ref)

    def waiting(self, inspector: Inspector, tube: str) -> int:
        return self._service.truth().waiting.get(queue_name(PREFIX, tube), 0)

    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        inspector = self.inspector()
        wait_for(lambda: self.job(inspector, held.ref).state == "ready", "the lease to end")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nothing may be sent, and the shelf's disk is full."""
        self._service.set(Faults(refuse=True))
        try:
            with self._full_shelf():
                yield
        finally:
            self._service.set()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        raise NotImplementedError("it never forgets")

    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        self.make(tubes)
        for number, tube in enumerate(tubes):
            self._service.fill(queue_name(PREFIX, tube), len(range(number, jobs, len(tubes))), body.decode())

    @contextmanager
    def _full_shelf(self) -> Iterator[None]:
        self._shelf.newest()
        trigger = "CREATE TRIGGER full_{0} BEFORE {0} ON glassq_shelf BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        with closing(sqlite3.connect(str(self._shelf.url.database))) as database:
            for what in ("INSERT", "UPDATE"):
                database.execute(trigger.format(what))
            try:
                yield
            finally:
                for what in ("INSERT", "UPDATE"):
                    database.execute(f"DROP TRIGGER full_{what}")

    def _messages(self) -> list[Job]:
        """All that there are, newest first."""
        found = []
        for each in reversed(self._service.truth().messages):
            story = story_of({"MessageAttributes": {STORY: {"StringValue": each["attributes"].get(STORY, "{}")}}})
            lost = max(0, each["receives"] - (each["state"] == "reserved"))
            found.append(
                Job(
                    story.ref or each["id"],
                    tube_of(PREFIX, each["queue"]) or "",
                    each["state"],
                    bytes_of(each["body"]),
                    each["age"],
                    each["left"],
                    losses=story.losses + lost,
                    kicked=story.kicked,
                )
            )
        return found

    def _client(self, port: int, timeout: float) -> SqsClient:
        if (port, timeout) not in self._clients:
            place = SqsPlace(REGION, PREFIX, self._service.endpoint(port), poll=1)
            self._clients[port, timeout] = SqsClient(place, connect_timeout=timeout, timeout=timeout)
        return self._clients[port, timeout]


def _is_tube(name: str) -> bool:
    try:
        Tube(name)
    except ValueError:
        return False
    return True


# By the name that `make conformance ENGINE=` takes.
ENGINES: dict[str, type[Engine]] = {
    "beanstalkd": BeanstalkdEngine,
    "lone-beanstalkd": LoneBeanstalkdEngine,
    "postgres": PostgresEngine,
    "sqs": SqsEngine,
}
# What the design has besides, and why it is not tried.
NOT_THERE = {
    "swf": "no such engine yet",
}


def not_tried() -> dict[str, str]:
    """The engines that do not run here, and why."""
    missing = {name: why for name, engine in ENGINES.items() if (why := engine.missing())}
    return missing | NOT_THERE
