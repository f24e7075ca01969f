"""A target on a real socket that answers as the query of each request says: well, badly, slowly or not at all.

    /anything?status=503&header=Retry-After:5&body=busy

status, reason, header (repeated), body  what is answered; 200 with an empty body without them
size=N          a body of N bytes
chunked=1       the body in chunks
short=N         Content-Length says N bytes more than there are
early=TEXT               these very bytes before the answer
raw=TEXT        these very bytes, and the end of the connection
drip=SECONDS    body bytes one by one, so far apart, for as long as the client listens
then=close      Connection: close;  then=shut: closed without a word
instead=hang    no answer;  instead=hangup: the connection is closed;  instead=rst: it is reset
again=hangup    the connection is closed instead of an answer, but only where it has been used before
late=SECONDS    so long before an `instead` or `again`
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


@dataclass(frozen=True)
class Asked:
    """A request as it came in. `connection` counts connections from 1, `headers` has lower-case names."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Script:
    """What to answer."""

    status: int = 200
    reason: str = "OK"
    headers: list[str] = field(default_factory=list)
    body: bytes = b""
    chunked: bool = False
    short: int = 0
    early: bytes = b""
    raw: bytes = b""
    drip: float = 0.0
    then: str = ""
    instead: str = ""
    again: str = ""
    late: float = 0.0

    @classmethod
    def of(cls, url: str) -> Self:
        query = parse_qs(urlsplit(url).query, keep_blank_values=True)
        last = {name: values[-1] for name, values in query.items()}
        body = b"x" * int(last["size"]) if "size" in last else last.get("body", "").encode()
        return cls(
            status=int(last.get("status", 200)),
            reason=last.get("reason", "OK"),
            headers=query.get("header", []),
            body=body,
            chunked="chunked" in last,
            short=int(last.get("short", 0)),
            early=last.get("early", "").encode("latin-1"),
            raw=last.get("raw", "").encode("latin-1"),
            drip=float(last.get("drip", 0)),
            then=last.get("then", ""),
            instead=last.get("instead", ""),
            again=last.get("again", ""),
            late=float(last.get("late", 0)),
        )

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *self.headers]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif not self.drip:
            lines.append(f"Content-Length: {len(self.body) + self.short}")
        if self.then == "close":
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def framed(self) -> bytes:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if self.chunked else self.body


class Target:
    """A threaded HTTP server on a port of its own, or on this one.

    `with Target() as target: ... target.url ... target.asked`
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.asked: list[Asked] = []
        #: what is answered to requests for these very paths
        self.pages: dict[str, bytes] = {}
        #: called with each request before it is answered
        self.on_request: Callable[[Asked], None] = lambda _: None
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.connections = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                _end(connection)
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        raw = connection
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open = self._open - {raw} | {connection}
            used = 0
            with connection.makefile("rb") as reader:
                while (asked := self._read(reader, number)) is not None:
                    self.on_request(asked)
                    page = self.pages.get(asked.url)
                    script = Script.of(asked.url) if page is None else Script(body=page)
                    if not self._answer(connection, script, asked, used):
                        return
                    used += 1
        except OSError:
            # the client went away: some tests are about that
            return
        finally:
            with self._lock:
                self._open.discard(connection)
            _end(connection)
            connection.close()

    def _read(self, reader: Any, number: int) -> Asked | None:
        line = reader.readline()
        if not line:
            return None
        method, url, _ = line.decode("latin-1").split(" ")
        headers = {}
        while (header := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        asked = Asked(method, url, headers, reader.read(int(headers.get("content-length", 0))), number)
        self.asked.append(asked)
        return asked

    def _answer(self, connection: socket.socket, script: Script, asked: Asked, used: int) -> bool:
        """Answers; whether the connection stays open."""
        instead = script.instead or (script.again if used else "")
        if instead and script.late:
            time.sleep(script.late)
        if instead == "hang":
            return connection.recv(1) != b""
        if instead == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if instead:
            return False
        if script.raw:
            connection.sendall(script.raw)
            return False
        connection.sendall(script.early + script.head() + (b"" if asked.method == "HEAD" else script.framed()))
        while script.drip:
            time.sleep(script.drip)
            connection.sendall(b".")
        return not script.then and not script.short


class Moody(Target):
    """Answers with these statuses, one after the other, before it is well."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.moods = list(statuses)

    def _answer(self, connection: socket.socket, script: Script, asked: Asked, used: int) -> bool:
        if self.moods:
            script = Script(self.moods.pop(0), "Moody", ["X-Mood: bad"], b"not today")
        return super()._answer(connection, script, asked, used)


def _end(connection: socket.socket) -> None:
    try:
        # after a reset was asked for, closing alone resets
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0):
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
