"""gunicorn's parser for a request that is here, and what an app gets of it."""

from __future__ import annotations

import io
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import base_environ
from gunicorn.util import unquote_to_wsgi_str

if TYPE_CHECKING:
    from glassq.http.connection import Connection

# The headers that have a name of their own in a WSGI environ (PEP 3333).
_CGI = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}


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
    networks = cfg.forwarded_allow_networks()
    return SimpleNamespace(**values, is_ssl=cfg.is_ssl, forwarded_allow_networks=lambda: networks)


# Nearly all requests have headers of few names.
@lru_cache(maxsize=512)
def _key(name: str) -> str:
    return _CGI.get(name) or f"HTTP_{name.replace('-', '_')}"


class Environ:
    """Makes the environs of a worker's requests (PEP 3333)."""

    def __init__(self, cfg: Any) -> None:
        self._base = base_environ(cfg) | {"SCRIPT_NAME": "", "wsgi.url_scheme": "http"}

    def of(self, request: WholeRequest, conn: Connection) -> dict[str, Any]:
        """The environ of one request.

        The app finds in it `glassq.arrived`, when the request had arrived (time.monotonic()), and `glassq.listener`,
        where (getsockname).
        """
        host, port = conn.server[:2] if isinstance(conn.server, tuple) else ("", "")
        sender, sender_port = conn.client[:2] if isinstance(conn.client, tuple) else (conn.client or "", "")
        environ: dict[str, Any] = self._base | {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": unquote_to_wsgi_str(request.path),
            "QUERY_STRING": request.query,
            "RAW_URI": request.uri,
            "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": sender,
            "REMOTE_PORT": str(sender_port),
            "wsgi.input": io.BytesIO(request.rest()),
            "glassq.arrived": conn.arrived,
            "glassq.listener": conn.server,
        }
        for name, value in request.headers:
            key = _key(name)
            environ[key] = f"{environ[key]}, {value}" if key in environ else value
        return environ
