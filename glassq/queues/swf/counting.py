"""How many jobs a tube has in each state: a list says how many runs are open, and which of them are buried.

Which of the others are ready, reserved or delayed only their histories tell. Of a few all are read. Of many the service
says how many activities wait for somebody, and the newest tell what the rest is like: an estimate.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.queues.base import TubeCounts
from glassq.queues.swf.looking import open_runs, see, tag_for
from glassq.queues.swf.names import BURIED, list_of, tube_in, tube_tag
from glassq.queues.swf.pauses import paused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.queues.base import State
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import Left, OpenRun

# So many histories of a tube are read.
SAMPLE = 100


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
        return [found.get(tube) or TubeCounts(tube, paused_for=_shown(self.paused.get(tube, 0.0))) for tube in tubes]


def counted_domain(client: SwfClient, left: Left) -> CountedDomain:
    """All that there is. Raises QueueError."""
    held = paused(client, left())
    return CountedDomain(counted(client, None, held, left), held)


def counted(client: SwfClient, tubes: Sequence[str] | None, held: Mapping[str, float], left: Left) -> list[TubeCounts]:
    """The counts of these tubes; None: of all that have jobs. `held` are those that are paused. Raises QueueError."""
    tag = tube_tag(tubes[0]) if tubes is not None and len(tubes) == 1 else ""
    runs: dict[str, list[OpenRun]] = {}
    for page in open_runs(client, left, tag=tag):
        for run in page:
            runs.setdefault(tube_in(list(run.tags)), []).append(run)
    wanted = sorted(runs) if tubes is None else tubes
    return [_of_tube(client, tube, runs.get(tube, []), held.get(tube, 0.0), left) for tube in wanted]


def counted_buried(client: SwfClient, tubes: Sequence[str] | None, left: Left) -> list[TubeCounts]:
    """How many lie buried in these tubes; None: in all that have any. No history is read. Raises QueueError."""
    pages = open_runs(client, left, tag=tag_for(frozenset({"buried"}), tubes or ()))
    found = Counter(tube_in(list(run.tags)) for page in pages for run in page)
    return [TubeCounts(tube, buried=found[tube]) for tube in (sorted(found) if tubes is None else tubes)]


def _of_tube(client: SwfClient, tube: str, runs: Sequence[OpenRun], paused: float, left: Left) -> TubeCounts:
    free = [run for run in runs if BURIED not in run.tags]
    found: Counter[State] = Counter({"buried": len(runs) - len(free)})
    if len(free) <= SAMPLE:
        found += _seen(client, free, left)
    else:
        found += _estimated(client, tube, free, left)
    return TubeCounts(
        tube, found["ready"], found["reserved"], found["delayed"], found["buried"], paused_for=_shown(paused)
    )


def _shown(paused: float) -> int:
    """A pause is over when it shows 0."""
    return int(paused) + (paused > int(paused))


def _seen(client: SwfClient, runs: Sequence[OpenRun], left: Left) -> Counter[State]:
    found = [see(client, run.workflow, run.run, left) for run in runs]
    return Counter(seen.run.state for seen in found if seen is not None and seen.run.state is not None)


def _estimated(client: SwfClient, tube: str, runs: Sequence[OpenRun], left: Left) -> Counter[State]:
    answer = client.insist("count_pending_activity_tasks", within=left(), taskList=list_of(tube))
    ready = min(len(runs), int(answer.get("count", 0)))
    rest = len(runs) - ready
    if not rest:
        return Counter({"ready": ready})
    sample = _seen(client, runs[:SAMPLE], left)
    others = sample["reserved"] + sample["delayed"]
    reserved = round(rest * sample["reserved"] / others) if others else 0
    return Counter({"ready": ready, "reserved": reserved, "delayed": rest - reserved})
