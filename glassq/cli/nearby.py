"""Finds the settings that `glassq dev` wrote, from the directory where it ran or from a subdirectory."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

NAME = Path("var/glassq.toml")


@dataclass(frozen=True, slots=True)
class Nearby:
    """`file` is the one that is used, if any. `looked` says of all others where they would be, and what they are."""

    file: Path | None
    looked: list[str]


def settings_nearby(start: Path) -> Nearby:
    """Looks for var/glassq.toml in `start`, then in the directories above it, as far as they belong to us.

    Settings name programs to run. So neither they nor the directories that lead to them may be somebody else's, and
    nobody else may write to them.
    """
    looked: list[str] = []
    # glassq dev does not run in /, whose /var is the system's
    for place in (start, *start.parents)[:-1]:
        if not _is_ours(place):
            break
        file = place / NAME
        if _is_ours(file.parent) and _is_ours(file):
            return Nearby(file, looked)
        looked.append(f"{file} (others own it or can write it: not used)" if os.path.lexists(file) else str(file))
    return Nearby(None, looked)


def _is_ours(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    # one's own group is mostly a private one
    others = stat.S_IWOTH if found.st_gid == os.getegid() else stat.S_IWOTH | stat.S_IWGRP
    return found.st_uid == os.geteuid() and not found.st_mode & others
