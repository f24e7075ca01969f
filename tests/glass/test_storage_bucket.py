from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import google.auth.exceptions
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.api_core.exceptions import RetryError
from google.auth.exceptions import (
    DefaultCredentialsError,
    MalformedError,
    MutualTLSChannelError,
    OAuthError,
    RefreshError,
    ResponseError,
    TransportError,
)

from glassq.errors import Bury, Retry
from glassq.glass.storage import open_storage
from glassq.glass.storage.bucket import BucketStorage
from glassq.glass.storage.verdicts import verdict
from glassq.values import StorageUrl
from tests.conftest import free_port
from tests.fakes.gcs import FakeGcs
from tests.fakes.metadata import FakeMetadata
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.glass.storage import PhotoStorage, Stored
    from tests.proxy import Way

MIB = 1 << 20


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs("photos") as service:
        yield service


@pytest.fixture
def storage(gcs: FakeGcs) -> Iterator[BucketStorage]:
    """One whose library asks once, so that every failure is seen at once."""
    opened = BucketStorage("photos", endpoint=gcs.url, max_retry_time=0)
    yield opened
    opened.close()


@pytest.fixture
def patient(gcs: FakeGcs) -> Iterator[BucketStorage]:
    opened = BucketStorage("photos", endpoint=gcs.url)
    yield opened
    opened.close()


def write(storage: PhotoStorage, name: str, *chunks: bytes, timeout: float = 30) -> Stored:
    return storage.write(name, chunks, content_type="image/jpeg", metadata={"item": "i", "user": "ü"}, timeout=timeout)


def test_interim_responses_are_not_the_answer(gcs: FakeGcs) -> None:
    def hinted(way: Way, data: bytes) -> bytes:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        return early + data if way == "back" and data.startswith(b"HTTP/1.1 ") else data

    with Proxy(urlsplit(gcs.url).port or 0, hinted) as proxy:
        opened = BucketStorage("photos", endpoint=f"http://127.0.0.1:{proxy.port}", max_retry_time=0)
        assert write(opened, "a.jpg", b"x").created
        opened.close()
        assert proxy.links


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody listens there
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    opened = BucketStorage("photos", endpoint=gcs.url, max_retry_time=0)
    assert write(opened, "a.jpg", b"x").created
    opened.close()


def test_an_object_says_what_it_is(gcs: FakeGcs, storage: BucketStorage) -> None:
    write(storage, "a.jpg", b"x")
    resource = gcs.objects["photos", "a.jpg"].resource
    assert resource["contentType"] == "image/jpeg"
    assert resource["metadata"] == {"item": "i", "user": "ü"}
    assert resource["cacheControl"] == "private, max-age=0"


def test_a_photo_is_one_request_and_nobody_asks_for_the_bucket_itself(gcs: FakeGcs, storage: BucketStorage) -> None:
    write(storage, "a.jpg", bytes(5 * MIB))
    assert [request.operation for request in gcs.asked()] == ["multipart"]


