"""The template process: it loads the handlers of one generation, and forks children that share its memory.

The pool's parent starts it and asks it for children, through two pipes (templates.py); it never answers for them. Each
child is forked by a process that ends at once, so that the parent, which adopts orphans (leftovers.py), is its parent
from then on: it watches, kills and reaps all children alike, whoever forked them. A child reports its birth before it
does anything else. Until then it is in the process group of its template, and whoever kills the group kills it too.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import struct
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from setproctitle import setproctitle

from glassq.errors import EX_CONFIG, SettingsError
from glassq.log import fields, logger
from glassq.worker import leftovers
from glassq.worker.fork import fork
from glassq.worker.unshareable import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.worker.slots import Slot
    from glassq.worker.throttle import Throttle

log = logger("glassq.worker")

# What a child runs, given its slot and the limits of the whole pool; returns the exit code.
ChildMain = Callable[["Slot", "Throttle"], int]
# Loads what children run. Calls its argument with the name of each handler once that is loaded. Raises SettingsError.
Load = Callable[[Callable[[str], None]], ChildMain]

# A request: the number of a birth, and the index of the slot for the child. Several are written at once.
REQUEST = struct.Struct("@qq")
# The maximum number of children that one process forks before it ends; they wait for that.
_LITTER = 16
# How often a child looks whether the process that forked it has ended, in seconds.
_ADOPTION_POLL = 0.0005
# A message must fit into PIPE_BUF (4096 bytes), so that it is written in one piece.
MAX_TEXT = 1_000


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The template has loaded the handlers. `found` says what it cannot share; then it forks nothing, and ends."""

    found: tuple[str, ...] = ()


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """The settings or handlers cannot be used; the template ends."""

    why: str


class Born(msgspec.Struct, frozen=True, tag=True):
    """The child of this request lives, and is a child of the pool's parent."""

    number: int
    pid: int


class NotBorn(msgspec.Struct, frozen=True, tag=True):
    """The child of this request could not be forked."""

    number: int
    why: str


Message = Loaded | Unusable | Born | NotBorn


def work_alone(load: Load, slot: Slot, throttle: Throttle) -> int:
    """The main function of a child that loads its handlers itself; returns the exit code."""
    setproctitle(leftovers.title_of(slot.index))
    leftovers.mark()
    try:
        main = load(lambda handler: None)
    except SettingsError as error:
        return refuse(error, slot)
    return main(slot, throttle)


def refuse(error: SettingsError, slot: Slot) -> int:
    """Says why a child cannot work, to the log and to the parent; returns the exit code."""
    log.error("cannot work %s", fields(why=error))
    slot.problem(str(error))
    return EX_CONFIG


class TemplateProcess:
    """Runs in the template, which `fork` has just made."""

    def __init__(self, slots: Sequence[Slot], throttle: Throttle, requests: int, messages: int) -> None:
        """`requests` is the pipe's end that REQUESTs are read from, `messages` the one that Messages are written to."""
        self._slots = slots
        self._throttle = throttle
        self._requests = requests
        self._messages = messages
        self._unseeded: list[random.Random] = []

    def run(self, load: Load) -> int:
        """Loads, and forks what is asked for until the pipe is closed; returns the exit code."""
        with suppress(OSError):
            os.setpgid(0, 0)
        setproctitle("glassq-worker: template")
        if sys.__stderr__ is not None:
            faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
        try:
            main, found = self._load(load)
        except SettingsError as error:
            log.error("cannot work %s", fields(why=error))
            with suppress(OSError):
                self._say(Unusable(str(error)[:MAX_TEXT]))
            return EX_CONFIG
        self._say(Loaded(_bounded(found)))
        while not found and (asked := os.read(self._requests, _LITTER * REQUEST.size)):
            self._fork_all(list(REQUEST.iter_unpack(asked)), main)
        return 0

    def _load(self, load: Load) -> tuple[ChildMain, list[str]]:
        """What children run, and what was found that they cannot share."""
        found: list[str] = []
        inventory = Inventory()

        def look(handler: str) -> None:
            found.extend(f"{handler} starts or opens {what} when it is imported" for what in inventory.added())

        # A collection makes holes in pages that children share, and what they allocate there copies the pages.
        gc.disable()
        with _noting_unseeded() as unseeded:
            main = load(look)
        look("a handler")
        self._unseeded = list(unseeded)
        gc.collect()
        gc.freeze()
        return main, found

    def _fork_all(self, asked: list[tuple[int, int]], main: ChildMain) -> None:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: self._fork_each(asked, main)), 0)[1])
            why = f"the process that forks it ended by {code}" if code else ""
        except OSError as error:
            why = str(error)
        if why:
            # of those that were born the parent has heard before
            for number, _ in asked:
                self._say(NotBorn(number, why))

    def _fork_each(self, asked: list[tuple[int, int]], main: ChildMain) -> int:
        forker = os.getpid()
        for number, index in asked:
            try:
                fork(lambda number=number, index=index: self._begin(forker, number, index, main))  # type: ignore[misc]
            except OSError as error:
                self._say(NotBorn(number, str(error)))
        return 0

    def _begin(self, forker: int, number: int, index: int, main: ChildMain) -> int:
        """The main function of a child."""
        slot = self._slots[index]
        while os.getppid() == forker:
            time.sleep(_ADOPTION_POLL)
        if os.getppid() != slot.parent:
            return 0
        # Before the parent knows us: until then it tells by the title that we are no orphan of another child.
        setproctitle(leftovers.title_of(index))
        self._say(Born(number, os.getpid()))
        os.close(self._messages)
        os.close(self._requests)
        leftovers.mark()
        _seed(self._unseeded)
        gc.enable()
        return main(slot, self._throttle)

    def _say(self, message: Message) -> None:
        os.write(self._messages, msgspec.json.encode(message) + b"\n")


def _bounded(found: list[str]) -> tuple[str, ...]:
    """As much of it as fits into a message."""
    kept: list[str] = []
    for line in found:
        if sum(map(len, kept)) + len(line) > MAX_TEXT:
            return (*kept, f"and {len(found) - len(kept)} more")
        kept.append(line[: MAX_TEXT // 2])
    return tuple(kept)


@contextmanager
def _noting_unseeded() -> Iterator[weakref.WeakSet[random.Random]]:
    """The generators that are made in the block with a seed from the system, not with one that a handler chose."""
    unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
    seed = random.Random.seed

    def noting(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, a, version)
        if a is None:
            unseeded.add(self)
        else:
            unseeded.discard(self)

    random.Random.seed = noting  # type: ignore[method-assign]
    try:
        yield unseeded
    finally:
        random.Random.seed = seed  # type: ignore[method-assign]


def _seed(unseeded: list[random.Random]) -> None:
    """Gives a child generators of its own: forked ones would all draw the same numbers.

    Python itself seeds the functions of `random`, and OpenSSL its own generator.
    """
    for generator in unseeded:
        generator.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
