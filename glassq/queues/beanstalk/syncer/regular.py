"""The regular files beside beanstalkd. Whoever may write there may leave anything else: no link is followed."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def numbered(directory: Path, name: str) -> dict[int, Path]:
    """The regular files NAME.1, NAME.2 and so on, by number, lowest first. Raises OSError."""
    return {number: path for number, path in _named(directory, name).items() if not is_odd(path)}


def odd(directory: Path, name: str) -> list[Path]:
    """What has such a name and is no regular file."""
    return [path for path in _named(directory, name).values() if is_odd(path)]


def _named(directory: Path, name: str) -> dict[int, Path]:
    # as many digits as the syncer takes (files.py)
    pattern = re.compile(rf"{name}\.([1-9][0-9]{{0,8}})")
    matches = ((pattern.fullmatch(path.name), path) for path in directory.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def is_odd(path: Path) -> bool:
    """Whether something has this name that is no regular file."""
    with suppress(FileNotFoundError):
        return not stat.S_ISREG(path.lstat().st_mode)
    return False


def read(path: Path, most: int = -1) -> bytes | None:
    """The first bytes of a regular file, or all; None where there is none of this name."""
    if is_odd(path):
        return None
    try:
        with open(path, "rb", opener=_open_regular) as file:
            return file.read(most)
    except FileNotFoundError:
        return None


def _open_regular(name: str, flags: int) -> int:
    # never waits for the other end of a FIFO that has come meanwhile
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
