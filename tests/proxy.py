"""A TCP proxy that does to a connection what networks and dying servers do to it, when a test says so."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from tests import syncers

if TYPE_CHECKING:
    from collections.abc import Callable

    Rewrite = Callable[["Way", bytes], bytes]

# There: from the client to the server. Back: the replies.
Way = Literal["there", "back"]
BOTH: frozenset[Way] = frozenset({"there", "back"})
# Closing with this gives RST instead of FIN.
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to the bytes that go `ways`.

    `freeze`: they are kept until the fault is another one. `cut`: after so many more bytes the connection ends, by
    RST or, with `softly`, by FIN. `drip`: they go one by one, with so many seconds after each. `delay`: whatever
    comes is passed on so many seconds later.
    """

    freeze: bool = False
    cut: int | None = None
    softly: bool = False
    drip: float | None = None
    delay: float = 0.0
    ways: frozenset[Way] = BOTH


PASS = Fault()
FREEZE = Fault(freeze=True)
BACK: frozenset[Way] = frozenset({"back"})
THERE: frozenset[Way] = frozenset({"there"})


class Link:
    """One connection through the proxy, with the fault it has now; `start` lets its bytes go.

    `passed` counts the bytes that came through, `over` has the ways whose sender has closed his end.
    """

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault, rewrite: Rewrite) -> None:
        self._rewrite = rewrite
        self._ends: dict[Way, tuple[socket.socket, socket.socket]] = {
            "there": (client, server),
            "back": (server, client),
        }
        self._changed = threading.Condition()
        self._fault = fault
        self._left = fault.cut
        self._open = 2
        self.dead = False
        self.passed = {"there": 0, "back": 0}
        self.over: set[Way] = set()
        self._pumps = [threading.Thread(target=self._pump, args=(way,), daemon=True) for way in self._ends]

    def start(self) -> None:
        for pump in self._pumps:
            pump.start()

    def set(self, fault: Fault) -> None:
        with self._changed:
            self._fault, self._left = fault, fault.cut
            self._changed.notify_all()

    def end(self, *, softly: bool = False) -> bool:
        """Both sides see the connection end now: by RST, or by FIN. False where it had ended before."""
        with self._changed:
            if self.dead:
                return False
            self.dead = True
            self._changed.notify_all()
            for sock, _ in self._ends.values():
                with suppress(OSError):
                    if not softly:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                    # wakes a pump that receives; RST goes out at its close
                    sock.shutdown(socket.SHUT_RDWR if softly else socket.SHUT_RD)
        return True

    def join(self) -> None:
        for pump in self._pumps:
            pump.join(20)

    def _pump(self, way: Way) -> None:
        source, target = self._ends[way]
        try:
            while not self.dead and (data := source.recv(65_536)):
                self._pass(way, self._rewrite(way, data), target)
            if not self.dead:
                self.over.add(way)
                self._wait(lambda: not self._holds(way))
                target.shutdown(socket.SHUT_WR)
        except OSError:
            # one side was reset: so is the other
            self.end()
        with self._changed:
            self._open -= 1
            if not self._open:
                self.dead = True
                source.close()
                target.close()

    def _pass(self, way: Way, data: bytes, target: socket.socket) -> None:
        while data and not self.dead:
            with self._changed:
                fault = self._fault if way in self._fault.ways else PASS
                left = self._left if way in self._fault.ways else None
            if fault.freeze:
                self._wait(lambda: not self._holds(way))
                continue
            if fault.delay:
                self._pause(fault, fault.delay)
            part = data[:1] if fault.drip is not None else data
            part = part if left is None else part[:left]
            target.sendall(part)
            self.passed[way] += len(part)
            data = data[len(part) :]
            if left is not None:
                self._cut(left - len(part), fault)
            if fault.drip:
                self._pause(fault, fault.drip)

    def _pause(self, fault: Fault, seconds: float) -> None:
        self._wait(lambda: self._fault is not fault, seconds)

    def _cut(self, left: int, fault: Fault) -> None:
        with self._changed:
            self._left = left
        if not left:
            self.end(softly=fault.softly)

    def _holds(self, way: Way) -> bool:
        return self._fault.freeze and way in self._fault.ways

    def _wait(self, over: Callable[[], bool], seconds: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.dead or over(), seconds)


class Proxy:
    """Listens on a port of its own and passes everything to `server`, with the faults it is told.

    `links` are all connections so far, in their order; `times` says when each came (monotonic).
    """

    def __init__(self, port: int, rewrite: Rewrite = lambda _, data: data, *, at: int = 0) -> None:
        """`port` is the server's, on 127.0.0.1. `rewrite` makes of what came one way what goes on.

        `at` is the port of its own, where that has to be a certain one.
        """
        self._rewrite = rewrite
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", at))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"beanstalk://127.0.0.1:{self.port}"
        syncers.share(self.url, of=f"beanstalk://127.0.0.1:{port}")
        self.links: list[Link] = []
        self.times: list[float] = []
        self._fault = PASS
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # wakes accept; closing alone does not
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()
        self.reset()
        for link in self.links:
            link.join()

    def set(self, fault: Fault) -> None:
        """From now on every connection has this fault, those to come too. PASS heals them."""
        with self._lock:
            self._fault = fault
            for link in self.links:
                link.set(fault)

    def reset(self) -> int:
        """Every connection ends by RST; those to come are not touched. Returns how many there were."""
        with self._lock:
            return sum(link.end() for link in self.links)

    def living(self) -> list[Link]:
        return [link for link in self.links if not link.dead]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.times.append(time.monotonic())
            try:
                server = socket.create_connection(self._server, 5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                client.close()
                continue
            server.settimeout(None)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.links.append(Link(client, server, self._fault, self._rewrite))
            # whoever gets an answer finds the link that brought it in `links`
            self.links[-1].start()
