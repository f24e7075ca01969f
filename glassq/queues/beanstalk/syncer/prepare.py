"""What has to be done to beanstalkd's files before it starts on them, and after it has ended.

1. A file whose sync failed is written anew: the kernel takes what it could not write for written, and forgets it later.
2. A file that beanstalkd removed, and whose second name `kept.N` is still there, is put back: the copies of its jobs
   may not be on disk. Jobs in it that were done are deleted again by later files, which were kept for as long.
3. After a boot, each file is cut off where a power cut tore a record, if it did: see torn.py. Nothing behind it in this
   file was proven, as a proof syncs the whole file; what the record changed stands before it, or in an older file.

Where beanstalkd had ended and its files were synced before the machine went down (`seal`), nothing is torn.
While a beanstalkd uses the directory, nothing is touched. Only regular files count: whoever may write there may leave
anything else.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import PrepareError
from glassq.files import AsideFile, sync_directory, write_durably
from glassq.queues.beanstalk.syncer.records import layout_of, records
from glassq.queues.beanstalk.syncer.refusal import MAX_FILES, NAME, SIZE, note_files, parse
from glassq.queues.beanstalk.syncer.regular import is_odd, numbered, odd, read
from glassq.queues.beanstalk.syncer.torn import History, find_ends

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# _BOOT names the boot in which the files were looked at, _SEAL what they were when they were sealed.
_BOOT, _SEAL = "syncer.boot", "syncer.seal"
_THIS_BOOT = Path("/proc/sys/kernel/random/boot_id")
# A look that takes longer than this, in seconds, tells people how far it is.
_PATIENCE = 2.0


def prepare(directory: Path, boot: str | None = None) -> Iterator[str]:
    """Makes the files in `directory` ready for a start of beanstalkd; yields a line for each thing that was done.

    `boot` is the id of this boot of the machine, as the kernel has it; None: it is read from /proc. Where it is not
    there either, each start is taken for the first one. Raises PrepareError: beanstalkd must not be started.
    """
    with _ready(directory):
        for path in odd(directory, "kept"):
            yield f"{path} is no regular file: left alone"
        mark = _mark(directory, boot)
        looked = mark is not None and read(directory / _BOOT) == mark
        sealed = read(directory / _SEAL) == _listing(directory)
        failed = _failed(directory)
        for number in failed:
            _write_anew(directory, number)
        if failed:
            yield f"written anew, as they could not be synced: {_names(failed)}"
        yield from _put_back(directory)
        # of a failed file the kernel may already have forgotten a part
        if failed or not (looked or sealed):
            yield from _cut_torn_ends(directory)
        if failed:
            note_files(directory, [])
        if mark is not None and not looked:
            try:
                _note(directory / _BOOT, mark)
            except OSError as error:
                yield f"{directory / _BOOT}: {error.strerror}; the next start looks at all files again"


def seal(directory: Path, boot: str | None = None) -> None:
    """Call when beanstalkd has ended: syncs its files, and notes what they are.

    After a boot they need no look then: it takes time, and may undo a last delete (`Question.IS_THERE` in torn.py).
    Seals nothing that was not prepared in this boot, or could not be synced. A file whose sync fails now is written
    anew before the next start. Raises PrepareError.
    """
    with _ready(directory):
        mark = _mark(directory, boot)
        if mark is None or read(directory / _BOOT) != mark or _failed(directory):
            return
        files = sorted([*numbered(directory, "kept").items(), *numbered(directory, "binlog").items()])
        for number, path in files:
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            except OSError:
                # the kernel reports it only this time
                note_files(directory, sorted({each for each, _ in files if each >= number}))
                raise
        sync_directory(directory)
        _note(directory / _SEAL, _listing(directory))


@contextmanager
def _ready(directory: Path) -> Iterator[None]:
    try:
        if not directory.is_dir():
            raise PrepareError(f"{directory} is no directory" if directory.exists() else f"{directory} is missing")
        alone = [path for name in ("lock", NAME) if is_odd(path := directory / name)]
        for path in (*alone, *odd(directory, "binlog")):
            raise PrepareError(f"{path} is no regular file: move it away")
        with _locked(directory):
            yield
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


def _failed(directory: Path) -> list[int]:
    """The numbers of the files whose sync failed, as the syncer wrote them down."""
    files = parse(read(directory / NAME, SIZE) or b"").get("files")
    numbers = [number for number in files if isinstance(number, int)] if isinstance(files, list) else []
    there = numbered(directory, "kept").keys() | numbered(directory, "binlog").keys()
    return sorted(there if len(numbers) >= MAX_FILES else there.intersection(numbers))


def _write_anew(directory: Path, number: int) -> None:
    """On return the file, under each of its names, is another one with the same content, on disk."""
    names = [directory / f"{kind}.{number}" for kind in ("binlog", "kept")]
    names = [name for name in names if name.exists()]
    aside = directory / f"anew.{number}"
    aside.unlink(missing_ok=True)
    with AsideFile(aside, names[0].stat().st_mode & 0o777) as new:
        new.file.write(names[0].read_bytes())
        new.publish(names[0])
    for name in names[1:]:
        os.link(names[0], aside)
        aside.rename(name)
    sync_directory(directory)


def _put_back(directory: Path) -> Iterator[str]:
    """Gives each kept file whose binlog is gone its name again; it stays kept."""
    kept, there = numbered(directory, "kept"), numbered(directory, "binlog")
    gone = {number: path for number, path in kept.items() if number not in there}
    foreign = [number for number in kept if number in there and _are_different(kept[number], there[number])]
    for number in foreign:
        yield f"{kept[number]} is not {there[number].name}: beanstalkd ran without --prepare. Left alone"
    if not gone:
        return
    everything = sorted({*gone, *there})
    gaps = [(first + 1, last - 1) for first, last in pairwise(everything) if last > first + 1]
    for number in _of_other_jobs(gone, there) if foreign or gaps or numbered(directory, "foreign") else ():
        yield f"{gone.pop(number)} is not put back: it has jobs of another queue, whose ids are in use again"
    back = []
    # The newest first: a syncer that still runs removes proven ones, oldest first. So none is put back whose jobs are
    # done by one that is not.
    with suppress(FileNotFoundError):
        for number, path in reversed(gone.items()):
            os.link(path, directory / f"binlog.{number}")
            back.append(number)
    sync_directory(directory)
    if back:
        yield f"put back: {_names(back)}"
    for first, last in gaps:
        what = f"binlog.{first} is" if first == last else f"binlog.{first} to binlog.{last} are"
        yield f"{what} missing: jobs of older files that are done may be worked again"


def _are_different(kept: Path, there: Path) -> bool:
    # a syncer that still runs may remove it
    with suppress(FileNotFoundError):
        return not kept.samefile(there)
    return False


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
    data = read(path) or b""
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
    boot = boot or (read(_THIS_BOOT) or b"").decode("ascii", "replace").strip()
    facts = directory.stat()
    # systemd's %b has no hyphens
    return f"{boot.replace('-', '')} {facts.st_dev} {facts.st_ino}\n".encode() if boot else None


def _listing(directory: Path) -> bytes:
    """What the files are, as _SEAL has it. beanstalkd makes a new one at each start, so it can be true only once."""
    lines = []
    for kind in ("binlog", "kept"):
        for path in numbered(directory, kind).values():
            with suppress(FileNotFoundError):
                facts = path.stat()
                lines.append(f"{path.name} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}\n")
    return "".join(lines).encode() or b"nothing\n"


def _note(path: Path, text: bytes) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    write_durably(path, text, aside=aside)


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
