from __future__ import annotations

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.files import AsideFile, make_directory, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_written_file_has_its_content_and_mode_and_nothing_is_left_beside_it(tmp_path: Path, mode: int) -> None:
    umask = os.umask(0)
    try:
        write_durably(tmp_path / "name", b"content", aside=tmp_path / ".new", mode=mode)
    finally:
        os.umask(umask)
    assert (tmp_path / "name").read_bytes() == b"content"
    assert (tmp_path / "name").stat().st_mode & 0o777 == mode
    assert names(tmp_path) == ["name"]


def test_content_is_synced_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, b"" if path.is_dir() else path.read_bytes(), names(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_durably(tmp_path / "name", b"content", aside=tmp_path / ".new")
    assert synced == [(tmp_path / ".new", b"content", [".new"]), (tmp_path, b"", ["name"])]


def test_a_full_disk_leaves_the_old_file_whole_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"old")
    with at_most(4096), pytest.raises(OSError, match="too large"):
        write_durably(tmp_path / "name", b"x" * 10_000, aside=tmp_path / ".new")
    assert (tmp_path / "name").read_bytes() == b"old"
    assert names(tmp_path) == ["name"]


def test_what_ends_the_writing_is_raised_and_not_what_closing_says_then(tmp_path: Path) -> None:
    with at_most(16), pytest.raises(KeyError), AsideFile(tmp_path / ".new") as aside:
        # in Python's buffer: closing the file writes it, which fails
        aside.file.write(b"x" * 100)
        raise KeyError
    assert names(tmp_path) == []


def test_a_temporary_name_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (tmp_path / ".new").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "name", b"ours", aside=tmp_path / ".new")
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"
    assert names(tmp_path) == [".new", "elsewhere"]


def test_a_directory_is_made_with_those_above_it_for_its_owner_alone(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file")
    assert [(tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b")] == [0o700, 0o700]
