"""Finding jobs by looking at one id after the other: no protocol command lists them. It changes nothing."""

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
# A scan that does not know where ids end looks at so many: about 20 s.
SEARCH_MOST = 1_000_000
# Of these the first job of a tube can be seen at once.
HEADS: tuple[WaitingState, ...] = get_args(WaitingState)


class Scan:
    """The jobs of these tubes in these states, with a ScanProgress now and then, newest first.

    It ends as soon as it has found as many as the tubes' counts promised when it began. Ids up to `since` are left out.
    Where the queue takes no job now, nobody can say where its ids end: it looks around those that can be seen, and may
    end with a ScanShort.
    """

    def __init__(
        self, queue: BeanstalkConnection, states: frozenset[str], names: frozenset[str], since: int = 0
    ) -> None:
        self._queue = queue
        self._states = states
        self._names = names
        self._since = since

    def run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """The jobs above `since`; `hints` are ids that are looked at first."""
        for seen in self._run(hints):
            if not isinstance(seen, JobStats) or seen.id > self._since:
                yield seen

    def _run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        # older jobs are promised as well, and found or not they are no part of the answer
        promised = self._promised()
        guesses = sorted(set(hints), reverse=True)
        enough = len(guesses) >= promised
        found: dict[int, JobStats] = {}
        for job_id in guesses:
            if len(found) == promised:
                break
            if each := self._among(job_id):
                found[job_id] = each
                if enough:
                    yield each
        told = set(found) if enough else set()
        if len(found) < promised:
            for seen in self._descend(promised, found):
                if not isinstance(seen, JobStats):
                    yield seen
                elif seen.id not in told:
                    told.add(seen.id)
                    yield seen
        yield from (found[job_id] for job_id in sorted(found, reverse=True) if job_id not in told)

    def _descend(self, promised: int, found: dict[int, JobStats]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """Looks at one id after the other, from the newest on, until as many are `found` as are promised."""
        for job_id in self._heads(self._names, self._states) - found.keys():
            # one that was put aside long ago, below very many, is seen without a search
            if each := self._among(job_id):
                found[job_id] = each
        try:
            newest = self._queue.newest_job() if len(found) < promised else 0
        except QueueRefused:
            yield from self._search(found)
            return
        for job_id in range(newest, self._since, -1):
            if len(found) >= promised:
                return
            if (newest - job_id) % PROGRESS_EVERY == 0:
                yield newest - job_id, newest
            each = found.get(job_id) or self._among(job_id)
            if each:
                found[job_id] = each
                yield each

    def _search(self, known: Iterable[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """A scan without a probe: outwards from ids that are known or seen, until all that is promised is found."""
        found: dict[int, JobStats] = {}
        looked = promised = 0
        for looked, job_id in enumerate(islice(_outwards({*self._seen(), *known}), SEARCH_MOST)):
            if looked % PROGRESS_EVERY == 0:
                yield looked, SEARCH_MOST
                promised = self._promised()
            if len(found) >= promised:
                # those that were worked meanwhile are promised no more
                found = {each.id: each for each in (self._among(old) for old in found) if each}
                if len(found) >= promised:
                    break
            each = self._among(job_id)
            if each:
                found[job_id] = each
        yield from (found[job_id] for job_id in sorted(found, reverse=True))
        if len(found) < promised:
            yield ScanShort(len(found), promised, looked + 1)

    def _promised(self) -> int:
        counts = [self._queue.stats_tube(name) for name in self._names]
        return sum(getattr(each, state) for each in counts for state in self._states)

    def _among(self, job_id: int) -> JobStats | None:
        """The job, where it is there, in one of these tubes and in one of these states."""
        try:
            found = self._queue.stats_job(job_id)
        except JobNotFound:
            return None
        return found if found.tube in self._names and found.state in self._states else None

    def _heads(self, names: Iterable[str], states: frozenset[str]) -> set[int]:
        """The ids of the first jobs of these tubes in these states, as far as there are any."""
        seen = (self._queue.head(state, name) for name in names for state in HEADS if state in states)
        return {job.id for job in seen if job is not None}

    def _seen(self) -> set[int]:
        """Ids that can be seen without a put, at least one: the next job of every tube, and how many were ever put."""
        return {max(1, self._queue.stats().jobs), *self._heads(self._queue.tubes(), frozenset(HEADS))}


def _outwards(seen: Iterable[int]) -> Iterator[int]:
    """Every id from 1, each once, in turn from each of these (one at least, from 1): those near to one come first."""
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
