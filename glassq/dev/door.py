"""An address of ours, seen from this machine: whether it is free, whether it answers, how curl reaches it."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from http.client import HTTPException
from typing import TYPE_CHECKING

from glassq.errors import StackError
from glassq.local_http import get, reachable

if TYPE_CHECKING:
    from glassq.values import Bind

# Timeout for one request, in seconds.
TIMEOUT = 5.0


class Door:
    """The address that [intake] bind or [tasks] bind names; `key` says which."""

    def __init__(self, bind: Bind, key: str = "[intake] bind") -> None:
        """Raises StackError for port 0, which nobody could find, and for a descriptor that is not a socket."""
        self.bind = bind
        self._key = key
        #: descriptors that the server must inherit
        self.descriptors: tuple[int, ...] = ()
        place = bind.place
        if place is None:
            self.descriptors = (int(bind.removeprefix("fd://")),)
            place = _address_of(self.descriptors[0], key)
        elif isinstance(place, tuple) and not place[1]:
            raise StackError(f'{key} = "{bind}": expected a port, as others must find it')
        self._address = place

    def check_free(self) -> None:
        """Raises StackError if the server could not listen: clearer than gunicorn's retries."""
        # with it comes gunicorn, which takes its time
        from glassq.http.listen import try_bind

        try:
            try_bind(self.bind)
        except OSError as error:
            todo = f"; is another glassq dev running? If not, choose another {self._key}"
            todo = todo if error.errno == errno.EADDRINUSE else ""
            raise StackError(f"cannot listen on {self.bind}: {error.strerror}{todo}") from None

    def is_ready(self) -> bool:
        """Whether the server answers at this address that it would keep a ping, or a task, now."""
        try:
            return get(self._address, "/readyz", timeout=TIMEOUT)[0] == 200
        except (OSError, HTTPException):
            return False

    @property
    def by_socket(self) -> str:
        """What a person must know beside `url`: " by the socket PATH"; "" where the URL is enough."""
        return f" by the socket {shlex.quote(self._address)}" if isinstance(self._address, str) else ""

    @property
    def url(self) -> str:
        """The URL for requests from this machine; for a unix socket, `curl` has the path."""
        if isinstance(self._address, str):
            return "http://localhost"
        host, port = self._address
        host = reachable(host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def curl(self) -> list[str]:
        """The options that curl needs to reach `url`."""
        if isinstance(self._address, str):
            return ["--unix-socket", self._address]
        # curl would read brackets as a range of URLs
        return ["--globoff"] if "[" in self.url else []


def _address_of(descriptor: int, key: str) -> tuple[str, int] | str:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            name = sock.getsockname()
    except OSError as error:
        raise StackError(
            f'{key} = "fd://{descriptor}": {error.strerror}; expected a socket that glassq dev inherited'
        ) from None
    return name if isinstance(name, str) else name[:2]
