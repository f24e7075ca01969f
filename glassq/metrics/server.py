"""Tells metrics over HTTP, in a process that does nothing else."""

from __future__ import annotations

import socket
import sys
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from glassq.log import fields, logger
from glassq.metrics.exposition import Collector, with_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from glassq.metrics.counters import SharedCounters
    from glassq.metrics.exposition import Looked
    from glassq.values import Address

log = logger("glassq.metrics")

# What was looked up so lately, in seconds, is told again: several who watch ask the queue once.
FRESH = 1.0
# Who says nothing for so long is cut off, in seconds.
PATIENCE = 10.0


class _Now:
    """What is registered: it looks anew when it is asked."""

    def __init__(self, board: SharedCounters, look: Callable[[], Looked], version: str) -> None:
        self._board = board
        self._look = look
        self._version = version
        self._looking = threading.Lock()
        self._looked: Looked = {}
        self._until = 0.0

    def collect(self) -> Iterator[Metric]:
        with self._looking:
            if time.monotonic() > self._until:
                self._looked = with_version(self._look(), self._version)
                self._until = time.monotonic() + FRESH
            looked = self._looked
        return Collector(self._board, looked).collect()


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server calls
        pass


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each who asks."""

    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            # no descriptor is left: the next try would come at once
            time.sleep(0.1)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("not told %s", fields(sender=client_address[0], why=sys.exception()))


def serve(address: Address, board: SharedCounters, look: Callable[[], Looked], version: str) -> None:
    """Answers GET /metrics in threads from now on. Raises OSError where it cannot listen there."""
    registry = CollectorRegistry()
    registry.register(_Now(board, look, version))
    tell = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        answer: Iterable[bytes] = tell(environ, start_response)
        return answer

    family, _, _, _, place = socket.getaddrinfo(*address.parts, type=socket.SOCK_STREAM)[0]
    kind = type("_Listening", (_Server,), {"address_family": family})
    server = kind(place[:2], _Handler)
    server.set_app(app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
