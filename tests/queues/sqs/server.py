"""Amazon SQS for tests: moto, with what the real service refuses and moto does not, and as hostile as it may be.

Run as `python -m tests.queues.sqs.server PORT`; it listens on 127.0.0.1 and keeps all in memory. In front of moto, in
the same process, stands `HostileFront`. Beside SQS it answers `POST /glassq/faults` (what to do from now on),
`GET /glassq/truth` (all messages as they are, which SQS itself tells nobody) and `GET /glassq/calls`.

What moto gets wrong, and is made right here: two receives at once get the same message; extending a lease that has
ended, or with an older handle, succeeds; deleting with an older handle deletes; control characters and empty bodies are
taken; a long poll looks once a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import socket
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from moto.sqs import models
from moto.sqs.models import sqs_backends

from tests.queues.sqs.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from moto.sqs.models import Message, Queue

    Environ = dict[str, Any]
    Answer = tuple[int, bytes]

# Requests that may be repeated at the service's own will, and those that put something.
_PUTS = ("SendMessage", "SendMessageBatch")
_SETTLES = ("DeleteMessage", "ChangeMessageVisibility")
_BAD_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# How often a long poll looks for what becomes visible by itself, in seconds.
_TICK = 0.05
# The id of a delivery, which stands in the text of its message: a UUID of version 7.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class HostileFront:
    """Stands in front of moto's WSGI application. It carries out one call at a time."""

    def __init__(self, moto: Any) -> None:
        self._moto = moto
        self._changed = threading.Condition(threading.RLock())
        self.faults = Faults()
        self._random = random.Random(0)
        self.calls: Counter[str] = Counter()
        # by the id of a delivery: what was done to its messages that may have it worked twice
        self._done_to: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._waiting: Counter[str] = Counter()

    def answer(self, environ: Environ, body: bytes, client: socket.socket) -> Answer:
        """The status and the body of the answer to a request; status 0: the connection ends."""
        path = environ["PATH_INFO"]
        return self._told(path, body) if path.startswith("/glassq/") else self._served(environ, body, client)

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def _told(self, path: str, body: bytes) -> Answer:
        with self._changed:
            if path == "/glassq/faults":
                self.faults = msgspec.json.decode(body, type=Faults)
                self._random.seed(self.faults.seed)
                return 200, b"{}"
            if path == "/glassq/calls":
                found = dict(self.calls)
                if body:
                    self.calls.clear()
                return 200, json.dumps(found).encode()
            if path == "/glassq/done-to":
                return 200, json.dumps(self._done_to).encode()
            if path == "/glassq/remove":
                self._remove(json.loads(body))
                return 200, b"{}"
            if path == "/glassq/fill":
                name, messages, text = json.loads(body)
                queue = _backend_of(name).queues[name]
                for _ in range(messages):
                    message = models.Message(str(uuid.uuid4()), text)
                    message.mark_sent()
                    queue.add_message(message)
                return 200, b"{}"
            if path == "/glassq/make":
                sqs_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].create_queue(json.loads(body))
                return 200, b"{}"
            if path == "/glassq/drop":
                for name in json.loads(body):
                    _backend_of(name).delete_queue(name)
                return 200, b"{}"
            truth = {"waiting": self._waiting, "messages": list(self._truth())}
            return 200, json.dumps(truth).encode()

    def _remove(self, ref: str) -> None:
        for queue in _queues():
            queue._messages = [
                message
                for message in queue._messages
                if ref != message.id and ref not in str(message.message_attributes.get("glassq", ""))
            ]

    def _truth(self) -> Iterator[dict[str, Any]]:
        now = time.time()
        for queue in _queues():
            for number, message in enumerate(queue._messages):
                state = "delayed" if message.delayed else "ready" if message.visible else "reserved"
                until = {"delayed": message.delayed_until, "reserved": message.visible_at}.get(state, 0.0)
                yield {
                    "queue": queue.name,
                    "number": number,
                    "id": message.id,
                    "state": state,
                    "body": message.body,
                    "attributes": {
                        name: value.get("StringValue") for name, value in message.message_attributes.items()
                    },
                    "receives": message.approximate_receive_count,
                    "age": now - (message.sent_timestamp or 0) / 1000,
                    "left": max(0.0, until / 1000 - now),
                }

    # -- what the service does --------------------------------------------------------------------------------------

    def _served(self, environ: Environ, body: bytes, client: socket.socket) -> Answer:
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        asked = json.loads(body or b"{}")
        with self._changed:
            self.calls[action] += 1
            faults, draw = self.faults, self._random.random
            before = draw() < faults.cut_before
            throttled, broken, late = draw() < faults.throttle, draw() < faults.broken, draw() < faults.late
            cut = draw() < faults.cut
            for happened, what in ((before, "cut before"), (throttled, "throttled"), (broken, "503"), (late, "late")):
                self.calls[what] += happened
        if before:
            return 0, b""
        if throttled:
            return _error(400, "ThrottlingException", "Rate exceeded")
        if broken:
            return _error(503, "ServiceUnavailable", "The service is overloaded")
        concerned = self._concerned(action, asked)
        answer = self._carried_out(action, asked, environ, client)
        if late:
            time.sleep(random.random())
        if not cut:
            return answer
        if action == "ReceiveMessage" and b'"Messages"' in answer[1]:
            concerned = [found["Body"] for found in json.loads(answer[1])["Messages"]]
        self._note(concerned, f"the answer to {action} was cut off")
        return 0, b""

    def _concerned(self, action: str, asked: dict[str, Any]) -> list[str]:
        """The texts of the messages that a call is about."""
        if action in _PUTS:
            return [message.get("MessageBody", "") for message in asked.get("Entries", [asked])]
        if action in _SETTLES:
            with self._changed:
                message = _of_handle(asked)
                return [message.body] if message is not None else []
        return []

    def _note(self, texts: Iterable[str], what: str) -> None:
        with self._changed:
            self.calls[what] += 1
            for text in texts:
                if found := _ID.search(text):
                    self._done_to[found[0]][what] += 1

    def _carried_out(self, action: str, asked: dict[str, Any], environ: Environ, client: socket.socket) -> Answer:
        if action == "ReceiveMessage":
            return self._receive(asked, environ, client)
        with self._changed:
            refused = self._refusal(action, asked)
            if refused is not None:
                return refused
            answer = self._pass_on(action, asked, environ)
            self._changed.notify_all()
            return answer

    def _refusal(self, action: str, asked: dict[str, Any]) -> Answer | None:
        """What the real service answers where moto would do something else."""
        if action in _PUTS:
            if self.faults.refuse:
                return _error(403, "AccessDeniedException", "User is not authorized to perform: sqs:SendMessage")
            for message in asked.get("Entries", [asked]):
                text = message.get("MessageBody", "")
                if not text:
                    return _error(400, "MissingParameter", "The request must contain the parameter MessageBody.")
                if _BAD_TEXT.search(text):
                    return _error(400, "InvalidMessageContents", "Invalid characters found")
        if action in _SETTLES:
            message = _of_handle(asked)
            if message is None or message.receipt_handle != asked["ReceiptHandle"]:
                old = _error(400, "InvalidParameterValue", "The receipt handle has expired")
                return (200, b"{}") if action == "DeleteMessage" else old
            if action == "ChangeMessageVisibility" and message.visible:
                return _error(400, "AWS.SimpleQueueService.MessageNotInflight", "The message is not in flight.")
            if action == "DeleteMessage" and self._random.random() < self.faults.undelete:
                self._note([message.body], "a delete was forgotten")
                return 200, b"{}"
            if action == "DeleteMessage" and message.visible:
                self._note([message.body], "its lease had ended")
        return None

    def _receive(self, asked: dict[str, Any], environ: Environ, client: socket.socket) -> Answer:
        wait = asked.pop("WaitTimeSeconds", 0)
        until = time.monotonic() + wait
        name = str(asked.get("QueueUrl", "")).rpartition("/")[2]
        with self._changed:
            self._waiting[name] += 1
            try:
                while True:
                    if not self.faults.zombies and _is_gone(client):
                        return 0, b""
                    queue = _queue(name)
                    if queue is None or queue.messages or time.monotonic() >= until:
                        break
                    self._changed.wait(min(_TICK, until - time.monotonic()))
            finally:
                self._waiting[name] -= 1
            if queue is not None and self._random.random() < self.faults.reorder:
                self._random.shuffle(queue._messages)
            answer = self._pass_on("ReceiveMessage", asked, environ)
            if b'"Messages"' not in answer[1]:
                self.calls["receives of nothing"] += 1
            elif queue is not None and self._random.random() < self.faults.again:
                self._show_again(queue, answer[1])
            return answer

    def _show_again(self, queue: Queue, answer: bytes) -> None:
        """What has just been given out is given to the next one as well."""
        given = {found["MessageId"] for found in json.loads(answer)["Messages"]}
        for message in queue._messages:
            if message.id in given:
                message.visible_at = 0.0
                self._note([message.body], "a message was given out twice")

    def _pass_on(self, action: str, asked: dict[str, Any], environ: Environ) -> Answer:
        body = json.dumps(asked).encode()
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        started: list[str] = []

        def start_response(status: str, headers: object, exc_info: object = None) -> None:
            started.append(status)

        answer = b"".join(self._moto(inner, start_response))
        return int(started[0].split()[0]), answer


