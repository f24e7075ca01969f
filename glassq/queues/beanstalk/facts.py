"""What beanstalkd tells of itself, what of it is wrong, and what to do about it: for status and doctor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from glassq import host
from glassq.errors import JobTooBig, NoProof, NotDurable, QueueRefused, QueueUnavailable
from glassq.queues.base import Fact
from glassq.queues.beanstalk.binlog import missing_files
from glassq.queues.beanstalk.connection import WITHOUT_BINLOG
from glassq.queues.beanstalk.protocol import DRAINING, SYNCER_TUBE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats
    from glassq.values import QueueUrl

# The oldest beanstalkd that was measured.
KNOWN_GOOD = (1, 12)
# So many binlog files are no sign of anything yet; by default one is 10 MiB.
MANY_FILES = 20
# A file holds more than this many jobs, even of the largest.
FEW_A_FILE = 100
_START_WITH_BINLOG = "start it with -b DIRECTORY -f0"
_MEND_DISK = "make room on its disk, let the queue run empty, and restart it"


def wrong(connection: BeanstalkConnection, url: QueueUrl) -> Iterator[Fact]:
    """What is wrong, as far as few questions tell."""
    server = connection.stats()
    if not server.durable:
        yield Fact("durability", False, "beanstalkd writes nothing to disk: a crash loses all jobs", _START_WITH_BINLOG)
    if server.draining:
        yield Fact("draining", False, DRAINING)
    if server.reserved > (workers := consumers(connection, server)):
        yield _stuck(server.reserved, workers)
    yield from _binlog_files(connection, url)


def all_facts(connection: BeanstalkConnection, url: QueueUrl, tubes: Sequence[str], job_size: int) -> Iterator[Fact]:
    """Everything that is worth a line."""
    server = connection.stats()
    yield _version(server, url)
    yield from _address(url)
    yield from _durability(connection, server)
    if server.draining:
        yield Fact("draining", False, "beanstalkd takes no jobs: it was told to drain (SIGUSR1)", "restart it")
    yield _job_size(server, job_size)
    # A connection may have come since the server was asked first.
    again = connection.stats()
    if again.reserved > (workers := consumers(connection, again)):
        yield _stuck(again.reserved, workers)
    else:
        yield Fact("reserved", True, f"{again.reserved} reserved, by {workers} connections of consumers")
    yield from _binlog_size(connection, server, tubes)
    yield from _binlog_files(connection, url)


def consumers(connection: BeanstalkConnection, server: ServerStats) -> int:
    """The number of connections that have reserved a job, without those of the syncer, which reserves its probes."""
    return max(0, server.workers - connection.stats_tube(SYNCER_TUBE).using)


def explained(error: QueueError, url: QueueUrl) -> Fact:
    """What to do about an error of the queue's calls."""
    if isinstance(error, NotDurable):
        return Fact("durability", False, str(error), _START_WITH_BINLOG if str(error) == WITHOUT_BINLOG else _MEND_DISK)
    if isinstance(error, QueueRefused):
        todo = "restart it" if str(error) == DRAINING else "make room on its disk: it then takes jobs again by itself"
        return Fact("queue", False, str(error), todo)
    if isinstance(error, NoProof):
        return Fact("syncer", False, str(error), "start it, or look at its log (systemctl status glassq-syncer)")
    if isinstance(error, JobTooBig):
        return Fact("job size", False, str(error), "start it with a larger -z")
    if not isinstance(error, QueueUnavailable):
        return Fact("queue", False, str(error), f"is that beanstalkd, at {url}?")
    todo = "start it (systemctl start glassq-beanstalkd), or mend [queue] url"
    if isinstance(error.__cause__, TimeoutError):
        todo = "it hangs, or reads its binlog still: look at its log and its disk, and restart it"
    return Fact("queue", False, str(error), todo)


def _version(server: ServerStats, url: QueueUrl) -> Fact:
    numbers = re.match(r"(\d+)\.(\d+)", server.version)
    if numbers and (int(numbers[1]), int(numbers[2])) < KNOWN_GOOD:
        known = ".".join(map(str, KNOWN_GOOD))
        said = f"beanstalkd {server.version} is older than {known}, with which glassq is tested"
        return Fact("queue", False, said, f"install {known}")
    return Fact("queue", True, f"beanstalkd {server.version} at {url}")


def _address(url: QueueUrl) -> Iterator[Fact]:
    name = url.address[0] if isinstance(url.address, tuple) else ""
    if name and not host.is_loopback(name):
        said = f"{name} is an address of the network: whoever reaches it can read and delete every job"
        todo = "keep others away with a firewall, or use a unix socket where all runs on one machine"
        yield Fact("address", None, said, todo)


def _durability(connection: BeanstalkConnection, server: ServerStats) -> Iterator[Fact]:
    if not server.durable:
        yield Fact("durability", False, "beanstalkd writes nothing to disk: a crash loses all jobs", _START_WITH_BINLOG)
        return
    try:
        before = connection.stats()
        probe = connection.probe_durability()
    except NotDurable as error:
        yield Fact("durability", False, str(error), _MEND_DISK)
    except QueueRefused as error:
        if not server.draining:
            todo = "make room on its disk: it then takes jobs again by itself (and on a full one it would not start)"
            yield Fact("durability", False, str(error), todo)
    else:
        if probe.file == 0 or connection.stats().records == before.records:
            said = "beanstalkd stopped writing to disk: a job put now is in memory only"
            yield Fact("durability", False, said, _MEND_DISK)
        else:
            # Nothing tells whether it was started with -f0.
            yield Fact("durability", True, "its binlog is on, and a job put now is written to it")


def _job_size(server: ServerStats, needed: int) -> Fact:
    said = f"it takes jobs of up to {server.max_job} bytes"
    if server.max_job >= needed:
        return Fact("job size", True, said)
    said = f"{said}; a delivery with its story has up to {needed}"
    return Fact("job size", False, said, f"start it with -z {needed} or more")


def _stuck(held: int, workers: int) -> Fact:
    """A worker of ours holds one job on its connection."""
    return Fact(
        "reserved",
        False,
        f"more jobs are reserved ({held}) than connections work ({workers}): the rest is held by ones that hang",
        "end those (restart glassq-worker, or whatever else reserves), and the jobs are ready again at once",
    )


def _binlog_size(connection: BeanstalkConnection, server: ServerStats, tubes: Sequence[str]) -> Iterator[Fact]:
    if server.files <= MANY_FILES:
        return
    seen = [connection.stats_tube(name) for name in tubes]
    buried, delayed = sum(tube.buried for tube in seen), sum(tube.delayed for tube in seen)
    said = f"the binlog has {server.files} files; {buried} buried and {delayed} delayed jobs"
    # very many jobs fill the files themselves, and are another trouble than that
    if 0 < buried + delayed < FEW_A_FILE * server.files:
        todo = "kick or delete what lies buried, or take it out: `glassq archive --older-than 7d`, or a shorter time"
        yield Fact("binlog", False, f"{said} keep old ones from being removed", todo)
    else:
        yield Fact("binlog", None, f"{said} are in tubes of ours: so many jobs, or another tube's, keep them")


def _binlog_files(connection: BeanstalkConnection, url: QueueUrl) -> Iterator[Fact]:
    if problem := missing_files(connection, url):
        todo = (
            "do not restart it, its jobs may be in memory only: let the pool work what waits, archive what lies buried "
            "(`glassq archive --all`), then restart it and put that back (`glassq restore FILE`)"
        )
        yield Fact("binlog", False, problem, todo, files_lost=True)
