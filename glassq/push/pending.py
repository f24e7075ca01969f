"""Runs calls in threads, so that the caller can do something else meanwhile."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
# Maximum number of calls at a time per process. Each takes milliseconds and a connection to the queue.
MAX_THREADS = 8


class Pending(Generic[T]):
    """The future result of a call, with the methods of App Engine's UserRPC. In asyncio, `await` works as well.

    The call runs to its end even if nobody asks for its result, or if the coroutine that awaits it is cancelled.
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def wait(self) -> None:
        """Waits until the call has ended, well or not."""
        self._future.exception()

    def check_success(self) -> None:
        """Waits; raises what the call raised."""
        self._future.result()

    def get_result(self) -> T:
        """Waits; returns what the call returned, or raises what it raised."""
        return self._future.result()

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()


class Threads:
    """The threads of one process that run such calls. An instance made before a fork can be used after it."""

    def __init__(self) -> None:
        self._made: tuple[int, ThreadPoolExecutor] | None = None

    def start(self, call: Callable[[], T]) -> Pending[T]:
        """Starts the call in a thread. Python waits for all started calls before the process ends."""
        made = self._made
        if made is None or made[0] != os.getpid():
            # if two threads get here at once, one of their executors runs a single call and is dropped
            made = self._made = os.getpid(), ThreadPoolExecutor(MAX_THREADS, "glassq-push")
        return Pending(made[1].submit(call))

    def finish(self) -> None:
        """Waits for all calls that this process has started. For processes that end by os._exit."""
        made = self._made
        if made is not None and made[0] == os.getpid():
            made[1].shutdown(wait=True)
