"""Power cuts of a recorded scene: the disk is rebuilt, and what was promised until then is looked for on it."""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.powercut import recording
from tests.powercut.checking import RECORD, STATE, Found, look
from tests.powercut.disk import SECTOR, Kept, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.powercut.recording import Event

# What a disk may have of names and of contents. The first ones are those that find most: so they come often.
MANNERS = (
    (Kept.ALL, Kept.NONE), (Kept.NONE, Kept.NONE), (Kept.CHANCE, Kept.CHANCE), (Kept.ALL, Kept.CHANCE),
    (Kept.CHANCE, Kept.OLDER), (Kept.NONE, Kept.ALL), (Kept.OLDER, Kept.OLDER), (Kept.CHANCE, Kept.NONE),
)  # fmt: skip
# Of a record that crosses a border of 512 bytes each half may be there: several tries at a part of the moments.
MANNER_TORN = (Kept.ALL, Kept.CHANCE)
TORN, TORN_SHARE, TORN_TRIES = "a torn record", 4, 3
# Of some disks all is started, the pool with its handler too; the others are read by beanstalkd alone.
START, STARTS = "start", 3
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
    #: starts all on a disk, and returns the pings that were done then
    start_all: Callable[[Path, Path], set[str]] | None = None
    starts: int = STARTS

    def run(self, number: int, *, unlinks: bool = True, until_lost: bool = False) -> list[Cut]:
        """`number` cuts at moments by chance, and with `unlinks` one at each unlink of a file, in the order of time.

        With `until_lost` it ends soon after the first loss.
        """
        chance = random.Random(self.seed)
        wanted = self._moments(chance, number, unlinks=unlinks)
        cuts: list[Cut] = []
        promises = Promises()
        going: list[Future[Cut]] = []
        with ThreadPoolExecutor(THREADS) as threads:
            for index, event, disk in replay(self.root, self.log):
                if event.kind == recording.SAID:
                    promises.hear(event.data.decode())
                for why in wanted.get(index, ()):
                    cut = Cut(index, why, *(MANNER_TORN if why == TORN else chance.choice(MANNERS)))
                    place = self.work / f"cut-{len(cuts)}"
                    cut.place = str(place)
                    cut.unsynced = disk.unsynced()
                    disk.rebuild(place, chance, names=cut.names, data=cut.data)
                    cuts.append(cut)
                    going.append(threads.submit(self._judge, cut, place, set(promises.kept), set(promises.done)))
                    # no more disks at once than are looked at
                    if len(going) > 2 * THREADS:
                        going.pop(0).result()
                if until_lost and any(cut.lost for cut in cuts):
                    break
            for one in going:
                one.result()
        return cuts

    def _moments(self, chance: random.Random, number: int, *, unlinks: bool) -> dict[int, list[str]]:
        """Where to cut. The load's time counts, not the start: the first promise is the beginning."""
        events = list(recording.read(self.log))
        said = [index for index, event in enumerate(events) if event.kind == recording.SAID]
        if not said:
            raise ValueError("nothing was promised")
        wanted: dict[int, list[str]] = {}
        for index, event in enumerate(events):
            if unlinks and index > said[0] and event.kind == recording.UNLINK and event.path.startswith("queue/"):
                wanted.setdefault(index, []).append("unlink")
        tearable = self._tearable(events)
        for index in chance.sample(tearable, min(len(tearable), number // TORN_SHARE)):
            wanted.setdefault(index, []).extend([TORN] * TORN_TRIES)
        for _ in range(self.starts if self.start_all else 0):
            wanted.setdefault(chance.randrange(said[0], len(events)), []).append(START)
        for _ in range(number):
            # half of them right after a promise: while beanstalkd is frozen little else happens
            index = chance.choice((chance.choice(said), chance.randrange(said[0], len(events))))
            wanted.setdefault(index, []).append("chance")
        return wanted

    def _tearable(self, events: Sequence[Event]) -> list[int]:
        """Where a job's record that is its only news was written over a border of 512 bytes: a kick, mostly."""
        return [
            index
            for index, (before, event) in enumerate(itertools.pairwise(events), 1)
            if event.kind == recording.WRITE
            and event.length == RECORD
            and event.offset % SECTOR > SECTOR - RECORD
            and event.data[STATE]
            and (before.kind, before.length, before.pid) == (recording.ZEROS, 4, event.pid)
            and event.path.startswith("queue/")
        ]

    def _judge(self, cut: Cut, place: Path, kept: set[str], done: set[str]) -> Cut:
        binlog, journal = place / "queue" / "binlog", place / "intake" / "journal"
        evidence = place.with_name(place.name + "-as-cut")
        shutil.copytree(place, evidence)
        self.before_start(binlog)
        if cut.why == START and self.start_all:
            try:
                done = done | self.start_all(place, place.with_name(f"{place.name}-start"))
            except (OSError, ValueError) as error:
                cut.trouble = f"{type(error).__name__}: {error}"
        found = look(binlog, journal, prepares=self.prepares)
        cut.promised = len(kept - done)
        cut.lost = sorted(kept - done - set(found.pings))
        cut.trouble += found.trouble
        cut.damaged, cut.set_aside = len(found.damaged), found.set_aside
        for ping in done & set(found.pings):
            cut.back[_why_back(ping, found)] += 1
        shutil.rmtree(place)
        if cut.ok:
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
    whys = Counter(cut.why for cut in cuts)
    bad = [cut for cut in cuts if not cut.ok]
    rows = [
        ("power cuts", f"{len(cuts)} ({whys['unlink']} at an unlink, {whys[TORN]} at {TORN})"),
        ("  on which all was started, and worked", str(whys[START])),
        ("promised, not yet done", f"{sum(cut.promised for cut in cuts)} in all cuts"),
        ("changes that may be there or not", f"{sum(cut.unsynced for cut in cuts) / max(1, len(cuts)):.0f} a cut"),
        ("lost", f"{len({ping for cut in cuts for ping in cut.lost})} pings in {len(bad)} cuts"),
        ("no start", str(sum(bool(cut.trouble) for cut in cuts))),
        ("segments of the journal damaged", str(sum(cut.set_aside for cut in cuts))),
        ("unproven jobs of which a part is there", str(sum(cut.damaged for cut in cuts))),
    ]
    return rows + [(f"done and there again: {why}", str(count)) for why, count in sorted(back.items())]
