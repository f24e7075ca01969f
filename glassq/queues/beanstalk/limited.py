"""A socket whose replies must come in time."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

# The kernel's limit is set again only if it is off by more than this, in seconds.
_SLACK = 0.05


class LimitedSocket(socket.socket):
    """A connected socket whose replies must come in time, however slowly they drip in.

    The kernel keeps the limit (SO_RCVTIMEO). Python's own timeouts would cost a poll for each receive and each send,
    and one more wait for the GIL.
    """

    def __init__(self, plain: socket.socket) -> None:
        super().__init__(fileno=plain.detach())
        self.setblocking(True)
        self._seconds = 0.0
        self._over = 0.0

    def limit(self, seconds: float) -> None:
        """All replies from now on must arrive within `seconds` from now."""
        self._over = time.monotonic() + seconds
        if seconds != self._seconds:
            self._tell_kernel(seconds)

    def recv_into(self, *arguments: Any) -> int:
        """Raises TimeoutError once the limit has passed."""
        left = self._over - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._seconds - left > _SLACK:
            self._tell_kernel(left)
        try:
            return super().recv_into(*arguments)
        except BlockingIOError:
            raise TimeoutError from None

    def _tell_kernel(self, seconds: float) -> None:
        # the kernel takes 0 for no limit
        microseconds = max(1_000, int(seconds * 1_000_000))
        timeval = struct.pack("@ll", *divmod(microseconds, 1_000_000))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        if not self._seconds:
            # commands are small: the first limit is good enough for all sends
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        self._seconds = seconds
