"""The simulated Glass on a socket: reads requests, lets faults happen, writes answers, keeps a log of requests."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from glassq.dev.simulator.api import Answer, Call, Request, error_answer, oauth_error
from glassq.log import logger

if TYPE_CHECKING:
    from collections import deque

    from glassq.dev.simulator.api import Api
    from glassq.dev.simulator.faults import Fault, Faults

log = logger(__name__)

# In how many pieces a slow body comes.
PIECES = 10
# How long the end waits for the last answers, in seconds.
STOP_TIMEOUT = 5.0


class Logged(NamedTuple):
    """One request served. `user` is a name or None; status 0 means that no answer was given."""

    method: str
    path: str
    operation: str
    user: str | None
    status: int


class GlassServer(ThreadingHTTPServer):
    """The listening socket, on loopback; one thread a connection."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api: Api
        self.faults: Faults
        self.requests: deque[Logged]
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._change = threading.Condition()
        self._loop = threading.Thread(target=self.serve_forever, args=(0.05,), name="glass", daemon=True)

    def start(self, api: Api, faults: Faults, requests: deque[Logged]) -> None:
        """Begins to serve; what is served is written to `requests`."""
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
        """Notes the connection before its thread starts, so that `stop` misses none."""
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
        """A client that went away is its own business; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), OSError):
            log.exception("simulated Glass failed")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else Nagle's algorithm and delayed acknowledgements cost 40 ms a call.
    disable_nagle_algorithm = True
    server_version = "SimulatedGlass"
    sys_version = ""

    def _serve(self) -> None:
        server = cast("GlassServer", self.server)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(length))
        call = server.api.understand(request)
        name = call.user.name if call.user else None
        fault = server.faults.take(call.operation, call.path, name)
        answer = _faulty(call, fault) if fault else None
        answer = answer or server.api.answer(call, request)
        status = 0 if fault and fault.mode == "hang up" else answer.status
        # Before the answer: whoever has read it finds the request in the log.
        server.requests.append(Logged(request.method, call.path, call.operation, name, status))
        self._send(answer, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _send(self, answer: Answer, fault: Fault | None) -> None:
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
        """Requests are in `GlassServer.requests`; standard error is for the people in front of it."""


def _faulty(call: Call, fault: Fault) -> Answer | None:
    """What is answered instead of the right answer; None where that is only sent in another way."""
    if fault.mode == "hang up":
        return Answer(0)
    if fault.mode != "answer":
        return None
    if fault.body is not None:
        is_json = fault.body.lstrip()[:1] in (b"{", b"[")
        made = Answer(fault.status, fault.body, "application/json" if is_json else "text/html; charset=UTF-8")
    elif call.operation == "token":
        made = oauth_error(fault.status, fault.reason, "Asked for by fail_next")
    else:
        made = error_answer(fault.status, fault.reason, f"Asked for by fail_next: {fault.reason}")
    return replace(made, headers=fault.headers)
