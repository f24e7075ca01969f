"""A bucket of Google Cloud Storage, with the credentials that the machine or GOOGLE_APPLICATION_CREDENTIALS gives."""

from __future__ import annotations

import http.client
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from glassq.bodies.base import UPLOAD
from glassq.bodies.objects import Item
from glassq.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

# In bytes: larger objects are uploaded in requests of this size, one of which is in memory (a multiple of 256 KiB).
_CHUNK = 1 << 20
# Timeouts to connect, and to wait for an answer, in seconds. Within 3 s a lost SYN is sent again.
_CONNECT, _READ = 3.05, 30.0
# OSErrors come from the network: requests' errors are OSErrors, too.
_TROUBLE = (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, http.client.HTTPException, OSError)


class GoogleBucket:
    """See objects.Bucket. It connects with its first use."""

    def __init__(self, name: str, *, endpoint: str | None = None) -> None:
        """`endpoint` is the base URL of another server, which gets no credentials."""
        self.url = f"gs://{name}"
        self._bucket_name = name
        self._endpoint = endpoint
        self._client: storage.Client | None = None

    def put(self, name: str, file: BinaryIO, size: int, within: float) -> None:
        with self._errors("cannot be written"):
            blob = self._bucket().blob(name, chunk_size=_CHUNK)
            # crc32c: Google compares what has arrived; the same name with the same content may be put twice
            blob.upload_from_file(file, size=size, checksum="crc32c", **_limits(within))

    def read(self, name: str, start: int, size: int) -> bytes | None:
        with self._errors("cannot be read"):
            try:
                data: bytes = (
                    self._bucket()
                    .blob(name)
                    .download_as_bytes(start=start, end=start + size - 1, checksum=None, raw_download=True, **_limits())
                )
            except NotFound:
                return None
        return data

    def find(self, name: str) -> Item | None:
        with self._errors("cannot be read"):
            blob = self._bucket().get_blob(name, **_limits())
        return None if blob is None else _item(blob)

    def list(self, prefix: str) -> Iterator[Item]:
        fields = "items(name,size,updated),nextPageToken"
        with self._errors("cannot be listed"):
            pages = self._bucket().list_blobs(prefix=prefix, fields=fields, **_limits()).pages
        while True:
            with self._errors("cannot be listed"):
                page = next(pages, None)
            if page is None:
                return
            yield from map(_item, page)

    def delete(self, name: str) -> None:
        with self._errors("cannot be written"):
            try:
                self._bucket().blob(name).delete(**_limits())
            except NotFound:
                return

    def _bucket(self) -> Any:
        if self._client is None:
            self._client = _client(self._endpoint)
        return self._client.bucket(self._bucket_name)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except _TROUBLE as error:
            # Without the cause: its text contains the upload's URL, with which anybody could continue the upload.
            status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
            why = f"status {int(status)}" if status else type(error).__name__
            raise BodyError(f"bodies {self.url}: {what}: {why}") from None


def _item(blob: Any) -> Item:
    return Item(blob.name, blob.size, blob.updated.timestamp())


def _limits(within: float = UPLOAD) -> dict[str, Any]:
    """Arguments for each call of the library, so that it returns within about so many seconds."""
    left = max(0.05, within)
    return {"timeout": (min(_CONNECT, left), min(_READ, left)), "retry": DEFAULT_RETRY.with_timeout(left / 2)}


def _client(endpoint: str | None) -> storage.Client:
    # Otherwise the library's first call starts a thread that requests the bucket itself, which we may not read. There
    # is no argument for it; the library reads the variable when it is called.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    # Objects need no project, and without None the library refuses credentials that name none.
    return storage.Client(
        project=None,
        client_options={"api_endpoint": endpoint} if endpoint else None,
        use_auth_w_custom_endpoint=endpoint is None,
    )
