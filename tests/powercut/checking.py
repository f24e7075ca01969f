"""What a rebuilt disk still holds: beanstalkd is started on it, and all its jobs are read; then intake's own files."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, GlassqError
from glassq.journal import Journal
from tests.chaos.harness import SYNCER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from glassq.journal import JournalRecord

# The ids of pings in a body.
_PING = re.compile(rb'"itemId": ?"([^"]+)"')
# How long a beanstalkd may take to start, in seconds.
START = 30.0
# A job's record in beanstalkd 1.12's binlog, and where in it the state is, in bytes.
RECORD, STATE = 80, 76


@dataclass
class Found:
    """What is there of each ping: its state in the queue, or "journal". `damaged` are jobs that cannot be read."""

    pings: dict[str, set[str]] = field(default_factory=dict)
    jobs: dict[str, list[int]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    #: jobs of which the files have a delete, and what --prepare told
    deleted: set[int] = field(default_factory=set)
    told: str = ""
    #: segments of the journal that are damaged
    set_aside: int = 0
    trouble: str = ""

    def add(self, body: bytes, state: str, job: int = 0) -> None:
        try:
            held = ping_of(envelope.decode(body).body)
        except DamagedDelivery:
            self.damaged.append(job)
            return
        self.pings.setdefault(held, set()).add(state)
        self.jobs.setdefault(held, []).append(job)


def ping_of(body: bytes) -> str:
    """The id of the ping that a body is, "" for anything else."""
    match = _PING.search(body)
    return match[1].decode() if match else ""


class Client:
    """A raw connection to beanstalkd, that sends many commands at once."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(START)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def send(self, *commands: bytes) -> None:
        self._socket.sendall(b"".join(commands))

    def line(self) -> bytes:
        return self._file.readline()

    def bodied(self) -> tuple[bytes, bytes]:
        """A reply, and its body if it has one."""
        line = self.line()
        if line.startswith((b"FOUND", b"OK", b"RESERVED")):
            return line, self._file.read(int(line.split()[-1]) + 2)[:-2]
        return line, b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def read_queue(client: Client, found: Found) -> None:
    """All jobs in all states, however many ids there have been."""
    client.send(b"use powercut\r\nput 0 0 60 0\r\n\r\n")
    client.line()
    last = int(client.line().split()[1])
    for start in range(1, last, 500):
        ids = range(start, min(last, start + 500))
        client.send(*(b"peek %d\r\nstats-job %d\r\n" % (job, job) for job in ids))
        for job in ids:
            reply, body = client.bodied()
            _, stats = client.bodied()
            if reply.startswith(b"FOUND") and body:
                state = re.search(rb"^state: (\w+)", stats, re.MULTILINE)
                found.add(body, state[1].decode() if state else "gone", job)


def read_journal(journal: Path, found: Found) -> None:
    """What intake's journal holds, by its own code, as if the queue took all of it."""
    if not journal.is_dir():
        return

    def put(records: Sequence[JournalRecord]) -> dict[str, QueueError]:
        for record in records:
            found.add(record.body, "journal")
        return {}

    opened = Journal(journal, max_size=1 << 40, min_free=0)
    opened.move_on(put)
    found.set_aside = opened.look().damaged


def deleted_jobs(binlog: Path) -> set[int]:
    """The jobs of which beanstalkd 1.12 would read a delete. It leaves a file at the first record that is none."""
    found: set[int] = set()
    for file in binlog.glob("binlog.*"):
        content, at = file.read_bytes(), 4
        while at + 4 + RECORD <= len(content):
            (name,) = struct.unpack_from("<i", content, at)
            record = at + 4 + name
            if not 0 <= name <= 200 or record + RECORD > len(content):
                break
            job, size = struct.unpack_from("<Q", content, record)[0], struct.unpack_from("<i", content, record + 32)[0]
            if not job:
                break
            if not name and content[record + STATE] == 0:
                found.add(job)
            at = record + RECORD + (size if name else 0)
    return found


def prepare(binlog: Path) -> str:
    """What --prepare says that it did; raises RuntimeError if it failed."""
    done = subprocess.run(
        [sys.executable, str(SYNCER), "--binlog", str(binlog), "--prepare"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"--prepare failed: {done.stdout}{done.stderr}")
    return done.stdout


def look(binlog: Path, journal: Path, *, prepares: bool = True) -> Found:
    """Starts a beanstalkd on a disk, reads all, and ends it. `trouble` is why that was not possible."""
    found = Found()
    program = shutil.which("beanstalkd")
    assert program
    path = binlog.parent / "s"
    try:
        if prepares:
            found.told = prepare(binlog)
    except RuntimeError as error:
        found.trouble = str(error)
        return found
    found.deleted = deleted_jobs(binlog)
    server = subprocess.Popen(
        [program, "-l", f"unix:{path}", "-b", str(binlog), "-f60000", "-s", "65536"], stderr=subprocess.PIPE
    )
    try:
        client = _connected(server, str(path))
        read_queue(client, found)
        client.close()
        read_journal(journal, found)
    except (OSError, ValueError, IndexError, GlassqError) as error:
        found.trouble = f"{type(error).__name__}: {error}"
    finally:
        server.kill()
        words = server.communicate()[1].decode(errors="replace").strip()
    found.trouble = f"{found.trouble} {words}".strip() if found.trouble else ""
    return found


def _connected(server: subprocess.Popen[bytes], path: str) -> Client:
    over = time.monotonic() + START
    while True:
        try:
            return Client(path)
        except OSError:
            if server.poll() is not None or time.monotonic() > over:
                raise OSError(f"beanstalkd does not start ({server.poll()})") from None
            time.sleep(0.002)
