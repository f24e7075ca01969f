"""What a service has to do with systemd: it sends its states (sd_notify(3)), and gets its secrets as credentials.

A state is one datagram to the socket in NOTIFY_SOCKET. A credential (systemd.exec(5)) is a file in
CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import socket
from contextlib import suppress


class Notifier:
    """Sends states to systemd; does nothing without a NOTIFY_SOCKET."""

    def __init__(self, notify_socket: str | None) -> None:
        # a leading @ means the NUL of an abstract address (unix(7))
        self._address = "\0" + notify_socket[1:] if notify_socket and notify_socket[0] == "@" else notify_socket

    def __call__(self, **states: str | int) -> None:
        """Sends states: `notify(READY=1, STATUS="four children wait")`. A failed send is ignored, as the API asks."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in states.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(self._address)
            sock.sendall(text.encode())


# Where units pass their credentials on.
SECRETS = "/etc/glassq/secrets/"
# What a unit passes on in place of a secret's file that is missing (SetCredential=).
MISSING = "# missing"


def credential_name(path: str) -> str:
    """The name that systemd/glassq-generator gives the credential that is a copy of this file.

    It is made of the path: files of one name in two directories differ, and a changed setting finds no old secret.
    """
    return path.removeprefix(SECRETS).replace("+", "++").replace("/", "+")
