"""The sender: a few threads that send pings as Mirror does, and repeat each one until it is acknowledged."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

# How long Mirror waits for an answer, in seconds.
ANSWER_TIMEOUT = 10.0
# The pause between two tries of one ping, in seconds: from the first to the second.
RETRY, RETRY_CAP = 0.1, 1.0
# After the end of the load, a ping that is not acknowledged is repeated for this long, in seconds.
FINISH = 30.0
# A sender that is later than this, in seconds, does not catch up.
MAX_LATE = 1.0


@dataclass(frozen=True, slots=True)
class Try:
    """One sending of a ping, `sent` on time.monotonic(). It took `seconds`. `answer` is a status or an error's name."""

    ping: str
    sent: float
    seconds: float
    answer: int | str

    @property
    def acknowledged(self) -> bool:
        return self.answer == 200


class Load:
    """`rate` pings per second from `clients` threads together, while the context lasts. `log` gets all tries."""

    def __init__(self, port: int, token: str, log: Path, *, name: str, clients: int, rate: float) -> None:
        """The ids of all pings begin with `name`, which must differ between the loads of one run."""
        self.tries: list[Try] = []
        self.clients = clients
        #: on time.monotonic()
        self.began = self.ended = 0.0
        self._port = port
        self._token = token
        self._log = log
        self._names = (f"{name}-{number}" for number in itertools.count(1))
        self._every = clients / rate
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, args=(number / rate,), name=f"client {number}", daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Pings that are not acknowledged yet are still repeated for up to FINISH seconds."""
        self._stopped.set()
        self.ended = time.monotonic()
        for thread in self._threads:
            thread.join(2 * FINISH)

    @property
    def attempted(self) -> set[str]:
        return {made.ping for made in self.tries}

    @property
    def acknowledged(self) -> list[Try]:
        return [made for made in self.tries if made.acknowledged]

    def _send_all(self, offset: float) -> None:
        sender = _Sender(self._port)
        due = self.began + offset
        try:
            while not self._stopped.wait(max(0.0, due - time.monotonic())):
                with self._lock:
                    ping = next(self._names)
                self._send(sender, ping)
                due = max(due + self._every, time.monotonic() - MAX_LATE)
        finally:
            sender.close()

    def _send(self, sender: _Sender, ping: str) -> None:
        pause = RETRY
        while not self._note(self._try(sender, ping)).acknowledged:
            if self._stopped.is_set() and time.monotonic() > self.ended + FINISH:
                return
            time.sleep(pause)
            pause = min(RETRY_CAP, pause * 2)

    def _try(self, sender: _Sender, ping: str) -> Try:
        body = {
            "collection": "timeline",
            "itemId": ping,
            "operation": "INSERT",
            "userToken": "115813563728193847561",
            "verifyToken": self._token,
            "userActions": [{"type": "SHARE"}],
        }
        sent = time.monotonic()
        answer = sender.post(json.dumps(body).encode())
        return Try(ping, sent, time.monotonic() - sent, answer)

    def _note(self, made: Try) -> Try:
        with self._lock, self._log.open("a") as log:
            log.write(f"{made.sent:.6f} {made.ping} {made.answer} {made.seconds:.6f}\n")
            self.tries.append(made)
        return made


class _Sender:
    """One keep-alive connection, which is replaced after each failure."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT)

    def post(self, body: bytes) -> int | str:
        try:
            self._connection.request("POST", "/hooks/mirror", body, {"Content-Type": "application/json"})
            with self._connection.getresponse() as response:
                response.read()
                return response.status
        except (OSError, HTTPException) as error:
            self._connection.close()
            return type(error).__name__

    def close(self) -> None:
        self._connection.close()
