"""Stands between glassq and beanstalkd, so that their connections can be cut while both live."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

# struct linger: on, 0 seconds: a close is a reset
_RESET = struct.pack("ii", 1, 0)
CHUNK = 64 << 10


class Proxy:
    """Listens on a port of its own and passes bytes on to `target`, both on the loopback address."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> int:
        """Resets every connection on both sides; returns how many there were."""
        return self._run(self._cut())

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            with contextlib.suppress(OSError):
                upstream, back = await asyncio.open_connection("127.0.0.1", self._target)
                writers.append(back)
                self._open.update(writers)
                await asyncio.gather(_pump(reader, back), _pump(upstream, writer))
        finally:
            for each in writers:
                self._open.discard(each)
                each.transport.abort()
            self._tasks.discard(task)

    async def _cut(self) -> int:
        found = list(self._open)
        for writer in found:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        return len(found) // 2

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has ended; then the other one's is ended too, for a process that died closes both ways."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
