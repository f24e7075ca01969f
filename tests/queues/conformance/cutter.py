"""Connections that die at each of their messages in turn, one run a message."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Self, get_args

from tests.ports import free_port
from tests.proxy import Proxy, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.conformance.engine import Engine

# What takes more messages than this goes round in a circle.
ENDLESS = 200
BOTH_WAYS: tuple[Way, ...] = get_args(Way)


class Cutter:
    """A proxy that ends a connection instead of passing on message `step` of one way, counted within the `with` block.

    Cut on the way there, the engine has not heard of the command; cut on the way back, it has done it and nobody knows.
    With `for_good` no later connection gets through either. `fired` says whether there were so many messages.
    """

    def __init__(
        self, engine: Engine, way: Way = "there", step: int = 0, *, for_good: bool = False, port: int = 0
    ) -> None:
        """`port` is that of its own, where it has to be a certain one."""
        self.way = way
        self.step = step
        self.fired = False
        self._for_good = for_good
        self._armed = False
        self._passed = 0
        self._proxy = Proxy(engine.port, self._rewrite, at=port)
        self.port = self._proxy.port

    def arm(self, way: Way, step: int) -> Self:
        """For its next `with` block."""
        self.way, self.step, self.fired, self._passed = way, step, False, 0
        return self

    def start(self) -> None:
        self._proxy.__enter__()

    def stop(self) -> None:
        self._proxy.__exit__()

    def __enter__(self) -> Self:
        self._armed = True
        return self

    def __exit__(self, *_: object) -> None:
        self._armed = False

    def _rewrite(self, way: Way, data: bytes) -> bytes:
        if self._armed and way == self.way:
            if self._passed == self.step or (self.fired and self._for_good):
                self.fired = True
                self._passed += 1
                # the proxy ends a connection, by RST, when one of its sides fails
                raise ConnectionAbortedError
            self._passed += 1
        return data


def cut_at_each_message(engine: Engine, *, for_good: bool = False) -> Iterator[Cutter]:
    """A cutter for each message of either way, until one run needs no more of them."""
    # one for all: there are clients that take a while to make for another one
    port = free_port()
    for way in BOTH_WAYS:
        for step in count():
            assert step < ENDLESS
            cutter = Cutter(engine, way, step, for_good=for_good, port=port)
            cutter.start()
            try:
                yield cutter
            finally:
                cutter.stop()
            if not cutter.fired:
                break
