"""What a rebuilt disk still holds: beanstalkd is started on it, and all its jobs are read; then intake's own files."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery
from glassq.intake.spool import Spool
from tests.chaos.harness import SYNCER

if TYPE_CHECKING:
    from pathlib import Path

# The ids of pings in a body.
_PING = re.compile(rb'"itemId": ?"([^"]+)"')
# How long a beanstalkd may take to start, in seconds.
START = 30.0
STATES = ("ready", "delayed", "buried", "reserved")


@dataclass
class Found:
    """What is there of each ping: its state in the queue, or "journal". `damaged` are jobs that cannot be read."""

    pings: dict[str, set[str]] = field(default_factory=dict)
    jobs: dict[str, list[int]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
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
        self._socket.connect(path)
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


def read_intake(spool: Path, found: Found) -> None:
    """What intake holds, by its own code."""
    if spool.is_dir():
        Spool(spool, max_size=1 << 40, min_free=0).drain(lambda _, body: found.add(body, "journal"))


def prepare(binlog: Path) -> str:
    """What --prepare says that it did; raises RuntimeError if it failed."""
    done = subprocess.run(
        [sys.executable, "-S", str(SYNCER), "--binlog", str(binlog), "--prepare"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"--prepare failed: {done.stdout}{done.stderr}")
    return done.stdout


def look(binlog: Path, spool: Path, *, prepares: bool = True) -> Found:
    """Starts a beanstalkd on a disk, reads all, and ends it. `trouble` is why that was not possible."""
    found = Found()
    program = shutil.which("beanstalkd")
    assert program
    path = binlog.parent / "s"
    try:
        if prepares and SYNCER.exists():
            prepare(binlog)
    except RuntimeError as error:
        found.trouble = str(error)
        return found
    server = subprocess.Popen(
        [program, "-l", f"unix:{path}", "-b", str(binlog), "-f60000", "-s", "65536"], stderr=subprocess.PIPE
    )
    try:
        client = _connected(server, str(path))
        read_queue(client, found)
        client.close()
        read_intake(spool, found)
    except (OSError, ValueError, IndexError) as error:
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
