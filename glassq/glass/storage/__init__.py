"""Where photos go: a directory (directory.py) or a Google Cloud Storage bucket (bucket.py).

An object's name makes storing idempotent: call `find`, then `write`, which never overwrites. Attempts may run twice
("at least once"), so two writers can race for one name; exactly one creates the object.
To add a storage, write a module here and add a line to `open_storage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.glass.storage.base import MAX_NAME, PhotoStorage, Stored
from glassq.glass.storage.directory import DirectoryStorage

if TYPE_CHECKING:
    from glassq.values import StorageUrl

__all__ = ["MAX_NAME", "DirectoryStorage", "PhotoStorage", "Stored", "open_storage", "preload_storage"]


def preload_storage(url: StorageUrl) -> None:
    """Imports what `open_storage` will need."""
    if url.directory is None:
        from glassq.glass.storage import bucket  # noqa: F401


def open_storage(url: StorageUrl, *, endpoint: str | None = None) -> PhotoStorage:
    """The storage that `url` names: gs://BUCKET, or file:///DIRECTORY (made if it is missing).

    Open it after the fork, once per process. `endpoint` is the base URL of another server with the Cloud Storage JSON
    API, which gets no credentials. Raises Retry or Bury.
    """
    if url.directory is not None:
        return DirectoryStorage(url.directory)
    # Google's library costs 30 MiB and a tenth of a second, so only a process that uses a bucket imports it.
    from glassq.glass.storage.bucket import BucketStorage

    return BucketStorage(url.bucket, endpoint=endpoint)
