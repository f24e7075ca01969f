"""The event loop (asyncio) of this process, in a thread of its own: handlers that are coroutines run in it.

A thread of its own, so that the main thread stays free for signals while a handler blocks the loop, and so that the
clients of handlers, whose connections live in the loop, live on between two attempts. The first coroutine starts it.

`complete` runs a coroutine from another thread. Whatever interrupts the waiting thread cancels the coroutine. Tasks
that it has started and not awaited are cancelled at its end; those of a resource (`detached`, `Shared`) are not.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from glassq import descriptors
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from types import FrameType

log = logger("glassq.worker")

T = TypeVar("T")
# A context within which its argument is called, from another thread, when the attempt must end; it raises the Interrupt
# at its exit then.
Stoppable = Callable[[Callable[[], None]], AbstractContextManager[object]]
# A loop that has not turned for this long is blocked, in seconds.
BLOCKED = 1.0
# How many frames of the stack that blocks it are named, the innermost last.
_FRAMES = 4
# How many tasks that were left are named.
_NAMED = 3


class EventLoop:
    """The loop of one process. Nothing runs before the first `complete`, so it may be made before a fork."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._started: _LoopThread | None = None

    def complete(self, coroutine: Coroutine[Any, Any, T], stoppable: Stoppable) -> T:
        """Runs it to its end; returns its result, or raises what it raised. For any thread but the loop's own.

        Where `stoppable`, or a signal, raises an exception while we wait, the coroutine is cancelled, and that
        exception takes the place of its CancelledError.
        """
        with self._starting:
            if self._started is None or self._started.pid != os.getpid():
                self._started = _LoopThread()
                # a test may make many
                weakref.finalize(self, self._started.stop)
        return self._started.complete(coroutine, stoppable)

    def blocked(self, now: float) -> Blocked | None:
        """What keeps the loop from turning for BLOCKED seconds or more, if anything does; call it often."""
        return None if self._started is None else self._started.blocked(now)


class _LoopThread:
    """A loop, its thread, and the coroutines that run in it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._running: set[_Running] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(_task)
        # when the loop was asked to turn (0.0: it has answered), and what has been logged to block it
        self._asked = 0.0
        self._logged = 0.0
        self._stopped = False
        # those of asyncio's own loop; another kind of loop may have others
        for name in ("_selector", "_ssock", "_csock"):
            if (part := getattr(self._loop, name, None)) is not None:
                descriptors.own(part, "the event loop")
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        if self.pid == os.getpid():
            self._loop.call_soon_threadsafe(self._loop.stop)

    def complete(self, coroutine: Coroutine[Any, Any, T], stoppable: Stoppable) -> T:
        """See `EventLoop.complete`."""
        running = _Running(coroutine, self._loop)
        self._running.add(running)
        interrupt: BaseException | None = None
        try:
            try:
                self._loop.call_soon_threadsafe(running.begin)
                with stoppable(running.cancel):
                    running.ended.wait()
            except BaseException as error:
                interrupt = error
                running.cancel()
                # it may swallow its cancellation: then the parent kills this process at the hard deadline
                running.ended.wait()
            return cast("T", running.outcome(interrupt))
        finally:
            self._running.discard(running)

    def blocked(self, now: float) -> Blocked | None:
        """See `EventLoop.blocked`."""
        if not self._running:
            self._asked = 0.0
        elif not self._asked:
            self._asked = now
            self._loop.call_soon_threadsafe(self._turned)
        elif now - self._asked >= BLOCKED:
            return self._blocked(now - self._asked)
        return None

    def _turned(self) -> None:
        self._asked = 0.0

    def _blocked(self, seconds: float) -> Blocked | None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        task = asyncio.current_task(self._loop)
        culprit = next((each for each in list(self._running) if each.owns(task)), None)
        if frame is None or culprit is None:
            return None
        found = Blocked(culprit.name, _stack(frame), seconds)
        if self._logged != self._asked:
            self._logged = self._asked
            known = fields(handler=found.handler, seconds=seconds, stack=found.stack)
            culprit.variables.run(log.warning, "handler blocks the event loop: nothing else runs in it %s", known)
        return found

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopped:
            try:
                self._loop.run_forever()
            except BaseException:
                descriptors.check()
                # a task that raised SystemExit, say: the others go on
                log.exception("a task of a handler ended the event loop: it goes on")
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Blocked:
    """What blocks the loop: a handler's name, where it is (innermost last), and for how many seconds."""

    handler: str
    stack: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.handler} blocks the event loop: {self.stack.rpartition(' > ')[2]}"