def _queues() -> list[Queue]:
    return [queue for backend in sqs_backends[DEFAULT_ACCOUNT_ID].values() for queue in backend.queues.values()]


def _backend_of(name: str) -> Any:
    return next(backend for backend in sqs_backends[DEFAULT_ACCOUNT_ID].values() if name in backend.queues)


def _queue(name: str) -> Queue | None:
    return next((queue for queue in _queues() if queue.name == name), None)


def _of_handle(asked: dict[str, Any]) -> Message | None:
    queue = _queue(str(asked.get("QueueUrl", "")).rpartition("/")[2])
    handle = asked.get("ReceiptHandle", "")
    return next((found for found in queue._messages if found.had_receipt_handle(handle)), None) if queue else None


def _error(status: int, code: str, message: str) -> Answer:
    return status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode()


def _is_gone(client: socket.socket) -> bool:
    """Whether the client has closed its end."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Handler(BaseHTTPRequestHandler):
    """HTTP with connections that are kept, which moto's own server closes after each answer."""

    protocol_version = "HTTP/1.1"
    # one packet an answer, and at once
    disable_nagle_algorithm = True
    wbufsize = -1
    front: HostileFront

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.front.answer(self._environ(), body, self.connection)
        if not status:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass

    def _environ(self) -> Environ:
        heads = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        host, _, port = self.headers.get("Host", "127.0.0.1:80").partition(":")
        return {
            **heads,
            "REQUEST_METHOD": "POST",
            "PATH_INFO": self.path,
            "QUERY_STRING": "",
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is not worth a line."""


def _end_with(parent: int) -> None:
    """Ends this process with whoever started it, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main() -> None:
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    # it asks for the time of each message at each call, and makes a datetime of it
    vars(models)["unix_time_millis"] = lambda: time.time() * 1000
    _Handler.front = HostileFront(create_backend_app("sqs"))
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()


if __name__ == "__main__":
    main()
