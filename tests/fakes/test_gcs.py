"""The fake, held against Google's own client and against what the JSON API's pages say."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed, TooManyRequests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse

from tests.fakes.gcs import GRANULE, FakeGcs

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
DATA = bytes(range(256)) * (MIB // 256)


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    with FakeGcs("b", page=2) as service:
        yield service


@pytest.fixture
def bucket(gcs: FakeGcs) -> Iterator[Any]:
    with storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": gcs.url}) as client:
        yield client.bucket("b")


def test_what_went_up_in_one_request_comes_down_with_its_checksums(bucket: Any) -> None:
    blob = bucket.blob("a/ü?.jpg")
    blob.metadata = {"k": "v"}
    blob.upload_from_string(DATA, content_type="image/jpeg", checksum="crc32c")
    found = bucket.get_blob("a/ü?.jpg")
    assert (found.size, found.content_type, found.metadata) == (MIB, "image/jpeg", {"k": "v"})
    assert (found.crc32c, found.md5_hash) == (blob.crc32c, blob.md5_hash)
    assert found.download_as_bytes(checksum="crc32c") == DATA
    assert found.download_as_bytes(checksum="md5") == DATA


def test_what_went_up_in_pieces_is_the_same(gcs: FakeGcs, bucket: Any) -> None:
    with bucket.blob("a").open("wb", chunk_size=GRANULE, content_type="image/png", ignore_flush=True) as file:
        file.write(DATA)
        file.write(b"the end")
    assert bucket.get_blob("a").download_as_bytes() == DATA + b"the end"
    assert [request.status for request in gcs.asked("chunk")] == [308, 308, 308, 308, 200]


def test_a_range_is_a_part(bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"0123456789")
    assert bucket.blob("a").download_as_bytes(start=2, end=4, checksum=None) == b"234"
    assert bucket.blob("a").download_as_bytes(start=8, checksum=None) == b"89"
    assert bucket.blob("a").download_as_bytes(start=8, end=99, checksum=None) == b"89"


def test_a_range_behind_the_end_is_416(gcs: FakeGcs, bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"0123456789")
    answer = requests.get(f"{gcs.url}/download/storage/v1/b/b/o/a", headers={"Range": "bytes=10-"}, timeout=60)
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")


def test_a_list_has_pages_and_a_prefix(gcs: FakeGcs, bucket: Any) -> None:
    for name in ["p/3", "p/1", "q", "p/2", "p/5", "p/4"]:
        bucket.blob(name).upload_from_string(b"x")
    assert [blob.name for blob in bucket.list_blobs(prefix="p/")] == ["p/1", "p/2", "p/3", "p/4", "p/5"]
    assert len(gcs.asked("list")) == 3
    assert list(bucket.list_blobs(prefix="r")) == []


def test_what_must_not_exist_is_refused_where_it_does(bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string(b"second", if_generation_match=0)
    assert bucket.blob("a").download_as_bytes() == b"first"


def test_in_pieces_the_refusal_comes_with_the_last_one(gcs: FakeGcs, bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"first")
    file = bucket.blob("a").open("wb", chunk_size=GRANULE, if_generation_match=0, ignore_flush=True)
    file.write(bytes(2 * GRANULE))
    with pytest.raises(InvalidResponse) as caught:
        file.close()
    file.terminate()
    assert caught.value.response.status_code == 412
    assert [request.status for request in gcs.asked("resumable", "chunk")] == [200, 308, 308, 412]
    assert bucket.blob("a").download_as_bytes() == b"first"


def test_a_generation_is_matched_exactly(bucket: Any) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string(b"first")
    old = blob.generation
    blob.upload_from_string(b"second", if_generation_match=old)
    assert blob.generation != old
    for act in (bucket.blob("a").reload, bucket.blob("a").delete):
        with pytest.raises(PreconditionFailed):
            act(if_generation_match=old)
    with pytest.raises(PreconditionFailed):
        bucket.blob("new").upload_from_string(b"x", if_generation_match=old)
    bucket.blob("a").delete(if_generation_match=blob.generation)
    assert bucket.get_blob("a") is None


def test_what_is_not_there_is_404_in_googles_words(bucket: Any) -> None:
    with pytest.raises(NotFound, match="No such object: b/a"):
        bucket.blob("a").reload()
    with pytest.raises(NotFound, match="No such object: b/a") as caught:
        bucket.blob("a").delete()
    assert caught.value.errors[0]["reason"] == "notFound"
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        list(bucket.client.bucket("other").list_blobs())


def test_bytes_that_changed_on_the_way_are_not_stored(gcs: FakeGcs) -> None:
    place = f"{gcs.url}/upload/storage/v1/b/b/o"
    body = b'--x\r\n\r\n{"name": "a", "crc32c": "AAAAAA=="}\r\n--x\r\ncontent-type: image/png\r\n\r\ndata\r\n--x--'
    headers = {"Content-Type": 'multipart/related; boundary="x"'}
    assert requests.post(f"{place}?uploadType=multipart", body, headers=headers, timeout=60).status_code == 400
    started = requests.post(f"{place}?uploadType=resumable&name=a", b"{}", timeout=60)
    last = {"Content-Range": "bytes 0-3/4", "X-Goog-Hash": "crc32c=AAAAAA=="}
    assert requests.put(started.headers["Location"], b"data", headers=last, timeout=60).status_code == 400
    assert gcs.objects == {}


def test_an_upload_in_pieces_can_be_asked_how_far_it_is(gcs: FakeGcs) -> None:
    started = requests.post(f"{gcs.url}/upload/storage/v1/b/b/o?uploadType=resumable&name=a", b"{}", timeout=60)
    place = started.headers["Location"]

    def put(body: bytes, content_range: str) -> requests.Response:
        return requests.put(place, body, headers={"Content-Range": content_range}, timeout=60, allow_redirects=False)

    assert "Range" not in put(b"", "bytes */*").headers
    assert put(bytes(GRANULE), f"bytes 0-{GRANULE - 1}/*").headers["Range"] == f"bytes=0-{GRANULE - 1}"
    assert put(b"", "bytes */*").status_code == 308
    assert put(b"odd", f"bytes {GRANULE}-{GRANULE + 2}/*").status_code == 400
    assert put(bytes(GRANULE), f"bytes {9 * GRANULE}-{10 * GRANULE - 1}/*").status_code == 400
    assert put(b"end", f"bytes {GRANULE}-{GRANULE + 2}/{GRANULE + 3}").json()["size"] == str(GRANULE + 3)
    assert put(b"", "bytes */*").json()["name"] == "a", "a lost answer can be asked for again"


def test_a_cancelled_upload_leaves_nothing(gcs: FakeGcs) -> None:
    started = requests.post(f"{gcs.url}/upload/storage/v1/b/b/o?uploadType=resumable&name=a", b"{}", timeout=60)
    assert requests.delete(started.headers["Location"], timeout=60).status_code == 499
    assert requests.delete(started.headers["Location"], timeout=60).status_code == 404
    assert gcs.objects == {}


def test_a_fault_fails_as_often_as_it_was_asked_to(gcs: FakeGcs, bucket: Any) -> None:
    gcs.fail_next("multipart", 403, reason="forbidden", message="No.")
    with pytest.raises(Forbidden, match=r"No\."):
        bucket.blob("a").upload_from_string(b"x", retry=None)
    gcs.fail_next("get", 429, headers={"Retry-After": "3"}, times=2)
    for _ in range(2):
        with pytest.raises(TooManyRequests) as caught:
            bucket.get_blob("a", retry=None)
        assert caught.value.response.headers["Retry-After"] == "3"
    assert bucket.get_blob("a", retry=None) is None
    assert [request.status for request in gcs.asked("get")] == [429, 429, 404]


def test_a_dropped_connection_stores_nothing_of_one_request(gcs: FakeGcs, bucket: Any) -> None:
    gcs.drop_next("multipart", after=1000)
    with pytest.raises(requests.ConnectionError):
        bucket.blob("a").upload_from_file(io.BytesIO(DATA), size=MIB, retry=None)
    assert gcs.objects == {}


def test_a_lost_answer_is_lost_after_the_deed(gcs: FakeGcs, bucket: Any) -> None:
    gcs.drop_next("multipart")
    with pytest.raises(requests.ConnectionError):
        bucket.blob("a").upload_from_string(b"x", retry=None)
    assert gcs.objects["b", "a"].data == b"x"
    assert [request.status for request in gcs.asked()] == [0]
