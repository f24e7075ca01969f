"""A small Google Cloud Storage: the part of its JSON API that storing photos needs, over real HTTP on 127.0.0.1.

    with FakeGcs("my-bucket") as gcs:
        client = storage.Client(credentials=AnonymousCredentials(), client_options={"api_endpoint": gcs.url}, ...)

Preconditions, checksums, ranges, pages and the shapes of errors are those of the real service. Who asks is not
checked, but POST /token gives service accounts their access tokens. Operations, as faults and the log of requests name
them: token, bucket, list, get, media, delete, multipart, resumable (the start of an upload), chunk, cancel.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import google_crc32c

from tests.fakes.gcs_http import Answer, Drop, Request, Server

# All chunks but the last of a resumable upload are a multiple of this many bytes.
GRANULE = 256 << 10
MAX_PAGE = 1000


@dataclass(frozen=True)
class Object:
    """One stored object; `resource` is what its uploader said of it (contentType, metadata, cacheControl, ...)."""

    data: bytes
    resource: dict[str, Any]
    generation: int
    created: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z")

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()


@dataclass
class Upload:
    """A resumable upload on its way; `done` is its object once the last byte was in."""

    bucket: str
    query: dict[str, str]
    resource: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    done: Object | None = None


class Refusal(Exception):
    """An error answer in Google's shape."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def answer(self, **headers: str) -> Answer:
        item = {"message": self.message, "domain": "global", "reason": self.reason}
        error = {"code": self.status, "message": self.message, "errors": [item]}
        return Answer.json({"error": error}, self.status, **headers)


