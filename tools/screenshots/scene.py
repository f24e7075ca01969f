"""A living installation for pictures of the console: all that a page can show, at once.

Real servers and a real pool work real deliveries; only the past is made up (past.py).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import past

from glassq import delivery as envelope
from glassq.console.keys import open_key, state_directory
from glassq.console.links import new_code
from glassq.delivery import Evidence
from glassq.dev.door import Door
from glassq.dev.stack import Stack, free_port, write_settings
from glassq.ledger import schema as ledger
from glassq.ledger.activity import Activity
from glassq.ledger.activity_writer import row_of
from glassq.local_http import post
from glassq.operations import pause as pausing
from glassq.push.client import Client
from glassq.push.task import TaskSpec
from glassq.queues import open_inspector, open_producer
from glassq.queues.base import NewJob
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.schedules.table import ScheduleTable
from glassq.settings import Settings, load
from glassq.sources.signer import open_signer
from glassq.values import Bind

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "mirror-1"
HANDLERS = """\
import json, random, time
from glassq import Delivery, Drop


def store(delivery: Delivery) -> str:
    ping = json.loads(delivery.body)
    time.sleep(random.uniform(1.4, 3.6))
    if ping.get("gone"):
        raise ConnectionError(f"503 from https://photos.example/v1/{ping['itemId']}")
    return f"stored {ping['itemId'][-4:]}.jpg, {random.randrange(90, 990)} kB"


def paid(delivery: Delivery) -> str:
    payment = delivery.json()["data"]["object"]
    return f"{payment['amount'] / 100:.2f} {payment['currency'].upper()} paid"


def pushed(delivery: Delivery) -> str:
    push = delivery.json()
    if "commits" not in push:
        raise Drop("not a push")
    return f"{len(push['commits'])} commits on {push['ref']}"


def send(delivery: Delivery) -> str:
    return "sent"


def report(delivery: Delivery) -> str:
    return "report of 4,711 orders"
"""
MORE = """
[[routes]]
source = "push"
handler = "handlers:send"
[[routes]]
source = "schedule"
handler = "handlers:report"
[[schedule]]
name = "nightly-report"
cron = "30 2 * * *"
zone = "Europe/Berlin"
[[schedule]]
name = "renew-subscriptions"
cron = "15 */6 * * *"
[[schedule]]
name = "sweep-carts"
cron = "*/20 * * * *"
"""
QUEUE_YAML = "queue:\n- name: mail\n  rate: 2/s\n  bucket_size: 5\n- name: invoices\n  rate: 10/m\n"
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/photos/handlers.py", line 41, in {function}
    {line}
{error}: {message}"""
# Deliveries of each group of what lies buried: how many; the first and the last failed so many minutes ago.
GROUPS: tuple[tuple[str, str, int, float, float, str, str, str, str], ...] = (
    (
        "mirror",
        "glassq",
        212,
        38,
        6,
        "store",
        "HttpError",
        "503 from https://photos.example/v1/{n}",
        "answer = get(url)",
    ),
    (
        "stripe",
        "glassq",
        31,
        4_300,
        95,
        "book",
        "ValueError",
        "order {n} has no shipping address",
        "address = shipping_address(order)",
    ),
    ("mirror", "glassq", 7, 900, 210, "resize", "TimeLimit", "took longer than 60 s (killed)", "image.thumbnail(size)"),
    (
        "github",
        "glassq",
        2,
        2_600,
        1_900,
        "pushed",
        "JSONDecodeError",
        "Expecting value: line 1 column {n}",
        "push = json.loads(body)",
    ),
)


