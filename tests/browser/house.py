"""A whole installation for the console's pages: a queue with what lies buried, a pool that works it, and the console.

It is one for all tests of a process: they act on groups of their own.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import msgspec

from glassq import delivery as envelope
from glassq.console.keys import open_key
from glassq.console.links import new_code
from glassq.console.routes import LOGIN, ROUTES
from glassq.delivery import Evidence
from glassq.settings import load
from tests.conftest import Beanstalkd, Process, program, wait_for
from tests.ports import free_port
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings
    from tests.queues.raw import Queue

# Groups of buried deliveries: how many, how long ago the last one failed, in minutes, and what happens if one is worked
# again. The first is that of the verdict: the biggest young one.
GROUPS = {
    "target": (60, 2, "stored"),
    "stopped": (30, 90, "stored"),
    "again": (12, 150, "fails"),
    "closing": (30, 200, "stored"),
    "undone": (5, 300, "stored"),
    "spoken": (3, 400, "stored"),
    "chosen": (8, 2_000, "stored"),
}
HANDLERS = """
import json
from glassq.errors import Bury

def handle(delivery):
    ping = json.loads(delivery.body)
    if ping["does"] == "fails":
        raise ConnectionError(f"{ping['group']}: still not there for {ping['itemId']}")
    return f"stored {ping['itemId']}"
