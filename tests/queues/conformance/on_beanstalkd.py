"""beanstalkd, with a syncer and without."""

from __future__ import annotations

import shutil
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.queues.beanstalk.prover import SyncerProver
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.values import QueueUrl
from tests.conftest import Beanstalkd, wait_for
from tests.queues.binlog import break_binlog, breakable_program
from tests.queues.conformance.engine import LEASE, TIMEOUT, Engine
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Reservation


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

    def section(self) -> str:
        return queue_section(self._url(0)) if self.has_syncer else f'[queue]\nurl = "{self._url(0)}"\nsyncer = "none"\n'

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
