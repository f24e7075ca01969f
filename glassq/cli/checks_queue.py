"""What `glassq doctor` asks the queue.

A new check is a function of the App, the queue and what the server said of itself, and a line in QUEUE.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.cli.checks import Check, barrier, is_loopback
from glassq.cli.find import our_tubes, unworked
from glassq.cli.output import until
from glassq.cli.queues_list import hints_of, look, plan_of
from glassq.cli.status import stuck_words
from glassq.delivery import BIG_JOB, MAX_JOB
from glassq.errors import NotDurable, QueueRefused, QueueUnavailable
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.cli.app import App
    from glassq.errors import QueueError
    from glassq.queues import Queue, ServerStats, TubeStats

# The oldest beanstalkd that was measured.
KNOWN_GOOD = (1, 12)
# So many binlog files are no sign of anything yet; by default one is 10 MiB.
MANY_FILES = 20
# A consumer that lives waits again before this is over, in seconds.
_GLANCE = 0.3
_MEND_DISK = "make room on its disk, let the queue run empty, and restart it"


def trouble(app: App, error: QueueError) -> Check:
    """What to do about a queue that cannot be asked."""
    url = app.settings.queue.url
    if not isinstance(error, QueueUnavailable):
        return Check("queue", False, str(error), f"is that beanstalkd, at {url}?")
    cause = error.__cause__
    if isinstance(url.address, str) and isinstance(cause, PermissionError):
        found = barrier(Path(url.address), write=True)
        if found is not None:
            return Check("queue", False, f"{error}: {found[0]}", found[1], 69)
    start = "start it (systemctl start glassq-beanstalkd), or mend [queue] url"
    if isinstance(cause, TimeoutError):
        start = "it hangs, or reads its binlog still: look at its log and its disk, and restart it"
    return Check("queue", False, str(error), start, 69)


def reached(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    url, said = app.settings.queue.url, f"beanstalkd {server.version}"
    numbers = re.match(r"(\d+)\.(\d+)", server.version)
    if numbers and (int(numbers[1]), int(numbers[2])) < KNOWN_GOOD:
        known = ".".join(map(str, KNOWN_GOOD))
        yield Check("queue", False, f"{said} is older than {known}, with which glassq is tested", f"install {known}")
    else:
        yield Check("queue", True, f"{said} at {url}, up {span(server.uptime)}")


def address(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    place = app.settings.queue.url.address
    host = place[0] if isinstance(place, tuple) else ""
    if host and not is_loopback(host):
        said = f"{host} is an address of the network: whoever reaches it can read and delete every job"
        todo = "keep others away with a firewall, or use a unix socket where all runs on one machine"
        yield Check("address", None, said, todo)


def durability(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    if not server.durable:
        said = "beanstalkd writes nothing to disk: a crash loses all jobs"
        if app.settings.intake.require_durable:
            said += ", so intake keeps pings in its spool"
        yield Check("durability", False, said, "start it with -b DIRECTORY -f0")
        return
    try:
        before = queue.stats()
        probe = queue.probe()
    except NotDurable as error:
        yield Check("durability", False, str(error), _MEND_DISK)
    except QueueRefused as error:
        if not server.draining:
            todo = "make room on its disk: it then takes jobs again by itself (and on a full one it would not start)"
            yield Check("durability", False, str(error), todo)
    else:
        if probe.file == 0 or queue.stats().records == before.records:
            said = "beanstalkd stopped writing to disk: a job put now is in memory only"
            yield Check("durability", False, said, _MEND_DISK)
        else:
            # whether it was started with -f0 is nowhere to be seen
            yield Check("durability", True, "its binlog is on, and a job put now is written to it")


def draining(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    if server.draining:
        yield Check("draining", False, "beanstalkd takes no jobs: it was told to drain (SIGUSR1)", "restart it")


def job_size(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    what, needed = ("ping", MAX_JOB) if app.settings.push is None else ("task", BIG_JOB)
    enough = server.max_job >= needed
    said = f"it takes jobs of up to {server.max_job} bytes"
    if not enough:
        said += f"; a {what} with its story has up to {needed}"
    yield Check("job size", enough, said, "" if enough else f"start it with -z {needed} or more")


def consumers(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    if server.draining:
        # a pool reserves nothing then, and is well
        return
    over = time.monotonic() + _GLANCE
    tubes = _look(queue)
    while not any(tube.waiting or tube.reserved for tube in tubes) and time.monotonic() < over:
        time.sleep(_GLANCE / 20)
        tubes = _look(queue)
    # who waits does so on several tubes at once
    waiting, reserved = max(tube.waiting for tube in tubes), sum(tube.reserved for tube in tubes)
    where = f"tube {queue.tube}" + (" and those of push queues" if len(tubes) > 1 else "")
    if waiting or reserved:
        yield Check("consumers", True, f"{waiting} wait for jobs from {where}, {reserved} are at work")
    else:
        said = f"nobody takes jobs from {where}; {sum(tube.ready for tube in tubes)} are ready"
        todo = "start glassq-worker, or look at its log"
        if server.workers:
            todo = "look at the log of glassq-worker: it is connected, and pauses while beanstalkd takes no jobs"
        yield Check("consumers", False, said, todo)
    for tube in tubes:
        if (tube.ready or tube.delayed) and (why := unworked(app, tube.name)):
            said = f"{tube.ready} ready and {tube.delayed} delayed in tube {tube.name}: {why}"
            yield Check("consumers", False, said, "put that back and restart glassq-worker, or move or delete them")


def paused(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    for tube in _look(queue):
        if tube.paused_for:
            todo = app.command(f"resume {tube.name}")
            yield Check("paused", None, f"tube {tube.name} gives out no jobs {until(tube.paused_for)}", todo)


def push_queues(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    if app.settings.push is None:
        return
    # what is wrong with queue.yaml is told already
    for hint in hints_of(app, look(app, queue, plan_of(app))):
        yield Check("push queue", None, hint)


def stuck(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    held = sum(queue.stats_tube(name).reserved for name in queue.tubes())
    # those that came since the server was asked first
    workers = queue.stats().workers
    if held > workers:
        said, _, todo = stuck_words(held, workers).partition("; ")
        yield Check("reserved", False, said, todo)
    else:
        yield Check("reserved", True, f"{held} reserved, connections that work: {workers}")


def aside(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    seen = _look(queue)
    buried, delayed = sum(tube.buried for tube in seen), sum(tube.delayed for tube in seen)
    if buried:
        yield Check("buried", None, f"{buried} wait for a decision", f"look with {app.command('buried')}")
    else:
        yield Check("buried", True, f"nothing lies buried; {delayed} are delayed")
    if server.files <= MANY_FILES:
        return
    said = f"the binlog has {server.files} files; {buried} buried and {delayed} delayed jobs"
    if buried or delayed:
        todo = f"kick or delete what lies buried, or take it out: {app.command('archive --older-than 7d')}"
        yield Check("binlog", False, f"{said} keep old ones from being removed", todo)
    else:
        yield Check("binlog", None, f"{said} are in tubes of ours: another tube's jobs, or a long backlog, keep them")


QUEUE: list[Callable[[App, Queue, ServerStats], Iterator[Check]]] = [
    reached,
    address,
    durability,
    draining,
    job_size,
    consumers,
    paused,
    push_queues,
    stuck,
    aside,
]


def _look(queue: Queue) -> list[TubeStats]:
    return [queue.stats_tube(name) for name in our_tubes(queue)]
