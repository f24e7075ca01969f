"""Runs that fail, are killed, wait for each other, or are another process's; and undoing what they did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq.console.console import Console
from glassq.errors import Stopped
from glassq.operations import activity, archive, restore
from glassq.operations.activity import CameTo
from glassq.operations.progress import Silent
from tests.cli.conftest import a_delivery, put
from tests.conftest import wait_for
from tests.console.conftest import OPERATOR, Browser, Site, words_of
from tests.console.test_plans import bury, cause, ended, location, look
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


def begun(browser: Browser, kind: str, **form: str) -> str:
    """The path of a run of all that lies buried."""
    plan = location(browser.post(f"/plan/{kind}", {"all": "1"}), "/plans/")
    return location(browser.post(plan, form), "/runs/")


def test_an_undo_that_failed_may_be_tried_again(house: Site, queue: Queue) -> None:
    bury(queue, 2)
    look(house)
    browser = house.signed_in()
    path = begun(browser, "archive")
    file = Path(ended(browser, path)["file"])
    with restore.locked([file]):
        first = location(browser.post(f"{path}/undo"), "/runs/")
        assert ended(browser, first)["state"] == "failed"
    page = browser.get(path)
    assert "Its undo has failed, and put back 0 of 2: try it again" in words_of(page)
    assert "/undo" in page.text
    second = location(browser.post(f"{path}/undo"), "/runs/")
    assert second != first
    assert ended(browser, second)["sums"] == {"restored": 2}
    page = browser.get(path)
    assert "It was undone" in words_of(page)
    assert "/undo" not in page.text
    assert location(browser.post(f"{path}/undo"), "/runs/") == second
    # and after a restart
    later = Console(house.console.settings, clock=house.clock)
    run = later.runs.get(path.rpartition("/")[2])
    assert (run.can_undo, run.undone_by) == (False, second.rpartition("/")[2])


def test_no_more_runs_wait_than_there_may_be_threads(
    house: Site, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassq.console.runs.MOST_AT_ONCE", 2)
    bury(queue, 60)
    look(house)
    browser = house.signed_in()
    paths = [begun(browser, "kick", rate="1/s") for _ in range(2)]
    plan = location(browser.post("/plan/kick", {"all": "1"}), "/plans/")
    answer = browser.post(plan)
    assert answer.status_code == 409
    assert "2 runs go on or wait already" in words_of(answer)
    for path in paths:
        browser.post(f"{path}/stop")
        ended(browser, path)
    # the plan was not spent
    wait_for(lambda: browser.post(plan, {"rate": "1/s"}).status_code == 303, "the third to begin")


def test_the_way_back_is_known_before_anything_leaves_the_queue(
    house: Site, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(queue, 3)
    look(house)
    seen: dict[str, Any] = {}

    def killed(*_: object) -> None:
        (seen["told"],) = activity.newest(house.console.operations, did="archive")
        seen["buried"] = queue.stats_tube().buried
        raise Stopped

    monkeypatch.setattr(archive.Archiver, "delete", killed)
    browser = house.signed_in()
    run = ended(browser, begun(browser, "archive"))
    assert (seen["told"].state, seen["told"].done, seen["buried"]) == ("running", 0, 3)
    assert seen["told"].note == archive.way_back(Path(run["file"]))


def test_what_was_killed_amid_an_archive_can_be_undone(house: Site, tmp_path: Path) -> None:
    operations, id_ = house.console.operations, f"{house.console.instance}0000"
    written = operations.activities(Silent())
    ours = written.begin("archive", chosen=8, run=id_)
    written.update(ours, CameTo(done=4, note=archive.way_back(tmp_path / "a.jsonl")))
    house.console.runs.start()
    run = house.console.runs.get(id_)
    assert (run.state, run.done, run.can_undo, run.file) == ("interrupted", 4, True, str(tmp_path / "a.jsonl"))
    assert "until then 4 of 8" in run.steps[0][1]


def test_no_console_speaks_for_the_runs_of_another_that_lives(house: Site) -> None:
    id_ = f"{house.console.instance}0000"
    house.console.runs.start()
    written = house.console.operations.activities(Silent())
    written.begin("kick", chosen=8, run=id_)
    other = Console(house.console.settings, clock=house.clock)
    other.runs.start()
    assert other.runs.get(id_).state == "running"
    browser = house.signed_in()
    answer = browser.post(f"/runs/{id_}/stop")
    assert answer.status_code == 409
    assert "another process of the console" in words_of(answer)
    house.console.runs.close()
    # as soon as somebody looks
    assert other.runs.get(id_).state == "interrupted"
    other.runs.close()


def test_a_trial_is_refused_while_its_tube_is_paused(house: Site, queue: Queue) -> None:
    bury(queue, 2)
    look(house)
    browser = house.signed_in()
    plan = location(browser.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    browser.post("/pause", {"for": "10m"})
    answer = browser.post(plan, {"pace": "canary"})
    assert answer.status_code == 409
    assert "tube glassq is paused, and a trial waits for outcomes" in words_of(answer)
    assert queue.stats_tube().buried == 2
    browser.post("/resume")
    # the plan was not spent
    location(browser.post(plan, {"pace": "all"}), "/runs/")


def test_who_waits_for_outcomes_holds_nobody_up(house: Site, queue: Queue) -> None:
    for number in range(3):
        bury(queue, 2, f"error {'abc'[number]}")
    look(house)
    browser = house.signed_in()
    causes = [group.cause.id for group in house.console.census.snapshot().groups]
    paths = []
    for each in causes[:2]:
        plan = location(browser.post("/plan/kick", {"cause": each}), "/plans/")
        paths.append(location(browser.post(plan, {"pace": "canary"}), "/runs/"))
    runs = [house.console.runs.get(path.rpartition("/")[2]) for path in paths]
    wait_for(lambda: all("waiting for outcomes" in run.doing for run in runs), "both to wait for a worker")
    plan = location(browser.post("/plan/archive", {"cause": causes[2]}), "/plans/")
    assert ended(browser, location(browser.post(plan), "/runs/"))["sums"] == {"archived": 2}
    for path in paths:
        browser.post(f"{path}/stop")
        assert ended(browser, path)["state"] == "stopped"


def test_a_pause_of_everything_leaves_a_longer_one(house: Site, queue: Queue, beanstalkd: Beanstalkd) -> None:
    put(queue, a_delivery(), "ready")
    other = open_queue(replace(beanstalkd.settings, tube="glassq.queue.slow"))
    put(other, a_delivery(), "ready")
    later = house.console.operations
    browser = house.signed_in()
    browser.post("/pause", {"for": "12h", "tube": "glassq"})
    house.signed_in("root").post("/pause", {"for": "10m"})
    assert queue.stats_tube().paused_for > 11 * 3600
    assert 0 < other.stats_tube().paused_for <= 600
    other.close()
    newest, first = activity.newest(later, did="pause")
    assert "for longer than that are paused, and stay so: glassq" in newest.note
    with later.looking() as inspector:
        house.console.sampler.step(inspector)
    page = words_of(browser.get("/queues"))
    assert re.search(
        rf"Tube glassq is paused for 11h 59m more, until .* By {OPERATOR} console/socket ?, since \d", page
    )
    assert re.search(r"Tube glassq.queue.slow is paused for .* By root console/socket ?, since", page)
    assert first.actor == OPERATOR


def test_what_a_run_has_worked_is_gone_from_the_page_of_the_buried(house: Site, queue: Queue) -> None:
    bury(queue, 3, "error a")
    bury(queue, 4, "error b")
    house.console.census.start()
    try:
        wait_for(lambda: house.console.census.snapshot().complete, "the census to have looked at all")
        browser = house.signed_in()
        gone = next(group.id for group in house.console.census.snapshot().groups if group.count == 3)
        plan = location(browser.post("/plan/kick", {"cause": gone}), "/plans/")
        ended(browser, location(browser.post(plan, {"pace": "all"}), "/runs/"))
        wait_for(lambda: [group["count"] for group in browser.json("/buried.json")["groups"]] == [4], "it to follow")
        assert browser.get(f"/buried/{gone}").status_code == 404
    finally:
        house.console.census.close()


def paused_words(site: Site, browser: Browser) -> str:
    """What pages say of what is paused, once it was looked at."""
    site.console.pausers.forget()
    with site.console.operations.looking() as inspector:
        site.console.sampler.step(inspector)
    found = re.search(r'<section id="paused".*?</section>', browser.get("/schedules").text, re.DOTALL)
    assert found is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found[0])).strip()


def test_who_has_paused_is_what_the_ledger_knows_of_this_pause_and_else_unknown(
    house: Site, queue: Queue, beanstalkd: Beanstalkd
) -> None:
    put(queue, a_delivery(), "ready")
    browser = house.signed_in()
    browser.post("/pause", {"for": "10m"})
    assert re.search(rf"Everything|Tube glassq is paused .* By {OPERATOR} console/socket", paused_words(house, browser))
    browser.post("/resume")
    # by beanstalkd's own client: the ledger knows of another pause, which has ended
    queue.pause(3_000, "glassq")
    told = paused_words(house, browser)
    assert OPERATOR not in told
    assert re.search(r"By whom: unknown, since \d\d:\d\d:\d\d UTC", told), told
    assert re.search(r"until \d\d:\d\d:\d\d UTC", told), told
    # by the command line, for good
    operations = house.console.operations
    queue.pause(2**32 - 1, "glassq")
    operations.activities(Silent()).record("pause", command="glassq pause", filter_="glassq", chosen=1)
    told = paused_words(house, browser)
    assert f"is paused until it is resumed. By {operations.actor} console , since" in told


def test_a_plan_is_not_that_of_another_of_the_same_name_at_another_door(house: Site, queue: Queue) -> None:
    bury(queue, 1)
    look(house)
    at_socket = house.signed_in()
    by_link = house.browser(None).sign_in(house.code(OPERATOR))
    plan = location(at_socket.post("/plan/kick", {"cause": cause(house)}), "/plans/")
    assert f"{OPERATOR} console/socket" in words_of(at_socket.get(plan))
    assert by_link.get(plan).status_code == 404
    assert by_link.post(plan).status_code == 404
    path = location(at_socket.post(plan, {"pace": "all"}), "/runs/")
    ended(at_socket, path)
    for page in (path, "/"):
        assert f"{OPERATOR} console/socket" in words_of(by_link.get(page)), page
    assert [each["via"] for each in by_link.json("/activity.json?did=kick")["activities"]] == ["console/socket"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sampler_that_died_is_a_verdict_of_its_own(house: Site, queue: Queue) -> None:
    console = house.console

    def dies(_: object) -> None:
        raise SystemExit

    bury(queue, 1)
    look(house)
    browser = house.signed_in()
    console.sampler.step = dies  # type: ignore[method-assign]
    console.sampler.start()
    wait_for(lambda: console.sampler.has_ended, "its thread to end")
    page = words_of(browser.get("/buried"))
    assert "WRONG the console does not look at the queue any more" in page
    assert "restart glassq-console" in page


def test_what_failed_again_leads_on_to_its_group_and_to_the_rest(house: Site) -> None:
    """As the run is known after a restart, by its activity alone."""
    operations = house.console.operations
    written = operations.activities(Silent())
    kicked = written.begin("kick", chosen=30, run="abc", filter_="cause=0123456789ab")
    note = "stopped: of 1 kicked, 1 failed again; d-1: KeyError; 29 were left buried"
    written.end(kicked, CameTo("stopped", done=1, failed=0, left=29, note=note))
    page = house.signed_in().get("/runs/abc")
    words = words_of(page)
    assert "29 were not touched" in words
    assert "d-1: KeyError" in words
    assert 'name="cause" value="0123456789ab"' in page.text
    assert "Plan the rest" in words
