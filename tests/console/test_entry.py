"""Signing in: cookies and links that are forged, late, used or another one's."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from glassq.console.app import PageResource, create_app
from glassq.console.keys import Key, open_key
from glassq.console.links import new_code
from glassq.console.request import Text
from glassq.console.roles import Actor, Role
from glassq.console.routes import PageRoute
from glassq.errors import SettingsError
from tests.console.conftest import OPERATOR, VIEWER, Site, site_of

if TYPE_CHECKING:
    from pathlib import Path


def open_page(site: Site, cookie: str, user: str | None = OPERATOR) -> int:
    """The status of a page that needs a session, with this cookie. Falcon's own 404 would mean that it was let in."""
    browser = site.browser(user)
    browser.cookie = cookie
    return int(browser.get("/logged-in").status_code)


def asked(site: Site, cookie: str) -> int:
    """The same of a console that has no such page: 404 means that it was let in, 303 that it is to sign in."""
    browser = site.browser()
    browser.cookie = cookie
    return int(browser.get("/plans/none").status_code)


@pytest.fixture(autouse=True)
def _page(site: Site) -> None:
    """A page that asks no queue."""
    route = PageRoute("GET", "/logged-in", Role.VIEWER, lambda _console, request: Text(request.actor.name), "in")
    site.client.app.add_route("/logged-in", PageResource(site.console, [route]))


def test_the_cookie_is_as_closed_as_a_cookie_can_be(site: Site) -> None:
    header = site.browser().post("/login").headers["set-cookie"]
    name, _, rest = header.partition("=")
    assert name == f"__Host-glassq-{site.console.instance}"
    assert set(rest.split("; ")[1:]) == {"Path=/", "Max-Age=43200", "Secure", "HttpOnly", "SameSite=Strict"}


def test_a_session_lasts_twelve_hours_and_one_without_requests(site: Site) -> None:
    browser = site.signed_in()
    for _ in range(13):
        site.clock.go_on(3300)
        assert browser.get("/logged-in").text == OPERATOR
    site.clock.go_on(3300)
    assert browser.get("/logged-in").status_code == 303


def test_a_session_that_nobody_uses_ends_after_an_hour(site: Site) -> None:
    browser = site.signed_in()
    site.clock.go_on(3500)
    # a page that refreshes itself is nobody
    assert browser.get("/logged-in", Glassq_Live="1").status_code == 200
    site.clock.go_on(200)
    assert browser.get("/logged-in").status_code == 303


def test_a_session_outlives_a_restart_and_not_the_key(site: Site, tmp_path: Path) -> None:
    cookie = site.signed_in().cookie
    again = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    browser = again.browser()
    browser.cookie = cookie
    assert browser.get("/plans/none").status_code == 404
    (tmp_path / "console" / "key").unlink()
    other = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    browser = other.browser()
    browser.cookie = cookie
    assert browser.get("/plans/none").status_code == 303
    # not even under the new cookie's name
    browser.cookie = f"__Host-glassq-{other.console.instance}={cookie.partition('=')[2]}"
    assert browser.get("/plans/none").status_code == 303


def test_signing_out_ends_each_session_of_that_name_for_good(site: Site, tmp_path: Path) -> None:
    first, second, other = site.signed_in(), site.signed_in(), site.signed_in(VIEWER)
    stolen = first.cookie
    site.clock.go_on(1)
    answer = first.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert open_page(site, stolen) == 303
    assert second.get("/logged-in").status_code == 303
    assert other.get("/logged-in").text == VIEWER
    # and after a restart
    again = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    again.clock.now = site.clock.now
    browser = again.browser()
    browser.cookie = stolen
    assert browser.get("/plans/none").status_code == 303
    site.clock.go_on(1)
    assert site.signed_in().get("/logged-in").text == OPERATOR


def test_a_clock_that_was_set_back_keeps_nobody_out(site: Site) -> None:
    first = site.signed_in()
    site.clock.go_on(365 * 86_400)
    stolen, lost = first.cookie, site.signed_in()
    lost.post("/logout")
    site.clock.go_on(-364 * 86_400)
    again = site.signed_in()
    site.clock.go_on(1)
    assert again.get("/logged-in").text == OPERATOR
    site.clock.go_on(-86_000)
    # who had signed in before the logout stays out all the same
    assert open_page(site, stolen) == 303


def test_a_logout_at_another_process_of_the_console_counts(site: Site, tmp_path: Path) -> None:
    anna, other = site.signed_in(), site_of(tmp_path, "beanstalk://127.0.0.1:1")
    vera = other.signed_in(VIEWER)
    stolen = anna.cookie
    for each in (site, other):
        each.clock.now = site.clock.now
        each.clock.go_on(1)
    anna.post("/logout")
    vera.post("/logout")
    # neither has forgotten what the other one wrote
    for each in (site, other, site_of(tmp_path, "beanstalk://127.0.0.1:1")):
        each.clock.now = site.clock.now
        assert asked(each, stolen) == 303


def test_a_name_that_a_proxy_says_ends_no_session_of_that_user(site: Site) -> None:
    browser = site.signed_in(OPERATOR)
    site.console.sessions.end(Actor(OPERATOR, Role.NOBODY, "proxy"))
    assert browser.get("/logged-in").status_code == 200
    site.console.sessions.end(Actor(OPERATOR, Role.OPERATOR, "socket"))
    assert browser.get("/logged-in").status_code == 303


def test_who_signed_out_stays_out_where_nobody_knows_when(site: Site, tmp_path: Path) -> None:
    cookie = site.signed_in().cookie
    (tmp_path / "console" / "ended.json").write_text("{ torn")
    again = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    browser = again.browser()
    browser.cookie = cookie
    assert browser.get("/plans/none").status_code == 303
    # also once somebody else has signed out, and once it is started anew
    again.clock.go_on(1)
    again.signed_in(VIEWER).post("/logout")
    assert browser.get("/plans/none").status_code == 303
    third = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    assert asked(third, cookie) == 303
    assert third.signed_in(VIEWER).get("/plans/none").status_code == 404