class Shared:
    """The result of one coroutine for everybody who awaits this object. Call in the loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], failed: Callable[[], None]) -> None:
        """`failed` is called if it raises."""
        # an empty context: its tasks belong to no attempt
        self._task = asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())
        self._failed = failed
        self._task.add_done_callback(self._done)

    def __await__(self) -> Generator[Any, None, Any]:
        # the cancellation of one attempt must not reach the others
        return asyncio.shield(self._task).__await__()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._failed()


def detached(make: Callable[[], T]) -> T:
    """Calls it; tasks that it starts belong to no attempt, and live on."""

    def call() -> T:
        _current.set(None)
        return make()

    return contextvars.copy_context().run(call)


# the coroutine of a handler that this code runs for
_current: contextvars.ContextVar[_Running | None] = contextvars.ContextVar("current", default=None)


class _Running:
    """A coroutine that `complete` waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.ended = threading.Event()
        self.name = f"{getattr(coroutine, '__module__', None) or _module(coroutine)}:{_name(coroutine)}"
        self.variables = contextvars.copy_context()
        self._pid = os.getpid()
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._started: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._result: Any = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Called in the loop."""
        _current.set(self)
        self._task = self._loop.create_task(self._body())
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancels it, once; from any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is this one, or was started by it."""
        return task is not None and (task is self._task or task in self._started)

    def started(self, task: asyncio.Task[Any]) -> None:
        """It has started this task."""
        self._started.add(task)

    def outcome(self, interrupt: BaseException | None) -> Any:
        """Its result, or its error; `interrupt` in place of the cancellation that it led to."""
        if self._error is None:
            return self._result
        if interrupt is not None and isinstance(self._error, asyncio.CancelledError):
            # where it was when it was cancelled
            raise interrupt.with_traceback(self._error.__traceback__)
        raise self._error

    async def _body(self) -> None:
        # Nothing is raised out of the task: SystemExit would end the loop.
        try:
            self._result = await self._coroutine
        except BaseException as error:
            self._error = error
        if os.getpid() != self._pid:
            # the handler forked this process: it ends with the handler
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(0 if self._error is None else 1)

    def _cancel(self) -> None:
        if self._task is None:
            # the interrupt came before the loop was asked to begin
            self._never_ran()
            self.ended.set()
        elif not self._task.done() and not self._task.cancelling():
            self._task.cancel()

    def _never_ran(self) -> None:
        self._coroutine.close()
        self._error = asyncio.CancelledError()

    def _end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # before its first step
            self._never_ran()
        left = [each for each in self._started if each is not task and not each.done()]
        for each in left:
            each.cancel()
        if left:
            names = ", ".join(_name(each.get_coro()) for each in left[:_NAMED])
            log.warning(
                "cancelled the tasks that a handler left %s", fields(handler=self.name, n=len(left), tasks=names)
            )
        self.ended.set()


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    if (running := _current.get()) is not None:
        running.started(task)
    return task


def _name(coroutine: object) -> str:
    return str(getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__)


def _module(coroutine: object) -> str:
    frame = getattr(coroutine, "cr_frame", None)
    return str(frame.f_globals.get("__name__", "?")) if frame is not None else "?"


def _stack(frame: FrameType) -> str:
    """The innermost frames below those of asyncio, as "FILE:LINE in NAME > ..."."""
    frames = []
    walked: FrameType | None = frame
    while walked is not None and not str(walked.f_globals.get("__name__", "")).startswith("asyncio."):
        frames.append(f"{walked.f_code.co_filename}:{walked.f_lineno} in {walked.f_code.co_name}")
        walked = walked.f_back
    return " > ".join(reversed(frames[:_FRAMES]))
