"""The console's app, asked as gunicorn asks it, at each of its doors; the queue behind it is real."""

from __future__ import annotations

import json
import pwd
import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import falcon.testing
import jinja2
import pytest

from glassq.console.app import create_app
from glassq.console.console import Console
from glassq.console.keys import open_key, state_directory
from glassq.console.links import new_code
from glassq.ledger import Entry, open_ledger
from glassq.operations.checks.examine import glance
from glassq.settings import parse
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from glassq.operations.doctor import Doctor
    from tests.conftest import Beanstalkd

HOST = "localhost:8099"
SAME = {"Sec-Fetch-Site": "same-origin"}
# users of every Debian, each alone in a group of its name; [console] of `settings` gives them these roles
VIEWER, OPERATOR, STRANGER, PROXY = "daemon", "bin", "games", "www-data"


class Compiled(jinja2.BytecodeCache):
    """The templates as bytecode: each is compiled once for all tests."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


COMPILED = Compiled()


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jinja2.Environment", partial(jinja2.Environment, bytecode_cache=COMPILED))


class Peer:
    """What the kernel says of whoever has connected to a unix socket."""

    def __init__(self, user: str) -> None:
        self._uid = pwd.getpwnam(user).pw_uid

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("3i", 1, self._uid, 0)


@dataclass
class Clock:
    """A clock that tests set."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Browser:
    """A browser at a door of the console: it keeps cookies, and says what browsers say. `user`: None is on TCP."""

    def __init__(self, site: Site, user: str | None, headers: Mapping[str, str] | None = None) -> None:
        self.site = site
        self.cookie = ""
        self.user = user
        self.headers = dict(headers or {})

    def ask(self, method: str, path: str, headers: Mapping[str, str | None] | None = None, **given: Any) -> Any:
        """Answers as Falcon's test client has them; a header that is None is left out."""
        sent = {"Host": HOST, "Accept": "text/html", **self.headers, **(SAME if method == "POST" else {})}
        sent |= {"Cookie": self.cookie} if self.cookie else {}
        for name, value in (headers or {}).items():
            sent.pop(name, None)
            if value is not None:
                sent[name] = value
        listener = ("127.0.0.1", 8099) if self.user is None else "/run/glassq-console.sock"
        extras: dict[str, Any] = {"glassq.listener": listener, "RAW_URI": path}
        if self.user is not None:
            extras["glassq.socket"] = Peer(self.user)
        client = self.site.client
        path, _, query = path.partition("?")
        host = sent.pop("Host", None)
        if host is not None:
            extras["HTTP_HOST"] = host
        answer = client.simulate_request(method, path, query_string=query, headers=sent, extras=extras, **given)
        if set_cookie := answer.headers.get("set-cookie"):
            self.cookie = set_cookie.partition(";")[0]
        return answer

    def get(self, path: str, **headers: str | None) -> Any:
        return self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str | None) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, {**kind, **named}, body=urlencode(form or {}))

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)

    def sign_in(self, code: str = "") -> Browser:
        answer = self.post("/login", {"code": code})
        assert answer.status_code == 303, answer.text
        return self


@dataclass
class Site:
    """A console of its own, with its clock."""

    console: Console
    clock: Clock
    client: falcon.testing.TestClient

    def browser(self, user: str | None = OPERATOR, **headers: str) -> Browser:
        return Browser(self, user, {name.replace("_", "-"): value for name, value in headers.items()})

    def signed_in(self, user: str = OPERATOR) -> Browser:
        return self.browser(user).sign_in()

    def code(self, name: str = "anna", life: float = 60.0) -> str:
        key = open_key(state_directory(self.console.settings))
        return new_code(key, name, self.clock().timestamp(), life)


def site_of(directory: Path, url: str, more: str = "", *, queue: str = "") -> Site:
    """A console whose state is in the directory; `more` are lines of [console], `queue` is that section."""
    section = queue or f'[queue]\nurl = "{url}"\n'
    text = (
        f'{section}[ledger]\nurl = "sqlite:///{directory}/ledger.db"\n'
        f'[console]\nviewers = ["{VIEWER}"]\noperators = ["{OPERATOR}"]\nstate = "{directory}/console"\n'
        f"{more}\n"
    )
    clock = Clock()
    file = directory / "glassq.toml"
    file.write_text(text)
    console = Console(parse(text, str(file)), clock=clock)
    # tests ask faster than people: by this clock a second has gone by with each request
    seconds = count()
    app = create_app(console, tick=lambda: float(next(seconds)))
    return Site(console, clock, falcon.testing.TestClient(app))


def examine(doctor: Doctor) -> None:
    """What its thread does, once."""
    doctor._examine()
    doctor._urgent = doctor._examined(glance)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A console whose queue does not answer: for all that does not ask it."""
    made = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    yield made
    made.console.close()


@pytest.fixture
def house(beanstalkd: Beanstalkd, tmp_path: Path) -> Iterator[Site]:
    """A console on a queue and a ledger; it looks at what lies buried when a test says so."""
    made = site_of(tmp_path, beanstalkd.url, queue=queue_section(beanstalkd.url))
    ledger, now = open_ledger(made.console.settings.ledger), made.clock()
    ledger.record(Entry("d-1", "mirror", now, "done", 1, now, 0.5))
    ledger.close()
    yield made
    made.console.runs.close()


def words_of(answer: Any) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))
