"""Calls of a service of Amazon for all threads of a process, each within a time of its own. This alone loads botocore.

botocore signs, finds credentials and reads answers. It repeats nothing by itself: what may have happened is not tried
again without its caller's word, and how long a call takes is the caller's to say.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from glassq.errors import QueueUnavailable, SettingsError

try:
    import botocore.session
    from botocore.config import Config
except ImportError:
    raise SettingsError(f"[queue] url: a queue at Amazon needs boto3: {sys.prefix}/bin/pip install boto3") from None

from glassq.queues.aws.troubles import AnswerMissing, ForeignAnswer, is_about_credentials, is_throttled, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.queues.aws.troubles import ServiceWords

# As many connections are kept open as this; more are opened where more calls wait at once.
_KEPT = 32
# What is tried again pauses first, so many seconds at first and at most.
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
# So often a call is made whose connection broke: the first one may have been idle for too long, the second one not.
_TRIES = 3
# So often credentials are looked for that were missing or refused, in seconds: it takes a tenth of one.
_CREDENTIALS_FOR = 5.0
# A call with less time than this is not begun; more than this, no call takes (poll(2) takes no infinity).
_LEAST, _MOST = 0.001, 3600.0


class AwsClient:
    """Calls of one service in one region. Connects when it is used; may be made before a fork and used after it."""

    service: ClassVar[str]
    words: ClassVar[ServiceWords]
    #: what the answer to an action must hold: without it nobody has done what was asked
    needed: ClassVar[Mapping[str, str]]

    def __init__(self, region: str, endpoint: str, *, connect_timeout: float, timeout: float) -> None:
        """`endpoint` is another server's URL ("": Amazon's). A call that says nothing else takes `timeout` seconds."""
        self.timeout = timeout
        self._region = region
        self._endpoint = endpoint
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._local = threading.local()
        self._made: tuple[int, Any] = (0, None)
        # not before (monotonic)
        self._looks_again_at = 0.0

    def call(self, action: str, *, within: float | None = None, about: str = "", **arguments: Any) -> dict[str, Any]:
        """Calls the service once; its answer. Raises QueueError, which names `about` where that is given."""
        left = self.timeout if within is None else within
        if left < _LEAST:
            raise QueueUnavailable("the time for it was over before it was begun")
        self._local.read_timeout = min(left, _MOST)
        try:
            found: dict[str, Any] = getattr(self._client(), action)(**arguments)
        except Exception as error:
            if is_about_credentials(error):
                self._forget_credentials()
            raise translated(error, about, self.words) from error
        if (name := self.needed.get(action, "")) and name not in found:
            raise AnswerMissing(f"{self.words.place(about)}: the answer has no {name}: it is not the service's")
        return found

    def insist(self, action: str, *, within: float | None = None, about: str = "", **arguments: Any) -> dict[str, Any]:
        """As `call`, for what may happen twice: again where the connection broke, or there were too many calls."""
        return self._repeat(action, within, about, arguments, _TRIES)

    def once(self, action: str, *, within: float | None = None, about: str = "", **arguments: Any) -> dict[str, Any]:
        """As `call`, for what must not happen twice: again only where there were too many calls."""
        return self._repeat(action, within, about, arguments, 1)

    def close(self) -> None:
        """Closes the connections that nobody uses now."""
        pid, client = self._made
        # to make another one takes 40 ms; what is closed opens new connections
        if client is not None and pid == os.getpid():
            client.close()

    def _repeat(
        self, action: str, within: float | None, about: str, arguments: dict[str, Any], tries: int
    ) -> dict[str, Any]:
        deadline = time.monotonic() + (self.timeout if within is None else within)
        pause = _PAUSE
        while True:
            try:
                return self.call(action, within=deadline - time.monotonic(), about=about, **arguments)
            except QueueUnavailable as error:
                if not is_throttled(error):
                    tries -= 1
                if tries <= 0 or time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _client(self) -> Any:
        pid, client = self._made
        if pid != os.getpid() or client is None:
            with self._lock:
                pid, client = self._made
                if pid != os.getpid() or client is None:
                    client = self._make()
                    self._made = (os.getpid(), client)
        return client

    def _forget_credentials(self) -> None:
        """The next call looks for credentials anew: some come late, as a role's at the start of a host, others change.

        A session keeps those that it has found, and that it has found none, for as long as it lives.
        """
        with self._lock:
            if time.monotonic() < self._looks_again_at:
                return
            self._looks_again_at = time.monotonic() + _CREDENTIALS_FOR
        _session.cache_clear()
        # who is in the middle of a call keeps the client until that ends
        self._made = (0, None)

    def _make(self) -> Any:
        config = Config(
            connect_timeout=self._connect_timeout,
            read_timeout=self.timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=_KEPT,
        )
        session, lock = _session(os.getpid())
        with lock:
            client = session.create_client(
                self.service, region_name=self._region, endpoint_url=self._endpoint or None, config=config
            )
        # botocore/httpsession.py: a request's own time is read out of its context
        client.meta.events.register(f"before-call.{self.service}", self._set_time)
        client.meta.events.register(f"before-parse.{self.service}", _check_form)
        return client

    def _set_time(self, context: dict[str, Any], **_: object) -> None:
        context["read_timeout"] = self._local.read_timeout


def _check_form(response_dict: Mapping[str, Any], **_: object) -> None:
    """Raises ForeignAnswer for what is no JSON object. botocore would take it for an answer that says nothing."""
    body = response_dict["body"]
    if body and not body.lstrip().startswith(b"{"):
        raise ForeignAnswer(response_dict["status_code"], response_dict["headers"].get("content-type", ""))


@lru_cache(1)
def _session(pid: int) -> tuple[Any, threading.Lock]:
    """What finds credentials and reads the services' descriptions, once a process; it makes one client at a time."""
    return botocore.session.Session(), threading.Lock()