def test_a_video_goes_up_in_pieces(gcs: FakeGcs, storage: BucketStorage) -> None:
    data = bytes(range(256)) * (17 * MIB // 256)
    write(storage, "a.mp4", data)
    assert gcs.objects["photos", "a.mp4"].data == data
    assert [request.status for request in gcs.asked("chunk")] == [308, 308, 200]


@pytest.mark.parametrize(
    ("status", "reason", "kind", "words"),
    [
        # what can never be right
        (400, "invalid", Bury, "HTTP 400 said"),
        (400, "required", Bury, "HTTP 400 said"),
        (403, "accountDisabled", Bury, "HTTP 403 said"),
        (403, "insufficientPermissions", Bury, "HTTP 403 said"),
        (403, "retentionPolicyNotMet", Bury, "HTTP 403 said"),
        (405, "methodNotAllowed", Bury, "HTTP 405 said"),
        (413, "uploadTooLarge", Bury, "HTTP 413 said"),
        # what is not there yet, or never: a key, a permission, an API, a bucket
        (403, "forbidden", Retry, "grant roles/storage.objectUser on the bucket"),
        (403, "accessNotConfigured", Retry, "HTTP 403 said"),
        (403, "", Retry, "HTTP 403 said"),
        (404, "notFound", Retry, "the bucket does not exist"),
        # what passes
        (403, "userRateLimitExceeded", Retry, "HTTP 403 said"),
        (403, "quotaExceeded", Retry, "HTTP 403 said"),
        (408, "requestTimeout", Retry, "HTTP 408 said"),
        (409, "conflict", Retry, "HTTP 409 said"),
        (425, "tooEarly", Retry, "HTTP 425 said"),
        (429, "rateLimitExceeded", Retry, "HTTP 429 said"),
        (500, "internalError", Retry, "HTTP 500 said"),
        (503, "backendError", Retry, "HTTP 503 said"),
    ],
)
def test_an_error_answer_becomes_a_verdict(
    gcs: FakeGcs, storage: BucketStorage, status: int, reason: str, kind: type[Retry | Bury], words: str
) -> None:
    for operation, act in {
        "multipart": lambda: write(storage, "a.jpg", b"x"),
        "get": lambda: storage.find("a.jpg"),
        "list": lambda: list(storage.names("a")),
        "delete": lambda: storage.delete("a.jpg"),
    }.items():
        if status == 404 and operation in ("get", "delete"):
            continue  # there it means that the object is not there
        gcs.fail_next(operation, status, reason=reason, message="said")
        with pytest.raises(kind) as caught:
            act()
        assert caught.value.reason.startswith("gs://photos cannot ")
        assert words in caught.value.reason
    assert gcs.objects == {}


# How the service has said it, and how the fake does.
@pytest.mark.parametrize(
    "message",
    [
        'Provided MD5 hash "AAAAAAAAAAAAAAAAAAAAAA==" doesn\'t match calculated MD5 hash "1B2M2Y8AsgTpgAmY7PhCfg==".',
        'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "wdBDMA==".',
        "Provided crc32c hash doesn't match the one calculated: 'AAAAAA=='.",
        "The Content-MD5 you specified did not match what we received: checksum mismatch; they do not match.",
    ],
)
def test_a_photo_that_was_damaged_under_way_is_sent_again(gcs: FakeGcs, storage: BucketStorage, message: str) -> None:
    gcs.fail_next("multipart", 400, reason="invalid", message=message)
    with pytest.raises(Retry, match=r"cannot store a\.jpg: the bytes arrived changed"):
        write(storage, "a.jpg", b"x")
    gcs.fail_next("chunk", 400, reason="invalid", message=message)
    with pytest.raises(Retry, match=r"cannot store a\.mp4: the bytes arrived changed"):
        write(storage, "a.mp4", bytes(9 * MIB))
    assert gcs.objects == {}


def test_a_quota_that_is_used_up_is_asked_for_again_in_an_hour(gcs: FakeGcs, storage: BucketStorage) -> None:
    gcs.fail_next("multipart", 403, reason="quotaExceeded", headers={"Retry-After": "9"})
    with pytest.raises(Retry) as caught:
        write(storage, "a.jpg", b"x")
    assert caught.value.delay == 3600


def test_a_server_that_asks_to_wait_is_heard(gcs: FakeGcs, storage: BucketStorage) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    for asked, expected in {"17": 17, later: pytest.approx(600, abs=60), "soon": None}.items():
        gcs.fail_next("multipart", 429, headers={"Retry-After": asked})
        with pytest.raises(Retry) as caught:
            write(storage, "a.jpg", b"x")
        assert caught.value.delay == expected


def test_a_missing_bucket_is_told(gcs: FakeGcs) -> None:
    storage = BucketStorage("other", endpoint=gcs.url)
    assert storage.find("a.jpg") is None
    with pytest.raises(Retry, match=r"gs://other cannot store a\.jpg: the bucket does not exist; create it"):
        write(storage, "a.jpg", b"x")
    storage.close()


def test_an_html_answer_is_worth_another_try(gcs: FakeGcs, storage: BucketStorage) -> None:
    for status in (200, 502):
        gcs.fail_next("list", status, body=b"<html>Sorry</html>")
        with pytest.raises(Retry):
            list(storage.names(""))


def test_a_short_failure_is_ridden_out_without_the_queue(gcs: FakeGcs, patient: BucketStorage) -> None:
    gcs.fail_next("multipart", 503)
    assert write(patient, "a.jpg", b"x").created
    assert [request.status for request in gcs.asked("multipart")] == [503, 200]


def test_a_connection_that_breaks_in_an_upload_stores_nothing(gcs: FakeGcs, storage: BucketStorage) -> None:
    gcs.drop_next("multipart", after=MIB)
    with pytest.raises(Retry, match=r"cannot store a\.jpg: the connection failed"):
        write(storage, "a.jpg", bytes(4 * MIB))
    assert gcs.objects == {}
    gcs.drop_next("chunk", after=MIB)
    with pytest.raises(Retry, match=r"cannot store a\.mp4: the connection failed"):
        write(storage, "a.mp4", bytes(9 * MIB))
    assert gcs.objects == {}


def test_an_upload_in_pieces_goes_on_after_a_broken_connection(gcs: FakeGcs, patient: BucketStorage) -> None:
    data = bytes(range(256)) * (17 * MIB // 256)
    gcs.drop_next("chunk", after=3 * MIB)
    assert write(patient, "a.mp4", data).created
    assert gcs.objects["photos", "a.mp4"].data == data


@pytest.mark.parametrize("size", [10, 9 * MIB], ids=["one request", "pieces"])
def test_an_object_whose_answer_was_lost_is_stored_once(gcs: FakeGcs, patient: BucketStorage, size: int) -> None:
    gcs.drop_next("multipart")
    gcs.drop_next("chunk", times=2)
    assert write(patient, "a", b"x" * size).size == size
    assert gcs.objects["photos", "a"].data == b"x" * size
    assert write(patient, "a", b"other").created is False


def test_a_session_that_ended_in_an_upload_is_begun_again(gcs: FakeGcs, storage: BucketStorage) -> None:
    gcs.fail_next("chunk", 410, reason="gone", message="Session ended")
    with pytest.raises(Retry, match="HTTP 410 Session ended") as caught:
        write(storage, "a.mp4", bytes(9 * MIB))
    evidence = "".join(traceback.format_exception(caught.value))
    assert "upload_id" not in evidence, "whoever reads the upload's URL could go on with it"


def test_a_photo_that_took_all_the_time_to_read_is_not_uploaded(gcs: FakeGcs, storage: BucketStorage) -> None:
    with pytest.raises(Retry, match="all the time there was"):
        write(storage, "a.jpg", b"x", timeout=0)
    assert gcs.asked() == []


def test_an_object_deleted_while_a_second_writer_looks_is_worth_another_try(
    gcs: FakeGcs, storage: BucketStorage
) -> None:
    gcs.fail_next("multipart", 412, reason="conditionNotMet")
    with pytest.raises(Retry, match="was there and is gone"):
        write(storage, "a.jpg", b"x")


def test_nobody_listening_is_worth_another_try() -> None:
    storage = BucketStorage("photos", endpoint=f"http://127.0.0.1:{free_port()}", max_retry_time=0)
    with pytest.raises(Retry, match="cannot look for a: the connection failed: ConnectionError"):
        storage.find("a")
    storage.close()


@pytest.fixture
def key_file(gcs: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account whose token endpoint is the fake, set up as an operator does it."""
    key = rsa.generate_private_key(65_537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "key.json"
    account = {
        "type": "service_account",
        "client_email": "glassq@example.iam.gserviceaccount.com",
        "token_uri": f"{gcs.url}/token",
        "private_key_id": "1",
        "private_key": key.decode(),
    }
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", gcs.url)
    return file


@pytest.mark.usefixtures("key_file")
class TestWithAServiceAccount:
    @pytest.fixture
    def account(self, key_file: Path) -> Iterator[PhotoStorage]:
        opened = open_storage(StorageUrl("gs://photos"))
        yield opened
        opened.close()

    def test_photos_are_stored_with_its_token(self, gcs: FakeGcs, account: PhotoStorage) -> None:
        assert write(account, "a.jpg", b"x").created
        assert [request.operation for request in gcs.asked()] == ["token", "multipart"]

    @pytest.mark.parametrize(
        "description",
        [
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            "Invalid JWT Signature.",
            "Invalid grant: account not found",
        ],
    )
    def test_a_clock_that_is_off_or_a_key_that_is_new_is_worth_another_try(
        self, gcs: FakeGcs, account: PhotoStorage, description: str
    ) -> None:
        said = {"error": "invalid_grant", "error_description": description}
        gcs.fail_next("token", 400, body=json.dumps(said).encode())
        with pytest.raises(Retry, match=rf"\(invalid_grant {re.escape(description)}\); clock and key right\?"):
            account.find("a.jpg")
        assert account.find("a.jpg") is None

    @pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_scope"])
    def test_a_key_that_is_not_accepted_is_the_operators(self, gcs: FakeGcs, account: PhotoStorage, error: str) -> None:
        said = {"error": error, "error_description": "Invalid JWT Signature."}
        gcs.fail_next("token", 400, body=json.dumps(said).encode())
        with pytest.raises(Bury, match=rf"service account's key \({error} Invalid JWT Signature\.\)"):
            account.find("a.jpg")

    def test_a_token_endpoint_in_trouble_is_worth_another_try(self, gcs: FakeGcs, account: PhotoStorage) -> None:
        gcs.fail_next("token", 502, body=b"<html>Bad Gateway</html>")
        with pytest.raises(Retry, match="gives no token now"):
            account.find("a.jpg")

    def test_a_token_that_is_not_accepted_is_told(self, gcs: FakeGcs, account: PhotoStorage) -> None:
        gcs.fail_next("get", 401, reason="authError", message="Invalid Credentials", times=5)
        with pytest.raises(Retry, match=r"the credentials are not accepted \(HTTP 401 Invalid Credentials\)"):
            account.find("a.jpg")

    @pytest.mark.parametrize("content", [None, "{", '{"type": "service_account"}'])
    def test_an_unusable_key_file_is_told_at_open(self, key_file: Path, content: str | None) -> None:
        if content is None:
            key_file.unlink()
        else:
            key_file.write_text(content)
        with pytest.raises(Bury, match="gs://photos cannot be opened: no usable Google credentials") as caught:
            open_storage(StorageUrl("gs://photos"))
        assert str(key_file) in caught.value.reason

    def test_a_key_file_that_an_editor_changed_says_what_is_wrong_with_it(self, key_file: Path) -> None:
        key_file.write_bytes(b"\xef\xbb\xbf" + key_file.read_bytes())
        with pytest.raises(Bury, match=r"is not a valid json file\..*BOM"):
            open_storage(StorageUrl("gs://photos"))


# google-auth reads its variables when it is imported: each machine is a process.
ON_A_MACHINE = """
from glassq.errors import Verdict
from glassq.glass.storage import open_storage
from glassq.values import StorageUrl
try:
    storage = open_storage(StorageUrl("gs://photos"))
    print(storage.write("a.jpg", [b"x"], content_type="image/jpeg", metadata={}, timeout=30))
except Verdict as verdict:
    print(type(verdict).__name__, verdict.reason)
"""


def on_a_machine(gcs: FakeGcs, metadata: str, home: Path) -> str:
    """What storing comes to on a virtual machine without a key file, whose metadata server is there."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_"))}
    env |= {"GCE_METADATA_HOST": metadata, "GCE_METADATA_IP": metadata, "HOME": str(home)}
    env |= {"GCE_METADATA_TIMEOUT": "1", "GCE_METADATA_DETECT_RETRIES": "1", "API_ENDPOINT_OVERRIDE": gcs.url}
    done = subprocess.run([sys.executable, "-c", ON_A_MACHINE], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_machine_whose_metadata_server_is_not_up_yet_tries_again(gcs: FakeGcs, tmp_path: Path) -> None:
    said = on_a_machine(gcs, f"127.0.0.1:{free_port()}", tmp_path)
    assert said.startswith("Retry gs://photos cannot be opened: no Google credentials now: GOOGLE_APPLICATION_CRED")


def test_a_machine_that_gets_no_token_yet_tries_again_and_then_stores(gcs: FakeGcs, tmp_path: Path) -> None:
    with FakeMetadata({"/token": 404}) as metadata:
        assert on_a_machine(gcs, metadata.host, tmp_path).startswith("Retry gs://photos cannot store a.jpg: ")
        metadata.failing.clear()
        assert on_a_machine(gcs, metadata.host, tmp_path).startswith("Stored(url='gs://photos/a.jpg', size=1")


def test_googles_own_variable_for_an_emulator_works(gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    storage = open_storage(StorageUrl("gs://photos"))
    assert write(storage, "a.jpg", b"x").created
    storage.close()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (requests.ReadTimeout(), Retry, "t: the connection failed: ReadTimeout"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Retry, "failed: Connection reset by peer"),
        (OSError(errno.ENOSPC, "No space left on device"), Retry, "t: no space left for temporary files"),
        (TransportError(requests.ConnectionError()), Retry, "token endpoint cannot be reached"),
        (RefreshError("text", "<html>"), Retry, "gives no token now"),
        (RefreshError("text", {"error": "internal_failure"}), Retry, "gives no token now"),
        (TransportError(requests.exceptions.SSLError("not yet valid")), Retry, "token endpoint cannot be reached"),
        (ResponseError("cut short"), Retry, "token endpoint cannot be reached"),
        (google.auth.exceptions.TimeoutError("late"), Retry, "token endpoint cannot be reached"),
        (OAuthError("Error code 500", "<html>"), Retry, "gives no token now"),
        (RefreshError("text", {"error": "invalid_grant"}), Retry, "clock and key right"),
        (RefreshError("text", {"error": "invalid_scope"}), Bury, "clock and key right"),
        (DefaultCredentialsError("Your default credentials were not found. To set up"), Retry, "no metadata server"),
        (DefaultCredentialsError("File k.json was not found."), Bury, "(File k.json was not found.)"),
        (MalformedError("no key"), Bury, "no usable Google credentials"),
        (PermissionError(errno.EACCES, "Permission denied", "k.json"), Retry, "t: k.json cannot be used: Permission"),
        (requests.exceptions.SSLError("not yet valid"), Retry, "the connection failed: SSLError"),
        (requests.ConnectionError("Name or service not known"), Retry, "the connection failed: ConnectionError"),
        (MutualTLSChannelError("no certificate"), Bury, "cannot be used: no certificate"),
        (RetryError("late", requests.ConnectTimeout()), Retry, "failed: ConnectTimeout"),
        (RetryError("late", None), Retry, "failed: RetryError"),
    ],
    ids=repr,
)
def test_a_failure_without_an_answer_becomes_a_verdict(error: Exception, kind: type, words: str) -> None:
    told = verdict(error, "t")
    assert type(told) is kind
    assert words in told.reason
