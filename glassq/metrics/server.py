"""Serves metrics over HTTP, in a process that does nothing else.

prometheus_client's own server (start_http_server) is not enough: it has no timeout for idle connections, answers every
path, prints a traceback when a client goes away, and without file descriptors it accepts in a busy loop.
"""

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
    from glassq.metrics.exposition import GaugeValues
    from glassq.values import Address

log = logger("glassq.metrics")

# Gauges are reused for this long, in seconds: several scrapes at once ask the queue only once.
MAX_GAUGE_AGE = 1.0
# Idle connections are closed after this many seconds.
IDLE_TIMEOUT = 10.0
# Time to wait before the next try to accept, if the process has no file descriptor left, in seconds.
ACCEPT_PAUSE = 0.1


class _CachingCollector:
    """The registered collector: counters as they are now, gauges at most MAX_GAUGE_AGE old."""

    def __init__(self, counters: SharedCounters, read_gauges: Callable[[], GaugeValues], version: str) -> None:
        self._counters = counters
        self._read_gauges = read_gauges
        self._version = version
        self._reading = threading.Lock()
        self._gauges: GaugeValues = {}
        self._valid_until = 0.0

    def collect(self) -> Iterator[Metric]:
        with self._reading:
            if time.monotonic() > self._valid_until:
                self._gauges = with_version(self._read_gauges(), self._version)
                self._valid_until = time.monotonic() + MAX_GAUGE_AGE
            gauges = self._gauges
        return Collector(self._counters, gauges).collect()


class _Handler(WSGIRequestHandler):
    timeout = IDLE_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server calls
        pass


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection."""

    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            # out of descriptors: the connection stays in the backlog, and the next try would come at once
            time.sleep(ACCEPT_PAUSE)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("scrape failed %s", fields(sender=client_address[0], why=sys.exception()))


def serve(address: Address, counters: SharedCounters, read_gauges: Callable[[], GaugeValues], version: str) -> None:
    """Answers GET /metrics in threads from now on. Raises OSError if it cannot listen on the address."""
    registry = CollectorRegistry()
    registry.register(_CachingCollector(counters, read_gauges, version))
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        answer: Iterable[bytes] = metrics(environ, start_response)
        return answer

    family, _, _, _, found = socket.getaddrinfo(*address.parts, type=socket.SOCK_STREAM)[0]
    kind = type("_FamilyServer", (_Server,), {"address_family": family})
    server = kind(found[:2], _Handler)
    server.set_app(app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
