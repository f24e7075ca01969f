"""Ends what a handler has started, where its attempt is cut off or its process dies: programs, and their own ones.

A handler that comes to its end may leave processes behind. The owner of a process is found in four ways, as each of
them can be lost: by its ancestors; by its process group, of which each child of the pool has one; by a variable in its
environment, which outlives setsid and double forks; and by its title, which a fork without a new program keeps.
The pool's parent adopts orphans, so that it can find and reap them: no handler waits for these, and we reap no process
that a handler may wait for.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.worker import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.worker.processes import Process

log = logger("glassq.worker")

# The pid of the pool's child, in the environment of all that its handlers start.
VARIABLE = "GLASSQ_CHILD"
# prctl(2): orphans among our descendants become our children.
_PR_SET_CHILD_SUBREAPER = 36
# A process that is killed may have started another one just before. It is looked so often whether that is so.
_ROUNDS = 50

# A process, by what tells it from a later one with its pid.
_Found = dict[tuple[int, float], "Process"]


_TITLE = "glassq-worker: child "


def title_of(index: int) -> str:
    """How ps shows the child in this slot."""
    return f"{_TITLE}{index + 1}"


def mark() -> None:
    """Called in a child of the pool first of all: marks everything this child starts, so that it can be found later."""
    with suppress(OSError):
        os.setpgid(0, 0)
    os.environ.__setitem__(VARIABLE, str(os.getpid()))


def end_own(parent: int, index: int, since: float) -> None:
    """For a child of the pool: ends what its attempt, begun at `since` (seconds since boot), has started.

    `parent` is the pool's pid, `index` that of the child's slot.
    """
    me = os.getpid()
    _end(lambda table: _started(table, _roots(table, me, parent, index, {me}), since, {me}), me)


class Orphans:
    """What children leave behind, for the pool's parent. Without Linux it knows process groups alone."""

    def __init__(self) -> None:
        self._me = os.getpid()
        self._adopts = processes.children() is not None and _adopt()
        #: those that living children have left; what is added at a child's death, and bears no other one's mark, was
        #: that child's
        self._known: set[int] = set()

    def reap(self, ours: Iterable[int]) -> None:
        """Called often: reaps those that have ended. `ours` are the pids of children that others wait for."""
        self._known = self._adopted(ours) if self._adopts else set()
        for pid in self._known:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def tree(self, child: int) -> list[Process]:
        """A child's descendants, recorded before it is killed: afterwards its orphans cannot be attributed."""
        table = processes.table()
        return list(_started(table, [each for each in table.values() if each.parent == child], 0.0, set()).values())

    def end(self, child: int, index: int, since: float, tree: Iterable[Process], ours: Iterable[int]) -> None:
        """Ends what a child that is dead has started since its attempt began (in seconds since boot).

        `tree` is what `tree` has found, if anything; `ours` are the pids of the pool's other processes.
        """
        if not processes.table():
            with suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            return
        spared = {self._me, *ours}
        before = {process.identity for process in tree}
        orphaned = self._adopted(spared) - self._known if self._adopts else set()

        def find(table: dict[int, Process]) -> _Found:
            left = [
                process
                for process in table.values()
                if process.identity in before
                or (process.pid in orphaned and _belongs(process, child, index, spared) is not False)
            ]
            return _started(table, [*left, *_roots(table, child, self._me, index, spared)], since, spared)

        _end(find, child)

    def _adopted(self, ours: Iterable[int]) -> set[int]:
        return (processes.children() or set()) - set(ours)


def _adopt() -> bool:
    """Has orphans become children of this process, where the system can (Linux)."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _roots(table: dict[int, Process], child: int, parent: int, index: int, spared: set[int]) -> list[Process]:
    """What the child has started itself, and orphans that it has left to the pool's `parent`."""
    return [
        process
        for process in table.values()
        if process.pid not in spared
        and (
            process.parent == child
            or process.group == child
            or (process.parent == parent and _belongs(process, child, index, spared))
        )
    ]


def _belongs(process: Process, child: int, index: int, others: set[int]) -> bool | None:
    """Whether it was started by this child or by one of the `others`, as far as it bears a mark; None without one."""
    if process.group == child or process.group in others:
        return process.group == child
    if owner := processes.variable(process.pid, VARIABLE):
        return owner == str(child)
    title = processes.title(process.pid)
    return title == title_of(index) if title.startswith(_TITLE) else None


def _started(table: dict[int, Process], roots: Iterable[Process], since: float, spared: set[int]) -> _Found:
    """Of `roots` and their descendants those that live and are younger than `since`.

    The descendants of an older one are its own, whenever they were started.
    """
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: _Found = {}
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        if process.identity in found or process.pid in spared or process.ended or process.born < since - processes.TICK:
            continue
        found[process.identity] = process
        waiting += children.get(process.pid, [])
    return found


def _end(find: Callable[[dict[int, Process]], _Found], child: int) -> None:
    """Kills what `find` finds, until it finds nothing that is not killed yet."""
    killed: set[tuple[int, float]] = set()
    for _ in range(_ROUNDS):
        found = find(processes.table())
        if not found.keys() - killed:
            break
        for identity, process in found.items():
            if identity not in killed:
                processes.kill(process)
        killed |= found.keys()
    if killed:
        pids = ",".join(str(pid) for pid, _ in sorted(killed))
        log.warning("ended what the handler had started %s", fields(child=child, pids=pids))
