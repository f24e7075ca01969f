"""What a service tells systemd (sd_notify(3)): one datagram per message, to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import socket
from contextlib import suppress


class Notifier:
    """Sends states to systemd; does nothing when there is no systemd to tell."""

    def __init__(self, notify_socket: str | None) -> None:
        # a leading @ stands for the NUL of an abstract address (unix(7))
        self._address = "\0" + notify_socket[1:] if notify_socket and notify_socket[0] == "@" else notify_socket

    def __call__(self, **states: str | int) -> None:
        """`notify(READY=1, STATUS="four children wait")`. A message that cannot be sent is lost, as the API has it."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in states.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(self._address)
            sock.sendall(text.encode())
