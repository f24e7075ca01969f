"""The queue's URL: one row for each engine says how it looks, and what the settings make of it.

To add an engine, add a row to ENGINES, and its package to queues/: what else is asked of an engine is asked there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from glassq.values.urls import path_of, split_path

if TYPE_CHECKING:
    from collections.abc import Callable

# user, hosts, and a database or a service that names one
_DATABASE = re.compile(
    r"postgres(?:ql)?://[^\s\x00-\x1f\x7f/?]*(?:/[^\s\x00-\x1f\x7f/?]+(?:\?\S*)?|/?\?\S*service=\S+)"
)
_REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-\d{1,2}")
# no hyphen: what follows the first one is the tube's
_SQS_PREFIX = re.compile(r"/[A-Za-z0-9_]{1,30}/?")
_SQS_OPTIONS = {"endpoint": re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+/?"), "poll": re.compile(r"[1-9]|1\d|20")}
# no colon, slash or bar, as the service wants it
_SWF_DOMAIN = re.compile(r"/(?!arn/?$)[A-Za-z0-9_.-]{1,256}/?")
_SWF_OPTIONS = {"endpoint": _SQS_OPTIONS["endpoint"], "poll": re.compile(r"[1-9]|[1-5]\d|60")}
_NOTHING = re.compile(r"(?!)")
_NO_KEY = "no key belongs into {}://: boto3 finds credentials by itself (environment, ~/.aws, the instance's role)"
_PASSWORD = re.compile(r"((?<=://)[^/?@:]*:)[^/?]*(?=@)|([?&](?:ssl)?password=)[^&]*")


class EngineUrl(NamedTuple):
    """The URLs of an engine: their schemes, and their forms in words. `check` raises ValueError for what is none.

    `package` is the engine's, in queues/. `is_database`: it is a PostgreSQL database, in which all that hosts share may
    live beside the jobs, in tables and locks of ours. `many_hosts`: it is meant for intakes and pools on many hosts.
    `largest` is how large we make a job at most, and `inline` a body in it, in bytes: what is larger goes to the store.
    `firm`: the engine itself takes no larger job. `has_syncer`: [queue] syncer says where its proofs come from.
    """

    package: str
    schemes: tuple[str, ...]
    forms: tuple[str, ...]
    check: Callable[[str], None]
    is_database: bool = False
    many_hosts: bool = False
    # beanstalkd's default limit (-z); 24 KiB are for the story of a delivery's attempts
    largest: int = 65_535
    inline: int = 32 << 10
    firm: bool = False
    has_syncer: bool = False


def _check_beanstalk(text: str) -> None:
    parts = split_path(text, _EXPECTED)
    tcp = parts.hostname and parts.port and parts.path in ("", "/")
    unix = not parts.netloc and len(parts.path) > 1
    if not (tcp or unix):
        raise ValueError(_EXPECTED)


def _check_postgres(text: str) -> None:
    if not _DATABASE.fullmatch(text):
        raise ValueError('expected "postgres://USER@HOST:PORT/DATABASE"')


def _check_sqs(text: str) -> None:
    expected = 'expected "sqs://REGION/PREFIX"'
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError(_NO_KEY.format("sqs"))
    if not _REGION.fullmatch(parts.netloc) or not _SQS_PREFIX.fullmatch(parts.path):
        raise ValueError(f"{expected}: a region such as eu-west-1, and 1 to 30 of A-Z a-z 0-9 _ for the queues' names")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if not (_SQS_OPTIONS.get(name) or _NOTHING).fullmatch(value):
            raise ValueError(f"{expected}; of options endpoint=http://HOST:PORT and poll=SECONDS (1 to 20)")


def _check_swf(text: str) -> None:
    expected = 'expected "swf://REGION/DOMAIN"'
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError(_NO_KEY.format("swf"))
    if not _REGION.fullmatch(parts.netloc) or not _SWF_DOMAIN.fullmatch(parts.path):
        raise ValueError(f"{expected}: a region such as eu-west-1, and a domain's name of A-Z a-z 0-9 _ . -")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if not (_SWF_OPTIONS.get(name) or _NOTHING).fullmatch(value):
            raise ValueError(f"{expected}; of options endpoint=http://HOST:PORT and poll=SECONDS (1 to 60)")


ENGINES = (
    EngineUrl(
        package="beanstalk",
        schemes=("beanstalk",),
        forms=("beanstalk://HOST:PORT", "beanstalk:///path/of/a.sock"),
        check=_check_beanstalk,
        has_syncer=True,
    ),
    EngineUrl(
        package="postgres",
        schemes=("postgres", "postgresql"),
        forms=("postgres://HOST/DATABASE",),
        check=_check_postgres,
        is_database=True,
        many_hosts=True,
    ),
    EngineUrl(
        package="sqs",
        schemes=("sqs",),
        forms=("sqs://REGION/PREFIX",),
        check=_check_sqs,
        many_hosts=True,
    ),
    EngineUrl(
        package="swf",
        schemes=("swf",),
        forms=("swf://REGION/DOMAIN",),
        check=_check_swf,
        many_hosts=True,
        # 32,768 characters of base64, and what SWF must know of it
        largest=24_000,
        inline=8 << 10,
        firm=True,
    ),
)
_BY_SCHEME = {scheme: row for row in ENGINES for scheme in row.schemes}
_EXPECTED = "expected " + " or ".join(f'"{form}"' for row in ENGINES for form in row.forms)


class QueueUrl(str):
    """Where the queue's server listens: beanstalk://HOST:PORT, beanstalk:///PATH/OF/A/SOCKET, a PostgreSQL database,
    sqs://REGION/PREFIX[?endpoint=URL&poll=SECONDS], queues at Amazon whose names begin so, or swf://REGION/DOMAIN with
    the same options.

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
    def has_syncer(self) -> bool:
        """Whether its proofs come from a syncer, beside its server."""
        return self._row.has_syncer

    @property
    def many_hosts(self) -> bool:
        """Whether it is meant for intakes and pools on many hosts."""
        return self._row.many_hosts

    @property
    def largest(self) -> int:
        """How large we make a job at most, in bytes."""
        return self._row.largest

    @property
    def inline(self) -> int:
        """How large a body in a job may be, in bytes."""
        return self._row.inline

    def needs_store(self, size: int) -> bool:
        """Whether a body of so many bytes fits into no job, whoever has put it: a task's may be larger elsewhere."""
        return self._row.firm and size > self._row.inline

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
