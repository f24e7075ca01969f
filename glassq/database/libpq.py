"""libpq, PostgreSQL's client: a connection within a time, and what is wrong with the options of a URL.

The import raises SettingsError where psycopg is not installed.
"""

from __future__ import annotations

import math
import os
import stat
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from glassq.errors import SettingsError
from glassq.values import without_password

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.types.numeric import Int8BinaryDumper
except ImportError as error:
    # it is an extra, and whoever imports this module does so because the settings name a database
    raise SettingsError(f"PostgreSQL needs psycopg: pip install 'glassq[postgres]' ({error})") from None

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.abc import PQGenConn

# What else of psycopg is used here is taken from this module, which says what to do where it is missing.
__all__ = ["Int8BinaryDumper", "Opened", "amiss", "below", "default_passfile_ignored", "has_many_hosts"]
__all__ += ["ignored_passfile", "opening", "psycopg", "seconds_for_each", "why_ignored"]

# The options that name a file which must be there. "system" is libpq's word for the system's certificates.
_FILES = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_SYSTEM = "system"
# The options that are whole numbers, which libpq looks at only once it connects.
_NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
# A directory of sockets that is nowhere: libpq looks at all options before it finds that nobody listens there.
_NOWHERE = "/nonexistent/glassq"
# Who else may use a passfile, so that libpq ignores it (its fe-connect.c, passwordFromFile).
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(slots=True)
class _Attempts:
    """A connection that is being opened: how long each host has to answer, in seconds, and why each one failed."""

    patience: float
    failures: list[tuple[str, str]] = field(default_factory=list)

    def words(self) -> str:
        """Each cause once, after the hosts that it is of."""
        causes: dict[str, list[str]] = {}
        for host, cause in self.failures:
            causes.setdefault(cause, []).append(host)
        return "; ".join(f"{', '.join(hosts)}: {cause}" for cause, hosts in causes.items())


_ATTEMPTS: ContextVar[_Attempts | None] = ContextVar("attempts", default=None)


class Opened(psycopg.Connection[Any]):
    """A connection that gives up a host which does not answer in time; psycopg waits for at least two seconds."""

    @classmethod
    def within(cls, seconds: float, conninfo: str) -> Self:
        """Connects to the first host that takes this; each has so many seconds. Raises psycopg.Error."""
        attempts = _Attempts(seconds)
        before = _ATTEMPTS.set(attempts)
        try:
            return cls.connect(conninfo, autocommit=True)
        except psycopg.Error as error:
            if len(attempts.failures) > 1:
                raise type(error)(attempts.words()) from error
            raise
        finally:
            _ATTEMPTS.reset(before)

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        attempts = _ATTEMPTS.get() or _Attempts(math.inf)
        steps = _in_time(super()._connect_gen(conninfo), attempts.patience)
        try:
            opened: Self = yield from steps
        except psycopg.Error as error:
            attempts.failures.append((_host_of(conninfo), _first_line(error).rpartition("failed: ")[2].strip()))
            raise
        return opened


def _in_time(steps: PQGenConn[Any], seconds: float) -> PQGenConn[Any]:
    """The steps of a connection, which fails if they take longer than that."""
    until = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            # nothing, ten times a second
            ready = yield wanted
            if not ready and time.monotonic() >= until:
                steps.close()
                raise psycopg.OperationalError("timeout expired")
            wanted = steps.send(ready)
    except StopIteration as made:
        return made.value


def _host_of(conninfo: str) -> str:
    given = conninfo_to_dict(conninfo)
    return ":".join(str(given[name]) for name in ("host", "port") if given.get(name))


def seconds_for_each(url: str, connect_timeout: float, left: float) -> float:
    """How long each host of the URL may take, in seconds: all of them together have what is `left`.

    What the URL itself says goes before `connect_timeout`. Raises psycopg.Error.
    """
    given = conninfo_to_dict(url)
    if problem := _no_number(given, "connect_timeout"):
        raise psycopg.ProgrammingError(problem)
    # libpq's 0 would be for ever
    return min(int(given.get("connect_timeout") or 0) or connect_timeout, left / len(_hosts(given)))


