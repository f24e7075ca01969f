"""URLs, and parts of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# What all objects of ours in a bucket may begin with.
_PREFIX = re.compile(r"/?|(?:/[A-Za-z0-9._-]{1,100}){1,4}/?")
# Up to the last @ before the path: a password may hold one. And secrets among a URL's options.
_URL_PASSWORD = re.compile(r"(://[^/:]*):[^/]*@")
_SECRET_IN_QUERY = re.compile(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)
_POSTGRES = ("postgres://", "postgresql://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL_PATTERN = re.compile(r"/[^\s\x00-\x1f\x7f?#*]*\*?")


def url_path(path: str | os.PathLike[str]) -> str:
    """The path as part of a URL: every byte except letters, digits and ``/_.-~`` becomes %XX (RFC 3986, 2.1)."""
    return quote(os.fsencode(path))


def path_of(text: str) -> str:
    """The path that a URL holds as `text`. A % without two hexadecimal digits after it stands for itself."""
    return unquote(text, errors="surrogateescape")


class HttpUrl(str):
    """An http or https URL; for requests that carry secrets, https except on loopback."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "https://HOST/PATH" (plain http only to 127.0.0.1, [::1] or localhost)'
        parts = split(text, expected)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or local) or parts.query or parts.fragment:
            raise ValueError(expected)
        return super().__new__(cls, text)


class TargetUrl(str):
    """Where requests of tasks go: http://HOST[:PORT][/PATH], or https."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        parts = split(text, _EXPECTED_TARGET)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or not is_plain(text):
            raise ValueError(_EXPECTED_TARGET)
        return super().__new__(cls, text)


_EXPECTED_TARGET = 'expected "http://HOST:PORT" or "https://HOST/PATH"'


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


class StorageUrl(str):
    """Where photos are stored: gs://BUCKET or file:///DIRECTORY.

    In a path, write % ? and # as %25 %3F and %23.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "gs://BUCKET" or "file:///DIRECTORY"'
        parts = split_path(text, expected)
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
        parts = split_path(text, expected)
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


def split_path(text: object, expected: str) -> Any:
    """The parts of a URL whose path may be one of this machine. It has no query and no fragment."""
    parts = split(text, expected)
    if "?" in str(text) or "#" in str(text):
        raise ValueError(f"{expected}; in a path ? is written %3F, and # is %23")
    if "\0" in path_of(parts.path):
        raise ValueError(expected)
    return parts


def split(text: object, expected: str) -> Any:
    """The parts of a URL, without a user's name. Raises ValueError(expected)."""
    try:
        # urlsplit removes tabs and line breaks silently
        parts = urlsplit(text) if isinstance(text, str) and not _CONTROL.search(text) else None
        if parts is None or parts.username is not None:
            raise ValueError(expected)
        _ = parts.port
    except ValueError:
        raise ValueError(expected) from None
    return parts


def is_plain(url: str) -> bool:
    """Whether the URL has no fragment, and only characters that a request line can hold."""
    return "#" not in url and url.isascii() and url.isprintable() and " " not in url
