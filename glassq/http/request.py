"""What an app gets of a request that is here.

gunicorn's C parser splits it. Nearly all requests are ordinary ones, for which nothing but that is left to do; for each
other one, and where something is wrong, gunicorn's own class decides, in the same way.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.http import message
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import base_environ
from gunicorn.util import split_request_uri, unquote_to_wsgi_str

if TYPE_CHECKING:
    from glassq.http.connection import Connection

# The headers that have a name of their own in a WSGI environ (PEP 3333).
_CGI = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}
# Methods, headers and targets about which gunicorn has nothing to decide beyond its parser.
_METHODS = {each.encode(): each for each in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_DECIDED = {"EXPECT", "TRANSFER-ENCODING"}
_TARGET = re.compile(rb'/(?!/)[!"$-~]*')
# Headers that may come once only; gunicorn reads the first of several Connection headers.
_SINGLE = {"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONNECTION"}
# The longest length that needs no look, in digits; a body is never that long.
_MAX_LENGTH = 15


class WholeRequest(Request):  # type: ignore[misc]
    """A request that is parsed from its bytes alone, without a socket."""

    def __init__(self, cfg: Any, data: bytes, client: Any) -> None:
        """`cfg` is gunicorn's, or `plain` of it. Raises gunicorn's errors for what is no request."""
        super().__init__(cfg, IterUnreader([data]), client)

    def _peer_trusted_for_forwarded(self) -> tuple[dict[str, str], list[str]]:
        # conf/gunicorn.conf.py trusts nobody; comparing addresses with nobody's takes a third of the parsing
        return {}, []

    def rest(self) -> bytes:
        """What follows the head: the whole body, if all of it was here."""
        return bytes(self.unreader.take_buffered())


def plain(cfg: Any) -> Any:
    """gunicorn's settings as plain attributes: `Config` takes a microsecond for each, and a parser asks for many."""
    values = {name: setting.get() for name, setting in cfg.settings.items()}
    forwarded, proxies = cfg.forwarded_allow_networks(), cfg.proxy_allow_networks()
    return SimpleNamespace(
        **values,
        is_ssl=cfg.is_ssl,
        forwarded_allow_networks=lambda: forwarded,
        proxy_allow_networks=lambda: proxies,
    )


class Parsed(NamedTuple):
    """A request. `path` is unquoted, `headers` have the names of a WSGI environ.

    `closes`: the connection ends with it.
    """

    method: str
    uri: str
    query: str
    path: str
    version: tuple[int, int]
    headers: dict[str, str]
    body: bytes
    closes: bool


class RequestParser:
    """Parses requests, for gunicorn's settings `cfg`."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = plain(cfg)
        self._split: Any = None
        try:
            # gunicorn decides which limits its parser gets
            limits = WholeRequest(self._cfg, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None)
        except ParseException:
            # where even this is none, no request is an ordinary one
            return
        self._limits = {
            "limit_request_line": limits._fast_limit_request_line,
            "limit_request_fields": limits.limit_request_fields,
            "limit_request_field_size": limits.limit_request_field_size,
        }
        if limits._use_fast and self._cfg.proxy_protocol == "off":
            self._split = message._fast_parser_module.parse_request

    def parse(self, data: bytes, client: Any) -> Parsed:
        """The request in `data`, which has its head whole. Raises gunicorn's errors for what is no request."""
        return self.ordinary(data) or self.by_gunicorn(data, client)

    def by_gunicorn(self, data: bytes, client: Any) -> Parsed:
        """The same, for any request."""
        request = WholeRequest(self._cfg, data, client)
        headers: dict[str, str] = {}
        for name, value in request.headers:
            key = _key(name)
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        path = unquote_to_wsgi_str(request.path)
        return Parsed(
            request.method,
            *(request.uri, request.query, path),
            request.version,
            headers,
            request.rest(),
            request.should_close(),
        )

    def ordinary(self, data: bytes) -> Parsed | None:
        """The same for an ordinary request; None for any other, and where something is wrong."""
        if self._split is None or data.startswith(b"\r\n"):
            return None
        try:
            found = self._split(data, **self._limits)
        except Exception:
            return None
        method, target = _METHODS.get(found["method"]), _target(found["path"])
        headers: dict[str, str] = {}
        for name, value in found["headers"]:
            key = _ordinary_key(name)
            if not key:
                return None
            text = str(value, "latin-1")
            if key in headers:
                if key in _SINGLE:
                    return None
                text = f"{headers[key]}, {text}"
            headers[key] = text
        length = headers.get("CONTENT_LENGTH", "0")
        if method is None or target is None or not length.isdecimal() or len(length) > _MAX_LENGTH:
            return None
        version = (1, found["minor_version"])
        return Parsed(method, *target, version, headers, data[found["consumed"] :], _closes(headers, version))


def _closes(headers: dict[str, str], version: tuple[int, int]) -> bool:
    said = headers.get("HTTP_CONNECTION")
    if said is not None and (said := said.lower().strip(" \t")) in ("close", "keep-alive"):
        return said == "close"
    return version <= (1, 0)


# Nearly all requests have headers of few names, and few targets.
@lru_cache(maxsize=512)
def _key(name: str) -> str:
    return _CGI.get(name) or f"HTTP_{name.replace('-', '_')}"


@lru_cache(maxsize=512)
def _ordinary_key(name: bytes) -> str:
    text = name.decode("latin-1").upper()
    return "" if "_" in text or text in _DECIDED else _key(text)


@lru_cache(maxsize=128)
def _target(raw: bytes) -> tuple[str, str, str] | None:
    """The target as it came, its query, and its path with what is quoted in it; None where it is not ordinary."""
    if not _TARGET.fullmatch(raw):
        return None
    uri = raw.decode()
    parts = split_request_uri(uri)
    return uri, parts.query, unquote_to_wsgi_str(parts.path)


class Environ:
    """Makes the environs of a worker's requests (PEP 3333)."""

    def __init__(self, cfg: Any) -> None:
        self._base = base_environ(cfg) | {"SCRIPT_NAME": "", "wsgi.url_scheme": "http"}

    def of(self, request: Parsed, conn: Connection) -> dict[str, Any]:
        """The environ of one request.

        The app finds in it `glassq.arrived`, when the request had arrived (time.monotonic()), `glassq.listener`,
        where (getsockname), and `glassq.socket`, the connection.
        """
        host, port = conn.server[:2] if isinstance(conn.server, tuple) else ("", "")
        sender, sender_port = conn.client[:2] if isinstance(conn.client, tuple) else (conn.client or "", "")
        return {
            **self._base,
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "RAW_URI": request.uri,
            "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": sender,
            "REMOTE_PORT": str(sender_port),
            "wsgi.input": io.BytesIO(request.body),
            "glassq.arrived": conn.arrived,
            "glassq.listener": conn.server,
            "glassq.socket": conn.sock,
            **request.headers,
        }
