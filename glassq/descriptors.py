"""The descriptors that are glassq's own, in processes that run the code of others too.

A handler may close what it has not opened: with os.closerange, as a daemon does when it starts, or in a library in C
that closes one twice. The next file or connection gets the number, and what its owner writes then goes into a file that
is not its own: log lines into the ledger ("How to corrupt an SQLite database file", 2.1). So who holds a descriptor
says so here (`own`), and who has run such code asks whether all are still what they were (`check`).
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

# From this number on, so that neither a second close of a low number nor a short os.closerange meets it. It is below
# the usual limit of 1024.
_ASIDE = 1000
_OPEN = Path("/proc/self/fd")

Identity = tuple[int, int]


class HasDescriptor(Protocol):
    """A socket, a file, or what else knows its descriptor. After its end `fileno` is negative, or raises."""

    def fileno(self) -> int: ...


class Descriptor:
    """A descriptor by its number, for as long as this object lives."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Its number."""
        return self._number


class _Owned(NamedTuple):
    owner: weakref.ref[HasDescriptor]
    number: int
    identity: Identity
    what: str


class _Process:
    """What this process owns, by the thread that said so (nobody else changes its list); who is told of a loss.

    `shared` is for all threads, `own` for that one alone.
    """

    def __init__(self) -> None:
        self.shared: dict[int, list[_Owned]] = {}
        self.own: dict[int, list[_Owned]] = {}
        self.ended: Callable[[str], object] | None = None
        self.opening = threading.Lock()


_process = _Process()


def _forked() -> None:
    # another thread may have held it
    _process.opening = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def own(owner: HasDescriptor, what: str, *, shared: bool = True) -> None:
    """From now on its descriptor is watched, until it is closed by its owner, or its owner is gone.

    `what` is for people: "the log". Without `shared` only this thread uses it.
    """
    number, thread = owner.fileno(), threading.get_ident()
    entry = _Owned(weakref.ref(owner), number, identity_of(number), what)
    kept = _process.shared if shared else _process.own
    kept[thread] = [*(each for each in kept.get(thread, ()) if _number(each) >= 0), entry]


def own_opened(opened: Callable[[], T], paths: Sequence[Path], what: str) -> tuple[T, list[Descriptor]]:
    """What `opened` returns, with the descriptors that it has opened on these files.

    They are watched for as long as somebody has these. Without /proc there are none.
    """
    with _process.opening:
        before = set(_open_on(paths))
        made = opened()
        found = [Descriptor(each) for each in _open_on(paths) if each not in before]
    for each in found:
        own(each, what)
    return made, found


def lost(thread: int | None = None) -> str:
    """What is not ours any more, for people; "" if all is well.

    With `thread` (threading.get_ident()) not what other threads use alone.
    """
    return ", ".join(sorted({each.what for each in _owned(thread) if _is_lost(each)}))


def check(thread: int | None = None) -> None:
    """Tells who is to be told (`tell`), if some descriptor is lost: that ends the process. See `lost`."""
    if _process.ended is not None and any(map(_is_lost, _owned(thread))) and (found := lost(thread)):
        _process.ended(found)


def tell(ended: Callable[[str], object] | None) -> None:
    """`ended` is called by `check` with what is lost. None: nobody is, as in a process that a handler has forked."""
    _process.ended = ended


def aside(descriptor: int) -> int:
    """Moves it to a high number, out of the way of what closes low ones; returns where it is now."""
    with suppress(OSError):
        # refused where a process may have few
        high = fcntl(descriptor, F_DUPFD_CLOEXEC, _ASIDE)
        os.close(descriptor)
        return high
    return descriptor


def identity_of(descriptor: int) -> Identity:
    """Device and inode of what is open there. Raises OSError."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _owned(thread: int | None) -> list[_Owned]:
    own = list(_process.own.values()) if thread is None else [_process.own.get(thread, [])]
    return list(chain.from_iterable((*list(_process.shared.values()), *own)))


def _number(entry: _Owned) -> int:
    owner = entry.owner()
    if owner is None:
        return -1
    # each kind of owner has its own error after its end
    with suppress(Exception):
        return owner.fileno()
    return -1


def _is_lost(entry: _Owned) -> bool:
    # the usual case, as quick as it can be: it comes after each attempt
    _, number, (device, inode), _ = entry
    try:
        found = os.fstat(number)
        if found.st_ino == inode and found.st_dev == device:
            return False
    except OSError:
        pass
    # closed: by its owner?
    if (number := _number(entry)) < 0:
        return False
    with suppress(OSError):
        return identity_of(number) != entry.identity
    return True


def _open_on(paths: Sequence[Path]) -> Iterator[int]:
    wanted = set()
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            wanted.add((found.st_dev, found.st_ino))
    with suppress(OSError):
        for each in list(_OPEN.iterdir()):
            with suppress(OSError):
                if identity_of(int(each.name)) in wanted:
                    yield int(each.name)
