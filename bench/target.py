"""A target of push queues that answers at once: one process, one epoll, keep-alive connections, no checks.

    python target.py PORT RECORD

For each POST it appends the time at which it read the request to the file RECORD, as 8 bytes (time.monotonic()). It
answers a GET with that time instead, so that the sender learns how late the target reads.
"""

from __future__ import annotations

import array
import os
import re
import select
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def target(directory: Path) -> Iterator[tuple[int, Path]]:
    """Starts a target; yields its port and its record."""
    port, record = servers.free_port(), directory / "arrivals"
    record.touch()
    with servers.process([sys.executable, __file__, str(port), str(record)], directory / "target.log"):
        servers.wait_for_port(port)
        yield port, record


def count(record: Path) -> int:
    """The number of POSTs so far."""
    return record.stat().st_size // 8


def arrivals(record: Path) -> list[float]:
    """The times at which the POSTs arrived, in order."""
    return list(array.array("d", record.read_bytes()))


def serve(port: int, record: Path) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    output = os.open(record, os.O_WRONLY | os.O_APPEND)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[connection.fileno()] = connection, bytearray()
                poll.register(connection, select.EPOLLIN)
            elif not read(*open_[number], output):
                open_.pop(number)[0].close()


def read(connection: socket.socket, held: bytearray, output: int) -> bool:
    """Answers all complete requests; False if the other side has closed the connection."""
    try:
        data = connection.recv(65536)
        held += data
        while (end := end_of_request(held)) and len(held) >= end:
            now = time.monotonic()
            if held.startswith(b"GET"):
                answer = repr(now).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
            else:
                os.write(output, array.array("d", [now]).tobytes())
                connection.sendall(ANSWER)
            del held[:end]
    except ConnectionError:
        return False
    return bool(data)


def end_of_request(held: bytearray) -> int:
    """The length of the first request in bytes; 0 while that is not known."""
    head = held.find(b"\r\n\r\n") + 4
    if head < 4:
        return 0
    length = LENGTH.search(held, 0, head)
    return head + (int(length[1]) if length else 0)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
