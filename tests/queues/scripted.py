"""A server that speaks beanstalkd's protocol up to where a test has it misspeak."""

from __future__ import annotations

import socket
import threading
from typing import Self

_HANDSHAKE = {b"use": b"USING glassq\r\n", b"watch": b"WATCHING 2\r\n", b"ignore": b"WATCHING 1\r\n"}


class Scripted:
    """Answers one connection after the other; each has one reply for what comes after the handshake.

    A connection ends after its reply. `received` is all that was sent, by connection.
    """

    def __init__(self, *replies: bytes) -> None:
        self._replies = replies
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"beanstalk://127.0.0.1:{self._server.getsockname()[1]}"
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # wakes accept; closing alone does not
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._server.close()

    def _serve(self) -> None:
        for reply in self._replies:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.received.append(b"")
            with client, client.makefile("rb") as lines:
                client.settimeout(60)
                for line in lines:
                    self.received[-1] += line
                    known = _HANDSHAKE.get(line.split()[0])
                    client.sendall(known or reply)
                    if known is None:
                        break
