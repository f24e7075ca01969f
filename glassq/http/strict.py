"""Malformed requests that gunicorn's parser lets pass, whatever their path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


class Malformed(NamedTuple):
    """What is wrong with a request. Nothing of it is echoed."""

    status: int
    title: str
    detail: str


_CODING = Malformed(400, "Unsupported transfer coding", "Send the body with Content-Length.")
_CHUNKED = Malformed(411, "Length required", "Send the body with Content-Length, not chunked.")
_VERSION = Malformed(400, "Malformed request", "The request must be HTTP/1.1.")
_TARGET = Malformed(400, "Malformed request", "The request target must be a path.")
_NO_HOST = Malformed(400, "Malformed request", "The request needs one valid Host header.")


def malformed(environ: Mapping[str, Any]) -> Malformed | None:
    """What is wrong with the request of this WSGI environ; None: nothing."""
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        return _CHUNKED if coding.strip().lower() == "chunked" else _CODING
    protocol = environ.get("SERVER_PROTOCOL")
    if protocol not in ("HTTP/1.0", "HTTP/1.1"):
        return _VERSION
    if environ["REQUEST_METHOD"] != "CONNECT" and not str(environ.get("RAW_URI", "/")).startswith(("/", "*")):
        return _TARGET
    host = environ.get("HTTP_HOST")
    if host is None and protocol == "HTTP/1.0":
        return None
    return _NO_HOST if host is None or not _HOST.fullmatch(host) else None
