"""What a look at beanstalkd's own process shows (proc(5)), where it runs on this machine and this user may look.

- Whether the files that it writes are still where it believes them to be. It never looks: while its directory is
  removed it answers INSERTED as before, and everything is gone at its next restart.
- How often it syncs them: no command of its protocol tells.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glassq import host

if TYPE_CHECKING:
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats
    from glassq.values import QueueUrl

# To the names of files that are removed the kernel adds this.
_REMOVED = " (deleted)"
# beanstalkd's own sync interval without -f, in milliseconds; and the one of a beanstalkd that never syncs.
_DEFAULT_INTERVAL = 50
_NEVER = 1 << 31
# What to do about a beanstalkd with an interval and without a syncer.
WITHOUT_SYNCER = "start it with -f0, or run glassq-syncer beside it and name that in [queue] syncer"


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


def sync_interval(server: ServerStats, url: QueueUrl) -> int | None:
    """How often the beanstalkd at `url` syncs, in milliseconds: 0 each command; None if that cannot be seen."""
    name = url.address[0] if isinstance(url.address, tuple) else ""
    if not server.durable or (name and not host.is_own(name)):
        return None
    if not (options := options_of(Path("/proc", str(server.pid)))):
        return None
    if "-F" in options:
        return _NEVER
    given = options.get("-f", "")
    return int(given) if given.isdecimal() else _DEFAULT_INTERVAL


def only_sometimes(interval: int) -> str:
    """What is wrong with this sync interval where there is no syncer."""
    how_often = (
        "never syncs its files (-F)" if interval == _NEVER else f"syncs only once in {interval} ms (-f{interval})"
    )
    return f"beanstalkd {how_often}, and no syncer proves what is on disk"


def options_of(process: Path) -> dict[str, str]:
    """The options that a beanstalkd was started with, by "-b" and the like; none for any other process of /proc."""
    try:
        program, *words = (process / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return {}
    if Path(program).name != "beanstalkd":
        return {}
    return {word[:2]: word[2:] or value for word, value in zip(words, [*words[1:], ""], strict=True)}


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
