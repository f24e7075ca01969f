"""The table of paths: who may ask for what, in one place."""

from __future__ import annotations

import re

import pytest

from glassq.console.roles import Role
from glassq.console.routes import ROUTES, PageRoute
from tests.conftest import ROOT
from tests.console.conftest import OPERATOR, STRANGER, VIEWER, Site

# Signing in and out changes nothing but that.
ENTRY = {"/login", "/logout"}


def path_of(route: PageRoute) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "0000", route.path)


def test_every_path_has_one_page_a_method_and_every_change_needs_an_operator() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        if route.path in ENTRY:
            assert route.role is Role.NOBODY
        else:
            # a form that only operators may send is not shown to others
            acts = route.method == "POST" or route.name == "edit"
            assert route.role is (Role.OPERATOR if acts else Role.VIEWER), route


@pytest.mark.parametrize("route", [each for each in ROUTES if each.path not in ENTRY], ids=lambda each: each.name)
def test_nobody_gets_a_page_without_a_session(route: PageRoute, site: Site) -> None:
    for user in (OPERATOR, VIEWER, STRANGER, None):
        answer = site.browser(user).ask(route.method, path_of(route))
        assert answer.status_code == (303 if route.method == "GET" else 401)
        if route.method == "GET":
            assert answer.headers["location"].startswith("/login?next=%2F")
            twin = site.browser(user).get(f"{path_of(route)}.json")
            assert twin.status_code == 401
            assert twin.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", [each for each in ROUTES if each.role is Role.OPERATOR], ids=lambda each: each.name)
def test_a_viewer_changes_nothing(route: PageRoute, site: Site) -> None:
    answer = site.signed_in(VIEWER).ask(route.method, path_of(route))
    assert answer.status_code == 403
    assert f"{VIEWER} is viewer here, and this needs operator" in answer.text
    assert f"adduser {VIEWER} {OPERATOR}" in answer.text


def test_who_is_in_no_group_is_told_so_and_stays_out(site: Site) -> None:
    browser = site.browser(STRANGER)
    assert f"{STRANGER} is in no group that may come in; root lets them in: adduser {STRANGER} {VIEWER}" in (
        browser.get("/login").text
    )
    assert browser.post("/login").status_code == 403
    assert not browser.cookie


def test_a_role_is_what_the_groups_say_at_each_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = site.signed_in(OPERATOR)
    # as `deluser bin bin` by root would: the session is the same
    monkeypatch.setattr("os.getgrouplist", lambda _name, _gid: [])
    assert browser.get("/health").status_code == 403


def test_the_document_has_every_url_with_its_parameters() -> None:
    """docs/console.md: for bookmarks and alerts."""
    text = (ROOT / "docs" / "console.md").read_text()
    table = text.partition("## URLs for bookmarks and alerts")[2].partition("\n\nWith `")[0]
    told: dict[str, set[str]] = {}
    for paths, words in re.findall(r"^\| (`/.*?) \| (.*) \|$", table, re.MULTILINE):
        for path in re.findall(r"`(/\S*)`", paths):
            told[path] = {name for name in KNOWN if re.search(rf"`{name}`", words)}
    there = {
        re.sub(r"\{(\w+)(:\w+)?\}", "X", route.path): set(route.params)
        for route in ROUTES
        if route.method == "GET" and route.path not in ENTRY and route.name != "edit"
    }
    assert {re.sub("ID|GROUP|NAME|TUBE", "X", path): names for path, names in told.items()} == there


KNOWN = {name for route in ROUTES for name in route.params} - {"next", "code"}
