"""Amazon SQS for tests: moto, with what the real service refuses and moto does not, and as hostile as it may be.

Run as `python -m tests.queues.sqs.server PORT`; it listens on 127.0.0.1 and keeps all in memory. In front of moto, in
the same process, stands `HostileFront`. Tests may ask it for `POST /glassq/truth` (all messages as they are, which SQS
itself tells nobody), and to change them.

What moto gets wrong, and is made right here: two receives at once get the same message; extending a lease that has
ended, or with an older handle, succeeds; deleting with an older handle deletes; control characters and empty bodies are
taken; a long poll looks once a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import ServiceException
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from moto.sqs import models
from moto.sqs.models import sqs_backends
from moto.sqs.responses import SQSResponse

from tests.queues.aws.front import Front, error, is_gone, serve
from tests.queues.sqs.faults import GIVEN_BACK, Faults

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from moto.sqs.models import Message, Queue

    from tests.queues.aws.front import Answer, Environ

# Requests that may be repeated at the service's own will, and those that put something.
_PUTS = ("SendMessage", "SendMessageBatch")
_SETTLES = ("DeleteMessage", "ChangeMessageVisibility")
_BAD_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What is asked most, by moto's own names.
_METHODS = {
    "SendMessage": "send_message",
    "SendMessageBatch": "send_message_batch",
    "ReceiveMessage": "receive_message",
    "DeleteMessage": "delete_message",
    "ChangeMessageVisibility": "change_message_visibility",
    "CreateQueue": "create_queue",
    "GetQueueUrl": "get_queue_url",
    "GetQueueAttributes": "get_queue_attributes",
}
# In the attribute of a message that takes the place of another one of the same form.
_ANEW = '"ref"'
# How often a long poll looks for what becomes visible by itself, in seconds.
_TICK = 0.05


class HostileFront(Front[Faults]):
    """Stands in front of moto's WSGI application. It carries out one call at a time."""

    throttled = ("com.amazonaws.sqs#ThrottlingException", "Rate exceeded")

    def __init__(self, moto: Any) -> None:
        super().__init__(Faults())
        self._moto = moto
        self._waiting: Counter[str] = Counter()
        # texts of messages that were sent anew to be given back, until one of their messages is deleted
        self._twins: set[str] = set()

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def told(self, what: str, body: bytes) -> object:
        if what == "truth":
            return {"waiting": self._waiting, "messages": list(self._truth())}
        if what == "remove":
            self._remove(json.loads(body))
        elif what == "fill":
            name, messages, text = json.loads(body)
            queue = _backend_of(name).queues[name]
            for _ in range(messages):
                message = models.Message(str(uuid.uuid4()), text)
                message.mark_sent()
                queue.add_message(message)
        elif what == "make":
            names, attributes = json.loads(body)
            for name in names:
                sqs_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].create_queue(name, **attributes)
        elif what == "drop":
            for name in json.loads(body):
                _backend_of(name).delete_queue(name)
        return super().told(what, body)

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

    def concerned(self, action: str, asked: dict[str, Any], answer: Answer | None) -> list[str]:
        if answer is not None and action == "ReceiveMessage" and b'"Messages"' in answer[1]:
            return [found["Body"] for found in json.loads(answer[1])["Messages"]]
        if action in _PUTS:
            return [message.get("MessageBody", "") for message in asked.get("Entries", [asked])]
        if action in _SETTLES or action == "DeleteMessageBatch":
            with self.changed:
                found = [_of_handle(asked, one["ReceiptHandle"]) for one in asked.get("Entries", [asked])]
                return [message.body for message in found if message is not None]
        return []

    def carry_out(self, action: str, asked: dict[str, Any], environ: Environ, client: socket.socket) -> Answer:
        if action == "ReceiveMessage":
            return self._receive(asked, environ, client)
        with self.changed:
            if action == "DeleteMessageBatch":
                return self._delete_all(asked, environ)
            if action == "SendMessageBatch" and self.faults.unfit:
                return self._send_fit(asked, environ)
            refused = self._refusal(action, asked)
            if refused is not None:
                return refused
            answer = self._pass_on(action, asked, environ)
            if action in _PUTS:
                self._twins.update(text for text, story in _sent(asked) if _ANEW in story)
            self.changed.notify_all()
            return answer

    def _delete_all(self, asked: dict[str, Any], environ: Environ) -> Answer:
        """As many deletes of one message, of which each may be forgotten."""
        one = {**environ, "HTTP_X_AMZ_TARGET": "AmazonSQS.DeleteMessage"}
        done = []
        for entry in asked["Entries"]:
            delete = {"QueueUrl": asked["QueueUrl"], "ReceiptHandle": entry["ReceiptHandle"]}
            status, answer = self._refusal("DeleteMessage", delete) or self._pass_on("DeleteMessage", delete, one)
            if status != 200:
                return status, answer
            done.append({"Id": entry["Id"]})
        self.changed.notify_all()
        return 200, json.dumps({"Successful": done, "Failed": []}).encode()

    def _send_fit(self, asked: dict[str, Any], environ: Environ) -> Answer:
        """Of those that are sent at once, some are refused."""
        unfit = [entry for entry in asked["Entries"] if self.faults.unfit in entry["MessageBody"]]
        fit = [entry for entry in asked["Entries"] if entry not in unfit]
        status, answer = 200, b'{"Successful": []}'
        if fit:
            status, answer = self._pass_on("SendMessageBatch", {**asked, "Entries": fit}, environ)
        if status != 200:
            return status, answer
        failure = {"Code": "InvalidMessageContents", "SenderFault": True, "Message": "It is not fit."}
        failed = [{"Id": entry["Id"], **failure} for entry in unfit]
        self.changed.notify_all()
        return 200, json.dumps({**json.loads(answer), "Failed": failed}).encode()

    def _refusal(self, action: str, asked: dict[str, Any]) -> Answer | None:
        """What the real service answers where moto would do something else."""
        if action in _PUTS:
            if self.faults.refuse:
                return _refused(403, "AccessDeniedException", "User is not authorized to perform: sqs:SendMessage")
            for message in asked.get("Entries", [asked]):
                text = message.get("MessageBody", "")
                if not text:
                    return _refused(400, "MissingParameter", "The request must contain the parameter MessageBody.")
                if _BAD_TEXT.search(text):
                    return _refused(400, "InvalidMessageContents", "Invalid characters found")
        if action == "CreateQueue" and self.faults.unmade:
            return _refused(403, "AccessDeniedException", "User is not authorized to perform: sqs:CreateQueue")
        if action in _SETTLES:
            message = _of_handle(asked, asked["ReceiptHandle"])
            if message is None or message.receipt_handle != asked["ReceiptHandle"]:
                old = _refused(400, "InvalidParameterValue", "The receipt handle has expired")
                return (200, b"{}") if action == "DeleteMessage" else old
            if action == "ChangeMessageVisibility" and message.visible:
                return _refused(400, "AWS.SimpleQueueService.MessageNotInflight", "The message is not in flight.")
            if action == "DeleteMessage" and self.random.random() < self.faults.undelete:
                self.note([message.body], "a delete was forgotten")
                return 200, b"{}"
            if action == "DeleteMessage" and message.visible:
                self.note([message.body], "its lease had ended")
            if action == "DeleteMessage":
                self._twins.discard(message.body)
        return None

    def _receive(self, asked: dict[str, Any], environ: Environ, client: socket.socket) -> Answer:
        wait = asked.pop("WaitTimeSeconds", 0)
        until = time.monotonic() + wait
        name = str(asked.get("QueueUrl", "")).rpartition("/")[2]
        with self.changed:
            self._waiting[name] += 1
            try:
                while True:
                    if not self.faults.zombies and is_gone(client):
                        return 0, b""
                    queue = _queue(name)
                    if queue is None or queue.messages or time.monotonic() >= until:
                        break
                    self.changed.wait(min(_TICK, until - time.monotonic()))
            finally:
                self._waiting[name] -= 1
            if queue is not None and self.random.random() < self.faults.reorder:
                self.random.shuffle(queue._messages)
            answer = self._pass_on("ReceiveMessage", asked, environ)
            given = self.concerned("ReceiveMessage", asked, answer)
            if not given:
                self.calls["receives of nothing"] += 1
            if twins := [text for text in given if text in self._twins]:
                self.note(twins, GIVEN_BACK)
            if given and queue is not None and self.random.random() < self.faults.again:
                self._show_again(queue, answer[1])
            return answer

    def _show_again(self, queue: Queue, answer: bytes) -> None:
        """What has just been given out is given to the next one as well."""
        given = {found["MessageId"] for found in json.loads(answer)["Messages"]}
        for message in queue._messages:
            if message.id in given:
                message.visible_at = 0.0
                self.note([message.body], "a message was given out twice")

    def _pass_on(self, action: str, asked: dict[str, Any], environ: Environ) -> Answer:
        method = _METHODS.get(action)
        if method is not None:
            with contextlib.suppress(ServiceException):
                answer: Any = getattr(_Answers(asked, environ), method)()
                return 200, json.dumps(answer.result or {}).encode()
        # what is wrong in moto's own words, and what is rare
        body = json.dumps(asked).encode()
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        started: list[str] = []

        def start_response(status: str, headers: object, exc_info: object = None) -> None:
            started.append(status)

        answer = b"".join(self._moto(inner, start_response))
        return int(started[0].split()[0]), answer


