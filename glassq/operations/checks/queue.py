"""What doctor asks the queue: what its engine tells of itself, who works its jobs, what is aside, and what is lost.

A new check is a function of the Operations, the queue and the progress, and a line in QUEUE. What only one engine has
is a Fact of the engine.
"""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from glassq.database.plain import file_of
from glassq.delivery import BIG_JOB
from glassq.errors import LedgerError, QueueUnavailable, SettingsError, WrongTables
from glassq.operations import push_queues as queues_now
from glassq.operations import route_tubes
from glassq.operations import worker_queues as queues_of_pool
from glassq.operations.checks.access import barrier
from glassq.operations.checks.base import Check
from glassq.operations.find import our_tubes, sees_all, unworked
from glassq.operations.missing import find_missing
from glassq.operations.tubes import wanted_tubes
from glassq.operations.words import span, until
from glassq.push.request import SOURCE
from glassq.queues import local_engine, remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, TubeCounts

# A consumer that lives waits again before this is over, in seconds.
GLANCE = 0.3
# The search for lost deliveries takes at most this long, in seconds: enough for some 100,000 that are where the ledger
# says.
SEARCH = 10.0


def trouble(operations: Operations, queue: Inspector, error: QueueError) -> Check:
    """What to do about a queue that cannot be asked."""
    fact = queue.explain(error)
    code = 69 if isinstance(error, QueueUnavailable) else 78 if isinstance(error, WrongTables) else 1
    socket = local_engine(operations.settings).socket
    if socket is not None and isinstance(error.__cause__, PermissionError):
        closed = barrier(socket, write=True)
        if closed is not None:
            return Check(fact.name, False, f"{fact.said}: {closed[0]}", closed[1], code)
    return Check(fact.name, False, fact.said, fact.todo, code)


def engine(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    now = queue.status()
    job_size = operations.settings.queue.url.largest if operations.settings.push is None else BIG_JOB
    tubes = list(dict.fromkeys([*our_tubes(operations, queue), *wanted_tubes(operations)]))
    for fact in queue.facts(tubes, job_size=job_size, thorough=True):
        said = fact.said
        if fact.name == "queue" and fact.ok and queue.capabilities.sees_consumers:
            said += f", up {span(now.uptime)}"
        if fact.name == "durability" and not fact.ok and not now.durable:
            said += ", so intake keeps pings in its journal"
        yield Check(fact.name, fact.ok, said, fact.todo)


def engine_limits(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    for words in remarks(operations.settings):
        yield Check("engine limits", None, words)


def consumers(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    now = queue.status()
    if not now.accepting or not queue.capabilities.sees_consumers:
        # A pool reserves nothing then, and is well.
        return
    deadline = time.monotonic() + GLANCE
    tubes = _ours(operations, queue)
    while not any(tube.waiting or tube.reserved for tube in tubes) and time.monotonic() < deadline:
        progress.wait(GLANCE / 20)
        tubes = _ours(operations, queue)
    # A consumer waits on several tubes at once.
    waiting, reserved = max(tube.waiting for tube in tubes), sum(tube.reserved for tube in tubes)
    where = f"tube {operations.tube}" + (" and those of queues" if len(tubes) > 1 else "")
    if waiting or reserved:
        yield Check("consumers", True, f"{waiting} wait for jobs from {where}, {reserved} are at work")
    else:
        said = f"nobody takes jobs from {where}; {sum(tube.ready for tube in tubes)} are ready"
        todo = "start glassq-worker, or look at its log"
        if now.consumers:
            todo = "look at the log of glassq-worker: it is connected, and pauses while the queue takes no jobs"
        yield Check("consumers", False, said, todo)
    for tube in tubes:
        if (tube.ready or tube.delayed) and (why := unworked(operations, tube.name)):
            said = f"{tube.ready} ready and {tube.delayed} delayed in tube {tube.name}: {why}"
            yield Check("consumers", False, said, "put that back and restart glassq-worker, or move or delete them")


def paused(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    for tube in _ours(operations, queue):
        if tube.paused_for:
            said = f"tube {tube.name} gives out no jobs {until(tube.paused_for)}"
            yield Check("paused", None, said, f"`glassq resume {shlex.quote(tube.name)}`")


def push_queues(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    if operations.settings.push is None:
        return
    # Another check says what is wrong with queue.yaml.
    for hint in queues_now.hints(operations, queue, queues_now.planned(operations)):
        yield Check("push queue", None, str(hint))


def worker_queues(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    for hint in queues_of_pool.hints(operations, _ours(operations, queue)):
        yield Check("queue", None, str(hint))


def routes(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    for hint in route_tubes.hints(operations, _ours(operations, queue)):
        yield Check("route", None, str(hint))


def buried(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    tubes = _ours(operations, queue)
    many, delayed = sum(tube.buried for tube in tubes), sum(tube.delayed for tube in tubes)
    if many:
        yield Check("buried", None, f"{many} wait for a decision", "look with `glassq buried`")
    else:
        yield Check("buried", True, f"nothing is buried; {delayed} delayed")


def lost(operations: Operations, queue: Inspector, progress: Progress) -> Iterator[Check]:
    if queue.status().behind:
        return
    try:
        found = find_missing(operations, queue, SEARCH, progress)
    except (LedgerError, SettingsError):
        # Another check says what is wrong with the ledger.
        return
    if not found.deliveries:
        if found.looked < found.total:
            said = f"{found.looked} of {found.total} unfinished deliveries checked; all are in the queue"
            yield Check("lost", None, said, "ask again when less is going on")
        else:
            state = "unfinished" if sees_all(queue) else "buried"
            said = f"the queue holds each delivery that the ledger has as {state} ({found.total})"
            yield Check("lost", True, said)
        return
    said, tasks = found.words(), sum(delivery.source == SOURCE for delivery in found.deliveries)
    if tasks:
        said += f"; {tasks} of them are tasks, which the programs that added them may have deleted"
    todo = (
        "`glassq replay --state lost` puts them again, as far as the ledger has their bodies; `glassq delete --lost` "
        "gives them up. A process that was killed may have done some before the ledger knew: glassq-worker's log has "
        'the line "done" of these'
    )
    if not found.sure:
        todo = "`glassq replay --state lost --dry-run` looks through all of the queue"
    if not sees_all(queue):
        todo = "another program has kicked or deleted them, or [ledger] url names another shelf than before"
    # Another installation that shares a database may have a queue of its own.
    own = file_of(operations.settings.ledger.url) is not None
    certain = found.sure and tasks < len(found.deliveries) and own
    yield Check("lost", False if certain else None, said, todo)


QUEUE: list[Callable[[Operations, Inspector, Progress], Iterator[Check]]] = [
    engine,
    engine_limits,
    consumers,
    paused,
    push_queues,
    worker_queues,
    routes,
    buried,
    lost,
]


def _ours(operations: Operations, queue: Inspector) -> list[TubeCounts]:
    return queue.counts(our_tubes(operations, queue))
