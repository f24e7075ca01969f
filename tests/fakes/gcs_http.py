"""The HTTP side of the fake Google Cloud Storage: routes, faults, the log of requests."""

from __future__ import annotations

import json
import re
import socket
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from threading import RLock

_ROUTES = [
    ("POST", r"/token", "token"),
    ("GET", r"/storage/v1/b/([^/]+)", "bucket"),
    ("GET", r"/storage/v1/b/([^/]+)/o", "list"),
    ("GET", r"/storage/v1/b/([^/]+)/o/([^/]+)", "get"),
    ("GET", r"/download/storage/v1/b/([^/]+)/o/([^/]+)", "media"),
    ("DELETE", r"/storage/v1/b/([^/]+)/o/([^/]+)", "delete"),
    ("POST", r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", "upload"),
    ("PUT", r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", "chunk"),
    ("DELETE", r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", "cancel"),
]


@dataclass(frozen=True)
class Request:
    """What was asked, and what was answered; `status` is 0 where the connection was dropped instead."""

    operation: str
    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        content = {"Content-Type": "application/json; charset=UTF-8"}
        return cls(status, json.dumps(value).encode(), content | headers)


@dataclass(frozen=True)
class Drop:
    """A fault: the connection breaks after `after` bytes of the body, or (None) instead of the answer."""

    after: int | None


class Service(Protocol):
    """What the server asks."""

    lock: RLock
    requests: list[Request]

    def next_fault(self, operation: str) -> Answer | Drop | None: ...
    def answer(self, operation: str, names: list[str], query: dict[str, str], headers: Any, body: bytes) -> Answer: ...
    def keep_partial(self, query: dict[str, str], headers: Any, body: bytes) -> None: ...


class Server(ThreadingHTTPServer):
    """Knows its connections, so that stopping does not wait for a client to close an idle one."""

    daemon_threads = False
    service: Service

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that goes away: some tests are about that."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def disconnect(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else an answer in two packets costs 40 ms.
    disable_nagle_algorithm = True
    timeout = 30
    server: Server

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names http.server calls

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        operation, names = self._route(parts.path, query)
        fault = self.server.service.next_fault(operation)
        length = int(self.headers.get("Content-Length", 0))
        if isinstance(fault, Drop) and fault.after is not None:
            with self.server.service.lock:
                self.server.service.keep_partial(query, self.headers, self.rfile.read(min(fault.after, length)))
            return self._done(operation, None)
        body = self.rfile.read(length)
        if len(body) < length:
            return self._done(operation, None)
        if isinstance(fault, Answer):
            return self._done(operation, fault)
        if operation == "unknown":
            return self._done(operation, Answer(404, b"Not Found", {"Content-Type": "text/html"}))
        answer = self.server.service.answer(operation, names, query, self.headers, body)
        return self._done(operation, None if fault else answer)

    def _route(self, path: str, query: dict[str, str]) -> tuple[str, list[str]]:
        for method, pattern, operation in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                if operation == "upload":
                    operation = query.get("uploadType", "")
                if operation == "get" and query.get("alt") == "media":
                    operation = "media"
                return operation, [unquote(name) for name in match.groups()]
        return "unknown", []

    def _done(self, operation: str, answer: Answer | None) -> None:
        service = self.server.service
        with service.lock:
            service.requests.append(Request(operation, self.command, self.path, answer.status if answer else 0))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status, None if answer.status in set(HTTPStatus) else "Client Closed Request")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if answer.status not in (204, 304) else b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing: the log of requests is in the service's `requests`."""
