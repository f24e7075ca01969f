"""Finds jobs by examining one id after the other, because no protocol command lists them. It changes nothing."""

from __future__ import annotations

from itertools import count, islice, pairwise
from typing import TYPE_CHECKING, get_args

from glassq.errors import JobNotFound, QueueRefused
from glassq.queues.base import WaitingState
from glassq.queues.beanstalk.protocol import JobStats, ScanProgress, ScanShort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.queues.beanstalk.connection import BeanstalkConnection

PROGRESS_EVERY = 2_000
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
        guesses = sorted(set(hints), reverse=True)
        enough = len(guesses) >= promised
        # what the guesses leave out is searched for, and then each that was found is read
        total = promised if enough else len(guesses) + promised
        # None: it was yielded. Nothing else of it is kept, as there may be very many
        found: dict[int, JobStats | None] = {}
        for looked, job_id in enumerate(guesses):
            if len(found) == promised:
                break
            if looked and looked % PROGRESS_EVERY == 0:
                yield min(looked, total), total
            if job := self._matching(job_id):
                found[job_id] = None if enough else job
                if enough:
                    yield job
        if len(found) < promised:
            for seen in self._descend(promised, found):
                if not isinstance(seen, JobStats):
                    yield seen
                elif found.get(seen.id, seen) is not None:
                    found[seen.id] = None
                    yield seen
        kept = (job for job_id in sorted(found, reverse=True) if (job := found[job_id]) is not None)
        for told, job in enumerate(kept):
            if told and told % PROGRESS_EVERY == 0:
                yield min(len(guesses) + told, total), total
            yield job

    def _descend(
        self, promised: int, found: dict[int, JobStats | None]
    ) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """Examines one id after the other, from the newest down, until all promised jobs are `found`."""
        for job_id in self._heads(self._names, self._states) - found.keys():
            # an old buried job, with very many newer ids, is found without a search
            if job := self._matching(job_id):
                found[job_id] = job
        try:
            newest = self._connection.max_job_id() if len(found) < promised else 0
        except QueueRefused:
            yield from self._search(found)
            return
        for job_id in range(newest, self._since, -1):
            if len(found) >= promised:
                return
            if (newest - job_id) % PROGRESS_EVERY == 0:
                yield newest - job_id, newest
            job = found[job_id] if job_id in found else self._matching(job_id)
            if job:
                found[job_id] = job
                yield job

    def _search(self, known: Iterable[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """Scans without a probe: outwards from ids that are known or seen, until all promised jobs are found."""
        found: dict[int, JobStats] = {}
        looked = promised = 0
        for looked, job_id in enumerate(islice(_outwards({*self._seen(), *known}), MAX_SEARCH)):
            if looked % PROGRESS_EVERY == 0:
                yield looked, MAX_SEARCH
                promised = self._promised()
            if len(found) >= promised:
                # jobs that were worked meanwhile no longer count
                found = {job.id: job for job in (self._matching(old) for old in found) if job}
                if len(found) >= promised:
                    break
            job = self._matching(job_id)
            if job:
                found[job_id] = job
        yield from (found[job_id] for job_id in sorted(found, reverse=True))
        if len(found) < promised:
            yield ScanShort(len(found), promised, looked + 1)

    def _promised(self) -> int:
        counts = [self._connection.stats_tube(name) for name in self._names]
        return sum(getattr(tube, state) for tube in counts for state in self._states)

    def _matching(self, job_id: int) -> JobStats | None:
        """The job with this id, if it exists and is in one of these tubes and states."""
        try:
            found = self._connection.stats_job(job_id)
        except JobNotFound:
            return None
        return found if found.tube in self._names and found.state in self._states else None

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
