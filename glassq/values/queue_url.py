"""The queue's URL: one row for each engine says how it looks, and what the settings make of it.

To add an engine, add a row to ENGINES, and its package to queues/: what else is asked of an engine is asked there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

from glassq.values.urls import path_of, split_path

if TYPE_CHECKING:
    from collections.abc import Callable

# user, hosts, and a database or a service that names one
_DATABASE = re.compile(
    r"postgres(?:ql)?://[^\s\x00-\x1f\x7f/?]*(?:/[^\s\x00-\x1f\x7f/?]+(?:\?\S*)?|/?\?\S*service=\S+)"
)
_PASSWORD = re.compile(r"((?<=://)[^/?@:]*:)[^/?]*(?=@)|([?&](?:ssl)?password=)[^&]*")


class EngineUrl(NamedTuple):
    """The URLs of an engine: their schemes, and their forms in words. `check` raises ValueError for what is none.

    `package` is the engine's, in queues/. `is_database`: it is a PostgreSQL database, in which all that hosts share may
    live beside the jobs, in tables and locks of ours. `many_hosts`: it is meant for intakes and pools on many hosts.
    """

    package: str
    schemes: tuple[str, ...]
    forms: tuple[str, ...]
    check: Callable[[str], None]
    is_database: bool = False
    many_hosts: bool = False


def _check_beanstalk(text: str) -> None:
    parts = split_path(text, _EXPECTED)
    tcp = parts.hostname and parts.port and parts.path in ("", "/")
    unix = not parts.netloc and len(parts.path) > 1
    if not (tcp or unix):
        raise ValueError(_EXPECTED)


def _check_postgres(text: str) -> None:
    if not _DATABASE.fullmatch(text):
        raise ValueError('expected "postgres://USER@HOST:PORT/DATABASE"')


ENGINES = (
    EngineUrl(
        package="beanstalk",
        schemes=("beanstalk",),
        forms=("beanstalk://HOST:PORT", "beanstalk:///path/of/a.sock"),
        check=_check_beanstalk,
    ),
    EngineUrl(
        package="postgres",
        schemes=("postgres", "postgresql"),
        forms=("postgres://HOST/DATABASE",),
        check=_check_postgres,
        is_database=True,
        many_hosts=True,
    ),
)
_BY_SCHEME = {scheme: row for row in ENGINES for scheme in row.schemes}
_EXPECTED = "expected " + " or ".join(f'"{form}"' for row in ENGINES for form in row.forms)


class QueueUrl(str):
    """Where the queue's server listens: beanstalk://HOST:PORT, beanstalk:///PATH/OF/A/SOCKET, or a PostgreSQL database.

    In a path, write % ? and # as %25 %3F and %23. postgres://USER@HOST[:PORT][,HOST...]/DATABASE[?OPTIONS] is libpq's
    own form (postgresql:// too). The text shows no password; `whole` has it.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """

    __slots__ = ("whole",)

    whole: str

    def __new__(cls, text: str) -> Self:
        row = _BY_SCHEME.get(_scheme(text)) if isinstance(text, str) else None
        if row is None:
            raise ValueError(_EXPECTED)
        row.check(text)
        made = super().__new__(cls, _PASSWORD.sub(r"\1\2***", text))
        made.whole = text
        return made

    @property
    def engine(self) -> str:
        """The name of the engine's package in queues/."""
        return self._row.package

    @property
    def is_database(self) -> bool:
        """Whether it is a PostgreSQL database, in which all that hosts share may live beside the jobs."""
        return self._row.is_database

    @property
    def many_hosts(self) -> bool:
        """Whether it is meant for intakes and pools on many hosts."""
        return self._row.many_hosts

    @property
    def address(self) -> tuple[str, int] | str:
        """beanstalkd's host (an IPv6 address without brackets) and port, or the path of its unix socket."""
        parts = urlsplit(self)
        return (parts.hostname, parts.port) if parts.hostname and parts.port else path_of(parts.path)

    @property
    def _row(self) -> EngineUrl:
        return _BY_SCHEME[_scheme(self)]


def _scheme(text: str) -> str:
    return text.partition(":")[0].lower()
