"""Finds jobs by examining one id after the other, because no protocol command lists them. It changes nothing."""

from __future__ import annotations

from array import array
from itertools import count, groupby, islice, pairwise
from typing import TYPE_CHECKING, get_args

from glassq.errors import JobNotFound, QueueError, QueueRefused
from glassq.queues.base import WaitingState
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.packet import WINDOW
from glassq.queues.beanstalk.protocol import JobStats, ScanProgress, ScanShort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.queues.beanstalk.connection import BeanstalkConnection

PROGRESS_EVERY = 2_000
# So many ids are asked about at once, at first: whoever looks may want the newest jobs only.
FIRST = 16
# The maximum number of ids that a scan examines if it does not know the newest one; it takes about 20 s.
MAX_SEARCH = 1_000_000
# The states whose first job in a tube can be seen by one command.
HEADS: tuple[WaitingState, ...] = get_args(WaitingState)


class Scan:
    """Finds the jobs of these tubes in these states, newest first, and yields a ScanProgress now and then.

    The scan ends when it has found as many jobs as the tubes' counts promised at its start. It leaves out ids up to
    `since`. If the queue takes no jobs now, the newest id is unknown: then the scan examines the ids around those that
    can be seen, and may end with a ScanShort.
    """

    def __init__(
        self, connection: BeanstalkConnection, states: frozenset[str], names: frozenset[str], since: int = 0
    ) -> None:
        self._connection = connection
        self._states = states
        self._names = names
        self._since = since

    def run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """The jobs above `since`. It examines the ids of `hints` first."""
        for seen in self._run(hints):
            if not isinstance(seen, JobStats) or seen.id > self._since:
                yield seen

    def _run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        # The counts include jobs up to `since`, so these are searched too, but `run` drops them.
        promised = self._promised()
        # There may be very many: an id is kept in as few bytes as possible, and of what was found nothing else.
        guesses = array("Q", (job_id for job_id, _ in groupby(sorted(hints, reverse=True))))
        yielded = array("Q")
        for looked, (job_id, job) in enumerate(self._examined(guesses) if len(guesses) >= promised else ()):
            if len(yielded) == promised:
                return
            if looked and looked % PROGRESS_EVERY == 0:
                yield len(yielded), promised
            if job:
                yielded.append(job_id)
                yield job
        if len(yielded) < promised:
            yield from self._descend(promised, guesses, set(yielded))

    def _descend(
        self, promised: int, guesses: Iterable[int], yielded: set[int]
    ) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """Examines one id after the other, from the newest down, until all promised jobs are found.

        An old job, with very many newer ids, is found without that, where it is among the guesses or the first ones.
        """
        heads = self._heads(self._names, self._states) - yielded
        candidates, known = {*guesses, *heads} - yielded, set[int]()
        # each of these is looked at, what they leave out is searched for, and those that are left are yielded
        total = len(candidates) + promised
        for looked, (job_id, job) in enumerate(self._examined(candidates)):
            if looked and looked % PROGRESS_EVERY == 0:
                yield looked, total
            if job:
                known.add(job_id)
        left = promised - len(yielded) - len(known)
        try:
            newest = self._connection.max_job_id() if left > 0 else 0
        except QueueRefused:
            yield from self._search({*known, *yielded}, yielded)
            return
        for job_id, job in self._examined(range(newest, self._since, -1)):
            if left <= 0:
                break
            if (newest - job_id) % PROGRESS_EVERY == 0:
                yield newest - job_id, newest
            if job and job_id not in yielded:
                left -= job_id not in known
                known.discard(job_id)
                yield job
        for told, job in enumerate(self._still(known)):
            if told and told % PROGRESS_EVERY == 0:
                yield min(len(candidates) + told, total), total
            yield job

    def _search(self, known: Iterable[int], yielded: set[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """Scans without a probe: outwards from ids that are known or seen, until all promised jobs are found."""
        found: set[int] = set()
        looked = promised = 0
        ids = islice(_outwards({*self._seen(), *known}), MAX_SEARCH)
        for looked, (job_id, job) in enumerate(self._examined(ids)):
            if looked % PROGRESS_EVERY == 0:
                yield looked, MAX_SEARCH
                promised = self._promised()
            if len(found) >= promised:
                # jobs that were worked meanwhile no longer count
                found = {job.id for job in self._still(found)}
                if len(found) >= promised:
                    break
            if job:
                found.add(job_id)
        yield from self._still(found - yielded)
        if len(found) < promised:
            yield ScanShort(len(found), promised, looked + 1)

    def _still(self, ids: Iterable[int]) -> Iterator[JobStats]:
        """Those of these jobs that match now, newest first."""
        return (job for _, job in self._examined(sorted(ids, reverse=True)) if job)

    def _promised(self) -> int:
        counts = [self._connection.stats_tube(name) for name in self._names]
        return sum(getattr(tube, state) for tube in counts for state in self._states)

    def _examined(self, ids: Iterable[int]) -> Iterator[tuple[int, JobStats | None]]:
        """Each id, with its job if that exists and is in one of these tubes and states. Asks about many at once."""
        left, size = iter(ids), FIRST
        while batch := list(islice(left, size)):
            replies = self._connection.pipeline([commands.stats_job(job_id) for job_id in batch])
            for job_id, reply in zip(batch, replies, strict=True):
                yield job_id, self._matching(reply)
            size = min(2 * size, WINDOW)

    def _matching(self, reply: JobStats | QueueError) -> JobStats | None:
        if isinstance(reply, JobNotFound):
            return None
        if isinstance(reply, QueueError):
            raise reply
        return reply if reply.tube in self._names and reply.state in self._states else None

    def _heads(self, names: Iterable[str], states: frozenset[str]) -> set[int]:
        """The ids of the first jobs of these tubes in these states."""
        seen = (self._connection.peek_first(state, name) for name in names for state in HEADS if state in states)
        return {job.id for job in seen if job is not None}

    def _seen(self) -> set[int]:
        """Ids that are known without a put, at least one: the first jobs of all tubes, and the number of all puts."""
        return {max(1, self._connection.stats().jobs), *self._heads(self._connection.tubes(), frozenset(HEADS))}


def _outwards(seen: Iterable[int]) -> Iterator[int]:
    """Yields every id from 1 once, those near one of `seen` first. `seen` has at least one id, all from 1."""
    edges = sorted(seen)
    middles = [(lower + upper) // 2 for lower, upper in pairwise(edges)]
    ways: list[Iterator[int]] = []
    for edge, lowest, highest in zip(edges, [0, *middles], [*middles, None], strict=True):
        ways += [
            iter(range(edge, lowest, -1)),
            count(edge + 1) if highest is None else iter(range(edge + 1, highest + 1)),
        ]
    while True:
        for way in tuple(ways):
            job_id = next(way, None)
            if job_id is None:
                ways.remove(way)
            else:
                yield job_id
