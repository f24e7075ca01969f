"""A crowd of clients that connect, begin a request at most, and never finish it."""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.intake.wire import body, request

if TYPE_CHECKING:
    from types import TracebackType

PING = request()
_BODY_AT = len(PING) - len(body())
# What a client of the crowd sends at once, of a ping: nothing, some of its head, its head, some of its body.
BEGINNINGS = (b"", PING[:20], PING[: _BODY_AT - 3], PING[:_BODY_AT], PING[: _BODY_AT + 9])
# Every so many-th client goes on with a byte a second.
DRIPPING = 3


def raise_descriptors(wanted: int) -> int:
    """Lets this process, and what it starts, open so many descriptors; how many it may open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > soft:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


class Crowd:
    """`many` clients in one thread.

    `answered` counts by their status line what they were told, `closed` how often they were hung up on, `reset` how
    often without an end. `inside` says whether all have connected once.
    """

    def __init__(self, address: tuple[str, int], many: int) -> None:
        self._address = address
        self._many = many
        self._poller = selectors.DefaultSelector()
        self._sent: dict[socket.socket, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._came = self._began = 0
        self.answered: dict[bytes, int] = {}
        self.closed = self.reset = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self._sent:
            sock.close()
        self._poller.close()

    def inside(self) -> bool:
        return self._began >= self._many

    def _run(self) -> None:
        drip = time.monotonic() + 1
        while not self._stop.is_set():
            for _ in range(min(200, self._many - self._came)):
                self._come()
            for key, events in self._poller.select(0.05):
                self._serve(key.fileobj, events)  # type: ignore[arg-type]
            if time.monotonic() >= drip:
                self._drip()
                drip = time.monotonic() + 1

    def _come(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return
        self._came += 1
        self._sent[sock] = 0
        self._poller.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _serve(self, sock: socket.socket, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._poller.modify(sock, selectors.EVENT_READ)
            self._began += 1
            beginning = BEGINNINGS[self._began % len(BEGINNINGS)]
            self._sent[sock] = len(beginning)
            with suppress(OSError):
                sock.send(beginning)
        if events & selectors.EVENT_READ:
            try:
                said = sock.recv(65_536)
            except OSError:
                self.reset += 1
                said = b""
            if said:
                line = said.partition(b"\r\n")[0]
                self.answered[line] = self.answered.get(line, 0) + 1
                return
            self.closed += 1
            self._poller.unregister(sock)
            del self._sent[sock]
            sock.close()

    def _drip(self) -> None:
        for number, (sock, sent) in enumerate(self._sent.items()):
            if number % DRIPPING == 0 and sent < len(PING) - 1:
                with suppress(OSError):
                    sock.send(PING[sent : sent + 1])
                    self._sent[sock] = sent + 1
