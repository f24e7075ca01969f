"""What answers is not always the service: a proxy, a portal, nobody that knows our credentials."""

from __future__ import annotations

import json
import re
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest
from botocore import exceptions as boto

from glassq.delivery import encode, new
from glassq.errors import JobTooBig, QueueError, QueueUnavailable
from glassq.queues import open_inspector, open_producer, open_receiver
from glassq.queues.aws import client as aws_client
from glassq.queues.aws.troubles import translated
from glassq.queues.base import NewJob, Receipt, Refusal
from glassq.queues.sqs.client import shared_client as sqs_client
from glassq.queues.sqs.troubles import WORDS as SQS_WORDS
from glassq.queues.swf.client import shared_client as swf_client
from glassq.queues.swf.troubles import WORDS as SWF_WORDS
from glassq.settings import parse
from tests.queues.aws.service import CREDENTIALS, REGION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from glassq.settings import Settings

    Answer = tuple[int, str, bytes]

JSON = "application/x-amz-json-1.0"
PAGE = b"<!DOCTYPE html><html><body>Please sign in to use this network. " + b"x" * 5_000 + b"</body></html>"


class Portal(BaseHTTPRequestHandler):
    """Answers every call alike, or as a test wants it."""

    protocol_version = "HTTP/1.1"
    answer: ClassVar[Callable[[str, str], Answer]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        action = self.headers["X-Amz-Target"].rpartition(".")[2]
        key = re.search(r"Credential=([^/]+)", self.headers.get("Authorization", ""))
        status, kind, body = type(self).answer(action, key[1] if key else "")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file in which boto3 looks for credentials; there are no others."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _forget()
    yield file
    # the next test finds its own
    _forget()


def _forget() -> None:
    for each in (aws_client._session, sqs_client, swf_client):
        each.cache_clear()


def write(file: Path, key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")


def settings_of(engine: str, endpoint: str, directory: Path) -> Settings:
    text = f'[queue]\nurl = "{engine}://{REGION}/shop?endpoint={endpoint}&poll=1"\ntimeout = "5s"\n'
    return parse(text + f'[ledger]\nurl = "sqlite:///{directory}/ledger.db"\n', str(directory / "glassq.toml"))


def put(settings: Settings) -> Receipt | Refusal:
    delivery = new("mirror", b"{}", {})
    with closing(open_producer(settings)) as producer:
        [answer] = producer.put([NewJob(delivery.id, encode(delivery), "glassq", 0)], within=5)
    return answer


@pytest.mark.parametrize("engine", ["sqs", "swf"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, "text/html; charset=utf-8", PAGE), "HTTP 200, text/html: not the service"),
        ((502, "text/html", PAGE), "HTTP 502, text/html: not the service"),
        ((403, "text/html", PAGE), "HTTP 403, text/html: not the service"),
        ((200, JSON, b"[1, 2]"), "not the service"),
        ((200, JSON, b"\xff\xfe{}"), "not the service"),
        ((200, JSON, b"{}"), "the answer"),
        ((200, JSON, b""), "the answer"),
        ((200, JSON, b'{"Successful": 7, "runId": null}'), "the answer"),
        ((200, JSON, b'{"QueueUrl": {}, "runId": '), ""),
    ],
)
def test_what_the_service_has_not_answered_is_no_proof(
    engine: str, answer: Answer, says: str, endpoint: str, own: Path, tmp_path: Path
) -> None:
    Portal.answer = staticmethod(lambda action, key: answer)  # type: ignore[assignment]
    write(own, "KEY")
    settings = settings_of(engine, endpoint, tmp_path)
    refusal = put(settings)
    assert isinstance(refusal, Refusal), refusal
    assert isinstance(refusal.error, QueueUnavailable), refusal
    assert says in str(refusal.error)
    assert "sign in" not in str(refusal.error)
    with closing(open_inspector(settings)) as inspector, pytest.raises(QueueError) as raised:
        inspector.counts(["glassq"])
    assert "network" not in str(raised.value)
    assert inspector.explain(raised.value).todo
    with closing(open_receiver(settings)) as receiver, pytest.raises(QueueError):
        receiver.reserve(["glassq"], 0)


def test_a_put_that_something_on_the_way_answered_may_have_happened(endpoint: str, own: Path, tmp_path: Path) -> None:
    def answer(action: str, _key: str) -> Answer:
        if action == "GetQueueUrl":
            return 200, JSON, json.dumps({"QueueUrl": f"{endpoint}/1/shop-glassq"}).encode()
        return 502, "text/html", PAGE

    Portal.answer = staticmethod(answer)  # type: ignore[assignment]
    write(own, "KEY")
    refusal = put(settings_of("sqs", endpoint, tmp_path))
    assert isinstance(refusal, Refusal)
    assert refusal.in_doubt


@pytest.mark.parametrize("engine", ["sqs", "swf"])
def test_credentials_that_come_late_or_change_need_no_restart(
    engine: str, endpoint: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = "FIRST"

    def answer(action: str, key: str) -> Answer:
        if key != known:
            said = {
                "__type": "InvalidClientTokenId",
                "message": "The security token included in the request is invalid",
            }
            return 403, JSON, json.dumps(said).encode()
        if action == "GetQueueUrl":
            return 200, JSON, json.dumps({"QueueUrl": f"{endpoint}/1/shop-glassq"}).encode()
        if action == "StartWorkflowExecution":
            return 200, JSON, b'{"runId": "run"}'
        return 200, JSON, b'{"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": ""}], "Failed": []}'

    Portal.answer = staticmethod(answer)  # type: ignore[assignment]
    monkeypatch.setattr(aws_client, "_CREDENTIALS_FOR", 0.0)
    settings = settings_of(engine, endpoint, tmp_path)

    def refused(says: str) -> bool:
        answer = put(settings)
        return isinstance(answer, Refusal) and says in str(answer.error)

    assert refused("Unable to locate credentials")
    write(own, "FIRST")
    assert isinstance(put(settings), Receipt)
    known = "SECOND"
    assert refused("InvalidClientTokenId")
    write(own, "SECOND")
    # what was found before is asked once more, as nobody knows that it has changed
    put(settings)
    assert isinstance(put(settings), Receipt)


def test_an_answer_quotes_neither_the_body_nor_the_token_of_a_request() -> None:
    body = '{"verifyToken": "hunter2", "text": "it' + "'" + " at " + "'" + 'sea"}\nand more' * 400
    said = f"1 validation error detected: Value '{body}' at 'input' failed to satisfy constraint: "
    said += "Member must have length less than or equal to 32768"
    answer = {"Error": {"Code": "ValidationException", "Message": said}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    error = translated(boto.ClientError(answer, "StartWorkflowExecution"), "", SWF_WORDS)
    assert isinstance(error, JobTooBig)
    assert "hunter2" not in str(error)
    assert "a value at 'input' failed" in str(error)

    said = "The request signature we calculated does not match the signature you provided.\n\n"
    said += "The Canonical String for this request should have been\n"
    said += "'POST\n/\n\nx-amz-security-token:IQoJb3JpZ2luX2VjEHo\n'"
    answer["Error"] = {"Code": "SignatureDoesNotMatch", "Message": said}
    error = translated(boto.ClientError(answer, "SendMessage"), "", SQS_WORDS)
    assert "IQoJb3" not in str(error)
    assert "does not match" in str(error)
