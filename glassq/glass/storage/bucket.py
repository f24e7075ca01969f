"""Photos as objects in a Google Cloud Storage bucket.

The content is first read to its end into a spool (in memory, from 8 MiB on in an unnamed temporary file), and then
uploaded. The library could upload a stream as it comes, but a broken stream would then depend on the library's
clean-up: its writer finalises a truncated object when it is garbage collected after a failed cancel. With the
spool most photos also take one request, where a stream takes two or more.
"""

from __future__ import annotations

import http.client
import os
import time
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from glassq.errors import Retry
from glassq.glass import transport
from glassq.glass.storage.base import Stored, checked
from glassq.glass.storage.verdicts import status, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# In bytes. Up to 8 MiB the library uploads in one request, with the whole content in memory anyway. Larger objects are
# uploaded in requests of this size (a multiple of 256 KiB, as resumable uploads require).
_CHUNK = 8 << 20
# Timeouts to connect, and to wait for an answer, in seconds. Within 3 s a lost SYN is sent again.
_CONNECT, _READ = 3.05, 30.0
# Maximum time in which the library retries a failed request, in seconds. Longer waiting is the queue's work.
_MAX_RETRY_TIME = 10.0
# The photos are private: no cache on the way may keep them.
_CACHE_CONTROL = "private, max-age=0"

# OSErrors come from the network (requests' errors are OSErrors, too) and from the spool.
_TROUBLE = (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, http.client.HTTPException, OSError)


class BucketStorage:
    """Stores in `bucket`, with the credentials that the environment gives (GOOGLE_APPLICATION_CREDENTIALS, or the
    machine's service account). See PhotoStorage for the methods.

    `endpoint` is the base URL of another server, which gets no credentials; `max_retry_time` is in seconds.
    """

    def __init__(self, bucket: str, *, endpoint: str | None = None, max_retry_time: float = _MAX_RETRY_TIME) -> None:
        self._url = f"gs://{bucket}"
        self._max_retry_time = max_retry_time
        with self._verdicts("cannot be opened"):
            self._client = _client(endpoint)
        self._bucket = self._client.bucket(bucket)

    def find(self, name: str) -> Stored | None:
        with self._verdicts(f"cannot look for {checked(name)}"):
            blob = self._bucket.get_blob(name, **self._limits())
        return None if blob is None else Stored(f"{self._url}/{name}", blob.size, created=False)

    def write(
        self, name: str, chunks: Iterable[bytes], *, content_type: str, metadata: Mapping[str, str], timeout: float
    ) -> Stored:
        until = time.monotonic() + timeout
        blob = self._bucket.blob(checked(name), chunk_size=_CHUNK)
        blob.metadata = dict(metadata)
        blob.cache_control = _CACHE_CONTROL
        trouble = f"cannot store {name}"
        with SpooledTemporaryFile(max_size=_CHUNK) as spool:
            # Errors of reading a chunk belong to the caller, also an OSError: only our own calls are translated.
            for chunk in chunks:
                with self._verdicts(trouble):
                    spool.write(chunk)
            size = spool.tell()
            with self._verdicts(trouble):
                spool.seek(0)
                created = self._upload(blob, spool, size, content_type, until - time.monotonic())
        return Stored(f"{self._url}/{name}", size, created=True) if created else self._stored_before(name)

    def delete(self, name: str) -> bool:
        blob = self._bucket.blob(checked(name))
        with self._verdicts(f"cannot delete {name}"):
            try:
                blob.delete(**self._limits())
            except NotFound:
                return False
        return True

    def names(self, prefix: str) -> Iterator[str]:
        with self._verdicts("cannot be listed"):
            found = self._client.list_blobs(
                self._bucket, prefix=prefix, fields="items(name),nextPageToken", **self._limits()
            )
            pages = found.pages
        while True:
            with self._verdicts("cannot be listed"):
                page = next(pages, None)
            if page is None:
                return
            yield from [blob.name for blob in page]

    def close(self) -> None:
        self._client.close()

    def _upload(self, blob: Any, spool: IO[bytes], size: int, content_type: str, left: float) -> bool:
        """Returns False if the name is taken: the server checks after the last byte (if_generation_match=0)."""
        if left <= 0:
            raise Retry(f"{self._url} cannot store {blob.name}: reading it took all the time there was")
        try:
            blob.upload_from_file(
                spool, size=size, content_type=content_type, if_generation_match=0, **self._limits(left)
            )
        except (GoogleAPIError, InvalidResponse) as error:
            if status(error) != http.HTTPStatus.PRECONDITION_FAILED:
                raise
            return False
        return True

    def _stored_before(self, name: str) -> Stored:
        stored = self.find(name)
        if stored is None:
            raise Retry(f"{self._url}/{name} was there and is gone: something else deletes it")
        return stored

    def _limits(self, left: float = float("inf")) -> dict[str, Any]:
        """Arguments for each call of the library, so that it returns within `left` seconds."""
        return {
            "timeout": (min(_CONNECT, left), min(_READ, left)),
            "retry": DEFAULT_RETRY.with_timeout(min(self._max_retry_time, left / 2)),
        }

    @contextmanager
    def _verdicts(self, trouble: str) -> Iterator[None]:
        try:
            yield
        except _TROUBLE as error:
            # Without the cause: its text contains the upload's URL, with which anybody could continue the upload.
            raise verdict(error, f"{self._url} {trouble}") from None


def _client(endpoint: str | None) -> storage.Client:
    # Otherwise the library's first call starts a thread that requests the bucket itself, which we may not read. There
    # is no argument for it; the library reads the variable when it is called.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    # Objects need no project, and without None the library refuses credentials that name none.
    client = storage.Client(
        project=None,
        client_options={"api_endpoint": endpoint} if endpoint else None,
        use_auth_w_custom_endpoint=endpoint is None,
    )
    transport.mount(client._http)
    return client
