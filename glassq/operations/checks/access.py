"""Who may do what with which file, and how the services get at it without opening it to anybody else."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.database.sqlite_file import plain_file_of
from glassq.operations.checks.base import Check

if TYPE_CHECKING:
    from pathlib import Path

# The user that an installation's services run as.
SERVICES = "glassq"
# The one group that advice may name: it is made for programs that add tasks, reaches the queue and opens no secret.
TASKS = "glassq-tasks"


def database_file(url: str, key: str) -> Path | None:
    """The file of the database whose URL stands under `key`; None for one that is none. Raises SettingsError."""
    if (plain := plain_file_of(url)) is not None:
        return plain
    # SQLAlchemy is large, and few need it
    from glassq.database.engine import parse_url, sqlite_file

    return sqlite_file(parse_url(url, key))


def me() -> str:
    """The user that this process runs as."""
    return _user(os.geteuid())


def belongs(path: Path) -> str:
    """Whose the file is, in words. Raises OSError."""
    found = path.stat()
    owner, group = _user(found.st_uid), _group(found.st_gid)
    return f"{path} belongs to user {owner} and group {group} ({stat.filemode(found.st_mode)})"


def barrier(path: Path, *, write: bool) -> tuple[str, str] | None:
    """What keeps this user from reading (or writing) the file, and what to do; None where nothing does."""
    needs = dict.fromkeys(reversed(path.parents), os.X_OK) | {path: os.W_OK if write else os.R_OK}
    for place, access in needs.items():
        if exists(place) and not os.access(place, access, effective_ids=True):
            return f"{me()} may not use it: {belongs(place)}", _way_in(place, access)
    return None


def _way_in(place: Path, access: int) -> str:
    """How the services' user gets at a file, and nobody else.

    The way is never a group that has more than this file, such as root, nor access for everybody.
    """
    found, user, name = place.stat(), _services_user(), shlex.quote(str(place))
    if access & os.W_OK and (disk := _read_only(place)):
        return disk
    if _group(found.st_gid) == TASKS and found.st_mode & access << 3:
        return f"run this as {SERVICES}, or add {me()} to the programs that add tasks (adduser {me()} {TASKS})"
    if as_whom := _who_may(found, access):
        return f"run this as {as_whom}"
    group = _group(user.pw_gid)
    if place.is_dir() and not _is_ours(place):
        return f"keep the file where {user.pw_name} may go, such as /etc/glassq/secrets, and name that in the settings"
    if place.is_dir():
        return f"chgrp {group} {name} && chmod g+x {name}"
    if place.is_socket():
        return f"let the program that listens there give it to group {group} (SocketGroup= and SocketMode=0660)"
    return f"chgrp {group} {name} && chmod {660 if access == os.W_OK else 640} {name}"


def _read_only(place: Path) -> str:
    """What to do about a disk that nobody can write to; "" if it is none."""
    if not os.statvfs(place).f_flag & os.ST_RDONLY:
        return ""
    disk = shlex.quote(str(mount(place)))
    return f"the disk at {disk} is mounted read-only: see why (dmesg), then mount -o remount,rw {disk}"


def _who_may(found: os.stat_result, access: int) -> str:
    """The user to ask as, because that one has access already; "" where there is none but root."""
    user = _services_user()
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    if found.st_uid == user.pw_uid:
        allowed = found.st_mode >> 6
    else:
        allowed = found.st_mode >> 3 if found.st_gid in groups else found.st_mode
    if allowed & access == access:
        return user.pw_name
    # where nothing is installed, whoever made the files runs the programs
    return "" if user.pw_name == SERVICES or found.st_uid in (0, os.geteuid()) else _user(found.st_uid)


def _services_user() -> pwd.struct_passwd:
    """The user that the services run as; where glassq is not installed, whoever asks."""
    with suppress(KeyError):
        return pwd.getpwnam(SERVICES)
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid())
    # in a container a user may have no more than a number
    return pwd.struct_passwd((me(), "", os.geteuid(), os.getegid(), "", "/", ""))


def _is_ours(place: Path) -> bool:
    """Whether the directory is glassq's alone, so that its owner and mode are ours to change."""
    return any(part.startswith("glassq") for part in place.parts)


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


def directory(name: str, path: Path) -> Check:
    """Whether this user can write there, or make it where it is missing."""
    path = path.absolute()
    there = nearest(path)
    if not there.is_dir():
        return Check(name, False, f"{path}: {there} is no directory", "move it away, or name another in the settings")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        act = "write to it" if there == path else "make it"
        said = f"{path}: {me()} cannot {act}: {belongs(there)}"
        return Check(name, False, said, _room(path, there))
    return Check(name, True, str(path) if there == path else f"{path}: is made when it is needed")


def _room(path: Path, there: Path) -> str:
    """How the services' user gets a directory to write to; `there` is the nearest one that exists."""
    if disk := _read_only(there):
        return disk
    if as_whom := _who_may(there.stat(), os.W_OK | os.X_OK):
        return f"run this as {as_whom}"
    user = _services_user().pw_name
    if there != path:
        return f"install -d -o {user} -m 750 {shlex.quote(str(path))}"
    if _is_ours(path):
        return f"chown {user} {shlex.quote(str(path))}"
    return f"name a directory of {user}'s own in the settings (install -d -o {user} -m 750 DIRECTORY)"


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
