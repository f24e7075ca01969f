"""What intake and pool write to their logs, whatever senders, handlers and the Mirror API do."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from glassq.dev.demo import prepare
from glassq.dev.simulator.glass import SimulatedGlass
from glassq.glass.credentials import CredentialStore
from glassq.journal import Journal
from glassq.settings import load
from tests.conftest import Beanstalkd, Process, program, wait_for
from tests.intake.wire import Wire, body, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.settings import Settings

USER = "115813563728193847561"
REVOKED = "225813563728193847562"
# What a sender would like to have in the log, in each form of it.
FORGED = "1999-12-31T12:00:00+0000 info glassq.intake[1]: done delivery=FORGED attempt=1"
FORGERIES = (
    FORGED,
    f"a\n{FORGED}",
    f"a\r\n<3>{FORGED}\x1b[2K\x1b]0;title\x07",
    f"a\u2028{FORGED}\u2029\x85{FORGED}\u202e\u200b",
    'a" delivery=FORGED attempt=1 \'\\"',
    '"}\n{"time":"1999-12-31T12:00:00+00:00","level":"info","pid":1,"event":"done","delivery":"FORGED"}',
)
# One scripted handler; the ping says what it does, and with which words.
HANDLER = """
import json, logging, os, signal, time
from pathlib import Path
from glassq import Bury, Drop, Retry

log = logging.getLogger("handlers")

def handle(delivery, context):
    ping = json.loads(delivery.body)
    return globals()[ping["do"]](ping["words"], delivery)

def say(words, delivery):
    log.info(words)
    log.debug("it says %s", words)
    log.info("it says %d", words)
    try:
        raise ValueError(words)
    except ValueError:
        log.exception("it says so again")
    return {"said": words}

def fail(words, delivery):
    raise RuntimeError(f"{words} {delivery.body.decode()}")

def retry(words, delivery):
    if delivery.attempt == 1:
        raise Retry(words, delay=1)
    return words

def drop(words, delivery):
    raise Drop(words)

def bury(words, delivery):
    raise Bury(words)

def die(words, delivery):
    os.kill(os.getpid(), signal.SIGKILL)

def hold(words, delivery):
    log.info("holds")
    while not Path(words).exists():
        time.sleep(0.02)
"""
SETTINGS = """
[[routes]]
source = "mirror"
collection = "locations"
handler = "scripted:handle"

[log]
level = "debug"
format = "{form}"
"""
# The stream that it is told of is its own standard error, as systemd has it.
IN_JOURNAL = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'

_STAMP = r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}) "
_REST = r"(?P<level>debug|info|warning|error|critical) (?P<logger>[\w.]+)%s: (?P<event>.*)"
TEXT_LINE = re.compile(_STAMP + _REST % r"\[(?P<pid>\d+)\]")
# The journal knows time and pid.
JOURNAL_LINE = re.compile(r"(?P<time>)(?P<pid>)" + _REST % "")
FIELD = re.compile(r'(?:^| )(\w+)=("[^"]*"|\S+)')
PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "3"}
# As text where systemd listens, as JSON where it does not.
FORMS = [pytest.param(("text", True), id="journal"), pytest.param(("json", False), id="json")]


@dataclass(frozen=True)
class Line:
    """One event, however it is written. `priority` is the journal's, "" for none; `fields` are texts."""

    time: str
    level: str
    logger: str
    pid: str
    event: str
    fields: dict[str, str]
    priority: str = ""


@dataclass
class Run:
    """What came of it all."""

    form: str
    journal: bool
    settings: Settings
    output: dict[str, str]
    lines: list[Line]
    secrets: list[str]
    statuses: list[int]

    def all(self, event: str) -> list[Line]:
        return [line for line in self.lines if line.event.startswith(event)]


