"""GET /sources, and which listener serves what."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import falcon
import msgspec

from glassq.http.listen import socket_names
from glassq.intake.report import PATH

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from glassq.intake.source_counters import SharedSourceCounters
    from glassq.values import Address

METRICS = "/metrics"


class SourcesResource:
    """GET /sources: the counters of all sources, over all workers."""

    def __init__(self, shared: SharedSourceCounters) -> None:
        self._shared = shared

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200 with a SourcesReport in JSON."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = msgspec.json.encode(self._shared.report())


class ListenerFilter:
    """Serves /metrics only on the metrics listener, /sources only on its unix socket, all else only on the others."""

    def __init__(self, metrics: Address | None, report: Path | None) -> None:
        """`metrics` is the address of the metrics listener; None: there is none of its own."""
        self._metrics = socket_names(metrics) if metrics else set()
        self._report = str(report) if report else None
        self._private: Collection[str] = {PATH, *([METRICS] if metrics else [])}

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises HTTPNotFound for a request on the wrong listener."""
        listener: Any = req.env["glassq.listener"]
        if isinstance(listener, str):
            only = PATH if listener == self._report else ""
        else:
            only = METRICS if listener[:2] in self._metrics else ""
        if req.path != only if only else req.path in self._private:
            raise falcon.HTTPNotFound


def open_report_socket(path: Path) -> socket.socket:
    """Listens there; its mode lets the user and the group in. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # of a program that has ended: the directory is ours alone
        path.unlink(missing_ok=True)
        # a mode set later would leave a moment for everybody
        before = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen()
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
