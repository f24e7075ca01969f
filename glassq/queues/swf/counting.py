"""How many jobs a tube has in each state: a list says how many runs are open, and which of them are buried.

Of the others the service says how many wait for somebody; where these are all, no history is read. Which of the rest
are at work, and which wait for their time, only histories tell: of few all are read, of many some, for an estimate.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.queues.base import ALL_STATES, TubeCounts
from glassq.queues.swf.history import Phase
from glassq.queues.swf.looking import open_runs, tag_for
from glassq.queues.swf.names import BURIED, list_of, tube_in, tube_tag
from glassq.queues.swf.pauses import paused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.queues.base import State
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import KnownRuns, Left, OpenRun

# So many histories of a tube are read at most.
SAMPLE = 20


@dataclass(frozen=True, slots=True)
class CountedDomain:
    """The counts of all tubes that have jobs, and the tubes that are paused."""

    counts: Sequence[TubeCounts]
    paused: Mapping[str, float]

    def of(self, tubes: Sequence[str] | None) -> list[TubeCounts]:
        """The counts of these tubes; None: of all that have jobs."""
        if tubes is None:
            return list(self.counts)
        found = {counts.name: counts for counts in self.counts}
        none = {tube: TubeCounts(tube, paused_for=math.ceil(self.paused.get(tube, 0.0))) for tube in tubes}
        return [found.get(tube, none[tube]) for tube in tubes]


def counted_domain(client: SwfClient, known: KnownRuns, left: Left) -> CountedDomain:
    """All that there is. Raises QueueError."""
    held = paused(client, left())
    return CountedDomain(counted(client, known, None, held, left), held)


def counted_buried(client: SwfClient, tubes: Sequence[str] | None, left: Left) -> list[TubeCounts]:
    """How many lie buried in these tubes; None: in all that have any. No history is read. Raises QueueError."""
    pages = open_runs(client, left, tag=tag_for(frozenset({"buried"}), tubes or ()))
    found = Counter(tube_in(list(run.tags)) for page in pages for run in page)
    return [TubeCounts(tube, buried=found[tube]) for tube in (sorted(found) if tubes is None else tubes)]


def counted(
    client: SwfClient, known: KnownRuns, tubes: Sequence[str] | None, held: Mapping[str, float], left: Left
) -> list[TubeCounts]:
    """The counts of these tubes; None: of all that have jobs. `held` are those that are paused. Raises QueueError."""
    tag = tube_tag(tubes[0]) if tubes is not None and len(tubes) == 1 else ""
    runs: dict[str, list[OpenRun]] = {}
    for page in open_runs(client, left, tag=tag):
        for run in page:
            runs.setdefault(tube_in(list(run.tags)), []).append(run)
    wanted = sorted(runs) if tubes is None else tubes
    found = []
    for tube in wanted:
        free = [run for run in runs.get(tube, ()) if BURIED not in run.tags]
        jobs: Counter[State] = Counter({"buried": len(runs.get(tube, ())) - len(free)})
        if free:
            answer = client.insist("count_pending_activity_tasks", within=left(), taskList=list_of(tube))
            jobs += _of_free(known, free, min(len(free), int(answer["count"])))
        # a pause is over when it shows 0
        pause = math.ceil(held.get(tube, 0.0))
        found.append(TubeCounts(tube, **{state: jobs[state] for state in ALL_STATES}, paused_for=pause))
    return found


def _of_free(known: KnownRuns, runs: Sequence[OpenRun], pending: int) -> Counter[State]:
    """The states of runs that no tag calls buried, newest first; `pending` of them wait for somebody."""
    rest, waiting = len(runs) - pending, 0
    found: Counter[State] = Counter()
    # what is at work, or waits for another attempt, mostly began before what waits for its first
    sample = runs[-SAMPLE:][::-1]
    for run in sample:
        if found.total() >= rest:
            return found + Counter({"ready": pending})
        seen = known.see(run)
        if seen is None or seen.run.state is None:
            rest -= 1
        elif seen.run.phase is Phase.READY:
            waiting += 1
        else:
            found[seen.run.state] += 1
    if len(sample) == len(runs):
        return found + Counter({"ready": waiting})
    unseen, others = max(0, rest - found.total()), found["reserved"] + found["delayed"]
    reserved = round(unseen * found["reserved"] / others) if others else 0
    return found + Counter({"ready": pending, "reserved": reserved, "delayed": unseen - reserved})