class Scene:
    """The installation, in a directory of its own. A context manager: it lives inside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self._chance = random.Random(3)
        # what lies buried, and what the ledger has
        self._buried: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._open = ExitStack()
        self.stack: Stack
        self.settings: Settings

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._write_settings()
            self.stack = opened.enter_context(Stack(self.directory, logs=True))
            self.settings = load(str(self.stack.config), {})
            self._fill()
            self._console = self._start_console()
            opened.callback(self._end_console)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def link(self, who: str = "anna") -> str:
        """A link that signs in, once."""
        code = new_code(open_key(state_directory(self.settings)), who, time.time())
        return f"{self.url}/login?code={code}"

    def _write_settings(self) -> None:
        sections: dict[str, dict[str, object]] = {
            "intake": {"bind": f"127.0.0.1:{free_port()}"},
            "worker": {"processes": 4, "backoff": "30s"},
            "worker.queues.thumbnails": {"weight": 1},
            "push": {"queue_yaml": self.directory / "queue.yaml"},
            "sources.github": {"secrets_file": self.directory / "github-secrets"},
            "sources.stripe": {"secrets_file": self.directory / "stripe-secrets"},
            "console": {"state": self.directory / "console"},
        }
        routes = {"mirror": "handlers:store", "github": "handlers:pushed", "stripe": "handlers:paid"}
        (self.directory / "queue.yaml").write_text(QUEUE_YAML)
        write_settings(self.directory, sections, routes)
        (self.directory / "handlers.py").write_text(HANDLERS)
        with (self.directory / "glassq.toml").open("a") as file:
            file.write(MORE)

    def restart_console(self) -> None:
        """With templates and styles as they are by now."""
        self._end_console()
        self._console = self._start_console()

    def _start_console(self) -> subprocess.Popen[bytes]:
        history = self.directory / "past.json"
        history.write_text(json.dumps(past.samples(time.time())))
        program = str(Path(__file__).with_name("console.py"))
        command = [sys.executable, program, str(self.stack.config), str(self.port), str(history), HOST]
        log = self._log = (self.directory / "log" / "console.log").open("wb")
        started = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        door = Door(Bind(f"127.0.0.1:{self.port}"))
        while not door.is_ready():
            if started.poll() is not None:
                raise SystemExit((self.directory / "log" / "console.log").read_text())
            time.sleep(0.1)
        return started

    def _end_console(self) -> None:
        self._console.terminate()
        self._console.wait()
        self._log.close()

    # -- what there is -------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        now = past.utc_now()
        self._pause("glassq.queue.thumbnails")
        rows = self._rows = list(past.rows(now))
        with closing(self._connection()) as queue:
            for group in GROUPS:
                self._bury_group(queue, now, *group)
            damaged = queue.put(b"glassq/1 00000000\n{}", delay=3_600)
            queue.reserve_job(damaged)
            queue.bury(damaged)
        self._put(now)
        self._fill_ledger(rows)
        self._fill_schedules(now, rows[0]["delivery"])
        self._send_pings()
        self._fill_activity(now)

    def _connection(self) -> BeanstalkConnection:
        return BeanstalkConnection(self.settings.queue.url, "glassq", ttr=120, connect_timeout=5.0, timeout=20.0)

    def _pause(self, tube: str) -> None:
        with closing(open_inspector(self.settings)) as queue:
            pausing.pause(queue, {tube: tube}, 108 * 60)

    def _fill_ledger(self, rows: list[dict[str, Any]]) -> None:
        engine = ledger.open_for_writing(ledger.parse_url(self.settings.ledger.url))
        with engine.begin() as connection:
            connection.execute(ledger.deliveries.insert(), rows)
        engine.dispose()

    def _fill_schedules(self, now: datetime, done: str) -> None:
        """One was done, one lies buried, one is paused."""
        table = ScheduleTable(self.settings.ledger.url)
        for name, ago, delivery in (
            ("nightly-report", 290, done),
            ("renew-subscriptions", 73, self._buried[-1]),
            ("sweep-carts", 7, done),
        ):
            before = table.enter([name], now - timedelta(minutes=ago))[name]
            after = msgspec.structs.replace(before, last=now - timedelta(minutes=ago), state="put", delivery=delivery)
            table.claim(before, after)
        table.pause("sweep-carts", now - timedelta(minutes=5))
        table.close()

    def _bury_group(
        self, queue: Any, now: datetime, source: str, tube: str, many: int, first: float, last: float, *words: str
    ) -> None:
        for number in range(many):
            ago = first - (first - last) * (number / max(1, many - 1)) ** 0.8
            self._bury(queue, now - timedelta(minutes=ago), source, number, *words)

    def _bury(
        self, queue: Any, at: datetime, source: str, number: int, function: str, error: str, message: str, line: str
    ) -> None:
        said = message.format(n=8_100 + number)
        made = self._delivery(source, number)
        evidence = []
        for attempt in range(1, 4):
            detail = {"answer": {"status": 503, "retry-after": "30"}} if error == "HttpError" else {}
            trace = TRACEBACK.format(function=function, line=line, error=error, message=said)
            ended = at - timedelta(seconds=(3 - attempt) * 75 + 4 * (3 - attempt) ** 3)
            outcome = "bury" if attempt == 3 else "retry"
            evidence.append(
                Evidence(attempt, outcome, error, said, ended, 2.1 + attempt / 7, HOST, trace, detail=detail)
            )
        buried = msgspec.structs.replace(
            made,
            received=at - timedelta(minutes=5),
            attempt=3,
            failures=3,
            evidence=tuple(evidence),
            buried=f"{said} (gave up after 3 attempts)",
        )
        job = queue.put(envelope.encode(buried), delay=3_600)
        queue.reserve_job(job)
        queue.bury(job)
        self._buried.append(buried.id)
        self._rows.append(
            past.row(buried.id, buried.received, "buried", 3, at, 2.4, source=source, reason=buried.buried)
        )

    def _delivery(self, source: str, number: int, tube: str = "", gone: bool = False) -> envelope.Delivery:
        body: dict[str, object]
        if source == "stripe":
            order = {"amount": 4_200 + number, "currency": "eur", "client_secret": "pi_3Nx_secret_9"}
            body = {"type": "payment_intent.succeeded", "id": f"evt_{9_000 + number}", "data": {"object": order}}
            labels = {"event": "payment_intent.succeeded"}
        elif source == "github":
            body, labels = {"ref": "refs/heads/main", "commits": [{}]}, {"event": "push"}
        else:
            body = {
                "collection": "timeline",
                "itemId": f"3f41c2d0-{8_100 + number}",
                "operation": "INSERT",
                "userToken": f"user_{number % 23}",
                "verifyToken": "hidden",
                "userActions": [{"type": "SHARE"}],
                **({"gone": True} if gone else {}),
            }
            labels = {"collection": "timeline", "operation": "INSERT"}
        return envelope.new(source, json.dumps(body).encode(), labels, tube=tube, content_type="application/json")

    def _put(self, now: datetime) -> None:
        jobs = []
        for number in range(past.READY):
            made = self._delivery("mirror", number)
            jobs.append(NewJob(made.id, envelope.encode(made), "glassq"))
        for number in range(past.DELAYED):
            at = now - timedelta(minutes=number / 2.4)
            said = f"503 from https://photos.example/v1/{9_000 + number}"
            evidence = Evidence(1, "retry", "HttpError", said, at, 2.4, HOST, "")
            made = msgspec.structs.replace(
                self._delivery("mirror", number), attempt=1, failures=1, evidence=(evidence,), received=at
            )
            jobs.append(NewJob(made.id, envelope.encode(made), "glassq", self._chance.uniform(300, 1_500)))
            self._rows.append(past.row(made.id, at, "retrying", 1, at, 2.4, reason=said))
        for number in range(past.THUMBNAILS):
            made = self._delivery("mirror", number)
            jobs.append(NewJob(made.id, envelope.encode(made), "glassq.queue.thumbnails"))
        with closing(open_producer(self.settings)) as producer:
            producer.put(jobs, within=60.0)
        client = Client(self.settings)
        for first in range(0, past.MAILS, 100):
            client.add(
                "mail", [TaskSpec(url="/mail/weekly", params={"to": f"user_{first + number}"}) for number in range(100)]
            )
        client.add("invoices", [TaskSpec(url="/invoices", countdown=3_600 + 60 * number) for number in range(12)])
        client.close()

    def _send_pings(self) -> None:
        """GitHub's, some of them forged, and Stripe's, whose clock is slow."""
        place = self.settings.intake.bind.place
        assert place is not None
        for name, many, behind in (("github", 34, 0.0), ("stripe", 21, 97.0)):
            signer = open_signer(self.settings, name)
            for number in range(many):
                now = time.time() - behind - (400 if name == "stripe" and number < 3 else 0)
                ping = signer.sign(signer.sample("", now), now)
                if name == "github" and number % 6 == 5:
                    ping = replace(ping, body=ping.body.replace(b"main", b"evil"))
                headers = dict(ping.headers)
                if name == "github" and number == 9:
                    headers = {key: value for key, value in headers.items() if "signature" not in key.lower()}
                post(place, ping.target, headers, ping.body, timeout=10.0)

    def _fill_activity(self, now: datetime) -> None:
        for activity in activities(now):
            self._record(activity)

    def _record(self, activity: Activity) -> None:
        engine = ledger.open_for_writing(ledger.parse_url(self.settings.ledger.url))
        with engine.begin() as connection:
            connection.execute(ledger.activities.insert(), row_of(activity))
            connection.execute(ledger.activities.update().where(ledger.activities.c.via == "pool").values(actor=HOST))
        engine.dispose()


def activities(now: datetime) -> Iterator[Activity]:
    """What two people did in the last day."""
    chance = random.Random(5)

    def did(ago: float, actor: str, what: str, **fields: Any) -> Activity:
        at = now - timedelta(minutes=ago)
        return Activity(
            id=past.id_at(at, chance), at=at, actor=actor, did=what, **{"via": "console", "ended": at, **fields}
        )

    yield did(1_380, HOST, "started", via="pool", note="glassq 0.1.0")
    yield did(1_130, "bert", "sign-in")
    yield did(
        1_120,
        "bert",
        "kick",
        command="glassq kick --where cause=61c3a6e0d0f2 --canary --rate 20/s",
        chosen=118,
        done=118,
    )
    yield did(1_101, "bert", "archive", command="glassq archive --where cause=9d02b7714e55", chosen=40, done=38, left=2)
    yield did(310, HOST, "reloaded", via="pool")
    yield did(
        93,
        "bert",
        "kick",
        command="glassq kick --where 'error~shipping address' --canary",
        chosen=31,
        failed=1,
        left=30,
        state="stopped",
        via="cli",
        note="failed again: order 8104 has no shipping address",
    )
    yield did(34, "anna", "sign-in")
    yield did(
        31,
        "anna",
        "kick",
        command="glassq kick --where 'error~503' --canary --rate 20/s",
        chosen=64,
        done=1,
        left=63,
        failed=0,
        state="stopped",
        note="failed again: 503 from https://photos.example",
    )
    yield did(
        12,
        "bert",
        "pause",
        command="glassq pause glassq.queue.thumbnails --for 2h",
        filter="glassq.queue.thumbnails",
        chosen=1,
        done=1,
        via="cli",
    )
    yield did(
        9,
        "carol",
        "refused",
        command="POST /plan/kick",
        state="failed",
        note="carol is viewer here, and this needs operator",
    )