class FakeGcs:
    """The service with these buckets. `objects` holds what is stored, by (bucket, name)."""

    def __init__(self, *buckets: str, page: int = MAX_PAGE) -> None:
        self.buckets = set(buckets)
        self.objects: dict[tuple[str, str], Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self._page = page
        self._generations = itertools.count(1_700_000_000_000_001)
        self._faults: defaultdict[str, deque[Answer | Drop]] = defaultdict(deque)
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.disconnect()
        self._server.server_close()

    def fail_next(
        self,
        operation: str,
        status: int,
        *,
        reason: str = "backendError",
        message: str = "Backend Error",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        times: int = 1,
    ) -> None:
        """The next `times` requests of this operation are answered with this error and do nothing.

        `body` is sent as text/html instead of Google's JSON.
        """
        html = {"Content-Type": "text/html", **(headers or {})}
        answer = (
            Refusal(status, reason, message).answer(**headers or {}) if body is None else Answer(status, body, html)
        )
        with self.lock:
            self._faults[operation] += [answer] * times

    def drop_next(self, operation: str, *, after: int | None = None, times: int = 1) -> None:
        """The next `times` connections of this operation break: after `after` bytes of the request's body, or (None)
        when all is done, instead of the answer."""
        with self.lock:
            self._faults[operation] += [Drop(after)] * times

    def asked(self, *operations: str) -> list[Request]:
        """The requests so far, of these operations or all."""
        with self.lock:
            return [request for request in self.requests if not operations or request.operation in operations]

    def next_fault(self, operation: str) -> Answer | Drop | None:
        with self.lock:
            return self._faults[operation].popleft() if self._faults[operation] else None

    def answer(self, operation: str, names: list[str], query: dict[str, str], headers: Any, body: bytes) -> Answer:
        """Does one operation; all others wait."""
        with self.lock:
            try:
                if names and names[0] not in self.buckets:
                    raise Refusal(404, "notFound", "The specified bucket does not exist.")
                answer: Answer = getattr(self, f"_{operation}")(*names, query=query, headers=headers, body=body)
            except Refusal as refusal:
                answer = refusal.answer()
            return answer

    def keep_partial(self, query: dict[str, str], headers: Any, body: bytes) -> None:
        """What arrived of a chunk before its connection broke; the service keeps whole granules of it."""
        upload, match = self.uploads.get(query.get("upload_id", "")), _content_range(headers)
        if upload and match and match["start"] and int(match["start"]) == len(upload.data):
            upload.data += body[: len(body) // GRANULE * GRANULE]

    def _token(self, **_: Any) -> Answer:
        return Answer.json({"access_token": "fake", "expires_in": 3600, "token_type": "Bearer"})

    def _bucket(self, bucket: str, **_: Any) -> Answer:
        return Answer.json({"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "US"})

    def _list(self, bucket: str, *, query: dict[str, str], **_: Any) -> Answer:
        prefix, after = query.get("prefix", ""), base64.b64decode(query.get("pageToken", "")).decode()
        names = sorted(name for where, name in self.objects if where == bucket and name.startswith(prefix))
        names = [name for name in names if name > after]
        page = names[: min(int(query.get("maxResults", self._page)), self._page)]
        listing: dict[str, Any] = {"kind": "storage#objects"}
        if page:
            listing["items"] = [self._resource(bucket, name, self.objects[bucket, name]) for name in page]
        if len(page) < len(names):
            listing["nextPageToken"] = base64.b64encode(page[-1].encode()).decode()
        return Answer.json(listing)

    def _get(self, bucket: str, name: str, *, query: dict[str, str], headers: Any, **_: Any) -> Answer:
        if query.get("alt") == "media":
            return self._media(bucket, name, query=query, headers=headers)
        return Answer.json(self._resource(bucket, name, self._existing(bucket, name, query)))

    def _media(self, bucket: str, name: str, *, query: dict[str, str], headers: Any, **_: Any) -> Answer:
        found = self._existing(bucket, name, query)
        about = {
            "Content-Type": found.resource["contentType"],
            "X-Goog-Hash": f"crc32c={found.crc32c},md5={found.md5}",
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Stored-Content-Length": str(len(found.data)),
        }
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if not match:
            return Answer(200, found.data, about)
        start, end = int(match[1]), min(int(match[2] or len(found.data)), len(found.data) - 1)
        if start > end:
            return Answer(416, b"", {"Content-Range": f"bytes */{len(found.data)}"})
        about["Content-Range"] = f"bytes {start}-{end}/{len(found.data)}"
        return Answer(206, found.data[start : end + 1], about)

    def _delete(self, bucket: str, name: str, *, query: dict[str, str], **_: Any) -> Answer:
        self._existing(bucket, name, query)
        del self.objects[bucket, name]
        return Answer(204)

    def _multipart(self, bucket: str, *, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        resource, data = _two_parts(headers.get("Content-Type", ""), body)
        return self._store(bucket, query, resource, data)[1]

    def _resumable(self, bucket: str, *, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        resource = json.loads(body or b"{}")
        resource.setdefault("contentType", headers.get("X-Upload-Content-Type", "application/octet-stream"))
        number = f"upload-{len(self.uploads) + 1}"
        self.uploads[number] = Upload(bucket, query, resource)
        place = f"{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return Answer(200, b"", {"Location": place, "X-GUploader-UploadID": number})

    def _chunk(self, _bucket: str, *, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        upload = self._upload(query)
        if upload.done:
            return Answer.json(self._resource(upload.bucket, upload.resource["name"], upload.done))
        match = _content_range(headers)
        if not match:
            raise Refusal(400, "badRequest", "Failed to parse Content-Range header.")
        if match["start"]:
            start = int(match["start"])
            if start > len(upload.data) or len(body) != int(match["end"]) - start + 1:
                raise Refusal(400, "badRequest", "Invalid request: the byte range does not continue the upload.")
            if match["total"] == "*" and len(body) % GRANULE:
                raise Refusal(400, "badRequest", "Invalid request: chunks must be multiples of 256 KiB.")
            upload.data[start:] = body
        if match["total"] == "*" or len(upload.data) < int(match["total"]):
            return Answer(308, b"", {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {})
        _check_sum(headers.get("X-Goog-Hash", ""), bytes(upload.data))
        upload.done, answer = self._store(upload.bucket, upload.query, upload.resource, bytes(upload.data))
        return answer

    def _cancel(self, _bucket: str, *, query: dict[str, str], **_: Any) -> Answer:
        self._upload(query)
        del self.uploads[query["upload_id"]]
        return Answer(499)

    def _upload(self, query: dict[str, str]) -> Upload:
        try:
            return self.uploads[query["upload_id"]]
        except KeyError:
            raise Refusal(404, "notFound", "Upload session not found.") from None

    def _store(self, bucket: str, query: dict[str, str], said: dict[str, Any], data: bytes) -> tuple[Object, Answer]:
        said["name"] = name = query.get("name") or said.get("name", "")
        if not name or len(name.encode()) > 1024:
            raise Refusal(400, "required", "Required object name.")
        now = self.objects.get((bucket, name))
        _check_preconditions(query, now.generation if now else 0, 412)
        _check_sum(f"crc32c={said.get('crc32c', '')},md5={said.get('md5Hash', '')}", data)
        stored = self.objects[bucket, name] = Object(data, said, next(self._generations))
        return stored, Answer.json(self._resource(bucket, name, stored))

    def _existing(self, bucket: str, name: str, query: dict[str, str]) -> Object:
        found = self.objects.get((bucket, name))
        if found is None or query.get("generation", str(found.generation)) != str(found.generation):
            raise Refusal(404, "notFound", f"No such object: {bucket}/{name}")
        _check_preconditions(query, found.generation, 304)
        return found

    def _resource(self, bucket: str, name: str, stored: Object) -> dict[str, Any]:
        path = f"storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        return {
            **stored.resource,
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{stored.generation}",
            "selfLink": f"{self.url}/{path}",
            "mediaLink": f"{self.url}/download/{path}?generation={stored.generation}&alt=media",
            "name": name,
            "bucket": bucket,
            "generation": str(stored.generation),
            "metageneration": "1",
            "size": str(len(stored.data)),
            "md5Hash": stored.md5,
            "crc32c": stored.crc32c,
            "etag": base64.b64encode(str(stored.generation).encode()).decode(),
            "timeCreated": stored.created,
            "updated": stored.created,
            "storageClass": "STANDARD",
        }


def _check_preconditions(query: dict[str, str], generation: int, unmodified: int) -> None:
    """`generation` is 0 where there is no object; `unmodified` is the status of a failed ...NotMatch."""
    message = "At least one of the pre-conditions you specified did not hold."
    if int(query.get("ifGenerationMatch", generation)) != generation:
        raise Refusal(412, "conditionNotMet", message)
    if query.get("ifGenerationNotMatch") == str(generation):
        raise Refusal(unmodified, "conditionNotMet", message)


def _check_sum(said: str, data: bytes) -> None:
    right = Object(data, {}, 0)
    for name, value in re.findall(r"(crc32c|md5)=([^,]+)", said):
        if value != getattr(right, name):
            raise Refusal(400, "invalid", f"Provided {name} hash doesn't match the one calculated: {value!r}.")


def _content_range(headers: Any) -> re.Match[str] | None:
    pattern = r"bytes (?:(?P<start>\d+)-(?P<end>\d+)|\*)/(?P<total>\d+|\*)"
    return re.fullmatch(pattern, headers.get("Content-Range", ""))


def _two_parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The resource and the content in a multipart/related body (RFC 2387)."""
    boundary = re.fullmatch(r'multipart/related; *boundary="?([^";]+)"?', content_type)
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode()) if boundary else []
    if len(parts) != 4 or parts[3].strip() != b"--":
        raise Refusal(400, "badRequest", "Malformed multipart body.")
    (_, resource), (head, data) = (part.split(b"\r\n\r\n", 1) for part in parts[1:3])
    said = json.loads(resource)
    kind = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
    said.setdefault("contentType", kind[1].decode() if kind else "application/octet-stream")
    return said, data
