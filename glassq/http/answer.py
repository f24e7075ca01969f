"""What an app answers, as bytes."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gunicorn.util import http_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Answer:
    """Collects one answer of a WSGI app."""

    __slots__ = ("_body", "_head")

    def __init__(self) -> None:
        self._head: tuple[str, ...] = ("500 Internal Server Error",)
        self._body: list[bytes] = []

    def start(self, status: str, headers: Iterable[tuple[str, str]], _error: object = None) -> Callable[[bytes], Any]:
        """The app's `start_response` (PEP 3333)."""
        self._head = (status, *(f"{name}: {value}\r\n" for name, value in headers))
        return self._body.append

    def encode(self, chunks: Iterable[bytes], *, closes: bool) -> bytes:
        """The whole answer, whose body ends with `chunks`; `closes`: the connection ends with it."""
        self._body.extend(chunks)
        return encoded(self._head, b"".join(self._body), closes=closes)


def encoded(head: tuple[str, ...], body: bytes, *, closes: bool) -> bytes:
    """An answer of this status line's end and these header lines."""
    first, rest = _lines(head, closes)
    return b"%bDate: %b\r\n%b%b" % (first, _date(int(time.time())), rest, body)


# Nearly all answers have one of few heads.
@lru_cache(maxsize=64)
def _lines(head: tuple[str, ...], closes: bool) -> tuple[bytes, bytes]:
    status, *headers = head
    end = "close" if closes else "keep-alive"
    return f"HTTP/1.1 {status}\r\n".encode(), f"Connection: {end}\r\n{''.join(headers)}\r\n".encode("latin-1")


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return str(http_date(second)).encode()
