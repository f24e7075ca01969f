"""Receives large bodies, straight to disk, in a thread beside the loop.

A disk may keep a write waiting, so the loop never writes. This thread has the sockets of the large bodies alone, and
one buffer for all of them: a body that is slow costs a socket and what it has written, whatever its size. Nobody waits
for a sender: one that is silent, or slower than MIN_RATE, is cut off.
"""

from __future__ import annotations

import math
import selectors
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from glassq.errors import GlassqError
from glassq.http.loop_calls import LoopCalls
from glassq.http.priority import SmallFirst, give_way
from glassq.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.http.connection import Connection, LargeBody

log = logger("glassq.http")

# One read of a socket, in bytes.
CHUNK = 256 << 10
# A body that comes more slowly than this is cut off, in bytes a second: 25 MiB then take half an hour.
MIN_RATE = 16 << 10
# How often the slow ones are looked for, in seconds.
_LOOK = 0.5
# Where there is no room for a new body, the slowest below this rate is cut off, in bytes a second. Real senders are far
# above it; whoever holds the room with many bodies that never end would have to send as much as they do.
SLOW_RATE = 256 << 10
# A body that has come for shorter than this is not slow yet, in seconds.
GRACE = 2.0

CROWDED = "too many large bodies at once"
# Why a body was not received, as metrics count it: no room for it, or nothing stores it; a bug of ours; its sender.
NOT_RECEIVED = (*("crowded", "not kept", "bug"), *("slow", "cut off"))


class Ended(NamedTuple):
    """How a body has ended: with `status` 0 it is here, `body`. Else it is answered so, because of `why`.

    `reason` is one of NOT_RECEIVED then.
    """

    body: LargeBody | None
    status: int = 0
    why: str = ""
    reason: str = ""


class _Incoming:
    """A body on its way; `left` bytes are missing."""

    __slots__ = ("body", "conn", "first", "heard", "left", "received", "since")

    def __init__(self, conn: Connection, size: int, first: bytes) -> None:
        self.conn = conn
        self.left = size
        #: what had come with the head
        self.first = first
        self.body: LargeBody | None = None
        self.received = 0
        self.since = self.heard = time.monotonic()

    def is_late(self, now: float, patience: float) -> bool:
        return now - self.heard > patience or now - self.since > patience + self.received / MIN_RATE

    def rate(self, now: float) -> float:
        """Bytes a second; one that has just begun is not slow yet."""
        return self.received / (now - self.since) if now - self.since > GRACE else math.inf


class SpillThread:
    """A thread that receives large bodies, each for the connection that it came on."""

    def __init__(
        self,
        begin: Callable[[int], LargeBody],
        ended: Callable[[Connection, Ended], None],
        *,
        patience: float,
        small_first: SmallFirst,
    ) -> None:
        """`begin` makes a body of so many bytes, or raises GlassqError. `ended` is called in the thread.

        A sender may be silent for `patience` seconds, and has as long to begin.
        """
        self._begin = begin
        self._ended = ended
        self._patience = patience
        self._small_first = small_first
        self._incoming: dict[Connection, _Incoming] = {}
        self._room = memoryview(bytearray(CHUNK))
        self._thread = threading.Thread(target=self._run, name="bodies", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Starts the thread. Call it after the fork."""
        self._poller = selectors.DefaultSelector()
        self._calls = LoopCalls()
        self._poller.register(self._calls.fileno(), selectors.EVENT_READ, self._calls.run)
        self._thread.start()

    def stop(self, wait: float) -> None:
        """Ends all that is still on its way, and the thread; waits for that, up to this number of seconds."""
        if self._thread.is_alive():
            self._calls.defer(self._stop)
            self._thread.join(wait)

    def receive(self, conn: Connection, size: int, first: bytes, *, fits: bool = True) -> None:
        """Receives a body of `size` bytes, which begins with `first`. Nobody else touches the connection meanwhile.

        One that does not fit takes the place of a slow one; where none is slow, it is refused.
        """
        each = _Incoming(conn, size, first)
        self._calls.defer(self._add if fits else self._add_instead, each)

    def end_slowest(self) -> None:
        """Ends the one that comes most slowly, or has been on its way for longest where none is slow; to make room."""
        self._calls.defer(self._end_slowest)

    def _run(self) -> None:
        give_way()
        looked = time.monotonic()
        while not self._stopping:
            for key, _ in self._poller.select(_LOOK):
                with self._small_first.step():
                    key.data(key.fileobj)
            if (now := time.monotonic()) - looked >= _LOOK:
                looked = now
                self._end_late(now)
        for each in list(self._incoming.values()):
            self._end(each, 503, "glassq-web stops", "not kept")
        self._poller.close()

    def _stop(self) -> None:
        self._stopping = True

    def _add(self, each: _Incoming) -> None:
        self._incoming[each.conn] = each
        self._poller.register(each.conn.sock, selectors.EVENT_READ, partial(self._on_bytes, each))

        def begin() -> None:
            each.body = self._begin(each.left)

        if self._stores(each, begin):
            first, each.first = each.first, b""
            self._take(each, memoryview(first))

    def _add_instead(self, each: _Incoming) -> None:
        if (slowest := self._slowest()) is None or slowest.rate(time.monotonic()) > SLOW_RATE:
            self._ended(each.conn, Ended(None, 503, CROWDED, "crowded"))
            return
        self._end(slowest, 503, CROWDED, "crowded")
        self._add(each)

    def _on_bytes(self, each: _Incoming, sock: Any) -> None:
        if each.conn not in self._incoming:
            # it was ended in the same round
            return
        try:
            count = sock.recv_into(self._room[: min(each.left, CHUNK)])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self._take(each, self._room[:count])
        else:
            self._end(each, 400, "no request arrived", "cut off")

    def _take(self, each: _Incoming, data: memoryview) -> None:
        assert each.body is not None
        body = each.body
        if not self._stores(each, lambda: body.write(data)):
            return
        each.left -= len(data)
        each.received += len(data)
        each.heard = time.monotonic()
        if not each.left:
            self._forget(each)
            self._ended(each.conn, Ended(each.body))

    def _stores(self, each: _Incoming, step: Callable[[], object]) -> bool:
        """Whether the step was done; else the body has ended, and the others go on, whatever it raised."""
        try:
            step()
        except GlassqError as error:
            self._end(each, 503, str(error), "not kept")
        except Exception:
            log.exception("bug in storing a large body")
            self._end(each, 503, "a bug", "bug")
        else:
            return True
        return False

    def _end_late(self, now: float) -> None:
        for each in [each for each in self._incoming.values() if each.is_late(now, self._patience)]:
            self._end(each, 408, "its body came too slowly", "slow")

    def _end_slowest(self) -> None:
        if (slowest := self._slowest()) is not None:
            self._end(slowest, 503, CROWDED, "crowded")

    def _slowest(self) -> _Incoming | None:
        now = time.monotonic()
        return min(self._incoming.values(), key=lambda each: each.rate(now), default=None)

    def _end(self, each: _Incoming, status: int, why: str, reason: str) -> None:
        self._forget(each)
        if each.body is not None:
            each.body.close()
        self._ended(each.conn, Ended(None, status, why, reason))

    def _forget(self, each: _Incoming) -> None:
        del self._incoming[each.conn]
        with suppress(KeyError, ValueError):
            self._poller.unregister(each.conn.sock)
