"""What a look at beanstalkd's own process shows (proc(5)), where it runs on this machine and this user may look.

No command of its protocol tells how often it syncs its files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glassq import host

if TYPE_CHECKING:
    from glassq.queues.beanstalk.protocol import ServerStats
    from glassq.values import QueueUrl

# beanstalkd's own sync interval without -f, in milliseconds; and the one of a beanstalkd that never syncs.
_DEFAULT_INTERVAL = 50
_NEVER = 1 << 31
# What to do about a beanstalkd with an interval and without a syncer.
WITHOUT_SYNCER = "start it with -f0, or run glassq-syncer beside it and name that in [queue] syncer"


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
