"""Responses of HTTP servers that say something before they answer.

A server may send any number of interim responses (100 Continue, 102 Processing, 103 Early Hints) before the final one
(RFC 9110, section 15.2). http.client skips 100 alone and takes any other for the answer.
"""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any

# 101 is final: another protocol follows, and no response.
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d\s")
# A server that sends more than this, in responses or in bytes, never comes to its answer.
MAX_INTERIM = 1_000
MAX_INTERIM_SIZE = 256 << 10


class UnaskedUpgrade(HTTPException):
    """101 Switching Protocols, though the request asked for no other protocol."""


class FinalResponse(HTTPResponse):
    """The final response to a request, with a whole head.

    `begin` raises UnaskedUpgrade for 101, IncompleteRead for a head that breaks off, and HTTPException for interim
    responses without end.
    """

    fp: Any

    def begin(self) -> None:
        """Reads the head."""
        reader = self.fp
        head = self.fp = _Head(reader)
        try:
            super().begin()
        finally:
            # it is closed already where this was no HTTP
            if self.fp is head:
                self.fp = reader
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise UnaskedUpgrade("another protocol, which was not asked for")


class _Head:
    """The lines of a head, without interim responses. Its end before the empty line is an error (RFC 9112, section 8).

    http.client takes the status line of a server that died after it for a whole answer.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._begun = False

    def readline(self, limit: int) -> bytes:
        if self._begun:
            return self._line(limit)
        line = self._line(limit)
        count, size = 0, 0
        while _INTERIM.match(line):
            count += 1
            while line not in (b"\r\n", b"\n"):
                size += len(line)
                if count > MAX_INTERIM or size > MAX_INTERIM_SIZE:
                    raise HTTPException("interim responses without end")
                line = self._line(limit)
            line = self._line(limit)
        return line

    def close(self) -> None:
        self._reader.close()

    def _line(self, limit: int) -> bytes:
        line: bytes = self._reader.readline(limit)
        if not line and self._begun:
            raise IncompleteRead(b"")
        self._begun = True
        return line


@cache
def reading_final(connection: type[HTTPConnection]) -> type[HTTPConnection]:
    """The class of connections, http.client's or one made from it, with FinalResponse for its responses."""
    return type(connection.__name__, (connection,), {"response_class": FinalResponse})
