from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.errors import Bury, Retry
from glassq.glass.storage import DirectoryStorage
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.glass.storage import Stored

DAY = 86_400
ROOT = Path(__file__).parents[2]


def write(storage: DirectoryStorage, name: str, *chunks: bytes) -> Stored:
    return storage.write(name, chunks, content_type="image/jpeg", metadata={}, timeout=30)


def failing(number: int) -> Callable[[Path, Path], None]:
    """A link that fails as a file system does that has none, or is full, or is not ours."""

    def link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    return link


def test_a_directory_does_without_googles_library(tmp_path: Path) -> None:
    script = f"""
import sys
from glassq.glass.storage import open_storage
from glassq.values import StorageUrl
open_storage(StorageUrl("file://{tmp_path}"))
print([name for name in sys.modules if name.startswith("google.")])
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == "[]\n"


def test_a_missing_directory_is_made_for_our_user_alone(tmp_path: Path) -> None:
    DirectoryStorage(tmp_path / "a" / "b")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    DirectoryStorage(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_place_that_cannot_be_a_directory_is_told_at_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Bury, match=r"file://.*cannot be opened: Not a directory") as caught:
            DirectoryStorage(place)
        assert str(place) in caught.value.reason


@pytest.mark.parametrize(
    ("number", "verdict", "words"),
    [
        (errno.ENOSPC, Retry, "No space left on device"),
        (errno.EDQUOT, Retry, "Disk quota exceeded"),
        (errno.EIO, Retry, "Input/output error"),
        (errno.ESTALE, Retry, "Stale file handle"),
        (errno.EACCES, Bury, "Permission denied; it must be a directory that we may write to"),
        (errno.EROFS, Bury, "Read-only file system"),
    ],
)
def test_trouble_with_the_disk_is_told_in_words_and_leaves_nothing(
    tmp_path: Path, number: int, verdict: type[Retry | Bury], words: str
) -> None:
    storage = DirectoryStorage(tmp_path, link=failing(number))
    with pytest.raises(verdict) as caught:
        write(storage, "a.jpg", b"x")
    assert caught.value.reason.startswith(f"file://{tmp_path} cannot store a.jpg: {words}")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_is_a_verdict_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import resource
from glassq.errors import Verdict
from glassq.glass.storage import DirectoryStorage
storage = DirectoryStorage({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    storage.write("a", [bytes(70_000)] * 2, content_type="", metadata={{}}, timeout=30)
except Verdict as verdict:
    print(verdict.reason)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "cannot store a: File too large" in told.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_went_away_is_worth_another_try(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path / "mount")
    (tmp_path / "mount").rmdir()
    with pytest.raises(Retry, match="cannot store a: No such file or directory"):
        write(storage, "a", b"x")


def test_a_directory_in_the_way_of_a_name_is_told(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(Bury, match="a is in the way: not a regular file"):
        write(storage, "a", b"x")
    assert list(storage.names("")) == []


def test_a_file_is_not_for_everybody_to_read(tmp_path: Path) -> None:
    write(DirectoryStorage(tmp_path), "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o027 == 0


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_nothing_is_overwritten_either(tmp_path: Path, number: int) -> None:
    storage = DirectoryStorage(tmp_path, link=failing(number))
    assert write(storage, "a", b"first").created
    again = write(storage, "a", b"second!")
    assert (again.created, again.size) == (False, 5)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]


def test_without_hard_links_one_of_many_writers_wins(tmp_path: Path) -> None:
    created: list[bytes] = []
    start = threading.Barrier(4)

    def race(letter: bytes) -> None:
        storage = DirectoryStorage(tmp_path, link=failing(errno.EPERM))
        for number in range(25):
            start.wait(30)
            if write(storage, f"n{number}", letter * 1000).created:
                created.append(letter)

    threads = [threading.Thread(target=race, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 25
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(contents) == 25
    assert all(len(content) == 1000 and len(set(content)) == 1 for content in contents)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a process was killed in the middle of writing "a"."""
    script = f"""
import signal
from pathlib import Path
from glassq.glass.storage import DirectoryStorage
def chunks():
    yield bytes(1 << 20)
    Path({str(tmp_path / "half")!r}).touch()
    signal.pause()
DirectoryStorage({str(tmp_path / "photos")!r}).write("a", chunks(), content_type="", metadata={{}}, timeout=30)
"""
    writer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_for((tmp_path / "half").exists, "half of the photo to be written")
    writer.kill()
    assert writer.wait() != 0
    yield tmp_path / "photos"


def test_a_killed_writer_leaves_no_object(killed: Path) -> None:
    storage = DirectoryStorage(killed)
    assert storage.find("a") is None
    assert list(storage.names("")) == []
    assert write(storage, "a", b"whole").created
    assert (killed / "a").read_bytes() == b"whole"


def test_what_a_killed_writer_left_is_cleared_when_it_is_a_day_old(killed: Path) -> None:
    (unfinished,) = killed.iterdir()
    assert unfinished.stat().st_size == 1 << 20
    DirectoryStorage(killed)
    assert unfinished.exists(), "younger than a day: another process may be writing it"
    old = time.time() - DAY - 60
    os.utime(unfinished, (old, old))
    DirectoryStorage(killed)
    assert list(killed.iterdir()) == []


def test_old_hidden_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".nfs0001"
    other.write_text("x")
    os.utime(other, (0, 0))
    assert list(DirectoryStorage(tmp_path).names("")) == []
    assert other.exists()
