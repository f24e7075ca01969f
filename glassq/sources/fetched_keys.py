"""Certificates and key sets that senders publish: fetched aside, kept in memory and in a directory.

No ping waits for a fetch. Where a document is not here yet, `get` raises SourceUnready, which becomes a 503: the sender
sends the ping again, and by then the document is here. A thread of each web worker fetches. What it has fetched lies in
a directory, too, so that neither a restart nor another worker has to fetch it again.

A document is used for a week, and is fetched again when it is older than FRESH and somebody asks for it. A failed fetch
is repeated with backoff. Strangers may name any document on the hosts that a kind allows, and any key of a set. So
fetches are PACE seconds apart, an unknown key asks for its set again at most once every RENEW seconds, and the number
of wanted documents is bounded. A stranger who floods us can delay the first fetch of a new document, nothing more.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from glassq import https_get
from glassq.backoff import ceiling
from glassq.errors import SourceUnready
from glassq.log import fields, logger

if TYPE_CHECKING:
    import ssl

    from glassq.sources.key_directory import KeyDirectory

log = logger("glassq.sources")

T = TypeVar("T")
Read = Callable[[bytes], T]
# A document is fetched again when it is older, in seconds; and not used when it is older than USABLE.
FRESH = 6 * 3600.0
USABLE = 7 * 86_400.0
# A key set without the key that a ping names is fetched again, unless it is younger, in seconds.
RENEW = 60.0
# Minimum time between two fetches, in seconds.
PACE = 1.0
# The wait after a failed fetch, in seconds; it doubles up to the second number. After so many failures in a row the
# next fetch waits until somebody asks, too: the document may not exist.
BACKOFF, BACKOFF_CAP = 5.0, 600.0
UNASKED_FETCHES = 4
# Maximum time for a fetch, in seconds, and the maximum size of a document, in bytes.
FETCH_TIME = 10.0
MAX_DOCUMENT = 256 << 10
# How many documents are kept, and how many more may be wanted.
MAX_KEPT, MAX_WANTED = 64, 32
# Failures are logged at most this often, in seconds: strangers can cause one with each fetch.
LOG_EVERY = 60.0


@dataclass(slots=True)
class _Document:
    """What we know of a URL.

    `fetched` is Unix time. `due` is when to fetch it, None while it is not wanted, and never before `earliest`; both on
    the monotonic clock.
    """

    url: str
    read: Read[Any]
    value: Any = None
    fetched: float = 0.0
    failures: int = 0
    earliest: float = 0.0
    due: float | None = None


class FetchedKeys:
    """The documents of one process. It may be made before a fork: the thread starts in the process that first asks."""

    def __init__(
        self, directory: KeyDirectory | None = None, tls: ssl.SSLContext | None = None, pace: float = PACE
    ) -> None:
        """`tls` verifies servers; None: by the system's authorities. `pace` is in seconds."""
        self._directory = directory
        self._tls = tls
        self._pace = pace
        self._documents: dict[str, _Document] = {}
        self._changed = threading.Condition()
        self._pid = 0
        self._fetching = self._closed = False
        self._random = random.Random()  # noqa: S311 - no secret
        self._next_fetch = self._next_log = 0.0

    def get(self, url: str, read: Read[T], suits: Callable[[T], bool] = lambda _: True) -> T:
        """What `read` makes of the document at `url`. The caller has checked the URL.

        `read` raises ValueError for what it cannot use. A document that does not suit is fetched again, unless that has
        just happened: then it is returned as it is. Raises SourceUnready, at once.
        """
        with self._changed:
            self._begin()
            document = self._documents.get(url) or self._add(url, read)
            if document.value is None:
                # also where another worker has fetched it since, as our own next try may be minutes away
                self._look(document)
            value, age = cast("T | None", document.value), abs(time.time() - document.fetched)
            if value is None or age > USABLE:
                self._want(document)
                raise SourceUnready(f"a key of {urlsplit(url).hostname} is not here yet")
            if age > RENEW and not suits(value):
                self._want(document)
                raise SourceUnready(f"a key of {urlsplit(url).hostname} is not among those that we have")
            if age > FRESH:
                self._want(document)
            return value

    def close(self) -> None:
        """Ends the thread after what it is fetching."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def settle(self, seconds: float) -> None:
        """Waits until each wanted document was tried, at most this number of seconds. For commands, which have time."""
        with self._changed:
            self._changed.wait_for(self._settled, seconds)

    # -- called with the lock held -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._pid != os.getpid():
            # threads do not survive a fork
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="keys", daemon=True).start()

    def _add(self, url: str, read: Read[Any]) -> _Document:
        """A new document, which nobody has looked for yet."""
        absent = [other for other, document in self._documents.items() if document.value is None]
        if len(absent) >= MAX_WANTED:
            # at random: then no sequence of pings decides which one
            del self._documents[self._random.choice(absent)]
        document = self._documents[url] = _Document(url, read)
        return document

    def _look(self, document: _Document) -> None:
        """Takes the document out of the directory if it lies there."""
        try:
            self._accept(document, *self._load(document))
        except (OSError, ValueError):
            log.debug("a key is not in the directory %s", fields(url=document.url))

    def _load(self, document: _Document) -> tuple[Any, float]:
        """The document in the directory. Raises OSError or ValueError."""
        if self._directory is None:
            raise FileNotFoundError
        body, fetched = self._directory.load(document.url)
        return document.read(body), fetched

    def _accept(self, document: _Document, value: object, fetched: float) -> None:
        document.value, document.fetched, document.failures, document.due = value, fetched, 0, None
        self._documents[document.url] = document
        kept = [other for other in self._documents.values() if other.value is not None]
        if len(kept) > MAX_KEPT:
            del self._documents[min(kept, key=lambda other: other.fetched).url]

    def _want(self, document: _Document) -> None:
        if document.due is None:
            document.due = max(time.monotonic(), document.earliest)
            self._changed.notify_all()

    def _failed(self, document: _Document, why: str) -> None:
        now = time.monotonic()
        document.earliest = now + ceiling(document.failures, BACKOFF, BACKOFF_CAP)
        document.failures += 1
        document.due = document.earliest if document.failures <= UNASKED_FETCHES else None
        if now >= self._next_log:
            self._next_log = now + LOG_EVERY
            log.warning("a key cannot be fetched %s", fields(url=document.url, failures=document.failures, why=why))

    def _settled(self) -> bool:
        untried = any(found.due is not None and not found.failures for found in self._documents.values())
        return not untried and not self._fetching

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                document = self._await_due()
                if document is None:
                    return
                self._fetching = True
            try:
                self._renew(document)
            except Exception:
                # without this thread no key would come any more
                log.exception("bug in the fetching of keys")
                with self._changed:
                    self._failed(document, "bug")
            with self._changed:
                self._fetching = False
                self._next_fetch = time.monotonic() + self._pace
                self._changed.notify_all()

    def _await_due(self) -> _Document | None:
        while not self._closed:
            now = time.monotonic()
            wanted = [(found.due, found) for found in self._documents.values() if found.due is not None]
            due = [found for at, found in wanted if at <= now]
            if due and self._next_fetch <= now:
                return self._random.choice(due)
            soonest = max(min(at for at, _ in wanted), self._next_fetch) - now if wanted else None
            self._changed.wait(soonest)
        return None

    def _renew(self, document: _Document) -> None:
        try:
            value, fetched = self._newer(document) or self._fetch(document)
        except (OSError, ValueError) as error:
            with self._changed:
                self._failed(document, f"{urlsplit(document.url).hostname} {error}")
            return
        with self._changed:
            self._accept(document, value, fetched)

    def _newer(self, document: _Document) -> tuple[Any, float] | None:
        """What another process has just fetched."""
        try:
            value, fetched = self._load(document)
        except (OSError, ValueError):
            return None
        return (value, fetched) if fetched > document.fetched and abs(time.time() - fetched) < RENEW else None

    def _fetch(self, document: _Document) -> tuple[Any, float]:
        """Asks the sender's host. Raises OSError, or ValueError for an answer that cannot be used."""
        response = https_get.get(document.url, seconds=FETCH_TIME, limit=MAX_DOCUMENT, tls=self._tls)
        if response.status != HTTPStatus.OK:
            raise ValueError(f"answered {response.status}")
        value = document.read(response.body)
        log.info("fetched a key %s", fields(url=document.url))
        if self._directory is not None:
            try:
                self._directory.store(document.url, response.body)
            except OSError as error:
                # it is used all the same; a restart fetches it again
                log.warning("a key is kept in memory only %s", fields(directory=self._directory.path, why=error))
        return value, time.time()