def opening(url: str, name: str, seconds: float, *, writes: bool = True) -> str:
    """The text with which libpq connects to the first host of the URL that takes writes. Raises psycopg.Error.

    Without `writes`, any host that answers will do.
    """
    given = conninfo_to_dict(url)
    if not writes:
        given["target_session_attrs"] = "any"
    elif len(_hosts(given)) > 1:
        given.setdefault("target_session_attrs", "read-write")
    if passfile := ignored_passfile(given):
        given["passfile"] = below(passfile)
    # libpq counts in whole seconds, from 2 on
    patience = max(2, math.ceil(seconds))
    return make_conninfo("", **{"application_name": name, **given, "connect_timeout": patience})


def has_many_hosts(url: str) -> bool:
    """Whether the URL names several hosts. Raises psycopg.Error."""
    return len(_hosts(conninfo_to_dict(url))) > 1


def ignored_passfile(given: Mapping[str, Any]) -> str:
    """The passfile that libpq would ignore, and warn of on standard error at each connection; "" where there is none.

    `given` are the options of a connection.
    """
    if given.get("password"):
        return ""
    path = given.get("passfile") or _default_passfile()
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return str(path) if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS else ""


def below(passfile: str) -> str:
    """A passfile that is not there, which libpq takes in silence, in place of one that it would ignore."""
    return f"{passfile}/ignored"


def amiss(url: str) -> Iterator[str]:
    """What is wrong with the options of this URL, each a sentence. Connects to nothing."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        yield without_password(_first_line(error))
        return
    if problem := _refused_by_libpq({name: value for name, value in given.items() if name != "port"}):
        yield problem
    # what libpq looks at only when it comes to it
    yield from filter(None, (_no_number(given, name) for name in _NUMBERS))
    for port in str(given.get("port") or "").split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 1 << 16):
            yield f'invalid port number: "{port}"'
    for name in _FILES:
        path = given.get(name)
        if path and path != _SYSTEM and (why := _unreadable(str(path))):
            yield f"{name}={path}: {why}"
    if given.get("passfile") and (path := ignored_passfile(given)):
        yield f"passfile={path}: {why_ignored(path)}"


def default_passfile_ignored(url: str) -> str:
    """The passfile of this user, where the URL names none and libpq would ignore it; "" else."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return ""
    return "" if given.get("passfile") else ignored_passfile(given)


def why_ignored(passfile: str) -> str:
    """Why libpq takes no password from this file, and what to do, in words."""
    found = Path(passfile).stat()
    if not stat.S_ISREG(found.st_mode):
        return "no plain file, so libpq ignores it: name another"
    mode = stat.S_IMODE(found.st_mode)
    return f"others may use it (mode {mode:04o}), so libpq ignores it: chmod 600 {passfile}"


def _hosts(given: Mapping[str, Any]) -> list[str]:
    return str(given.get("host") or given.get("hostaddr") or "").split(",")


def _default_passfile() -> str:
    """What libpq takes where no option names one: PGPASSFILE, or the file in the home directory."""
    found = next((option.val for option in psycopg.pq.Conninfo.get_defaults() if option.keyword == b"passfile"), None)
    return found.decode() if found else str(Path("~/.pgpass").expanduser())


def _refused_by_libpq(given: Mapping[str, Any]) -> str:
    """What libpq says of the values of these options; "" if it takes them."""
    nowhere = ",".join([_NOWHERE] * len(_hosts(given)))
    trial = {name: value for name, value in given.items() if name != "hostaddr"}
    if trial.get("gssencmode") == "require":
        # there is none on a socket
        del trial["gssencmode"]
    # with a password it reads no passfile
    conninfo = make_conninfo("", **{**trial, "host": nowhere, "password": "-"})
    connection = psycopg.pq.PGconn.connect_start(conninfo.encode())
    try:
        said = connection.get_error_message()
    finally:
        connection.finish()
    return "" if _NOWHERE in said else said.strip().partition("\n")[0]


def _no_number(given: Mapping[str, Any], name: str) -> str:
    value = str(given.get(name) or "0")
    return "" if value.strip().isdecimal() else f"{name}={value}: expected a whole number"


def _unreadable(path: str) -> str:
    try:
        with Path(path).open("rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
