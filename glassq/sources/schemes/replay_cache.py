"""What was used before, remembered in memory that all processes share that are forked later. It never grows."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
import threading
import weakref
from typing import BinaryIO

from glassq.errors import SourceUnready

# A bucket is searched whole. 128k tokens in 15 minutes are 145 a second; memory that nobody used costs nothing.
_BUCKETS, _SLOTS = 1 << 13, 16
_SLOT = struct.Struct("8sd")
_BUCKET = _SLOT.size * _SLOTS


class ReplayCache:
    """Tokens, each until a time of its own."""

    def __init__(self) -> None:
        # POSIX locks are a process's, and need a file: one without a name, whose pages are the shared memory
        self._file = _nameless_file()
        weakref.finalize(self, self._file.close)
        self._file.truncate(_BUCKETS * _BUCKET)
        self._memory = mmap.mmap(self._file.fileno(), _BUCKETS * _BUCKET)
        self._lock = threading.Lock()

    def add(self, token: str, now: float, until: float) -> bool:
        """Whether the token is new; then it is remembered. Times are Unix times.

        Raises SourceUnready if there is no room: then its sender sends it again, when others are forgotten.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        start = int.from_bytes(digest[:4], "big") % _BUCKETS * _BUCKET
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, _BUCKET, start)
            try:
                return self._add(digest[4:12], start, now, until)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _BUCKET, start)

    def _add(self, digest: bytes, start: int, now: float, until: float) -> bool:
        free = None
        for at in range(start, start + _BUCKET, _SLOT.size):
            known, expires = _SLOT.unpack_from(self._memory, at)
            if expires < now:
                free = at if free is None else free
            elif known == digest:
                return False
        if free is None:
            raise SourceUnready("too many pings at once: their tokens cannot be remembered")
        _SLOT.pack_into(self._memory, free, digest, until)
        return True


def _nameless_file() -> BinaryIO:
    # only Linux has files in memory alone
    in_memory = getattr(os, "memfd_create", None)
    return os.fdopen(in_memory("glassq-seen"), "r+b", buffering=0) if in_memory else tempfile.TemporaryFile(buffering=0)
