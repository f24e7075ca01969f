"""The types of values in settings, each with its text form in glassq.toml.

Each raises ValueError for any other text, and says which form is expected.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from decimal import Decimal
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, unquote, urlsplit

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?)/([smhd])")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TUBE = re.compile(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9\-+/;.$_()]{0,199}")
_BIND = re.compile(r"(?P<host>[A-Za-z0-9.\-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})|unix:/.+|fd://[0-9]+")
# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# What all objects of ours in a bucket may begin with.
_PREFIX = re.compile(r"/?|(?:/[A-Za-z0-9._-]{1,100}){1,4}/?")
# Up to the last @ before the path: a password may hold one. And secrets among a URL's options.
_URL_PASSWORD = re.compile(r"(://[^/:]*):[^/]*@")
_SECRET_IN_QUERY = re.compile(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)
_POSTGRES = ("postgres://", "postgresql://")
# user, hosts, and a database or a service that names one
_DATABASE = re.compile(
    r"postgres(?:ql)?://[^\s\x00-\x1f\x7f/?]*(?:/[^\s\x00-\x1f\x7f/?]+(?:\?\S*)?|/?\?\S*service=\S+)"
)
_PASSWORD = re.compile(r"((?<=://)[^/?@:]*:)[^/?]*(?=@)|([?&](?:ssl)?password=)[^&]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# sun_path, without the NUL behind it: unix(7), and BSD's unix(4)
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_HANDLER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_EXEC = "exec:"
# What a shell would act on, where it stands alone and without quotes.
_SHELL = re.compile(r"\|\|?|&&?|;|[0-9&]?>>?(?:&[0-9]|\S*)?|<\S*")
_EXPECTED_PROGRAM = (
    'expected "exec:/PATH ARGUMENTS", or "exec:./PATH ARGUMENTS" for a program beside glassq.toml; '
    "quotes are those of a shell"
)
_STEP_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_EXPECTED_STEP_NAME = 'expected a name of 1 to 100 characters: { name = "NAME", handler = "HANDLER" }'
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_LABEL_KEY = re.compile(r"label\.[a-z][a-z0-9_]{0,31}")
_URL_PATTERN = re.compile(r"/[^\s\x00-\x1f\x7f?#*]*\*?")


class Duration(float):
    """Seconds. In the file: a number and one unit, such as "500ms", "30s", "2m", "12h" or "9d"."""

    def __new__(cls, text: str | float) -> Self:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError('expected a duration such as "500ms", "30s", "2m", "12h" or "9d"')
        return super().__new__(cls, float(Decimal(match[1]) * _SECONDS[match[2]]))

    def __str__(self) -> str:
        # decimal, because 0.7 s is not a whole number of milliseconds in binary
        seconds = Decimal(repr(float(self)))
        for unit, length in _SECONDS.items():
            if seconds >= length and seconds % length == 0:
                return f"{int(seconds / length)}{unit}"
        return f"{seconds.normalize():f}s"


class Rate(float):
    """Events per second. As text: a number and a unit, such as "10/s", "30/m", "5/h" or "1000/d"; or "0"."""

    #: a pool works some thousands per second; more is a typing mistake
    MAX = 1_000_000
    _UNITS = ("s", "m", "h", "d")

    def __new__(cls, text: str | float) -> Self:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _RATE.fullmatch("0/s" if text == "0" else text) if isinstance(text, str) else None
        rate = float(match[1]) / float(_SECONDS[match[2]]) if match else -1.0
        if not 0 <= rate <= cls.MAX:
            raise ValueError('expected a rate such as "10/s", "30/m" or "5/h"')
        return super().__new__(cls, rate)

    def __str__(self) -> str:
        """The text in the unit that takes the fewest characters: 5/s, 0.5/m, 1000/d."""
        numbers = {unit: float(self) * float(_SECONDS[unit]) for unit in self._UNITS}
        # four decimals of a number that is at least 0.1 lose nothing that anybody would write
        texts = [(f"{round(number, 4):.12g}", unit) for unit, number in numbers.items() if number >= 0.1 or not self]
        number, unit = min(texts or [(f"{numbers['d']:.6g}", "d")], key=lambda text: len(text[0]))
        return f"{number}/{unit}"


class Size(int):
    """Bytes. In the file: a whole number and one unit, such as "512B", "16KiB", "100MiB" or "1GiB"."""

    def __new__(cls, text: str | int) -> Self:
        if isinstance(text, int) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError('expected a size such as "512B", "16KiB", "100MiB" or "1GiB"')
        return super().__new__(cls, int(match[1]) * _BYTES[match[2]])

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}B"


def url_path(path: str | os.PathLike[str]) -> str:
    """The path as part of a URL: every byte except letters, digits and ``/_.-~`` becomes %XX (RFC 3986, 2.1)."""
    return quote(os.fsencode(path))


def path_of(text: str) -> str:
    """The path that a URL holds as `text`. A % without two hexadecimal digits after it stands for itself."""
    return unquote(text, errors="surrogateescape")


class QueueUrl(str):
    """Where the queue's server listens: beanstalk://HOST:PORT, beanstalk:///PATH/OF/A/SOCKET, or a PostgreSQL database.

    In a path, write % ? and # as %25 %3F and %23. postgres://USER@HOST[:PORT][,HOST...]/DATABASE[?OPTIONS] is libpq's
    own form (postgresql:// too). The text shows no password; `whole` has it.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """

    __slots__ = ("whole",)

    whole: str

    def __new__(cls, text: str) -> Self:
        if isinstance(text, str) and text.startswith(_POSTGRES):
            if not _DATABASE.fullmatch(text):
                raise ValueError('expected "postgres://USER@HOST:PORT/DATABASE"')
            made = super().__new__(cls, _PASSWORD.sub(r"\1\2***", text))
        else:
            expected = 'expected "beanstalk://HOST:PORT" or "beanstalk:///path/of/a.sock" or "postgres://HOST/DATABASE"'
            parts = _split_path(text, expected)
            tcp = parts.hostname and parts.port and parts.path in ("", "/")
            unix = not parts.netloc and len(parts.path) > 1
            if parts.scheme != "beanstalk" or not (tcp or unix):
                raise ValueError(expected)
            made = super().__new__(cls, text)
        made.whole = text
        return made

    @property
    def engine(self) -> Literal["beanstalk", "postgres"]:
        """Which engine's server this is."""
        return "postgres" if self.startswith(_POSTGRES) else "beanstalk"

    @property
    def address(self) -> tuple[str, int] | str:
        """beanstalkd's host (an IPv6 address without brackets) and port, or the path of its unix socket."""
        parts = urlsplit(self)
        return (parts.hostname, parts.port) if parts.hostname and parts.port else path_of(parts.path)


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
        if queue.engine != "beanstalk":
            return None
        if self == "":
            place = queue.address
            return str(Path(place).with_name("syncer.sock")) if isinstance(place, str) else None
        if self == "none":
            return None
        path = self.removeprefix("unix:")
        return path if path.startswith("/") else _host_and_port(self)


_EXPECTED_SYNCER = 'expected "unix:/path/of/a.sock", "HOST:PORT", "none", or "" for syncer.sock beside the queue\'s'


class HttpUrl(str):
    """An http or https URL; for requests that carry secrets, https except on loopback."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "https://HOST/PATH" (plain http only to 127.0.0.1, [::1] or localhost)'
        parts = _split(text, expected)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or local) or parts.query or parts.fragment:
            raise ValueError(expected)
        return super().__new__(cls, text)


class StorageUrl(str):
    """Where photos are stored: gs://BUCKET or file:///DIRECTORY.

    In a path, write % ? and # as %25 %3F and %23.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "gs://BUCKET" or "file:///DIRECTORY"'
        parts = _split_path(text, expected)
        bucket = parts.scheme == "gs" and _BUCKET.fullmatch(parts.netloc) and parts.path in ("", "/")
        directory = parts.scheme == "file" and not parts.netloc and len(parts.path) > 1
        if not (bucket or directory):
            raise ValueError(expected)
        return super().__new__(cls, text)

    @property
    def directory(self) -> Path | None:
        """The directory; None for a bucket."""
        parts = urlsplit(self)
        return Path(path_of(parts.path)) if parts.scheme == "file" else None

    @property
    def bucket(self) -> str:
        """The bucket's name; "" for a directory."""
        return urlsplit(self).netloc


class BodiesUrl(str):
    """Where large bodies are stored: file:///DIRECTORY, postgres://..., gs://BUCKET[/PREFIX] or s3://BUCKET[/PREFIX].

    In a path, write % ? and # as %25 %3F and %23. "": where the queue is.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if text == "" or (is_postgres(text) and "\0" not in text):
            return super().__new__(cls, text)
        expected = 'expected "file:///DIRECTORY", "postgres://...", "gs://BUCKET" or "s3://BUCKET"'
        parts = _split_path(text, expected)
        directory = parts.scheme == "file" and not parts.netloc and len(parts.path) > 1
        bucket = parts.scheme in ("gs", "s3") and _BUCKET.fullmatch(parts.netloc) and _PREFIX.fullmatch(parts.path)
        if not (directory or bucket):
            raise ValueError(expected)
        return super().__new__(cls, text)

    @property
    def scheme(self) -> str:
        """ "file", "postgres", "gs" or "s3"."""
        return "postgres" if is_postgres(self) else urlsplit(self).scheme

    @property
    def directory(self) -> Path | None:
        """The directory; None for any other place."""
        parts = urlsplit(self) if self.scheme == "file" else None
        return parts and Path(path_of(parts.path))

    @property
    def bucket(self) -> tuple[str, str]:
        """The bucket's name, and what the names of all objects begin with: "" or PREFIX/."""
        parts = urlsplit(self)
        prefix = parts.path.strip("/")
        return parts.netloc, prefix and f"{prefix}/"


def is_postgres(url: str) -> bool:
    """Whether it is the URL of a PostgreSQL database, as libpq has it."""
    return isinstance(url, str) and url.startswith(_POSTGRES)


def without_password(url: str) -> str:
    """The URL, or a text with URLs, with any password in it masked."""
    return _SECRET_IN_QUERY.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", url))


def _split_path(text: object, expected: str) -> Any:
    """The parts of a URL whose path may be one of this machine. It has no query and no fragment."""
    parts = _split(text, expected)
    if "?" in str(text) or "#" in str(text):
        raise ValueError(f"{expected}; in a path ? is written %3F, and # is %23")
    if "\0" in path_of(parts.path):
        raise ValueError(expected)
    return parts


def _split(text: object, expected: str) -> Any:
    try:
        # urlsplit removes tabs and line breaks silently
        parts = urlsplit(text) if isinstance(text, str) and not _CONTROL.search(text) else None
        if parts is None or parts.username is not None:
            raise ValueError(expected)
        _ = parts.port
    except ValueError:
        raise ValueError(expected) from None
    return parts


class Tube(str):
    """A tube's name, as beanstalkd's protocol has it (section "Definitions")."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _TUBE.fullmatch(text):
            raise ValueError("expected a tube name: 1 to 200 of A-Z a-z 0-9 + / ; . $ _ ( ) and -, not - first")
        return super().__new__(cls, text)


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


class TargetUrl(str):
    """Where requests of tasks go: http://HOST[:PORT][/PATH], or https."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        parts = _split(text, _EXPECTED_TARGET)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or not _is_plain(text):
            raise ValueError(_EXPECTED_TARGET)
        return super().__new__(cls, text)


_EXPECTED_TARGET = 'expected "http://HOST:PORT" or "https://HOST/PATH"'


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


class UrlPattern(str):
    """The path of a task's url, such as "/mail", or "/mail/*" for all paths with that prefix."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _URL_PATTERN.fullmatch(text):
            raise ValueError('expected a path such as "/mail", or "/mail/*" for all that begin so, without a query')
        return super().__new__(cls, text)

    def fits(self, url: str) -> bool:
        """Whether a url's path matches; its query is ignored."""
        path = url.partition("?")[0]
        return path.startswith(self[:-1]) if self.endswith("*") else path == self


class ModuleName(str):
    """A module's full name: "app.tasks"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        # __main__ is a different module in each program
        if not isinstance(text, str) or not _MODULE.fullmatch(text) or text == "__main__":
            raise ValueError('expected the full name of a module, such as "app.tasks"')
        return super().__new__(cls, text)


class LabelKey(str):
    """What the deliveries of a route are told apart by: "label.NAME", such as "label.user"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _LABEL_KEY.fullmatch(text):
            raise ValueError('expected "label.NAME", such as "label.user"')
        return super().__new__(cls, text)

    @property
    def label(self) -> str:
        """The name of the label."""
        return self.partition(".")[2]


class HandlerName(str):
    """A handler: "package.module:function", "exec:" and a program's command line, or the URL of an HTTP endpoint."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "package.module:function", "exec:/path/of/a/program" or "http://HOST:PORT/PATH"'
        if isinstance(text, str) and text.startswith(_EXEC):
            _command(text)
        elif not isinstance(text, str) or not _HANDLER.fullmatch(text):
            parts = _split(text, expected)
            if parts.scheme not in ("http", "https") or not parts.hostname or not _is_plain(text):
                raise ValueError(expected)
        return super().__new__(cls, text)

    @property
    def is_url(self) -> bool:
        """Whether it is an HTTP endpoint."""
        return "://" in self and not self.is_program

    @property
    def is_program(self) -> bool:
        """Whether it is a program."""
        return self.startswith(_EXEC)

    @property
    def module(self) -> str:
        """The module of a function; "" for a program and a URL."""
        return "" if self.is_program or self.is_url else self.partition(":")[0]

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return _command(self)


class Step(HandlerName):
    """One handler of several: a handler's text, or { name = "NAME", handler = "HANDLER" }. Without a name, its text."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, value: object) -> Self:
        given: dict[str, Any] = value if isinstance(value, dict) else {"handler": value}
        if not given.keys() <= {"name", "handler"} or "handler" not in given:
            raise ValueError('expected a handler, or { name = "NAME", handler = "HANDLER" }')
        step = super().__new__(cls, given["handler"])
        step.name = given.get("name", str(step))
        if not isinstance(step.name, str) or not _STEP_NAME.fullmatch(step.name):
            raise ValueError(_EXPECTED_STEP_NAME)
        return step


def _command(text: str) -> list[str]:
    """The words behind "exec:", as shlex splits them: a program by its path, and its arguments."""
    try:
        words = shlex.split(text.removeprefix(_EXEC))
    except ValueError as error:
        raise ValueError(f"{_EXPECTED_PROGRAM}: {error}") from None
    if operator := next(filter(_SHELL.fullmatch, _unquoted(text.removeprefix(_EXEC))), None):
        raise ValueError(
            f"no shell runs a program, so {operator} would be an argument of it: put it in quotes if it shall be one, "
            "else have a shell run the line: exec:/bin/sh -c '...'"
        )
    if not words or "/" not in words[0] or words[0].endswith("/") or _CONTROL.search(text):
        raise ValueError(_EXPECTED_PROGRAM)
    return words


def _unquoted(text: str) -> list[str]:
    """The words of a command line with their quotes; none where they cannot be told apart so."""
    try:
        return shlex.split(text, posix=False)
    except ValueError:
        return []


def _is_plain(url: str) -> bool:
    """Whether the URL has no fragment, and only characters that a request line can hold."""
    return "#" not in url and url.isascii() and url.isprintable() and " " not in url


class SecretFile(str):
    """A file that holds a secret. Its path may be printed, its content never.

    `copy` is where systemd puts this service's copy of it (LoadCredential=), if it does; "" outside of such a service.
    """

    __slots__ = ("copy",)
    copy: str

    def __new__(cls, path: str, copy: str = "") -> Self:
        file = super().__new__(cls, path)
        file.copy = copy
        return file
