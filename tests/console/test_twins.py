"""Each page's twin is, byte for byte, what its command prints with --json."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from glassq.cli.app import App
from glassq.cli.main import LazyGroup
from glassq.ledger import Entry, open_ledger
from glassq.operations.activity import CameTo
from glassq.operations.document import to_json_line
from glassq.operations.filters import Filter
from glassq.operations.progress import Silent
from tests.cli.conftest import NASTY, a_delivery, evidence, put, put_bytes
from tests.conftest import Beanstalkd
from tests.console.conftest import VIEWER, Browser, Site, examine, site_of
from tests.console.test_views import SECTIONS
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.raw import Queue

NOW = datetime.now(UTC)
OTHER = "glassq.queue.slow"
# More than a list has without --limit.
MANY = 55
# What beanstalkd alone tells, by a clock that nobody sets, or counts at each question; seconds.
VOLATILE = ("age", "oldest", "uptime", "connections", "puts", "jobs", "records", "reserved")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console that has looked once at a queue with jobs of every state, and at a ledger. Its clock stands."""
    directory = tmp_path_factory.mktemp("twins")
    beanstalkd = Beanstalkd(directory)
    (directory / "secret").write_text("s" * 32)
    (directory / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 5/s\n")
    made = site_of(directory, str(beanstalkd.url), SECTIONS.format(directory=directory))
    made.clock.now = NOW
    queue = beanstalkd.queue()
    try:
        fill(made, queue)
        other = open_queue(replace(beanstalkd.settings, tube=OTHER))
        put(other, a_delivery(), "buried")
        other.close()
        look(made)
        yield made
    finally:
        made.console.close()
        queue.close()
        beanstalkd.stop()


def fill(site: Site, queue: Queue) -> None:
    failed = evidence(f"{NASTY} <b>x</b>")
    for _ in range(MANY):
        put(queue, a_delivery(buried="budget", evidence=(failed,)), "buried")
    put(queue, a_delivery(buried=NASTY, evidence=(evidence("took too long", error="TimeLimit"),)), "buried")
    put_bytes(queue, b"damaged \xff", "buried")
    put(queue, a_delivery(), "ready")
    put(queue, a_delivery(evidence=(failed,)), "delayed")
    ledger = open_ledger(site.console.settings.ledger)
    for number, state in enumerate(("done", "retrying", "buried", "dropped")):
        at = NOW - timedelta(minutes=5, seconds=number)
        ledger.record(Entry(a_delivery().id, "mirror", at, state, 1, at, 0.5, reason=NASTY, started=at, tube="glassq"))
    ledger.close()
    done = site.console.operations.activities(Silent())
    done.record("kick", CameTo(done=9, failed=1, note="<b>"), command="glassq kick --canary", chosen=10)
    done.note("9f3a1c20b7d4", "rolled back")


def look(site: Site) -> None:
    """What the console's threads do."""
    console = site.console
    console.sampler.view()
    with console.operations.looking() as queue:
        console.sampler.step(queue)
        console.census.step(queue)
    examine(console.doctor)


@pytest.fixture(scope="module")
def viewer(full: Site) -> Browser:
    return full.signed_in(VIEWER)


def printed(site: Site, *words: str) -> str:
    """What `glassq WORDS` prints, with the console's settings and clock."""
    app = App(None, {})
    app.settings = site.console.settings
    app.operations = site.console.operations
    done = CliRunner().invoke(LazyGroup(), words, obj=app)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout


def steady(text: str) -> str:
    text = re.sub(rf'"({"|".join(VOLATILE)})": [0-9.]+', r'"\1": 0', text)
    # checks say what time the machine has, what is free on its disks, and since when beanstalkd is up
    return re.sub(r"[0-9: -]+ UTC|[0-9.]+ [MG]iB free|, up [0-9a-z ]+", "", text)


def of_group(site: Site, count: int) -> str:
    return next(group.id for group in site.console.census.snapshot().groups if group.count == count)


TWINS = [
    ("/.json", "status"),
    ("/queues.json", "queues"),
    ("/sources.json", "sources"),
    ("/schedules.json", "schedules"),
    ("/activity.json", "activity"),
    ("/activity.json?did=note&since=1h", "activity --did note --since 1h"),
    ("/health.json", "doctor"),
    ("/buried.json", "buried --by reason"),
    ("/buried.json?words=too+long&source=mirror", "buried --by reason --where words=too+long --where source=mirror"),
    (f"/buried.json?tube={OTHER}", f"buried --by reason --where tube={OTHER}"),
    ("/buried.json?newer=1h", "buried --by reason --where newer-than=1h"),
    ("/buried.json?group=0", "buried"),
    ("/buried.json?group=0&tube=glassq", "buried --where tube=glassq"),
    (f"/buried.json?group=0&tube={OTHER}", f"buried --where tube={OTHER}"),
    ("/buried/{many}.json", "buried --group {many}"),
    ("/buried/{one}.json", "buried --group {one}"),
    ("/d/{buried}.json", "show {buried}"),
    ("/d/{done}.json", "show {done}"),
]


@pytest.mark.parametrize(("path", "words"), TWINS, ids=[path for path, _ in TWINS])
def test_a_twin_is_what_the_command_prints(path: str, words: str, full: Site, viewer: Browser) -> None:
    entries = full.console.census.snapshot().matching(Filter(), NOW)
    with full.console.operations.ledger() as ledger:
        done = ledger.since(None, {"state": "done"}, 1)[0].delivery
    named: dict[str, Any] = {"many": of_group(full, MANY), "one": of_group(full, 1), "done": done}
    named["buried"] = next(entry.delivery for entry in entries if entry.delivery)
    arguments = [word.replace("+", " ") for word in words.format(**named).split()]
    answer = viewer.get(path.format(**named))
    assert answer.status_code == 200, answer.text
    said, twin = steady(printed(full, *arguments, "--json")), steady(answer.text)
    assert twin.splitlines() == said.splitlines()
    assert twin == said


@pytest.mark.parametrize(("query", "words"), [("", ""), ("?state=buried&source=mirror", "--state buried")])
def test_the_twin_of_live_has_each_line_of_tail(query: str, words: str, full: Site, viewer: Browser) -> None:
    documents = json.loads(viewer.get(f"/live.json{query}").text)
    lines = printed(full, "tail", "--once", "--json", *words.split())
    assert "".join(to_json_line(each) + "\n" for each in documents) == lines
    assert documents
