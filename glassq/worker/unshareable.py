"""What a process must not pass on to processes that it forks: a fork copies descriptors, but no threads.

A forked process has only the thread that forked it; locks that another one held stay locked for ever. Two processes
that share a socket read each other's replies, and two that share an open file its position.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from contextlib import suppress
from fcntl import F_GETFL, fcntl
from pathlib import Path

from glassq.worker import processes

_SELF = Path("/proc/self")
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class Inventory:
    """The threads, descriptors and child processes of this process now. Linux only (proc(5))."""

    def __init__(self) -> None:
        self._threads, self._descriptors, self._children = _threads(), _descriptors(), _children()

    def added(self) -> list[str]:
        """What has come since the last look and cannot be shared, in words."""
        before, now = self._descriptors, _descriptors()
        threads, children = _threads(), _children()
        found = [f"the thread {threads[thread]}" for thread in sorted(threads.keys() - self._threads.keys())]
        found += [_in_words(number, now[number]) for number in sorted(now) if before.get(number) != now[number]]
        found += [f"the process {processes.title(pid) or pid}" for pid in sorted(children - self._children)]
        self._threads, self._descriptors, self._children = threads, now, children
        return found


def _threads() -> dict[int, str]:
    """Thread ids with their names; those of a thread that Python does not know from the kernel."""
    known = {thread.native_id: thread for thread in threading.enumerate()}
    found = {}
    for path in (_SELF / "task").iterdir():
        thread = known.get(int(path.name))
        with suppress(OSError):
            found[int(path.name)] = _name(thread) if thread else (path / "comm").read_text().strip()
    return found


def _name(thread: threading.Thread) -> str:
    """A thread's name, with the function that it runs where that is known."""
    target = getattr(thread, "_target", None)
    place = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}".strip(".")
    return f"{thread.name} ({place})" if place else thread.name


def _descriptors() -> dict[int, str]:
    """The open descriptors that cannot be shared, with what they are open on."""
    found = {}
    for name in os.listdir(_SELF / "fd"):  # noqa: PTH208 - one descriptor is open while this lists them: our own
        with suppress(OSError):
            what = (_SELF / "fd" / name).readlink()
            if not _is_shareable(int(name)):
                found[int(name)] = str(what)
    return found


def _is_shareable(descriptor: int) -> bool:
    """Devices, such as /dev/null, and files that are only appended to: a log."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISCHR(mode) or (stat.S_ISREG(mode) and bool(fcntl(descriptor, F_GETFL) & os.O_APPEND))


def _children() -> set[int]:
    return processes.children() or set()


def _in_words(descriptor: int, what: str) -> str:
    kind, _, rest = what.partition(":")
    if kind == "socket":
        return f"a socket{_peer(descriptor)}"
    if kind == "pipe":
        return "a pipe"
    # [eventpoll], [eventfd], inotify
    return f"an {rest.strip('[]')} descriptor" if kind == "anon_inode" else f"the open file {what}"


def _peer(descriptor: int) -> str:
    """Where a socket leads, such as " to 10.0.0.1:5432"; "" if that is not known."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
        with suppress(OSError):
            peer = copy.getpeername()
            return f" to {peer[0]}:{peer[1]}" if copy.family in _INTERNET else f" to {peer or 'a process'}"
        name = copy.getsockname()
        return f" at {name[0]}:{name[1]}" if copy.family in _INTERNET and name[1] else ""
    return ""