"""
TRACEBACK = (
    'Traceback (most recent call last):\n  File "/srv/photos/handlers.py", line 41, in {0}\nConnectionError: {1}'
)
# The longest names that settings may have.
LONG = "source-with-a-name-without-any-blank".ljust(63, "x")
MORE = """
[console]
state = "{0}/console"
[intake]
journal = "{0}/journal"
bind = "{1}"
[sources.mirror]
verify_tokens_file = "{0}/secret"
[sources.{2}]
kind = "github"
secrets_file = "{0}/secret"
queue = "{2}"
[worker.queues.{2}]
weight = 2
[[schedule]]
name = "{2}"
cron = "0 0 1 1 *"
[[routes]]
source = "schedule"
handler = "handlers:handle"
"""

# Between two questions of the tests themselves, in seconds.
PACE = 0.1
_LINK = re.compile(r"http://localhost:\d+/login\?code=\S+")


class House:
    """The installation, in a directory of its own."""

    def __init__(self, directory: Path, **worker: object) -> None:
        self.dir = directory
        self.port = free_port()
        self._cookie = ""
        self._asked = 0.0
        self._found = ""
        self._tubes = {"glassq"}
        # room for a line of 64 KiB
        self._server = Beanstalkd(directory, options=("-z", "131072"))
        self._queue = self._server.queue()
        self._pool = PoolRun(directory, self._server, self._queue, max_attempts=1, **worker)
        self._console: Process | None = None
        self._intake: Process | None = None

    @property
    def queue(self) -> Queue:
        """A connection to the queue."""
        return self._queue

    @property
    def url(self) -> str:
        """Where the console is."""
        return f"http://localhost:{self.port}"

    @property
    def settings(self) -> Settings:
        """Those of all of it."""
        return load(str(self._pool.config), {})

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self._pool.write_handlers(HANDLERS)
        (self.dir / "secret").write_text("of-this-house\n")
        bind = f"127.0.0.1:{free_port()}"
        self._pool.write_settings(timeout="60s", more=MORE.format(self.dir, bind, LONG))
        for name in GROUPS:
            self.bury(name)
        self._pool.start()
        self._start_console()
        self._pool.ready()
        self._start_intake(bind)
        self._wait_for_console()

    def _start_console(self) -> None:
        command = [*program("glassq-console"), "--config", str(self._pool.config), "--foreground", str(self.port)]
        self._console = Process(command, self.dir / "console.log")

    def _wait_for_console(self) -> None:
        wait_for(lambda: _LINK.search(self.console_log()), "the console to print its link")
        self.wait_counted()

    def _start_intake(self, bind: str) -> None:
        """With a ping that it refuses."""
        runtime = self.dir / "run" / "glassq-web"
        runtime.mkdir(parents=True)
        arguments, env = ["--config", str(self._pool.config)], {"RUNTIME_DIRECTORY": str(runtime)}
        self._intake = Process(arguments, self.dir / "web.log", env, forks="glassq-web")

        def refuses() -> bool:
            with closing(http.client.HTTPConnection(bind, timeout=30)) as connection, suppress(OSError):
                connection.request("POST", f"/hooks/{LONG}", b"{}")
                return 400 <= connection.getresponse().status < 500
            return False

        wait_for(refuses, "the intake to refuse a ping without a signature")

    def __exit__(self, *_: object) -> None:
        for process in (self._console, self._intake):
            if process is not None:
                process.end()
        self._pool.__exit__(None, None, None)
        self._queue.close()
        self._server.stop()

    def stop_queue(self) -> None:
        """The queue's server ends."""
        self._server.stop()

    def console_log(self) -> str:
        """What the console has said."""
        return self._console.output() if self._console else ""

    def link(self) -> str:
        """A link that signs in, once; the one that the console printed is one as well."""
        code = new_code(open_key(self.dir / "console"), "anna", time.time())
        return f"{self.url}/login?code={code}"

    def bury(self, name: str, many: int | None = None) -> str:
        """Buries the deliveries of a group, or so many more of it; returns the last one's id."""
        id_ = ""
        count, minutes, does = GROUPS[name]
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        for number in range(count if many is None else many):
            ping = {
                "collection": "timeline",
                "itemId": f"{name}-{number}",
                "userToken": f"user_{number % 7}",
                "verifyToken": "hidden-secret-9",
                "group": name,
                "does": does,
                "size": 12345678901234567890123,
            }
            message = f"{name}: https://photos.example/v1/{number} answered 503"
            id_ = self.bury_ping(name, json.dumps(ping).encode(), message, at - timedelta(seconds=number))
        return id_

    def found(self) -> str:
        """The id of a delivery that has all by which one can be found."""
        if not self._found:
            body = json.dumps({"userToken": "user_of_the_night", "itemId": "i-1"}).encode()
            message, at = "lost at the night's harbour", datetime.now(UTC) - timedelta(hours=40)
            self._found = self.bury_ping("found", body, message, at, labels={"task": "task-of-the-night"})
            self.wait_listed(self._found)
        return self._found

    def bury_ping(
        self, name: str, body: bytes, message: str, at: datetime, *, tube: str = "glassq", **fields: object
    ) -> str:
        """Buries one delivery, which failed twice, the last time at `at`; returns its id."""
        made = envelope.new("mirror", body, {"collection": "timeline", "operation": "INSERT"})
        evidence = tuple(
            Evidence(
                attempt=number,
                outcome="bury" if number == 2 else "retry",
                error="ConnectionError",
                message=message,
                at=at - timedelta(seconds=40 * (2 - number)),
                duration=2.1,
                host="host-a",
                traceback=TRACEBACK.format(name, message),
                detail={"answer": {"status": 503, "retry-after": "30"}} if number == 2 else {},
            )
            for number in (1, 2)
        )
        known = {"received": at - timedelta(minutes=1), "attempt": 2, "failures": 2, "evidence": evidence}
        buried = msgspec.structs.replace(made, buried=f"{message} (gave up after 2 attempts)", **{**known, **fields})
        self._tubes.add(tube)
        # not ready: the pool would take it
        job = self._queue.put(envelope.encode(buried), delay=3600, tube=tube)
        self._queue.reserve_job(job)
        self._queue.bury(job)
        return buried.id

    # -- what there is -------------------------------------------------------------------------------------------------

    def pages(self) -> list[str]:
        """The paths of all pages that need no more than the path."""
        return [
            route.path for route in ROUTES if route.method == "GET" and "{" not in route.path and route.path != LOGIN
        ]

    def json(self, path: str) -> Any:
        """What the twin of a page answers, as a browser that has signed in asks for it."""
        if not self._cookie:
            self._cookie = self._sign_in()
        # a session may ask 20 times a second
        time.sleep(max(0.0, self._asked + PACE - time.monotonic()))
        self._asked = time.monotonic()
        request = urllib.request.Request(f"{self.url}{path}", headers={"Cookie": self._cookie})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _sign_in(self) -> str:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=30)
        code = new_code(open_key(self.dir / "console"), "bert", time.time())
        headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", urlencode({"code": code}), headers)
        answer = connection.getresponse()
        connection.close()
        return (answer.headers["Set-Cookie"] or "").partition(";")[0]

    def groups(self) -> dict[str, Any]:
        """The groups as they were made, by their names; who fails again does so at another place."""
        found = self.json("/buried.json")["groups"]
        return {name: group for group in found for name in GROUPS if group["words"].endswith(f":{name}")}

    def count(self, name: str) -> int:
        """How many lie buried whose error has this name, in whatever groups: who fails again does so elsewhere."""
        return sum(group["count"] for group in self.json("/buried.json")["groups"] if f": {name}: " in group["words"])

    def cause(self, name: str) -> str:
        """The id of a group."""
        id_: str = self.groups()[name]["id"]
        return id_

    def cause_of(self, delivery: str) -> str:
        """The group of a delivery."""
        cause: str = self.json(f"/d/{delivery}.json")["cause"]
        return cause

    def delivery(self, name: str) -> str:
        """A delivery of this group."""
        example: str = self.groups()[name]["example"]
        return example

    def counted(self) -> int:
        """How many the console has grouped."""
        return sum(group["count"] for group in self.json("/buried.json")["groups"])

    def wait_counted(self) -> None:
        """Waits until the console knows what was buried before it started."""
        wait_for(lambda: self.counted() == self.buried(), "the console to look at what lies buried")

    def wait_listed(self, delivery: str) -> None:
        """Waits until the console knows of one that was buried just now."""

        def listed() -> bool:
            return any(row["delivery"] == delivery for row in self.json("/buried.json?group=0")["jobs"])

        wait_for(listed, "the console to see a delivery that was buried")

    def buried(self) -> int:
        """How many are buried, by the queue."""
        return sum(self._queue.stats_tube(tube).buried for tube in self._tubes)
