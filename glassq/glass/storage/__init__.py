"""Where photos go: a directory (directory.py) or a Google Cloud Storage bucket (bucket.py).

A stored object's name is the key that makes storing idempotent: look with `find`, then `write`, which never
overwrites. At least once bites here: two attempts may write one name at the same time, and exactly one creates it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.glass.storage.base import MAX_NAME, Storage, Stored
from glassq.glass.storage.directory import DirectoryStorage

if TYPE_CHECKING:
    from glassq.values import StorageUrl

__all__ = ["MAX_NAME", "DirectoryStorage", "Storage", "Stored", "open_storage"]


def open_storage(url: StorageUrl, *, endpoint: str | None = None) -> Storage:
    """The storage that `url` names: gs://BUCKET, or file:///DIRECTORY (made if it is missing).

    Open it after fork, once per process. `endpoint` is the base URL of another server that speaks the Cloud
    Storage JSON API; it is asked without credentials. Raises Retry or Bury.
    """
    if url.directory is not None:
        return DirectoryStorage(url.directory)
    # Google's library takes 30 MiB and a tenth of a second: only a process that stores in a bucket pays for it.
    from glassq.glass.storage.bucket import BucketStorage

    return BucketStorage(url.bucket, endpoint=endpoint)
