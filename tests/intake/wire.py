"""A client that sends exactly the bytes it is told to, and reads answers to the letter."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

# Stands in every input that could be echoed, and may be found in no answer and no log line.
MARKER = "zqMARKERqz"
TOKEN = "a-verify-token-that-nobody-guesses"
# No test waits longer for an answer, in seconds.
PATIENCE = 60.0

PING = {
    "collection": "timeline",
    "itemId": f"item-{MARKER}",
    "operation": "INSERT",
    "userToken": f"user-{MARKER}",
    "verifyToken": TOKEN,
    "userActions": [{"type": "SHARE"}],
}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def body(**changes: Any) -> bytes:
    """A ping's body; a field given as ... is left out."""
    fields = {name: value for name, value in {**PING, **changes}.items() if value is not ...}
    return json.dumps(fields).encode()


def request(
    payload: bytes | None = None,
    *headers: str,
    line: str | bytes = "POST /hooks/mirror HTTP/1.1",
    host: str | None = "localhost",
    kind: str | None = "application/json",
    length: object = None,
) -> bytes:
    """A request. `length` overrides Content-Length; `length=...` leaves it out."""
    payload = body() if payload is None else payload
    lines = [line.encode() if isinstance(line, str) else line]
    if host is not None:
        lines.append(f"Host: {host}".encode())
    if kind is not None:
        lines.append(f"Content-Type: {kind}".encode())
    if length is not ...:
        lines.append(f"Content-Length: {len(payload) if length is None else length}".encode())
    lines += [header.encode("latin-1") for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + payload


@dataclass(frozen=True)
class Answer:
    """One response. `closing`: it says that the connection ends with it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closing(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"

    def is_problem(self) -> bool:
        """Whether it is problem+json with its own status and a title (RFC 9457)."""
        if self.headers.get("content-type") != "application/problem+json":
            return False
        problem = json.loads(self.body)
        return problem["status"] == self.status and bool(problem["title"])


class Wire:
    """One connection to a server at `address`: (host, port), or the path of a unix socket."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            try:
                self.sock.connect(address)
            except OSError:
                self.sock.close()
                raise
        else:
            self.sock = socket.create_connection(address, PATIENCE)
        self.seen = b""
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Sends all of it, or as much as the server takes before it closes."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def half_close(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def answer(self, *, headless: bool = False) -> Answer:
        """The next response, 100 Continue included; `headless` is for the answer to HEAD, which has no body."""
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        size = 0 if headless or status == 100 else int(headers["content-length"])
        while len(self._unread) < size:
            self._more()
        content, self._unread = self._unread[:size], self._unread[size:]
        return Answer(status, headers, content)

    def ask(self, data: bytes, *, headless: bool = False) -> Answer:
        """Sends a request and reads its response."""
        self.send(data)
        return self.answer(headless=headless)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        over = time.monotonic() + PATIENCE
        with suppress(EOFError, ConnectionResetError):
            while time.monotonic() < over:
                self._more()
        found, self._unread = self._unread, b""
        return found

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            self._more()
        head, _, self._unread = self._unread.partition(mark)
        return head

    def _more(self) -> None:
        chunk = self.sock.recv(65_536)
        if not chunk:
            raise EOFError(f"the server closed after {self.seen[-300:]!r}")
        self.seen += chunk
        self._unread += chunk
