"""A large body as the intake has received it: to be verified, then kept or discarded."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

    from glassq.bodies.base import BodyWriter
    from glassq.delivery import StoredBody


class ReceivedBody:
    """For one thread at a time. `key` is the id of the delivery that it may become."""

    def __init__(self, writer: BodyWriter) -> None:
        self.key = writer.key
        self._writer = writer

    def write(self, data: bytes | memoryview) -> None:
        """Appends to it. Raises BodyError."""
        self._writer.write(data)

    @cached_property
    def data(self) -> mmap.mmap:
        """All of it, to read. Raises BodyError."""
        return self._writer.view()

    def keep(self) -> StoredBody:
        """On return it is durable in the store, under its key. Raises BodyError."""
        return self._writer.finish()

    def close(self) -> None:
        """Discards it, unless it was kept. Never raises; may be called twice."""
        if "data" in self.__dict__:
            # somebody may still look at a part of it: then it is closed when he is done
            with suppress(BufferError):
                self.data.close()
        self._writer.discard()
