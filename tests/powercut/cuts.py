"""Power cuts of a recorded scene: the disk is rebuilt, and what was promised until then is looked for on it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.powercut import recording
from tests.powercut.checking import Found, look
from tests.powercut.disk import Kept, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# What a disk may have of names and of contents. The first ones are those that find most: so they come often.
MANNERS = (
    (Kept.ALL, Kept.NONE), (Kept.NONE, Kept.NONE), (Kept.CHANCE, Kept.CHANCE), (Kept.ALL, Kept.CHANCE),
    (Kept.CHANCE, Kept.OLDER), (Kept.NONE, Kept.ALL), (Kept.OLDER, Kept.OLDER), (Kept.CHANCE, Kept.NONE),
)  # fmt: skip
THREADS = 4
UNEXPLAINED = "unexplained"


@dataclass
class Cut:
    """One power cut, and what came of it. `back` are pings that were done and are there again, by their reason."""

    index: int
    why: str
    names: Kept
    data: Kept
    promised: int = 0
    unsynced: int = 0
    lost: list[str] = field(default_factory=list)
    back: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    set_aside: int = 0
    trouble: str = ""
    place: str = ""

    @property
    def ok(self) -> bool:
        return not self.lost and not self.trouble and not self.back[UNEXPLAINED]


@dataclass
class Promises:
    """What was said until a moment."""

    kept: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)

    def hear(self, words: str) -> None:
        what, *pings = words.split()
        (self.kept if what == "kept" else self.done).update(pings)


@dataclass(frozen=True, slots=True)
class Cutter:
    """Makes the cuts. `prepares`: what is done before beanstalkd's start; a blind test leaves that out."""

    root: Path
    log: Path
    work: Path
    seed: int
    before_start: Callable[[Path], None] = lambda _: None
    prepares: bool = True

    def run(self, number: int, tell: Callable[[Cut], None] = lambda _: None) -> list[Cut]:
        """`number` cuts at moments by chance, and one at each unlink of a file, in the order of time."""
        chance = random.Random(self.seed)
        wanted = self._moments(chance, number)
        cuts: list[Cut] = []
        promises = Promises()
        going: list[Future[Cut]] = []
        with ThreadPoolExecutor(THREADS) as threads:
            for index, event, disk in replay(self.root, self.log):
                if event.kind == recording.SAID:
                    promises.hear(event.data.decode())
                for why in wanted.get(index, ()):
                    cut = Cut(index, why, *chance.choice(MANNERS))
                    place = self.work / f"cut-{len(cuts)}"
                    cut.place = str(place)
                    cut.unsynced = disk.unsynced()
                    disk.rebuild(place, chance, names=cut.names, data=cut.data)
                    cuts.append(cut)
                    going.append(threads.submit(self._judge, cut, place, set(promises.kept), set(promises.done)))
                    # no more disks at once than are looked at
                    if len(going) > 2 * THREADS:
                        tell(going.pop(0).result())
            for one in going:
                tell(one.result())
        return cuts

    def _moments(self, chance: random.Random, number: int) -> dict[int, list[str]]:
        """Where to cut. The load's time counts, not the start: the first promise is the beginning."""
        events = list(recording.read(self.log))
        said = [index for index, event in enumerate(events) if event.kind == recording.SAID]
        if not said:
            raise ValueError("nothing was promised")
        wanted: dict[int, list[str]] = {}
        for index, event in enumerate(events):
            if index > said[0] and event.kind == recording.UNLINK and event.path.startswith("queue/"):
                wanted.setdefault(index, []).append("unlink")
        for _ in range(number):
            wanted.setdefault(chance.randrange(said[0], len(events)), []).append("chance")
        return wanted

    def _judge(self, cut: Cut, place: Path, kept: set[str], done: set[str]) -> Cut:
        binlog, journal = place / "queue" / "binlog", place / "intake" / "journal"
        evidence = place.with_name(place.name + "-as-cut")
        shutil.copytree(place, evidence)
        self.before_start(binlog)
        found = look(binlog, journal, prepares=self.prepares)
        cut.promised = len(kept - done)
        cut.lost = sorted(kept - done - set(found.pings))
        cut.trouble = found.trouble
        cut.damaged, cut.set_aside = len(found.damaged), found.set_aside
        for ping in done & set(found.pings):
            cut.back[_why_back(ping, found)] += 1
        shutil.rmtree(place)
        if cut.ok and not found.damaged:
            shutil.rmtree(evidence)
        else:
            (evidence / "what").write_text(f"lost {cut.lost}\n{cut.trouble}\ndamaged {found.damaged}\n{found.told}")
            cut.place = str(evidence)
        return cut


def _why_back(ping: str, found: Found) -> str:
    """Why a ping that was done is there again."""
    jobs = found.jobs[ping]
    if 0 in jobs:
        return "in intake's files, not yet removed"
    return UNEXPLAINED if found.deleted.intersection(jobs) else "its delete was not on the disk"


def summary(cuts: Sequence[Cut]) -> list[tuple[str, str]]:
    """What came of them, for a table."""
    back: Counter[str] = sum((cut.back for cut in cuts), Counter())
    bad = [cut for cut in cuts if not cut.ok]
    rows = [
        ("power cuts", f"{len(cuts)} ({sum(cut.why == 'unlink' for cut in cuts)} at an unlink)"),
        ("promised, not yet done", f"{sum(cut.promised for cut in cuts)} in all cuts"),
        ("changes that may be there or not", f"{sum(cut.unsynced for cut in cuts) / max(1, len(cuts)):.0f} a cut"),
        ("lost", f"{len({ping for cut in cuts for ping in cut.lost})} pings in {len(bad)} cuts"),
        ("no start", str(sum(bool(cut.trouble) for cut in cuts))),
        ("segments of the journal damaged", str(sum(cut.set_aside for cut in cuts))),
        ("jobs damaged", str(sum(cut.damaged for cut in cuts))),
    ]
    return rows + [(f"done and there again: {why}", str(count)) for why, count in sorted(back.items())]
