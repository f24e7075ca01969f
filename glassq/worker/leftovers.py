"""Ends the processes that a handler has started, with their descendants, if the attempt is interrupted or crashes.

Processes of a handler that returned may go on. The owner of a process is found in four ways, because each one can be
lost: by its ancestors; by its process group, because each child of the pool has its own; by a variable in its
environment, which survives setsid and double forks; and by its title, which a fork without exec keeps.
The pool's parent adopts orphans, so that it can find and reap them. No handler waits for an orphan, so this takes no
exit code away from a handler.

The kernel tells the birth of a process in ticks of 10 ms. So an attempt begins in a tick in which this process has no
child that was born: what is older than the attempt is not taken for a part of it. Only an orphan of that tick is.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.worker import processes
from glassq.worker.processes import TICK, seconds_since_boot, tick_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.worker.processes import Process

log = logger("glassq.worker")

# The variable with the pid of the pool's child, in the environment of all processes that its handlers start.
VARIABLE = "GLASSQ_CHILD"
# The maximum number of searches: a process may start another one just before it is killed.
_ROUNDS = 50

# Processes by their `identity`.
_Found = dict[tuple[int, float], "Process"]


_TITLE = "glassq-worker: child "


def title_of(index: int) -> str:
    """The process title of the child in this slot."""
    return f"{_TITLE}{index + 1}"


def mark() -> None:
    """Call first of all in a new child: marks all processes that it starts, so that they can be found later."""
    with suppress(OSError):
        os.setpgid(0, 0)
    os.environ.__setitem__(VARIABLE, str(os.getpid()))


def beginning() -> float:
    """The time at which an attempt begins, in seconds since boot: now, or when the kernel's next tick has begun."""
    now = seconds_since_boot()
    if processes.has_children() and any(_is_born_since(tick_of(now), pid) for pid in processes.children() or ()):
        # a little more, as a float is not exact
        time.sleep(tick_of(now) + 1.01 * TICK - now)
        now = seconds_since_boot()
    return now


def _is_born_since(moment: float, pid: int) -> bool:
    process = processes.stat(pid)
    return process is not None and process.born >= moment


def end_own(parent: int, index: int, since: float) -> None:
    """For a child of the pool: ends the processes that its attempt has started since `since` (seconds since boot).

    `parent` is the pid of the pool's parent, `index` that of the child's slot.
    """
    me = os.getpid()
    _end(lambda table: _started(table, _roots(table, me, parent, index, {me}), since, {me}), me)


class Orphans:
    """The processes that children leave behind, for the pool's parent. Without /proc it knows only process groups."""

    def __init__(self) -> None:
        self._me = os.getpid()
        #: whether orphans become children of this process, and it can tell which ones it has
        self.adopts = processes.children() is not None and processes.adopt_orphans()
        #: orphans of living children. An orphan that is added at a child's death, and has no mark of another child, is
        #: that child's.
        self._known: set[int] = set()

    def reap(self, ours: Iterable[int]) -> None:
        """Reaps the orphans that have ended; call it often. `ours` are the pids that others wait for."""
        self._known = self._adopted(ours) if self.adopts else set()
        for pid in self._known:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def tree(self, child: int) -> list[Process]:
        """A child's descendants. Call it before you kill the child: afterwards its orphans have lost their ancestor."""
        table = processes.table()
        own = [process for process in table.values() if process.parent == child]
        return list(_started(table, own, 0.0, set()).values())

    def end(self, child: int, index: int, since: float, tree: Iterable[Process], ours: Iterable[int]) -> None:
        """Ends the processes that a dead child has started since `since` (seconds since boot).

        `tree` is the result of `tree`, if it was called; `ours` are the pids of the pool's other processes.
        """
        if not processes.table():
            with suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            return
        spared = {self._me, *ours}
        before = {process.identity for process in tree}
        orphaned = self._adopted(spared) - self._known if self.adopts else set()

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


def _roots(table: dict[int, Process], child: int, parent: int, index: int, spared: set[int]) -> list[Process]:
    """The processes that the child has started itself, and its orphans, which the pool's `parent` has adopted."""
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
    """Whether the process has the mark of this child; False for that of another one, None if it has no mark."""
    if process.group == child or process.group in others:
        return process.group == child
    if owner := processes.variable(process.pid, VARIABLE):
        return owner == str(child)
    title = processes.title(process.pid)
    return title == title_of(index) if title.startswith(_TITLE) else None


def _started(table: dict[int, Process], roots: Iterable[Process], since: float, spared: set[int]) -> _Found:
    """The processes of `roots` and their descendants that live and are younger than `since`.

    An older process is left out with all its descendants, however young these are.
    """
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: _Found = {}
    begun = tick_of(since)
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        if process.identity in found or process.pid in spared or process.ended or process.born < begun:
            continue
        found[process.identity] = process
        waiting += children.get(process.pid, [])
    return found


def _end(find: Callable[[dict[int, Process]], _Found], child: int) -> None:
    """Kills the processes that `find` finds, until it finds no new ones."""
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
