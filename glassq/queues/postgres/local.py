"""What this machine has of PostgreSQL: the package of its client, and the directory of a server that runs here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from glassq import host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Fact
    from glassq.values import QueueUrl

_PORT = "5432"


class LocalPostgres:
    """See `glassq.queues.engine.LocalEngine`. The server is the distribution's: none of its units is ours."""

    packages = ("psycopg",)
    units: tuple[str, ...] = ()
    other_unit = ""
    # libpq's own message names the one that it tried
    socket: Path | None = None

    def __init__(self, url: QueueUrl) -> None:
        self._url = url

    def directories(self) -> Iterator[tuple[str, Path]]:
        """The data of the server on this machine that listens at our port; its own files say which that is."""
        ports = set(local_ports(self._url))
        for process in Path("/proc").glob("[0-9]*") if ports else ():
            directory = _data_of(process)
            with suppress(OSError, IndexError):
                # the fourth line of postmaster.pid (PostgreSQL's src/include/utils/pidfile.h)
                if directory is not None and (directory / "postmaster.pid").read_text().splitlines()[3] in ports:
                    yield "database", directory

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        yield from ()


def local_ports(url: QueueUrl) -> Iterator[str]:
    """The ports of the URL's hosts that are this machine."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    for each in hosts.split(","):
        name, _, port = each.rpartition(":") if each.rpartition(":")[2].isdigit() else (each, "", "")
        # an empty host, or a directory, is a unix socket
        if not name or name.startswith(("/", "%2F")) or host.is_loopback(name.strip("[]")):
            yield port or _PORT


def _data_of(process: Path) -> Path | None:
    """The directory of a server's first process; None for every other process."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if Path(words[0]).name not in ("postgres", "postmaster") or "-D" not in words[:-1]:
        return None
    return Path(words[words.index("-D") + 1])
