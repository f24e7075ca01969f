"""A connection to the syncer, as the syncer sees it."""

from __future__ import annotations

import socket
from contextlib import suppress


class Asker:
    """A connection of a client, and its questions by their numbers: so many asked, so many answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        #: its descriptor while it is open
        self.number = sock.fileno()
        self.buffer = b""
        self.asked = 0
        self.answered = 0

    def answer(self, upto: int, line: bytes) -> int:
        """Answers its questions up to this number; returns how many. An earlier round may have fewer of them left."""
        missing = upto - self.answered
        if missing <= 0:
            return 0
        self.answered = upto
        self.send(line * missing)
        return missing

    def send(self, data: bytes) -> None:
        """Sends without waiting; a client that does not read is cut off."""
        with suppress(OSError):
            if self.sock.send(data) == len(data):
                return
        self.cut_off()

    def cut_off(self) -> None:
        """Ends the connection. The server sees its end, and closes it."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection."""
        self.sock.close()
