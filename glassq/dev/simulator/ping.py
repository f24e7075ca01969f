"""Sends pings as Mirror does: a timeout of ten seconds, and retries."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glassq.final_response import reading_final

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

# Timeout in seconds. Mirror gives up on a callback after 10 s, and then "might try to resend" (guide on subscriptions).
TIMEOUT = 10.0
# Total tries, and the pause after the first in seconds, which doubles. The guide says neither how often nor how soon.
TRIES = 5
PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class PingResult:
    """The outcome of sending a ping.

    `statuses` has the HTTP status of each try, 0 for a try without a response in time. `seconds` is the duration of the
    last try.
    """

    statuses: tuple[int, ...]
    seconds: float

    @property
    def acknowledged(self) -> bool:
        """Whether the last try got a 2xx response."""
        return bool(self.statuses) and 200 <= self.statuses[-1] < 300


def send_ping(
    callback_url: str,
    form: Mapping[str, Any] | bytes,
    stop: threading.Event,
    *,
    tries: int = TRIES,
    timeout: float = TIMEOUT,
) -> PingResult:
    """POSTs `form` as JSON (bytes unchanged) until it is acknowledged, at most `tries` times.

    `timeout` limits each wait for the callback, in seconds; setting `stop` ends the retries.
    """
    body = form if isinstance(form, bytes) else json.dumps(form).encode()
    statuses: list[int] = []
    pause = PAUSE
    while True:
        started = time.perf_counter()
        statuses.append(_post(callback_url, body, timeout))
        result = PingResult(tuple(statuses), time.perf_counter() - started)
        if result.acknowledged or len(statuses) >= tries or stop.wait(pause):
            return result
        pause *= 2


def _post(url: str, body: bytes, timeout: float) -> int:
    """The status of the response; 0 if there was none."""
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = reading_final(connect)(parts.hostname or "", parts.port, timeout=timeout)
    headers = {"Content-Type": "application/json; charset=UTF-8", "User-Agent": "SimulatedGlass"}
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
