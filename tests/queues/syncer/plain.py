"""A beanstalkd without a syncer beside it, and what a test looks for in it."""

from __future__ import annotations

import shutil
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import greenstalk
import pytest

from glassq import delivery
from tests.conftest import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def plain_beanstalkd(binlog: Path, *, size: int = 8192) -> Iterator[tuple[Process, greenstalk.Client]]:
    """A beanstalkd on `binlog` that syncs each write, whose files have `size` bytes; and a client of it.

    At the end it is killed, as nothing else than its files may tell what it had.
    """
    program = shutil.which("beanstalkd")
    if program is None:
        pytest.skip("beanstalkd is missing: make setup")
    place = binlog.with_name(f"{binlog.name}.sock")
    place.unlink(missing_ok=True)
    command = [program, "-l", f"unix:{place}", "-b", str(binlog), "-f0", "-s", str(size), "-z", "131072"]
    process = Process(command, binlog.with_name(f"{binlog.name}.log"))
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            wait_for(lambda: not sock.connect_ex(str(place)) or not process.running(), "beanstalkd to listen")
            client = greenstalk.Client(sock, encoding=None)
            # it listens before it has its lock and has read its files
            client.stats()
            try:
                yield process, client
            finally:
                client.close()
    finally:
        process.end(signal.SIGKILL)


def jobs_on(binlog: Path) -> dict[int, tuple[str, str, bytes]]:
    """Each job that a beanstalkd has which starts on a copy of these files: its tube, state and body, by id."""
    copy = binlog.with_name(f"{binlog.name}.copy")
    wait_for(lambda: _copied(binlog, copy), "a copy in whose time the syncer removed nothing")
    with plain_beanstalkd(copy, size=1 << 16) as (_, client):
        last = client.put(b"the last")
        return {job_id: found for job_id in range(1, last) if (found := _look(client, job_id))}


def _copied(binlog: Path, copy: Path) -> bool:
    """Whether all was there until it was copied: a syncer that still runs removes links of its own."""
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(binlog, copy)
    except shutil.Error:
        return False
    return True


def _look(client: greenstalk.Client, job_id: int) -> tuple[str, str, bytes] | None:
    """Not by the client's own commands: these end if a body does not end as it should."""
    sock, reader = client._sock, client._reader
    sock.sendall(b"peek %d\r\nstats-job %d\r\n" % (job_id, job_id))
    answers = []
    for _ in range(2):
        line = reader.readline()
        if not line.startswith(b"NOT_FOUND"):
            size = int(line.split()[-1])
            answers.append(reader.read(size + 2)[:size])
    if not answers:
        return None
    body, facts = answers
    said = dict(line.split(": ", 1) for line in facts.decode().splitlines() if ": " in line)
    return said["tube"].strip('"'), said["state"], body


def ping(number: int, size: int = 300) -> bytes:
    """A job of glassq, the same for the same number; its body has that many bytes."""
    made = delivery.new("mirror", b"%d" % number + b"x" * (size - 8), {"collection": "timeline"})
    return delivery.encode(made)
