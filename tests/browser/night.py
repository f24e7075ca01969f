"""The installation of a bad night: five causes, 200 deliveries, all of them worked, and buried, by a real pool."""

from __future__ import annotations

import json
import signal
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.ledger.activity import RELOADED
from tests.browser.answering import Answering, Quiet
from tests.browser.house import House
from tests.conftest import wait_for

if TYPE_CHECKING:
    from pathlib import Path

# What is buried, and how much of it.
BROKEN = "KeyError"
OVER = "photos answered 503"
GOES_ON = "maps answered 503"
DAMAGED = "damaged"
KILLED = "took longer"
CAUSES = {"maps": 130, "garbage": 40, "broken": 18, "photos": 10, "slow": 2}
MORE = """
[console]
state = "{0}/console"
[intake]
journal = "{0}/journal"
[[routes]]
source = "clock"
handler = "handlers:handle"
deadline = "1s"
"""
HANDLERS = """
import http.client, json, time

def handle(delivery):
    ping = json.loads(delivery.body)
    return globals()[ping["does"]](ping)

def photos(ping):
    ask("photos", ping)

def maps(ping):
    ask("maps", ping)

def ask(target, ping):
    connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=20)
    connection.request("GET", f"/{{target}}/{{ping['itemId']}}")
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise ConnectionError(f"{{target}} answered {{status}}")

def broken(ping):
    return ping["{key}"]

def slow(ping):
    while {slow}:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


class Target(Answering):
    """A server that answers 503 for what is down."""

    def __init__(self) -> None:
        self.down = {"photos", "maps"}
        down = self.down

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503 if self.path.split("/")[1] in down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)


class Night(House):
    """What has happened until somebody is called: the handler is mended, and one of the two outages is over."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, max_lost=1, processes=2)
        self.target = Target()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.target.close()

    def _start(self) -> None:
        self._release(key="photo", slow=True)
        # what is of this source may take a second
        self._pool.write_settings(timeout="60s", more=MORE.format(self.dir))
        self._pool.start()
        for cause, count in CAUSES.items():
            for number in range(count):
                self._ping(cause, number)
        self._pool.ready()
        wait_for(lambda: self.buried() == sum(CAUSES.values()), f"all of it to be buried\n{self._pool.log()[-2000:]}")
        # a damaged job is buried in place: after the first walk it would be found a minute later
        self._start_console()
        self._release(key="itemId", slow=False)
        self._pool.send(signal.SIGHUP)
        self.target.down.remove("photos")
        self._wait_for_console()
        wait_for(self._is_reloaded, "the pool to be reloaded")

    def _release(self, *, key: str, slow: bool) -> None:
        """The handlers of a release: which key they look for, and whether they hang."""
        self._pool.write_handlers(HANDLERS.format(port=self.target.port, key=key, slow=slow))

    def _ping(self, cause: str, number: int) -> None:
        body = json.dumps({"does": cause, "itemId": f"{cause}-{number}"}).encode()
        made = envelope.new("clock" if cause == "slow" else "mirror", body, {"collection": "timeline"})
        # bytes that are cut off are no delivery any more
        self._queue.put(envelope.encode(made)[: 40 if cause == "garbage" else None])

    def _is_reloaded(self) -> bool:
        return bool(self.json(f"/activity.json?did={RELOADED}")["activities"])
