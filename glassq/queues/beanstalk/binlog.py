"""Whether the files that beanstalkd writes are still where it believes them to be.

beanstalkd never looks: while its directory is removed it answers INSERTED as before, and everything is gone at its next
restart. So this looks at the process itself (proc(5)), where it runs on this machine and this user may.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glassq import host
from glassq.queues.beanstalk.process import options_of

if TYPE_CHECKING:
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats

# To the names of files that are removed the kernel adds this.
_REMOVED = " (deleted)"


def missing_files(connection: BeanstalkConnection, url: str) -> str:
    """What is wrong with the binlog's files, in words; "" where nothing is, or nothing can be seen of them."""
    name = urlsplit(url).hostname
    if name and not host.is_own(name):
        return ""
    server = connection.stats()
    if not (problem := _problem(server)):
        return ""
    # Between its answer and our look it may have begun a file, or removed one.
    again = connection.stats()
    return problem if again.newest_file == server.newest_file and again.files == server.files else _problem(again)


def _problem(server: ServerStats) -> str:
    process = Path("/proc", str(server.pid))
    given = options_of(process).get("-b", "") if server.durable else ""
    if not given:
        return ""
    try:
        if removed := _removed_files(process):
            return f"beanstalkd writes to {removed[0]}, which was removed"
        there = {path.name for path in _as_seen_by(process, given).iterdir()}
    except FileNotFoundError:
        return f"{given}, the directory that beanstalkd writes to, is gone" if process.is_dir() else ""
    except OSError:
        # It is another user's process, or directory.
        return ""
    numbers = range(server.newest_file - server.files + 1, server.newest_file + 1)
    gone = [name for number in numbers if (name := f"binlog.{number}") not in there]
    if not gone:
        return ""
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    return f"beanstalkd needs files that are not in {given}: {', '.join(gone[:3])}{more}"


def _as_seen_by(process: Path, directory: str) -> Path:
    """The process may have another root directory, and a path that begins in its working directory."""
    return process / "root" / directory.lstrip("/") if directory.startswith("/") else process / "cwd" / directory


def _removed_files(process: Path) -> list[str]:
    """The binlog's files that the process has open and that nobody finds any more. Raises OSError."""
    links = []
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(str(descriptor.readlink()))
    names = [link.removesuffix(_REMOVED) for link in links if link.endswith(_REMOVED)]
    return [name for name in names if Path(name).name.startswith("binlog.")]