class Stand:
    """Intake, pool and queue in a directory, driven through everything that makes them say something."""

    def __init__(self, beanstalkd: Beanstalkd, directory: Path, glass: SimulatedGlass, form: str) -> None:
        self.beanstalkd = beanstalkd
        self.glass = glass
        self.directory = prepare(directory / "it", glass)
        config = self.directory / "glassq.toml"
        text = re.sub(r"beanstalk://.*\.sock\"", f'{self.beanstalkd.url}"\nttr = "5s"', config.read_text())
        text = text.replace("[worker]", "[worker]\nprocesses = 2\nmax_attempts = 2\nmax_lost = 2")
        before, routes, after = text.partition("[[routes]]")
        config.write_text(before + SETTINGS.format(form=form) + routes + after)
        (self.directory / "scripted.py").write_text(HANDLER)
        self.settings = load(str(config), {})
        host, _, port = self.settings.intake.bind.rpartition(":")
        self.address = (host, int(port))
        self.token = self.settings.secret("sources.mirror.verify_tokens_file")[0]
        self.refresh_tokens = {user: glass.add_user(user)["refresh_token"] for user in (USER, REVOKED)}
        for user, refresh_token in self.refresh_tokens.items():
            CredentialStore.open(self.settings).add(user, refresh_token)
            glass.subscribe(user, f"http://{self.settings.intake.bind}/hooks/mirror", self.token)
        self.statuses: list[int] = []

    @contextmanager
    def running(self, *, journal: bool) -> Iterator[None]:
        """The intake and the pool; both are ready."""
        under = ["sh", "-c", IN_JOURNAL, "sh"] if journal else []
        command = lambda name: [*under, *program(name), "--config", self.settings.file]  # noqa: E731
        self.web = Process(command("glassq-web"), self.directory / "web.log")
        self.worker = Process(command("glassq-worker"), self.directory / "worker.log")
        try:
            self._ready()
            yield
        finally:
            self.web.end()
            self.worker.end()

    def _ready(self) -> None:
        wait_for(self._answers, f"the intake to answer\n{self.web.output()}")
        self.saw("pool is ready")

    def _answers(self) -> bool:
        try:
            with Wire(self.address) as wire:
                return wire.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
        except OSError:
            return False

    def saw(self, words: str, times: int = 1) -> None:
        output = lambda: self.web.output() + self.worker.output()  # noqa: E731
        wait_for(lambda: output().count(words) >= times, f"{words!r} in\n{output()}")

    def ask(self, data: bytes) -> int:
        with Wire(self.address) as wire:
            self.statuses.append(wire.ask(data).status)
        return self.statuses[-1]

    def script(self, do: str, words: str) -> None:
        ping = body(collection="locations", verifyToken=self.token, do=do, words=words, userActions=[{"type": words}])
        assert self.ask(request(ping)) == 200

    def strangers(self) -> None:
        """What is refused: the wrong token, no ping at all, and no HTTP that we take."""
        nasty = FORGED.encode()
        for words in FORGERIES:
            self.ask(request(body(verifyToken=words)))
            self.ask(request(body(itemId=words)))
            self.ask(request(words.encode()))
        for line in (f"POST /hooks/{FORGED.replace(' ', '%0a')} HTTP/1.1", f"{'F' * 30} / HTTP/1.1", f"GET {FORGED}"):
            self.ask(request(line=line))
        self.ask(request(host=FORGED))
        self.ask(request(kind=FORGED))
        self.ask(request(None, f"X-Forwarded-For: {FORGED}", f"Transfer-Encoding: {FORGED}"))
        self.ask(b"\r\n" + nasty + b"\r\n\x1b[2K\r\n\r\n")

    def glassware(self) -> None:
        """Photos stored, an API that fails and says nasty things, a user who is gone, and one who is not known."""
        shared = self.glass.share(USER, ["jpeg"])
        self.glass.fail_next("timeline.get", 503, body=f"no\n{FORGED}\x1b[2K", user=USER)
        assert self.glass.ping(USER, shared).acknowledged
        self.saw(f"{shared.id}.jpg")
        self.glass.fail_next("timeline.get", 401, "authError", user=USER)
        self.glass.fail_next("token", 500, body=f"no\n{FORGED}")
        assert self.glass.ping(USER, self.glass.share(USER, ["png"])).acknowledged
        self.glass.revoke(REVOKED)
        assert self.glass.ping(REVOKED, self.glass.share(REVOKED, ["png"])).acknowledged
        assert self.ask(request(body(userToken=FORGED, itemId=FORGED, verifyToken=self.token))) == 200

    def handlers(self) -> None:
        """Every outcome, with nasty words."""
        # first: what a child has not written into the ledger yet dies with it
        self.script("die", FORGED)
        self.saw("2 attempts ended without an outcome")
        for words in FORGERIES:
            for do in ("say", "fail", "retry", "drop", "bury"):
                self.script(do, words)

    def trouble(self) -> None:
        """The queue goes away under an attempt, pings go to the journal, and it comes again."""
        let_go = self.directory / "let-go"
        self.script("hold", str(let_go))
        self.saw("holds")
        self.beanstalkd.stop()
        self.script("say", FORGED)
        self.saw("lease lost with the connection")
        self.beanstalkd.start()
        let_go.touch()
        self.saw("moved on from the journal")

    def settle(self) -> None:
        wait_for(self._settled, f"all of it to be worked\n{self.worker.output()}")

    def _settled(self) -> bool:
        queue = self.beanstalkd.queue()
        try:
            tube = queue.stats_tube()
        finally:
            queue.close()
        journaled = Journal(self.directory / "spool", max_size=1 << 30, min_free=0).look().count
        return not (tube.ready or tube.reserved or tube.delayed or journaled)

    def secrets(self) -> list[str]:
        return [
            self.token,
            self.settings.secret("glass.client_secret_file")[0],
            self.settings.secret("glass.credentials_key_file")[0],
            *self.refresh_tokens.values(),
            # those that the simulated Glass gives out begin so
            "ya29.",
            "1//sim-",
        ]


