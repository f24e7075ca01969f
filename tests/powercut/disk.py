"""A disk as a power cut could have left it, rebuilt from what was recorded.

What was synced before the cut is there. For the rest nothing is promised:

- each 512 bytes of a file are as they were after any one of the unsynced changes, or before the first; so is its size.
  Bytes that were never written are zeros: a file system that shows old data of others is not our concern.
- each unsynced change of names (a file made, linked, renamed, removed; a directory made) was kept or not, one by one. A
  rename is kept as a whole: every journaling file system does that.
- fsync of a file says nothing about its name; that of its directory does.
- after a sync that failed, what it should have written may never be (Linux marks it clean): a later sync that succeeds
  covers only what was written since, and the pages that this touched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from tests.powercut import recording

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from tests.powercut.recording import Event

SECTOR, PAGE = 512, 4096


class Kept(Enum):
    """What the disk has of the unsynced changes."""

    NONE = "none"
    ALL = "all"
    #: up to a moment, as if the disk wrote in order
    OLDER = "the older ones"
    #: each one by chance; of a file, each sector from a moment of its own
    CHANCE = "by chance"


@dataclass(slots=True)
class Change:
    """One change of a file: `data` at `offset`, or (None) its size, which is then `offset`."""

    index: int
    offset: int
    data: bytes | None
    synced: bool = False
    doomed: bool = False

    def size_after(self, before: int) -> int:
        return self.offset if self.data is None else max(before, self.offset + len(self.data))


@dataclass(slots=True, eq=False)
class Inode:
    """A file's content: `base` is on disk, and the changes since."""

    number: int
    base: bytes = b""
    changes: list[Change] = field(default_factory=list)

    def sync(self, begun: int, *, well: bool) -> None:
        """A sync that began at the index has ended."""
        for change in self.changes:
            if change.index < begun and not change.synced:
                if not well:
                    change.doomed = True
                elif not change.doomed:
                    change.synced = True
        done = 0
        while done < len(self.changes) and self.changes[done].synced:
            done += 1
        if done:
            self.base = _content(self.base, self.changes[:done])
            del self.changes[:done]

    def rebuilt(self, chance: random.Random, kept: Kept) -> bytes:
        """What the disk could have of it."""
        changes, last = self.changes, len(self.changes)
        if kept is Kept.ALL or not changes:
            return _content(self.base, changes)
        moment = chance.randint(0, last)

        def version(floor: int) -> int:
            if kept is Kept.NONE:
                return floor
            return max(floor, moment) if kept is Kept.OLDER else chance.randint(floor, last)

        size = _sizes(self.base, changes)[version(self._floor(range(1 << 60)))]
        made = bytearray(self.base[:size].ljust(size, b"\0"))
        for sector in self._touched():
            start = sector * SECTOR
            page = start - start % PAGE
            number = version(self._floor(range(page, page + PAGE)))
            part = self._sector(start, changes[:number])[: max(0, size - start)]
            made[start : start + len(part)] = part
        return bytes(made)

    def _floor(self, where: range) -> int:
        """How many of the changes are certainly there: up to the last synced one that touched the place."""
        floor = 0
        for number, change in enumerate(self.changes, 1):
            end = where.stop if change.data is None else change.offset + len(change.data)
            if change.synced and change.offset < where.stop and end > where.start:
                floor = number
        return floor

    def _touched(self) -> Iterable[int]:
        touched: set[int] = set()
        largest = max(_sizes(self.base, self.changes))
        for change in self.changes:
            end = largest if change.data is None else change.offset + len(change.data)
            touched.update(range(change.offset // SECTOR, (end + SECTOR - 1) // SECTOR))
        return sorted(touched)

    def _sector(self, start: int, changes: list[Change]) -> bytes:
        made = bytearray(self.base[start : start + SECTOR].ljust(SECTOR, b"\0"))
        for change in changes:
            at = change.offset - start
            if change.data is None:
                if at < SECTOR:
                    made[max(0, at) :] = bytes(SECTOR - max(0, at))
            elif at < SECTOR and at + len(change.data) > 0:
                part = change.data[max(0, -at) : SECTOR - at]
                made[max(0, at) : max(0, at) + len(part)] = part
        return bytes(made)


def _sizes(base: bytes, changes: Iterable[Change]) -> list[int]:
    sizes = [len(base)]
    for change in changes:
        sizes.append(change.size_after(sizes[-1]))
    return sizes


def _content(base: bytes, changes: Iterable[Change]) -> bytes:
    made = bytearray(base)
    for change in changes:
        if change.data is None:
            made[change.offset :] = bytes(max(0, change.offset - len(made)))
        else:
            made.extend(bytes(max(0, change.offset + len(change.data) - len(made))))
            made[change.offset : change.offset + len(change.data)] = change.data
    return bytes(made)


@dataclass(slots=True, eq=False)
class Naming:
    """One change of names: `gone` is no name any more, `path` names the inode (a directory: None)."""

    index: int
    gone: str = ""
    path: str = ""
    inode: Inode | None = None
    synced: bool = False

    def apply(self, names: dict[str, Inode | None]) -> None:
        if self.gone:
            names.pop(self.gone, None)
        if self.path:
            names[self.path] = self.inode

    def directories(self) -> set[str]:
        return {parent(path) for path in (self.gone, self.path) if path}


def parent(path: str) -> str:
    return str(PurePath(path).parent)


class Disk:
    """Files and names below a root. What lies there at first is synced; then `apply` each event, in order."""

    def __init__(self, root: Path) -> None:
        self._namings: list[Naming] = []
        self._begun: dict[tuple[int, int], int] = {}
        self._base: dict[str, Inode | None] = {}
        self._inodes: dict[int, Inode] = {}
        for path in sorted(root.rglob("*")):
            inode = None
            if path.is_file():
                number = path.stat().st_ino
                inode = self._inodes.setdefault(number, Inode(number, path.read_bytes()))
            elif not path.is_dir():
                continue
            self._base[str(path.relative_to(root))] = inode
        self.names = dict(self._base)

    def apply(self, index: int, event: Event) -> None:
        """The event has happened; indexes rise."""
        kind = event.kind
        if kind == recording.OPEN:
            self._opened(index, event)
        elif kind in (recording.WRITE, recording.ZEROS):
            data = event.data or bytes(event.length)
            self._inode(event).changes.append(Change(index, event.offset, data))
        elif kind == recording.TRUNCATE:
            self._inode(event).changes.append(Change(index, event.length, None))
        elif kind == recording.BEGIN:
            self._begun[event.pid, event.token] = index
        elif kind == recording.END:
            self._synced(event, self._begun.pop((event.pid, event.token)))
        elif kind == recording.RENAME:
            self._name(Naming(index, event.path, event.other, self.names[event.path]))
        elif kind == recording.LINK:
            self._name(Naming(index, "", event.other, self._inode(event)))
        elif kind in (recording.UNLINK, recording.RMDIR):
            self._name(Naming(index, event.path))
        elif kind == recording.MKDIR:
            self._name(Naming(index, "", event.path))

    def rebuild(self, target: Path, chance: random.Random, *, names: Kept, data: Kept) -> None:
        """Writes what the disk could have now into the directory `target`, which is made."""
        target.mkdir()
        made: dict[int, Path] = {}
        for path, inode in sorted(self._rebuilt_names(chance, names).items()):
            place = target / path
            if not place.parent.is_dir():
                # its directory was never there
                continue
            if inode is None:
                place.mkdir(exist_ok=True)
            elif id(inode) in made:
                os.link(made[id(inode)], place)
            else:
                place.write_bytes(inode.rebuilt(chance, data))
                made[id(inode)] = place

    def unsynced(self) -> int:
        """How many changes may be there or not."""
        files = {id(inode): inode for inode in self.names.values() if inode is not None}
        changes = sum(not change.synced for inode in files.values() for change in inode.changes)
        return changes + sum(not naming.synced for naming in self._namings)

    def _rebuilt_names(self, chance: random.Random, kept: Kept) -> dict[str, Inode | None]:
        names = dict(self._base)
        moment = chance.randint(0, len(self._namings))
        for number, naming in enumerate(self._namings):
            by = {Kept.NONE: False, Kept.ALL: True, Kept.OLDER: number < moment, Kept.CHANCE: chance.random() < 0.5}
            if naming.synced or by[kept]:
                naming.apply(names)
        return names

    def _opened(self, index: int, event: Event) -> None:
        if event.path not in self.names:
            inode = self._inodes.get(event.ino)
            if inode is None or inode not in self.names.values():
                inode = self._inodes[event.ino] = Inode(event.ino)
            self._name(Naming(index, "", event.path, inode))
        elif event.flags:
            self._inode(event).changes.append(Change(index, 0, None))

    def _inode(self, event: Event) -> Inode:
        return self._inodes[event.ino]

    def _name(self, naming: Naming) -> None:
        naming.apply(self.names)
        self._namings.append(naming)

    def _synced(self, event: Event, begun: int) -> None:
        if not event.flags:
            self._inode(event).sync(begun, well=event.result == 0)
        elif event.result == 0:
            for naming in self._namings:
                if naming.index < begun and event.path in naming.directories():
                    naming.synced = True
            while self._namings and self._namings[0].synced:
                self._namings.pop(0).apply(self._base)


def replay(root: Path, log: Path) -> Iterator[tuple[int, Event, Disk]]:
    """Each event with the disk after it. `root` must be as it was when the log began; of files, the same inodes."""
    disk = Disk(root)
    for index, event in enumerate(recording.read(log)):
        disk.apply(index, event)
        yield index, event, disk