class _Answers(SQSResponse):
    """moto's answers to a request that is parsed already: its way through HTTP takes ten times as long."""

    def __init__(self, asked: dict[str, Any], environ: Environ) -> None:
        super().__init__()
        self.params, self.uri_match = asked, {}
        self.path, self.uri = "/", f"http://{environ['HTTP_HOST']}/"
        self.region, self.current_account = _region_of(environ), DEFAULT_ACCOUNT_ID


def _region_of(environ: Environ) -> str:
    """That which the request was signed for: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/..."""
    return str(environ["HTTP_AUTHORIZATION"]).split("/")[2]


def _queues() -> list[Queue]:
    return [queue for backend in sqs_backends[DEFAULT_ACCOUNT_ID].values() for queue in backend.queues.values()]


def _backend_of(name: str) -> Any:
    return next(backend for backend in sqs_backends[DEFAULT_ACCOUNT_ID].values() if name in backend.queues)


def _queue(name: str) -> Queue | None:
    return next((queue for queue in _queues() if queue.name == name), None)


def _of_handle(asked: dict[str, Any], handle: str) -> Message | None:
    queue = _queue(str(asked.get("QueueUrl", "")).rpartition("/")[2])
    return next((found for found in queue._messages if found.had_receipt_handle(handle)), None) if queue else None


def _sent(asked: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The text of each message that is sent, and its attribute of ours."""
    for message in asked.get("Entries", [asked]):
        yield message.get("MessageBody", ""), str(message.get("MessageAttributes", {}).get("glassq", ""))


def _refused(status: int, code: str, message: str) -> Answer:
    return error(status, f"com.amazonaws.sqs#{code}", message)


def main() -> None:
    # it asks for the time of each message at each call, and makes a datetime of it
    vars(models)["unix_time_millis"] = lambda: time.time() * 1000
    serve(HostileFront(create_backend_app("sqs")), int(sys.argv[1]))


if __name__ == "__main__":
    main()
