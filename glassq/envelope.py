"""The first line of a job that glassq put: what marks it as ours, and the checksum of what follows.

Apart from delivery.py, so that a program that only checks bytes (queues/beanstalk/syncer/) needs no JSON.
"""

from __future__ import annotations

import zlib

VERSION = 1
MAGIC = b"glassq/%d " % VERSION
# "glassq/1 " + 8 hex digits + "\n"
PREFIX = len(MAGIC) + 9


def checksum(rest: bytes) -> bytes:
    """The CRC-32 of all that follows the first line, as that line ends."""
    return b"%08x\n" % zlib.crc32(rest)


def is_intact(data: bytes) -> bool | None:
    """Whether a job's bytes are as they were put; None if glassq did not put them: they have no checksum."""
    if not data.startswith(MAGIC):
        return None
    return data[len(MAGIC) : PREFIX] == checksum(data[PREFIX:])
