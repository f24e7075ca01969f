"""What `glassq doctor` tells, and what its checks share: who may do what with which file."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_READ = (os.R_OK, stat.S_IRGRP)
_WRITE = (os.W_OK, stat.S_IWGRP)
_ENTER = (os.X_OK, stat.S_IXGRP)


@dataclass(frozen=True, slots=True)
class Check:
    """What one look came to.

    `ok` is False where something is wrong, and None where nothing is, but an operator should know. `said` is what was
    seen, `todo` what to do about it. `code` is the exit code that it stands for when it is wrong.
    """

    name: str
    ok: bool | None
    said: str
    todo: str = ""
    code: int = 1


def me() -> str:
    """The user who asks."""
    return _user(os.geteuid())


def belongs(path: Path) -> str:
    """Whose the file is, in words. Raises OSError."""
    found = path.stat()
    owner, group = _user(found.st_uid), _group(found.st_gid)
    return f"{path} belongs to user {owner} and group {group} ({stat.filemode(found.st_mode)})"


def barrier(path: Path, *, write: bool) -> tuple[str, str] | None:
    """What keeps this user from reading (or writing) the file, and what to do; None where nothing does."""
    needs = dict.fromkeys(reversed(path.parents), _ENTER) | {path: _WRITE if write else _READ}
    for place, (access, by_group) in needs.items():
        if not exists(place) or os.access(place, access, effective_ids=True):
            continue
        found = place.stat()
        todo = f"run this as {_user(found.st_uid)}"
        if found.st_mode & by_group:
            group = _group(found.st_gid)
            todo = f"add {me()} to group {group} (usermod -aG {group} {me()}), or {todo}"
        return f"{me()} may not use it: {belongs(place)}", todo
    return None


def exists(path: Path) -> bool:
    """Whether it is there, as far as this user can see."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def nearest(path: Path) -> Path:
    """The path itself, or the nearest directory above it that is there."""
    return next(place for place in (path, *path.parents) if exists(place))


def mount(path: Path) -> Path:
    """Where the disk that it is on is mounted."""
    return next(place for place in (path, *path.parents) if place.is_mount())


def is_loopback(host: str) -> bool:
    """Whether the name or address of a host is this machine's own, which no other can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def directory(name: str, path: Path) -> Check:
    """Whether this user can write there, or make it where it is missing."""
    path = path.absolute()
    there = nearest(path)
    if not there.is_dir():
        return Check(name, False, f"{path}: {there} is no directory", "move it away, or name another in the settings")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        act = "write to it" if there == path else "make it"
        user = _user(there.stat().st_uid)
        said = f"{path}: {me()} cannot {act}: {belongs(there)}"
        return Check(name, False, said, f"ask as the user that works there (sudo -u {user}), or change its owner")
    return Check(name, True, str(path) if there == path else f"{path}: is made when it is needed")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
