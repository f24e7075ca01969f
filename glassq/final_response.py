"""Reads final HTTP responses, and skips interim ones.

A server may send any number of interim responses (100 Continue, 102 Processing, 103 Early Hints) before the final one
(RFC 9110, section 15.2). http.client skips only 100, and takes any other for the final response.
"""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any

# 101 is final: another protocol follows, not a response.
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d\s")
# Limits for interim responses, in number and in bytes: a server that exceeds them would never answer.
MAX_INTERIM = 1_000
MAX_INTERIM_SIZE = 256 << 10


class UnaskedUpgrade(HTTPException):
    """101 Switching Protocols in answer to a request that did not ask for it."""


class FinalResponse(HTTPResponse):
    """The final response to a request, with a complete head.

    `begin` raises UnaskedUpgrade for 101, IncompleteRead for a truncated head, and HTTPException for too many interim
    responses.
    """

    fp: Any

    def begin(self) -> None:
        """Reads the head."""
        reader = self.fp
        head = self.fp = _Head(reader)
        try:
            super().begin()
        finally:
            # if this was not HTTP, http.client has closed it already
            if self.fp is head:
                self.fp = reader
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise UnaskedUpgrade("another protocol, which was not asked for")


class _Head:
    """The lines of a head, without interim responses. An end before the empty line is an error (RFC 9112, section 8).

    http.client would accept a lone status line, from a server that died after it, as a complete response.
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
    """A subclass of this connection class (http.client's or one made from it) that reads FinalResponse."""
    return type(connection.__name__, (connection,), {"response_class": FinalResponse})
