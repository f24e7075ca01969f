"""Where something listens, and who may connect to it."""

from __future__ import annotations

import os
import re
import sys
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from glassq.values.queue_url import QueueUrl

_BIND = re.compile(r"(?P<host>[A-Za-z0-9.\-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})|unix:/.+|fd://[0-9]+")
# sun_path, without the NUL behind it: unix(7), and BSD's unix(4)
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103


class Bind(str):
    """Where intake listens: HOST:PORT, unix:/PATH or fd://N (a socket passed by systemd)."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        match = _BIND.fullmatch(text) if isinstance(text, str) else None
        if not match or int(match["port"] or 0) > 65_535 or not _is_host(match["host"]):
            raise ValueError('expected "HOST:PORT", "unix:/path/of/a.sock" or "fd://N"')
        path = text.removeprefix("unix:")
        if path != text and len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ValueError(f"expected a socket whose path has at most {MAX_SOCKET_PATH} bytes")
        return super().__new__(cls, text)

    @property
    def place(self) -> tuple[str, int] | str | None:
        """Host (an IPv6 address without brackets) and port, the path of a unix socket, or None for fd://N."""
        if self.startswith("fd://"):
            return None
        return self.removeprefix("unix:") if self.startswith("unix:") else _host_and_port(self)


class Address(str):
    """Where metrics are served: HOST:PORT."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        match = _BIND.fullmatch(text) if isinstance(text, str) else None
        if not match or not 0 < int(match["port"] or 0) <= 65_535 or not _is_host(match["host"]):
            raise ValueError('expected "HOST:PORT"')
        return super().__new__(cls, text)

    @property
    def parts(self) -> tuple[str, int]:
        """Host (an IPv6 address without brackets) and port."""
        return _host_and_port(self)


class SyncerAddress(str):
    """Where the syncer listens: unix:/PATH or /PATH, HOST:PORT, "" for the default place, or "none"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(_EXPECTED_SYNCER)
        path = text.removeprefix("unix:")
        if not path.startswith("/") and text not in ("", "none"):
            try:
                Address(text)
            except ValueError:
                raise ValueError(_EXPECTED_SYNCER) from None
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ValueError(f"expected a socket whose path has at most {MAX_SOCKET_PATH} bytes")
        return super().__new__(cls, text)

    def beside(self, queue: QueueUrl) -> tuple[str, int] | str | None:
        """The syncer's place: host and port, or a path. None: there is no syncer.

        The default place is beside beanstalkd's unix socket; beside a TCP address there is none.
        """
        if not queue.has_syncer:
            return None
        if self == "":
            place = queue.address
            return str(Path(place).with_name("syncer.sock")) if isinstance(place, str) else None
        if self == "none":
            return None
        path = self.removeprefix("unix:")
        return path if path.startswith("/") else _host_and_port(self)


_EXPECTED_SYNCER = 'expected "unix:/path/of/a.sock", "HOST:PORT", "none", or "" for syncer.sock beside the queue\'s'


class Network(str):
    """Addresses of clients: "192.0.2.7", "192.0.2.0/24", "2001:db8::/32"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        try:
            ip_network(text)
        except ValueError:
            raise ValueError('expected an address or a network such as "192.0.2.7" or "192.0.2.0/24"') from None
        return super().__new__(cls, text)


class Proxy(str):
    """A proxy before the intake: its address or network, or "unix" for whoever connects to a unix socket."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if text != "unix":
            try:
                Network(text)
            except ValueError:
                raise ValueError('expected "unix", or an address or a network such as "127.0.0.1"') from None
        return super().__new__(cls, text)


def _is_host(host: str | None) -> bool:
    """False if the host is in brackets and not an IPv6 address."""
    if not host or host[0] != "[":
        return True
    try:
        return bool(IPv6Address(host[1:-1]))
    except ValueError:
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
