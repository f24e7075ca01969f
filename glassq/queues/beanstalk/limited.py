"""A socket whose replies must come in time."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from glassq import descriptors

# What is sent with this flag may wait in the kernel for what is sent next, a fifth of a second at most (Linux, TCP). It
# is sent as well when the socket is closed, or its process dies.
MORE = getattr(socket, "MSG_MORE", 0)
# The kernel's limit is only set again if it is wrong by more than this, in seconds.
_SLACK = 0.05


class LimitedSocket(socket.socket):
    """A connected socket with a limit for the whole reply, however slowly its bytes arrive.

    The kernel enforces the limit (SO_RCVTIMEO). With Python's own timeouts, each receive and each send would cost
    another poll and another wait for the interpreter lock.
    """

    def __init__(self, plain: socket.socket) -> None:
        super().__init__(fileno=plain.detach())
        self.setblocking(True)
        descriptors.own(self, "a connection to the queue", shared=False)
        self._seconds = 0.0
        self._deadline = 0.0

    def push(self) -> None:
        """Sends at once what waits for more."""
        if self.family != socket.AF_UNIX:
            # whatever was set before (tcp(7))
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit(self, seconds: float) -> None:
        """The next reply must be there within this time."""
        self._deadline = time.monotonic() + seconds
        if seconds != self._seconds:
            self._tell_kernel(seconds)

    def recv_into(self, *arguments: Any) -> int:
        """Raises TimeoutError after the limit."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._seconds - left > _SLACK:
            self._tell_kernel(left)
        try:
            return super().recv_into(*arguments)
        except BlockingIOError:
            raise TimeoutError from None

    def _tell_kernel(self, seconds: float) -> None:
        # 0 means no limit to the kernel
        microseconds = max(1_000, int(seconds * 1_000_000))
        timeval = struct.pack("@ll", *divmod(microseconds, 1_000_000))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        if not self._seconds:
            # commands are small, so any limit will do for them
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        self._seconds = seconds
