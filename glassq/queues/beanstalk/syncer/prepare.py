"""What has to be done to beanstalkd's files before it starts on them.

1. A file that beanstalkd removed, and whose second name `kept.N` is still there, is put back: the copies of its jobs
   may not be on disk. Jobs in it that were done are deleted again by later files, which were kept for as long.
2. After a boot, each file is cut off where a power cut tore a record, if it did: see torn.py. Nothing behind it in this
   file was proven, as a proof syncs the whole file; what the record changed stands before it, or in an older file.

While a beanstalkd uses the directory, nothing is touched.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import PrepareError
from glassq.files import sync_directory, write_durably
from glassq.queues.beanstalk.syncer.records import layout_of, records
from glassq.queues.beanstalk.syncer.torn import History, find_ends

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# Says for which boot the files were looked at.
_BOOT = "syncer.boot"
_THIS_BOOT = Path("/proc/sys/kernel/random/boot_id")
# After so long people are told that it goes on, in seconds.
_PATIENCE = 2.0


def prepare(directory: Path, boot: str | None = None) -> Iterator[str]:
    """Makes the files in `directory` ready for a start of beanstalkd; yields a line for each thing that was done.

    `boot` is the id of this boot of the machine, as the kernel has it; None: it is read from /proc. Where it is not
    there either, each start is taken for the first one. Raises PrepareError: beanstalkd must not be started.
    """
    try:
        with _locked(directory):
            yield from _put_back(directory)
            mark = _mark(directory, boot)
            if mark is not None and _read(directory / _BOOT) == mark:
                return
            yield from _cut_torn_ends(directory)
            if mark is not None:
                aside = directory / f"{_BOOT}.new"
                aside.unlink(missing_ok=True)
                write_durably(directory / _BOOT, mark, aside=aside)
    except OSError as error:
        raise PrepareError(f"{error.filename or directory}: {error.strerror or error}") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """beanstalkd's own lock on the directory (walg.c, waldirlock): none runs on it, and none starts meanwhile."""
    descriptor = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise PrepareError(f"{directory}: beanstalkd is running on it; stop it first") from None
        yield
    finally:
        os.close(descriptor)


def numbered(directory: Path, name: str) -> dict[int, Path]:
    """The files NAME.1, NAME.2 and so on, by number, lowest first. Raises OSError."""
    pattern = re.compile(rf"{name}\.([1-9][0-9]{{0,9}})")
    matches = ((pattern.fullmatch(path.name), path) for path in directory.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def _put_back(directory: Path) -> Iterator[str]:
    """Gives each kept file whose binlog is gone its name again; it stays kept."""
    kept, there = numbered(directory, "kept"), numbered(directory, "binlog")
    gone = {number: path for number, path in kept.items() if number not in there}
    foreign = [number for number in kept if number in there and not kept[number].samefile(there[number])]
    for number in foreign:
        yield f"{kept[number]} is not {there[number].name}: beanstalkd ran without --prepare. Left alone"
    if not gone:
        return
    everything = sorted({*gone, *there})
    missing = sorted(set(range(everything[0], everything[-1])) - set(everything))
    for number in _of_other_jobs(gone, there) if foreign or missing or numbered(directory, "foreign") else ():
        yield f"{gone.pop(number)} is not put back: it has jobs of another queue, whose ids are in use again"
    for number, path in gone.items():
        os.link(path, directory / f"binlog.{number}")
    sync_directory(directory)
    if gone:
        yield f"put back: {_names(gone)}"
    if missing:
        yield f"missing: {_names(missing)}. Jobs that only these say are done are worked again"


def _of_other_jobs(gone: Mapping[int, Path], there: Mapping[int, Path]) -> list[int]:
    """Those of the kept files with a job whose id stands for another job in one of the files that are there.

    beanstalkd would read one job's body into the other one's memory. It counts ids on as long as it finds its last
    files, so this only looks where there is a gap, or a file that is not ours.
    """
    made = {number: _made(path) for number, path in gone.items()}
    wanted = frozenset().union(*made.values())
    found = {job: created for path in there.values() for job, created in _made(path).items() if job in wanted}
    return [number for number, jobs in made.items() if any(found.get(job, at) != at for job, at in jobs.items())]


def _made(path: Path) -> dict[int, int]:
    """When the jobs were made that a file holds, by id."""
    data = path.read_bytes()
    layout = layout_of(data)
    full = (record for record in records(data, layout) if record.end > record.body) if layout else ()
    return {record.fields[0]: record.named().created for record in full}


def _names(numbers: Collection[int]) -> str:
    first = [f"binlog.{number}" for number in sorted(numbers)[:3]]
    more = [f"{len(numbers) - 3} more"] if len(numbers) > 3 else []
    return ", ".join([*first, *more])


def _mark(directory: Path, boot: str | None) -> bytes | None:
    """This boot and this directory, as _BOOT has them; None if the boot cannot be told from others.

    A copy of the directory, from a snapshot or a backup, is another one: it may have been made at any moment.
    """
    boot = boot or (_read(_THIS_BOOT) or b"").decode("ascii", "replace").strip()
    stat = directory.stat()
    # systemd's %b has no hyphens
    return f"{boot.replace('-', '')} {stat.st_dev} {stat.st_ino}\n".encode() if boot else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _cut_torn_ends(directory: Path) -> Iterator[str]:
    files = list(numbered(directory, "binlog").values())
    ends, told = {}, time.monotonic()
    for path in files:
        ends[path] = find_ends(path.read_bytes())
        if time.monotonic() - told > _PATIENCE:
            told = time.monotonic()
            yield f"looking for records that a power cut tore: {len(ends)} of {len(files)} files"
    doubtful = frozenset(doubt.job for found in ends.values() for doubt in found.doubts)
    history = History(doubtful)
    for path, found in ends.items():
        torn = history.decide(path.read_bytes(), found) if doubtful else found.torn
        if torn is not None:
            _cut(path, torn)
            yield f"{path}: the power failed while a record was written; cut off at byte {torn}, where it begins"


def _cut(path: Path, size: int) -> None:
    """On return the file has only its first `size` bytes, on disk: beanstalkd reads zeros and an end alike.

    To cut needs no room on a full disk, and is done or not, also if the power fails again.
    """
    mode = path.stat().st_mode & 0o7777
    # beanstalkd makes its files read-only, for itself as well
    path.chmod(mode | 0o200)
    try:
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    finally:
        path.chmod(mode)
