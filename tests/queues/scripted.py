"""A server that speaks beanstalkd's protocol up to where a test has it misspeak."""

from __future__ import annotations

import socket
import threading
from typing import Self

_HANDSHAKE = {b"use": b"USING glassq\r\n", b"watch": b"WATCHING 2\r\n", b"ignore": b"WATCHING 1\r\n"}
_STATS = b"""---
id: 0123456789abcdef
version: 1.12
binlog-current-index: 1
binlog-oldest-index: 1
draining: false
current-connections: 1
uptime: 1
cmd-put: 0
binlog-records-written: 0
pid: 1
current-jobs-reserved: 0
current-workers: 0
max-job-size: 65535
total-jobs: 0
"""


class Scripted:
    """Answers one connection after the other; each has one reply for what comes after the handshake.

    A connection ends after its reply. `received` is all that was sent, by connection. One that is `named` answers what
    it is (stats) as part of the handshake.
    """

    def __init__(self, *replies: bytes, named: bool = False) -> None:
        self._replies = replies
        self._handshake = _HANDSHAKE | ({b"stats": b"OK %d\r\n%b\r\n" % (len(_STATS), _STATS)} if named else {})
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
                    known = self._handshake.get(line.split()[0])
                    client.sendall(known or reply)
                    if known is None:
                        break