def test_a_cookie_counts_for_its_own_user_and_door_alone(site: Site) -> None:
    cookie = site.signed_in(OPERATOR).cookie
    assert open_page(site, cookie, OPERATOR) == 200
    # stolen by another user of the machine
    assert open_page(site, cookie, VIEWER) == 303
    # carried to the port of a console in the foreground
    assert open_page(site, cookie, None) == 303
    by_link = site.browser(None).sign_in(site.code("bin")).cookie
    assert open_page(site, by_link, None) == 200
    assert open_page(site, by_link, OPERATOR) == 303


def test_a_forged_cookie_is_none(site: Site) -> None:
    cookie = site.signed_in().cookie
    name, _, value = cookie.partition("=")
    body, _, mac = value.partition(".")
    session = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = Key(b"\0" * 32).sign("session", {**session, "name": "root"})
    flipped = ("A" if body[10] != "A" else "B") + body[11:]
    for each in (
        *(forged, "", "x", "..", body, f"{body}.", f".{mac}", f"{body[:10]}{flipped}.{mac}", f"{body}.{mac}="),
        *(value + "A", value.swapcase(), f"{value}.{mac}", "A" * 70_000, "\u00e9.\u00e9".encode().decode("latin-1")),
        # signed by us, for another purpose
        site.code(),
    ):
        assert open_page(site, f"{name}={each}") in (303, 400), each
    assert open_page(site, f"{name}=x; {cookie}") == 200


def test_a_link_signs_in_once_and_looking_at_it_spends_nothing(site: Site) -> None:
    code = site.code("anna")
    browser = site.browser(None)
    for _ in range(3):
        assert "Sign in as anna (operator)" in browser.get(f"/login?code={code}").text
    assert browser.sign_in(code).get("/logged-in").text == "anna"
    thief = site.browser(None)
    assert "this link was used, or is too old" in thief.get(f"/login?code={code}").text
    answer = thief.post("/login", {"code": code})
    assert (answer.status_code, thief.cookie) == (403, "")


def test_a_link_works_for_a_minute(site: Site) -> None:
    code = site.code()
    site.clock.go_on(61)
    assert site.browser(None).post("/login", {"code": code}).status_code == 403


def test_a_link_of_before_a_restart_may_have_been_used(site: Site, tmp_path: Path) -> None:
    code = site.code()
    site.browser(None).sign_in(code)
    again = site_of(tmp_path, "beanstalk://127.0.0.1:1")
    assert again.browser(None).post("/login", {"code": code}).status_code == 403


def test_a_forged_link_is_none(site: Site) -> None:
    now = site.clock().timestamp()
    cookie = site.signed_in().cookie.partition("=")[2]
    for code in (new_code(Key(b"\0" * 32), "root", now), cookie, "", "x.y", site.code() + "A"):
        assert site.browser(None).post("/login", {"code": code}).status_code in (403, 429), code


def test_a_link_is_no_way_to_another_name_on_the_socket(site: Site) -> None:
    browser = site.browser(VIEWER).sign_in(site.code("root"))
    assert browser.get("/logged-in").text == VIEWER


def test_after_five_failed_tries_none_is_looked_at_for_half_a_minute(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [1000.0]
    monkeypatch.setattr(site.console.tries, "_clock", lambda: seconds[0])
    browser = site.browser(None)
    for _ in range(5):
        assert browser.post("/login", {"code": "x"}).status_code == 403
    answer = browser.post("/login", {"code": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    # another peer is not held up
    site.signed_in()
    seconds[0] += 30
    assert browser.post("/login", {"code": "x"}).status_code == 403


def test_nobody_on_the_machine_keeps_out_who_has_a_link(site: Site) -> None:
    """They all have one address at this door."""
    site.client.app = create_app(site.console, tick=lambda: 0.0)
    local = site.browser(None)
    while local.get("/login").status_code != 429:
        local.post("/login", {"code": "x"})
    assert local.post("/login", {"code": "x"}).status_code == 429
    code = site.code()
    owner = site.browser(None)
    assert "Sign in as anna" in owner.get(f"/login?code={code}").text
    assert owner.sign_in(code).get("/plans/none").status_code == 404


@pytest.mark.parametrize(
    ("next_", "goes_to"),
    [
        ("/health?a=1", "/health?a=1"),
        ("", "/"),
        *(
            (evil, "/")
            for evil in (
                "//evil.test/",
                "/\\evil.test",
                "https://evil.test",
                "javascript:x",
                "/a\r\nSet-Cookie: a=b",
                "/\t/x",
            )
        ),
    ],
)
def test_signing_in_leads_to_pages_of_ours_alone(next_: str, goes_to: str, site: Site) -> None:
    assert site.browser().post("/login", {"next": next_}).headers["location"] == goes_to


def test_who_comes_from_another_site_with_a_session_need_not_sign_in_again(site: Site) -> None:
    # the browser keeps a strict cookie from such a request
    answer = site.browser().get("/logged-in?a=%22%3E", Sec_Fetch_Site="cross-site")
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/logged-in?a=%22%3E">' in answer.text


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    key = open_key(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    file = tmp_path / "new" / "key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_key(tmp_path / "new").instance == key.instance
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["key"]
    file.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read it, and so sign in"):
        open_key(tmp_path / "new")
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(SettingsError, match="is no key of ours"):
        open_key(tmp_path / "new")
    with pytest.raises(SettingsError, match=r"\[console\] state"):
        open_key(tmp_path / "missing" / "deep")
