"""Who is told of buried deliveries: when, how often, and by what; with a real program and a real HTTP server."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from glassq.errors import LedgerError, NotNotified, SettingsError
from glassq.ledger import Entry, open_ledger
from glassq.notify import MAX_CAUSES, MINUTE, Alerter, document
from glassq.programs import notifying
from glassq.settings import LedgerSettings, Settings
from glassq.settings.sections import NotifySettings
from glassq.values import HandlerName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


def buried(delivery: str, reason: str = "no such order 17", at: datetime = NOON, source: str = "shop") -> Entry:
    return Entry(
        delivery=delivery,
        source=source,
        received=at,
        state="buried",
        attempts=1,
        updated=at,
        duration=0.1,
        reason=reason,
    )


@dataclass
class Told:
    """A notifier with a clock, a ledger and somebody who listens."""

    at_most: int = 1
    now: datetime = NOON
    entries: list[Entry] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    trouble: Exception | None = None
    paused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin(None)

    def begin(self, told: datetime | None) -> None:
        """Another alerter, as after a reload."""
        self.alerter = Alerter(
            self._read, self._send, self.at_most, "host-1", lambda: self.now, lambda: self.paused, told
        )

    def bury(self, *deliveries: str, **more: Any) -> None:
        self.entries += [buried(delivery, at=self.now, **more) for delivery in deliveries]

    def after(self, seconds: float) -> list[int]:
        """How many deliveries each message names that came until then."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now += timedelta(seconds=2)
            self.alerter.step()
        return [message["buried"] for message in self.messages]

    def _read(self, since: datetime) -> list[Entry]:
        if isinstance(self.trouble, LedgerError):
            raise self.trouble
        return [entry for entry in self.entries if entry.updated >= since]

    def _send(self, message: dict[str, Any]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.messages.append(message)


def test_the_first_is_told_at_once_and_what_follows_in_the_next_message() -> None:
    told = Told()
    told.bury("0199-a")
    assert told.after(2) == [1]
    told.bury("0199-b")
    assert told.after(20) == [1]
    told.bury("0199-c", "0199-d")
    assert told.after(MINUTE - 24) == [1]
    assert told.after(4) == [1, 3]
    assert told.after(10 * MINUTE) == [1, 3]


@pytest.mark.parametrize("at_most", [1, 3])
def test_no_more_messages_a_minute_than_wanted(at_most: int) -> None:
    told = Told(at_most)
    for number in range(60):
        told.bury(f"0199-{number}")
        told.after(2)
    assert len(told.messages) == 2 * at_most
    assert sum(told.after(2 * MINUTE)) == 60


def test_a_delivery_that_is_buried_again_is_told_again() -> None:
    told = Told()
    told.bury("0199-a")
    told.after(2 * MINUTE)
    told.bury("0199-a")
    assert told.after(4) == [1, 1]


def test_a_route_that_pauses_itself_is_told_once() -> None:
    told = Told()
    told.paused = {"shop-orders": "20 in a row: OSError: away"}
    assert told.after(3 * MINUTE) == [0]
    assert told.messages[0]["paused_routes"] == [{"route": "shop-orders", "why": "20 in a row: OSError: away"}]
    assert "route shop-orders has paused itself: 20 in a row: OSError: away" in told.messages[0]["text"]
    told.paused = {}
    told.after(4)
    told.paused = {"shop-orders": "20 in a row: OSError: away"}
    assert told.after(2 * MINUTE) == [0, 0]


def test_what_lay_buried_before_is_an_old_story_and_an_entry_may_come_late() -> None:
    told = Told()
    told.entries.append(buried("0199-old", at=NOON - timedelta(seconds=1)))
    assert told.after(30) == []
    told.entries.append(buried("0199-late", at=told.now - timedelta(seconds=20)))
    assert told.after(2) == [1]
    assert told.messages[0]["causes"][0]["delivery"] == "0199-late"


def test_a_reload_forgets_nothing_and_tells_nothing_twice(tmp_path: Path) -> None:
    told = Told()
    told.bury("0199-a")
    assert told.after(2) == [1]
    told.bury("0199-b", "0199-c")
    assert told.after(10) == [1], "they wait for the next message"
    notifying.note_told(tmp_path, told.alerter.told)
    told.begin(notifying.read_told(tmp_path))
    assert told.after(2) == [1, 2]
    notifying.note_told(tmp_path, told.alerter.told)
    told.begin(notifying.read_told(tmp_path))
    assert told.after(2 * MINUTE) == [1, 2]


@pytest.mark.parametrize("text", ["", "yesterday"])
def test_without_a_note_of_the_process_before_it_begins_now(text: str, tmp_path: Path) -> None:
    (tmp_path / "told-until").write_text(text)
    assert notifying.read_told(tmp_path) is None
    assert notifying.read_told(tmp_path / "nowhere") is None
    notifying.note_told(tmp_path / "nowhere", NOON)


@pytest.mark.parametrize("trouble", [LedgerError("away"), NotNotified("chat.example: answered 500")])
def test_nothing_is_forgotten_while_nobody_can_be_told(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    told.trouble = trouble
    told.bury("0199-a", "0199-b")
    with caplog.at_level(logging.WARNING):
        assert told.after(90) == []
        assert [record.levelname for record in caplog.records].count("ERROR") <= 2
        told.trouble = None
        assert told.after(2 * MINUTE) == [2]
    assert caplog.messages[-1] == "messages of buried deliveries go out again"


def test_the_message_counts_by_cause_and_says_it_in_words() -> None:
    entries = [buried(f"0199-{n}", f"no such order {n}") for n in range(3)]
    entries += [buried("0199-x", "ValueError: bad date", source="crm")]
    message = document(entries, {}, "host-1")
    assert message["buried"] == 4
    assert [(cause["source"], cause["count"], cause["delivery"]) for cause in message["causes"]] == [
        ("shop", 3, "0199-2"),
        ("crm", 1, "0199-x"),
    ]
    assert (
        message["text"].splitlines()[0]
        == "glassq on host-1: 4 deliveries were buried; `glassq buried --by reason` shows them"
    )
    assert "3 of shop: no such order" in message["text"]


def test_with_a_console_the_message_leads_to_each_group() -> None:
    entries = [buried("0199-1", "no such order 1"), buried("0199-x", "ValueError: bad date", source="crm")]
    message = document(entries, {}, "host-1", "https://ops.example/glassq")
    assert message["console"] == "https://ops.example/glassq/buried"
    assert [cause["console"] for cause in message["causes"]] == [
        "https://ops.example/glassq/d/0199-1/group",
        "https://ops.example/glassq/d/0199-x/group",
    ]
    first, *others = message["text"].splitlines()
    assert first == "glassq on host-1: 2 deliveries were buried; https://ops.example/glassq/buried shows them"
    assert "(last: https://ops.example/glassq/d/0199-1/group)" in others[0]
    assert "console" not in document(entries, {}, "h")["text"]


def test_what_strangers_wrote_is_nothing_but_words_in_a_chat() -> None:
    evil = "<!channel> see <http://evil.test|your invoice> & @here, @Everyone\n1 of other: fine \x1b[2J \u202e"
    evil += " password: hunter2x"
    message = document([buried("0199-<!here>", evil)], {"orders": "<!everyone> @all"}, "host-1")
    assert message["text"].splitlines()[1:] == [
        "1 of shop: &lt;!channel&gt; see &lt;http://evil.test|your invoice&gt; &amp; "
        "@ here, @ Everyone … of other: fine "
        r"\x1b[… \u202e password: *** (last: 0199-&lt;!here&gt;)",
        "route orders has paused itself: &lt;!everyone&gt; @ all",
    ]
    assert "hunter2x" not in json.dumps(message)


def test_half_a_character_keeps_no_message_back(tmp_path: Path, chat: Any) -> None:
    send = notifying.sender(settings_for(tmp_path, f"http://127.0.0.1:{chat.server_port}/"), {})
    send({"text": "a\udc80b"})
    assert json.loads(chat.bodies[0]) == {"text": "a\udc80b"}


def test_a_message_has_an_end() -> None:
    entries = [buried(f"0199-{n}", "".join(chr(97 + n) for _ in range(5))) for n in range(MAX_CAUSES + 5)]
    message = document(entries, {}, "h")
    assert (len(message["causes"]), message["others"]) == (MAX_CAUSES, 5)
    assert message["text"].endswith("5 of other causes")


# -- what it is sent to ------------------------------------------------------------------------------------------------


class _Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture
def chat() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Chat)
    server.bodies, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings_for(directory: Path, target: str) -> Settings:
    return Settings(
        file=str(directory / "glassq.toml"),
        notify=NotifySettings(on_buried=HandlerName(target)),
        ledger=LedgerSettings(url=f"sqlite:///{directory}/ledger.db"),
    )


def test_a_url_gets_it_as_json(tmp_path: Path, chat: Any) -> None:
    send = notifying.sender(settings_for(tmp_path, f"http://127.0.0.1:{chat.server_port}/hooks/SECRET"), {})
    send(document([buried("0199-a")], {}, "h"))
    assert json.loads(chat.bodies[0])["causes"][0]["delivery"] == "0199-a"
    chat.status = 404
    with pytest.raises(NotNotified, match="answered 404") as caught:
        send(document([buried("0199-a")], {}, "h"))
    assert "SECRET" not in str(caught.value)


def test_a_program_gets_it_on_its_stdin(tmp_path: Path) -> None:
    program = tmp_path / "tell"
    program.write_text(
        '#!/bin/sh\ncat > "$(dirname "$0")/got"\necho "$GLASSQ_BURIED" >> "$(dirname "$0")/got"\nexit "$1"\n'
    )
    program.chmod(0o755)
    environ = {"PATH": "/usr/bin:/bin"}
    notifying.sender(settings_for(tmp_path, "exec:./tell 0"), environ)(document([buried("0199-a")], {}, "h"))
    message, number = (tmp_path / "got").read_text().rsplit("}", 1)
    assert json.loads(message + "}")["event"] == "buried"
    assert number == "1\n"
    with pytest.raises(NotNotified, match="exited with 3"):
        notifying.sender(settings_for(tmp_path, "exec:./tell 3"), environ)(document([buried("0199-a")], {}, "h"))


@pytest.mark.parametrize(("target", "why"), [("exec:./nothing-here", "there is no program"), ("m:f", "expected a URL")])
def test_nobody_to_tell_stops_the_start(tmp_path: Path, target: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        notifying.main_of(settings_for(tmp_path, target))


def test_it_reads_a_real_ledger(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "http://127.0.0.1:9/")
    ledger = open_ledger(settings.ledger)
    for entry in (buried("0199-a"), buried("0199-b", at=NOON - timedelta(hours=1))):
        ledger.record(entry)
    ledger.close()
    assert [entry.delivery for entry in notifying._buried(settings, NOON)] == ["0199-a"]