@pytest.fixture(scope="module", params=FORMS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    form, journal = request.param
    directory = tmp_path_factory.mktemp("logs")
    beanstalkd = Beanstalkd(directory, unix=True)
    try:
        with SimulatedGlass() as glass:
            stand = Stand(beanstalkd, directory, glass, form)
            with stand.running(journal=journal):
                stand.strangers()
                stand.glassware()
                stand.handlers()
                # what is interrupted while it is being buried would be worked a minute later
                stand.settle()
                stand.trouble()
                stand.settle()
    finally:
        beanstalkd.stop()
    output = {"web": stand.web.output(), "worker": stand.worker.output()}
    lines = [line for text in output.values() for line in parsed(text, form, journal=journal)]
    return Run(form, journal, stand.settings, output, lines, stand.secrets(), stand.statuses)


def parsed(output: str, form: str, *, journal: bool) -> Iterator[Line]:
    """Every line of it; AssertionError for one that is none of ours."""
    # only what ends a line for whoever reads logs
    for raw in output.removesuffix("\n").split("\n"):
        priority = ""
        line = raw
        if journal:
            found = re.match(r"<([3-7])>", raw)
            assert found, raw
            priority, line = found[1], raw[3:]
        if form == "json":
            assert line.startswith('{"time":'), line
            fields: dict[str, Any] = json.loads(line)
            own = {key: str(fields.pop(key)) for key in ("time", "level", "logger", "pid", "event")}
            texts = {key: str(value) for key, value in fields.items()}
            yield Line(**own, fields=texts, priority=priority)
        elif not line.startswith("  | "):
            match = (JOURNAL_LINE if journal else TEXT_LINE).fullmatch(line)
            assert match, line
            # where a line's words say something like a field, the line's own come last
            texts = {key: value.strip('"') for key, value in FIELD.findall(match["event"])}
            yield Line(**match.groupdict(), fields=texts, priority=priority)


def test_everything_that_was_to_be_said_was_said(run: Run) -> None:
    """Else the tests below would hold for an empty log."""
    for event in (
        "acknowledged", "refused", "done", "retrying", "failed here", "dropped", "buried", "child died",
        "it says so again", "this cannot be logged", "lease lost with the connection", "queue trouble",
        "the queue takes no deliveries", "moved on from the journal",
    ):  # fmt: skip
        assert run.all(event), event
    assert {400, 403, 404, 415, 200} <= set(run.statuses)


def test_no_secret_is_in_a_log_or_in_what_the_ledger_tells(run: Run) -> None:
    told = "".join(run.output.values())
    with closing(sqlite3.connect(run.settings.ledger.url.removeprefix("sqlite:///"))) as ledger:
        rows = ledger.execute("SELECT reason, result FROM deliveries").fetchall()
    assert len(rows) > 30
    told += "".join(str(text) for row in rows for text in row)
    assert not [secret for secret in run.secrets if secret in told]
    assert "Bearer" not in told


def test_no_line_is_one_that_a_sender_forged(run: Run) -> None:
    text = "".join(run.output.values())
    assert text.count("FORGED") > 100
    # each was taken apart by `parsed` already: none ends where a sender wants it to
    assert [line for line in run.lines if line.pid == "1" or line.time.startswith("1999")] == []
    assert [line for line in run.lines if line.fields.get("delivery") == "FORGED"] == []
    assert all(char.isprintable() or char == "\n" for char in text)


def test_every_line_about_a_delivery_names_it_and_the_attempt(run: Run) -> None:
    delivery = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    about = [line for line in run.lines if line.fields.keys() & {"delivery", "job"} or line.logger == "handlers"]
    assert len(about) > 100
    for line in about:
        assert delivery.fullmatch(line.fields.get("delivery", "")), line
        # the intake makes no attempts
        assert line.logger == "glassq.intake" or line.fields.get("attempt", "").isdigit(), line


def test_no_line_names_a_delivery_that_it_is_not_about(run: Run) -> None:
    for event in ("queue trouble", "pool is ready", "child ends", "moved on from the journal"):
        assert [line for line in run.all(event) if line.fields.keys() & {"delivery", "attempt"}] == []


def test_in_the_journal_every_line_has_its_priority(run: Run) -> None:
    for line in run.lines:
        assert line.priority == (PRIORITIES[line.level] if run.journal else "")
