"""Who came in and who was refused stands in the ledger, and what cannot stand there is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.roles import Actor, Role
from glassq.console.trail import AT_ONCE
from glassq.operations import activity
from tests.console.conftest import OPERATOR, STRANGER, VIEWER, Site, site_of, words_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd


def test_who_came_in_and_who_was_refused_stands_in_the_ledger(house: Site) -> None:
    house.signed_in(OPERATOR)
    viewer = house.signed_in(VIEWER)
    assert viewer.post("/pause", {"for": "30m"}).status_code == 403
    assert house.browser(STRANGER).post("/login").status_code == 403
    assert house.browser(None).post("/login", {"code": "x"}).status_code == 403
    told = [(each.did, each.actor, each.via, each.state) for each in activity.newest(house.console.operations)]
    assert sorted(told) == [
        ("refused", VIEWER, "console/socket", "failed"),
        ("sign-in", OPERATOR, "console/socket", "done"),
        ("sign-in", VIEWER, "console/socket", "done"),
        ("sign-in", STRANGER, "console/socket", "failed"),
        ("sign-in", "somebody", "console", "failed"),
    ]
    (one,) = activity.newest(house.console.operations, did="refused")
    assert one.note.startswith(f"POST /pause: {VIEWER} is ")
    # what people did comes first on the overview
    assert "sign-in" not in words_of(viewer.get("/"))


def test_nobody_fills_the_ledger_with_refusals(house: Site) -> None:
    for _ in range(int(AT_ONCE) + 10):
        house.console.trail.refused(None, "GET /", "no")
        house.console.trail.signed_in(Actor("anna", Role.VIEWER, "socket"))
    assert len(activity.newest(house.console.operations)) == 2 * AT_ONCE


def test_without_a_ledger_the_page_says_that_the_log_alone_has_it(beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    bare = site_of(tmp_path, beanstalkd.url)
    browser = bare.signed_in()
    answer = browser.post("/pause", {"for": "30m", "next": "/queues"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/activity")
    assert "what is done stands in the log alone" in words_of(browser.get("/activity"))
    answer = browser.post("/groups/0123456789ab/note", {"text": "rolled back"})
    assert answer.status_code == 409
    assert "the note stands in the log alone" in words_of(answer)
    bare.console.close()
