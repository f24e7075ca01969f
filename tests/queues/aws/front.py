"""What stands between a service of tests and its clients: HTTP, and all that goes wrong on the way.

Beside the service's own calls it answers `POST /glassq/faults` (what to do from now on), `/glassq/calls` (how often
what was called; with a body the count begins anew) and `/glassq/done-to`; a service adds what else tests ask of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from tests.queues.aws.faults import AwsFaults

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Environ = dict[str, Any]
    Answer = tuple[int, bytes]

F = TypeVar("F", bound=AwsFaults)
# The id of a delivery, which stands in what a call says: a UUID of version 7.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Front(ABC, Generic[F]):
    """Answers requests. `changed` is held while a call is carried out, and told when what others wait for changed."""

    # the `__type` and the words of an answer to a call that is one too many
    throttled: tuple[str, str]

    def __init__(self, faults: F) -> None:
        self.faults = faults
        self.changed = threading.Condition(threading.RLock())
        self.random = random.Random(0)
        self.calls: Counter[str] = Counter()
        # by the id of a delivery: what was done to it that may have it worked twice
        self._done_to: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def answer(self, environ: Environ, body: bytes, client: socket.socket) -> Answer:
        """The status and the body of the answer to a request; status 0: the connection ends."""
        path = environ["PATH_INFO"]
        if path.startswith("/glassq/"):
            with self.changed:
                return 200, json.dumps(self.told(path.removeprefix("/glassq/"), body)).encode()
        return self._served(environ, body, client)

    def told(self, what: str, body: bytes) -> object:
        """What tests ask of it."""
        if what == "faults":
            self.faults = msgspec.json.decode(body, type=type(self.faults))
            self.random.seed(self.faults.seed)
        elif what == "calls":
            found = dict(self.calls)
            if body:
                self.calls.clear()
            return found
        elif what == "done-to":
            return self._done_to
        return {}

    @abstractmethod
    def carry_out(self, action: str, asked: dict[str, Any], environ: Environ, client: socket.socket) -> Answer:
        """What the service does. May wait, without `changed`."""

    @abstractmethod
    def concerned(self, action: str, asked: dict[str, Any], answer: Answer | None) -> list[str]:
        """Texts with the ids of the deliveries that a call is about; before it is carried out `answer` is None."""

    def note(self, texts: Iterable[str], what: str) -> None:
        """This was done to these deliveries."""
        with self.changed:
            self.calls[what] += 1
            for text in texts:
                if found := _ID.search(text):
                    self._done_to[found[0]][what] += 1

    def _served(self, environ: Environ, body: bytes, client: socket.socket) -> Answer:
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        asked = json.loads(body or b"{}")
        with self.changed:
            self.calls[action] += 1
            faults, draw = self.faults, self.random.random
            before = draw() < faults.cut_before
            throttled, broken, late = draw() < faults.throttle, draw() < faults.broken, draw() < faults.late
            cut = draw() < faults.cut
            for happened, what in ((before, "cut before"), (throttled, "throttled"), (broken, "503"), (late, "late")):
                self.calls[what] += happened
        if before:
            return 0, b""
        if throttled:
            return error(400, *self.throttled)
        if broken:
            return error(503, "ServiceUnavailable", "The service is overloaded")
        concerned = self.concerned(action, asked, None)
        answer = self.carry_out(action, asked, environ, client)
        if late:
            time.sleep(random.random())
        if cut:
            self.note(concerned or self.concerned(action, asked, answer), f"the answer to {action} was cut off")
            return 0, b""
        if is_gone(client):
            # on a busy machine it may take longer than the client waits
            self.note(concerned or self.concerned(action, asked, answer), f"the answer to {action} came too late")
        return answer


def error(status: int, kind: str, message: str) -> Answer:
    """An answer that says what is wrong, as all of Amazon's services do in JSON."""
    return status, json.dumps({"__type": kind, "message": message}).encode()


def is_gone(client: socket.socket) -> bool:
    """Whether the client has closed its end."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Handler(StreamRequestHandler):
    """As much of HTTP/1.1 as clients of Amazon's services speak, with connections that are kept.

    Python's own server reads each head with its parser of mails, which took a third of all the time here.
    """

    # one packet an answer, and at once
    disable_nagle_algorithm = True
    wbufsize = -1
    front: Front[Any]

    def handle(self) -> None:
        while line := self.rfile.readline():
            path = line.split(b" ", 2)[1].decode("latin-1")
            heads = dict(iter(self._head, ("", "")))
            body = self.rfile.read(int(heads.get("CONTENT_LENGTH", "0")))
            status, answer = self.front.answer(_environ(path, heads), body, self.connection)
            if not status:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n%b"
                % (status, HTTPStatus(status).phrase.encode(), len(answer), answer)
            )
            self.wfile.flush()

    def _head(self) -> tuple[str, str]:
        """The next field's name, as environments have it, and its value; twice "" after the last one."""
        name, _, value = self.rfile.readline().decode("latin-1").partition(":")
        return name.strip().upper().replace("-", "_"), value.strip()


def _environ(path: str, heads: Mapping[str, str]) -> Environ:
    host, _, port = heads.get("HOST", "127.0.0.1:80").partition(":")
    return {
        **{f"HTTP_{name}": value for name, value in heads.items()},
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": heads.get("CONTENT_TYPE", ""),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is not worth a line; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(front: Front[Any], port: int) -> None:
    """Serves at this port of 127.0.0.1 for as long as the process lives that started this one."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    _Handler.front = front
    _Server(("127.0.0.1", port), _Handler).serve_forever()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)
