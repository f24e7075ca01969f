"""beanstalkd and its syncer alone, under the recorder, and a client that does what intake and pool do, by hand."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from glassq import delivery as envelope
from tests.chaos.harness import SYNCER
from tests.ports import free_port
from tests.powercut.checking import Client, Found, look, prepare
from tests.powercut.disk import Kept, replay
from tests.powercut.recording import Recorder

if TYPE_CHECKING:
    import signal
    from pathlib import Path

# How long a server may take to start or to answer, in seconds.
PATIENCE = 30.0
# How long a client asks for a proof, in seconds; a "no" ends that.
PROOF = 10.0


class Rig:
    """The two servers on a disk of their own. `kept` are the jobs that were proven and not deleted since, by name."""

    def __init__(self, directory: Path, library: Path, *options: str, file_size: int = 8192) -> None:
        self.directory = directory
        self.root, self.place = directory / "disk", directory / "record"
        self.binlog = self.root / "queue" / "binlog"
        for made in (self.root, self.place, self.binlog.parent, self.binlog):
            made.mkdir()
        self.before = directory / "before"
        shutil.copytree(self.root, self.before)
        self.recorder = Recorder(library, root=self.root, place=self.place)
        self.queue, self.syncer = self.recorder.control("beanstalkd"), self.recorder.control("syncer")
        self.kept: set[str] = set()
        self._options = [*(options or ("-f1000",)), "-s", str(file_size)]
        self._path = str(directory / "s")
        self._port = free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._proofs: tuple[socket.socket, BinaryIO] | None = None
        self._client: Client | None = None

    def close(self) -> None:
        """Ends everything."""
        self.kill()
        self.recorder.close()

    @property
    def client(self) -> Client:
        """The connection to beanstalkd, since its start."""
        assert self._client is not None
        return self._client

    def start(self) -> None:
        """Starts both, as the units do."""
        prepare(self.binlog)
        program = shutil.which("beanstalkd")
        assert program
        self._run("beanstalkd", [program, "-l", f"unix:{self._path}", "-b", str(self.binlog), *self._options])
        self._client = _connected(self._path)
        self.client.send(b"stats\r\n")
        match = re.search(rb"^id: (\S+)", self.client.bodied()[1], re.MULTILINE)
        assert match
        self.id = match[1].decode()
        self.start_syncer()

    def start_syncer(self) -> None:
        """Starts the syncer, which may be down."""
        where = ["--queue", f"beanstalk://{self._path}", "--listen", f"127.0.0.1:{self._port}"]
        self._run("syncer", [sys.executable, str(SYNCER), "--binlog", str(self.binlog), *where])

    def send(self, service: str, number: signal.Signals) -> None:
        """Sends a signal to "beanstalkd" or "syncer"."""
        with suppress(ProcessLookupError):
            self._running[service].send_signal(number)

    def kill(self) -> None:
        """Kills both at once, whatever they do."""
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running.clear()
        self._forget()
        if self._client is not None:
            self._client.close()
            self._client = None

    def put(self, *names: str, delay: int = 0, within: float = PROOF) -> bool:
        """Puts jobs; whether all of them were put and proven. Raises OSError where beanstalkd is gone."""
        bodies = [envelope.encode(envelope.new("mirror", b'{"itemId": "%b"}' % name.encode(), {})) for name in names]
        self.client.send(*(b"put 1 %d 60 %d\r\n%b\r\n" % (delay, len(body), body) for body in bodies))
        answers = [self._line() for _ in names]
        if all(answer.startswith(b"INSERTED") for answer in answers) and self.prove(within):
            self.kept.update(names)
            return True
        return False

    def churn(self, number: int) -> None:
        """Puts so many jobs and deletes them: beanstalkd copies old jobs, and removes files."""
        self.client.send(*[b"put 0 0 60 400\r\n%b\r\n" % b"".ljust(400, b".")] * number)
        answers = [self._line().split() for _ in range(number)]
        put = [answer[1] for answer in answers if answer[0] == b"INSERTED"]
        self.client.send(*(b"delete %b\r\n" % job for job in put))
        for _ in put:
            self._line()

    def bury(self, name: str) -> bool:
        """Puts a job and buries it, as a new form; whether that was proven."""
        body = envelope.encode(envelope.new("mirror", b'{"itemId": "%b"}' % name.encode(), {}))
        self.client.send(b"put 1 3600 60 %d\r\n%b\r\n" % (len(body), body))
        answer = self._line().split()
        if answer[0] != b"INSERTED":
            return False
        self.client.send(b"reserve-job %b\r\n" % answer[1])
        if not self.client.bodied()[0]:
            raise ConnectionError("beanstalkd is gone")
        self.client.send(b"bury %b 1\r\n" % answer[1])
        if self._line() == b"BURIED\r\n" and self.prove():
            self.kept.add(name)
            return True
        return False

    def prove(self, within: float = PROOF) -> bool:
        """Whether the syncer proves, for this run of beanstalkd."""
        over = time.monotonic() + within
        while time.monotonic() < over:
            with suppress(OSError):
                if self._proofs is None:
                    connection = socket.create_connection(("127.0.0.1", self._port), within)
                    self._proofs = connection, connection.makefile("rb")
                self._proofs[0].settimeout(max(0.1, over - time.monotonic()))
                self._proofs[0].sendall(b"prove\n")
                if answer := self._proofs[1].readline().decode().split():
                    return answer[:2] == ["yes", self.id]
            self._forget()
            if "syncer" not in self._running or self._running["syncer"].poll() is not None:
                self.start_syncer()
            time.sleep(0.01)
        return False

    def found(self) -> Found:
        """What is there after both are killed, and nothing else happens to the disk."""
        self.kill()
        return look(self.binlog, self.root / "none")

    def cut(self, seed: int, names: Kept = Kept.NONE, data: Kept = Kept.NONE) -> Found:
        """What is there after a power cut now."""
        self.kill()
        *_, (_, _, disk) = replay(self.before, self.recorder.log)
        place = self.directory / f"cut-{seed}-{names.name}-{data.name}"
        disk.rebuild(place, random.Random(seed), names=names, data=data)
        return look(place / "queue" / "binlog", place / "none")

    def lost(self, found: Found) -> set[str]:
        """What was proven and is not there."""
        assert not found.trouble
        return self.kept - set(found.pings)

    def _run(self, service: str, command: list[str]) -> None:
        with (self.directory / f"{service}.log").open("ab") as log:
            environment = {**os.environ, **self.recorder.environment(service)}
            self._running[service] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _line(self) -> bytes:
        line = self.client.line()
        if not line:
            raise ConnectionError("beanstalkd is gone")
        return line

    def _forget(self) -> None:
        if self._proofs is not None:
            for each in reversed(self._proofs):
                each.close()
            self._proofs = None


def _connected(path: str) -> Client:
    over = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(path)
        except OSError:
            if time.monotonic() > over:
                raise
            time.sleep(0.005)
