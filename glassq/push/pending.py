"""Calls that go on in a thread while their caller does something else."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
# So many calls of one process go on at once; each takes milliseconds and a connection to the queue.
MAX_THREADS = 8


class Pending(Generic[T]):
    """What a call will come to. App Engine's UserRPC has these methods; `await` works in asyncio besides.

    The call goes on whether or not somebody asks for its result, also where the one who awaits it is cancelled.
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def wait(self) -> None:
        """Returns when the call is over, whatever came of it."""
        self._future.exception()

    def check_success(self) -> None:
        """Waits, and raises what the call raised."""
        self._future.result()

    def get_result(self) -> T:
        """Waits, and returns what the call returned. Raises what it raised."""
        return self._future.result()

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()


class Threads:
    """The threads of one process that such calls go on in. They may be made before a fork, and used after it."""

    def __init__(self) -> None:
        self._made: tuple[int, ThreadPoolExecutor] | None = None

    def start(self, call: Callable[[], T]) -> Pending[T]:
        """Has the call begun in a thread. When the process ends, it ends after the calls it has started."""
        made = self._made
        if made is None or made[0] != os.getpid():
            # where two threads come first at once, one executor serves a single call, and ends with it
            made = self._made = os.getpid(), ThreadPoolExecutor(MAX_THREADS, "glassq-push")
        return Pending(made[1].submit(call))

    def finish(self) -> None:
        """Returns when all calls are over that this process has started. For one that ends without Python's own end."""
        made = self._made
        if made is not None and made[0] == os.getpid():
            made[1].shutdown(wait=True)
