"""Power cuts: all that intake, syncer, beanstalkd and pool do to the disk is recorded under load; then the disk is
rebuilt as it could have been at many moments, and each ping that was acknowledged until then must be there.

`make powercut SECONDS=20 SEED=7` runs it. Exits 0 only if nothing was lost.
The ledger is not recorded: it is for people, and no promise hangs on it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.chaos.harness import ROOT
from tests.powercut.cuts import Cut, Cutter, summary
from tests.powercut.disk import Kept, replay
from tests.powercut.recording import Recorder, build, compiler
from tests.powercut.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = "-f1000"
# What shows that losses would be found is short: a part that is missing loses pings soon.
BLIND_SECONDS, BLIND_CUTS = 6.0, 60


@dataclass(frozen=True, slots=True)
class Blind:
    """Something that is left out, so that pings must be lost: else the search is blind."""

    name: str
    unsynced: tuple[tuple[str, str], ...] = ()
    before_start: Callable[[Path], None] = lambda _: None
    prepares: bool = True


def _no_links(binlog: Path) -> None:
    for kept in binlog.glob("kept.*"):
        kept.unlink()


def _links_alone(binlog: Path) -> None:
    for kept in binlog.glob("kept.*"):
        file = kept.with_name(f"binlog{kept.suffix}")
        if not file.exists():
            file.hardlink_to(kept)


BLIND = (
    Blind("no kept file is put back", before_start=_no_links),
    Blind("torn ends are left as they are", before_start=_links_alone, prepares=False),
    Blind("the syncer syncs no file", (("syncer", "queue/binlog/"),)),
    Blind("the syncer syncs no directory", (("syncer", "queue/binlog$"),)),
    Blind("intake syncs nothing", (("web", "intake/"),)),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make powercut", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the load that is recorded lasts")
    parser.add_argument("--cuts", type=int, default=200, help="cuts at moments by chance; one more at each unlink")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="chooses the cuts")
    parser.add_argument("--interval", default=INTERVAL, help=f"beanstalkd's sync interval ({INTERVAL})")
    parser.add_argument("--no-blind", action="store_true", help="do not show that it would find losses")
    parser.add_argument("--dir", type=Path, help="directory for all files, which are kept if a ping is lost")
    arguments = parser.parse_args()
    if compiler() is None:
        print("make powercut needs a C compiler (cc): what programs do to the disk is recorded by a library in C")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    directory = arguments.dir or ROOT / "var" / "powercut" / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    console.print(f"seed {arguments.seed}, {arguments.seconds:g} s of load; in {directory}")
    scene = Scene(arguments.seconds, arguments.seed, interval=arguments.interval)
    record = record_scene(scene, directory / "all")
    cuts = record.cut(arguments.cuts)
    _print(console, cuts)
    well = all(cut.ok for cut in cuts)
    if not well:
        console.print(f"LOST: seed {arguments.seed}; the disks as they were cut are kept in {directory}/all/cuts")
    if not arguments.no_blind:
        well &= _show_sight(console, scene, record, directory)
    if well and not any(cut.damaged for cut in cuts):
        shutil.rmtree(directory)
    return 0 if well else 1


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded scene in `directory`: the disk before it, and the log."""

    scene: Scene
    directory: Path
    log: Path

    @property
    def before(self) -> Path:
        """The disk before the scene."""
        return self.directory / "before"

    def cut(self, number: int, blind: Blind | None = None) -> list[Cut]:
        """Makes `number` cuts by chance, and one at each unlink."""
        blind = blind or Blind("nothing")
        work = self.directory / f"cuts{'-blind' if blind.name != 'nothing' else ''}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return Cutter(self.before, self.log, work, self.scene.seed, blind.before_start, blind.prepares).run(number)


def record_scene(scene: Scene, directory: Path) -> Record:
    """Records the scene. Raises ValueError if the record does not give the disk as it is."""
    root, place, before = directory / "disk", directory / "record", directory / "before"
    for made in (directory, place, root, root / "queue", root / "queue" / "binlog", root / "intake"):
        made.mkdir()
    shutil.copytree(root, before)
    recorder = Recorder(build(place), root=root, place=place)
    scene.record(directory, recorder)
    recorder.close()
    *_, (_, _, disk) = replay(before, recorder.log)
    disk.rebuild(directory / "after", random.Random(0), names=Kept.ALL, data=Kept.ALL)
    different = subprocess.run(["diff", "-rq", root, directory / "after"], capture_output=True, text=True).stdout
    if different:
        raise ValueError(f"not all was recorded: {different}")
    return Record(scene, directory, recorder.log)


def _show_sight(console: Console, scene: Scene, whole: Record, directory: Path) -> bool:
    """Leaves one part out after the other; each time pings must be lost."""
    table = Table("left out", "cuts", "lost", title="it would be seen", title_justify="left")
    well = True
    for number, blind in enumerate(BLIND):
        record = whole
        if blind.unsynced:
            short = replace(scene, seconds=min(scene.seconds, BLIND_SECONDS), unsynced=blind.unsynced)
            record = record_scene(short, directory / f"blind-{number}")
        cuts = record.cut(BLIND_CUTS, blind)
        lost = sum(not cut.ok for cut in cuts)
        well &= lost > 0
        table.add_row(blind.name, str(len(cuts)), f"in {lost} cuts" if lost else "NOTHING: the search is blind")
    console.print(table)
    return well


def _print(console: Console, cuts: list[Cut]) -> None:
    table = Table("", "", title="power cuts", title_justify="left", show_header=False)
    for row in summary(cuts):
        table.add_row(*row)
    console.print(table)
    for cut in [cut for cut in cuts if not cut.ok or cut.damaged][:10]:
        what = f"at {cut.index} ({cut.why}; names {cut.names.value}, data {cut.data.value})"
        lost = f"lost {len(cut.lost)}: {' '.join(cut.lost[:4])}"
        console.print(f"{what}: {lost} {cut.trouble} {dict(cut.back)}; {cut.place}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
