"""Finds jobs by looking at one id after the other: the protocol has no command that lists them. Changes nothing."""

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
# A scan that does not know the highest id looks at this many at most, which takes about 20 s.
MAX_SEARCHED = 1_000_000
# The states whose first job one command shows.
HEADS: tuple[WaitingState, ...] = get_args(WaitingState)


class Scan:
    """The jobs of these tubes in these states, with a ScanProgress now and then, newest first.

    It ends once it has found as many as the tubes' counts promised when it began. Ids up to `since` are left out. While
    the queue takes no job, its highest id is unknown: the scan then looks around the ids that it can see, and may end
    with a ScanShort.
    """

    def __init__(
        self, connection: BeanstalkConnection, states: frozenset[str], names: frozenset[str], since: int = 0
    ) -> None:
        self._connection = connection
        self._states = states
        self._names = names
        self._since = since

    def run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """The jobs above `since`; `hints` are ids that are looked at first."""
        for seen in self._run(hints):
            if not isinstance(seen, JobStats) or seen.id > self._since:
                yield seen

    def _run(self, hints: Sequence[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        # the counts include older jobs, which are no part of the answer
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
            # a job that was buried long ago, below very many newer ids, is seen without a search
            if each := self._among(job_id):
                found[job_id] = each
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
            each = found.get(job_id) or self._among(job_id)
            if each:
                found[job_id] = each
                yield each

    def _search(self, known: Iterable[int]) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """A scan without a probe: outwards from ids that are known or seen, until all that is promised is found."""
        found: dict[int, JobStats] = {}
        looked = promised = 0
        for looked, job_id in enumerate(islice(_outwards({*self._seen(), *known}), MAX_SEARCHED)):
            if looked % PROGRESS_EVERY == 0:
                yield looked, MAX_SEARCHED
                promised = self._promised()
            if len(found) >= promised:
                # jobs that were worked meanwhile are no longer promised
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
        counts = [self._connection.stats_tube(name) for name in self._names]
        return sum(getattr(each, state) for each in counts for state in self._states)

    def _among(self, job_id: int) -> JobStats | None:
        """The job, if it exists in one of these tubes and one of these states."""
        try:
            found = self._connection.stats_job(job_id)
        except JobNotFound:
            return None
        return found if found.tube in self._names and found.state in self._states else None

    def _heads(self, names: Iterable[str], states: frozenset[str]) -> set[int]:
        """The ids of the first jobs of these tubes in these states, if there are any."""
        seen = (self._connection.peek_first(state, name) for name in names for state in HEADS if state in states)
        return {job.id for job in seen if job is not None}

    def _seen(self) -> set[int]:
        """Ids that are known without a put, at least one: the first jobs of every tube, and how many were ever put."""
        return {max(1, self._connection.stats().jobs), *self._heads(self._connection.tubes(), frozenset(HEADS))}


def _outwards(seen: Iterable[int]) -> Iterator[int]:
    """Every id from 1 on, each once, in turns outwards from the `seen` ones (at least one): near ids come first."""
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
