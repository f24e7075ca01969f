"""The simulated Glass as an HTTP server: reads requests, injects faults, writes responses, logs requests."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from glassq.dev.simulator.api import ApiCall, ApiRequest, ApiResponse, error_response, oauth_error
from glassq.log import logger

if TYPE_CHECKING:
    from collections import deque

    from glassq.dev.simulator.api import Api
    from glassq.dev.simulator.faults import Fault, Faults

log = logger(__name__)

# Number of pieces of a slow body.
PIECES = 10
# `stop` waits this long for the last responses, in seconds.
STOP_TIMEOUT = 5.0


class LoggedRequest(NamedTuple):
    """One request served. `user` is a name or None; status 0 means that the client got no response."""

    method: str
    path: str
    operation: str
    user: str | None
    status: int


class GlassServer(ThreadingHTTPServer):
    """The HTTP server, on loopback, with one thread per connection."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _ApiHandler)
        self.api: Api
        self.faults: Faults
        self.requests: deque[LoggedRequest]
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._change = threading.Condition()
        self._loop = threading.Thread(target=self.serve_forever, args=(0.05,), name="glass", daemon=True)

    def start(self, api: Api, faults: Faults, requests: deque[LoggedRequest]) -> None:
        """Starts serving, and appends each request to `requests`."""
        self.api, self.faults, self.requests = api, faults, requests
        self._loop.start()

    def stop(self) -> None:
        """Ends every connection and closes the socket."""
        self.stopping.set()
        self.shutdown()
        self._loop.join()
        self.server_close()
        with self._change:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._change.wait_for(lambda: not self._open, STOP_TIMEOUT)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Records the connection before its thread starts, so that `stop` misses none."""
        with self._change:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        super().shutdown_request(request)
        with self._change:
            self._open.discard(request)
            self._change.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that went away; logs every other error, which is a bug."""
        if not isinstance(sys.exception(), OSError):
            log.exception("simulated Glass failed")


class _ApiHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # With Nagle's algorithm, delayed acknowledgements would cost 40 ms per call.
    disable_nagle_algorithm = True
    server_version = "SimulatedGlass"
    sys_version = ""

    def _serve(self) -> None:
        server = cast("GlassServer", self.server)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = ApiRequest(self.command, self.path, headers, self.rfile.read(length))
        call = server.api.understand(request)
        name = call.user.name if call.user else None
        fault = server.faults.take(call.operation, call.path, name)
        answer = _faulty_response(call, fault) if fault else None
        answer = answer or server.api.answer(call, request)
        status = 0 if fault and fault.mode == "hang up" else answer.status
        # Log before responding, so that a client that has the response finds its request in the log.
        server.requests.append(LoggedRequest(request.method, call.path, call.operation, name, status))
        self._send(answer, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _send(self, answer: ApiResponse, fault: Fault | None) -> None:
        mode = fault.mode if fault else "answer"
        if mode == "hang up":
            self.close_connection = True
            return
        self.send_response(answer.status)
        headers = dict(answer.headers)
        if answer.status != 204:
            headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if mode == "cut off":
            self.close_connection = True
            self.wfile.write(answer.body[: len(answer.body) // 2])
        elif fault and mode == "slow":
            self._send_slowly(answer.body, fault.seconds)
        elif answer.status != 204:
            self.wfile.write(answer.body)

    def _send_slowly(self, body: bytes, seconds: float) -> None:
        step = max(1, -(-len(body) // PIECES))
        for start in range(0, len(body), step):
            if cast("GlassServer", self.server).stopping.wait(seconds / PIECES):
                self.close_connection = True
                return
            self.wfile.write(body[start : start + step])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Logs nothing: requests are in `GlassServer.requests`."""


def _faulty_response(call: ApiCall, fault: Fault) -> ApiResponse | None:
    """The response that replaces the correct one; None if the fault only changes how it is sent."""
    if fault.mode == "hang up":
        return ApiResponse(0)
    if fault.mode != "answer":
        return None
    if fault.body is not None:
        is_json = fault.body.lstrip()[:1] in (b"{", b"[")
        made = ApiResponse(fault.status, fault.body, "application/json" if is_json else "text/html; charset=UTF-8")
    elif call.operation == "token":
        made = oauth_error(fault.status, fault.reason, "Asked for by fail_next")
    else:
        made = error_response(fault.status, fault.reason, f"Asked for by fail_next: {fault.reason}")
    return replace(made, headers=fault.headers)
