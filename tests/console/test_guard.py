"""What each request must be, whoever asks: other hosts, other sites, framing, sizes, rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import falcon.testing
import pytest

from glassq.console.app import create_app
from glassq.console.guard import AT_ONCE, MAX_BODY
from tests.console.conftest import HOST, OPERATOR, PROXY, STRANGER, VIEWER, Site, site_of, words_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8099", "[::1]:8099", "LOCALHOST:8099"])
def test_its_own_hosts_are_answered(host: str, site: Site) -> None:
    assert site.browser().get("/login", Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8099",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.2",
        "0.0.0.0:8099",
        "[::2]:1",
    ],
)
@pytest.mark.parametrize(
    "path", ["/login", "/health", "/health.json", "/healthz", "/static/x", "/favicon.ico", "/none"]
)
def test_a_name_that_was_bound_to_our_address_reads_nothing(host: str, path: str, site: Site) -> None:
    """DNS rebinding: the browser takes our answers for those of the evil name."""
    answer = site.signed_in().get(path, Host=host)
    assert answer.status_code == 421
    assert "this console is not at the host that you asked" in answer.text
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("host", [None, "", "a b", "localhost/x", "localhost, evil.test"])
def test_a_request_needs_one_host(host: str | None, site: Site) -> None:
    assert site.browser().get("/login", Host=host).status_code in (400, 421)


EVIL_ORIGINS = [
    "https://evil.test",
    "null",
    "",
    "http://localhost:3000",
    "https://localhost:8099",
    "http://localhost:8099.evil.test",
]


@pytest.mark.parametrize("path", ["/login", "/logout", "/plan/kick", "/none"])
@pytest.mark.parametrize(
    "headers",
    [
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none", "", "same-origin, cross-site")),
        *({"Sec-Fetch-Site": None, "Origin": origin} for origin in EVIL_ORIGINS),
        # what a browser says of the site counts, whatever else is there
        {"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HOST}"},
        {"Sec-Fetch-Site": None, "Origin": None},
        {"Sec-Fetch-Site": None, "Origin": None, "Referer": f"http://{HOST}/"},
    ],
)
def test_a_page_of_another_site_presses_no_button(path: str, headers: dict[str, str | None], site: Site) -> None:
    browser = site.signed_in()
    answer = browser.ask("POST", path, {"Content-Type": "application/x-www-form-urlencoded", **headers}, body="a=b")
    assert answer.status_code == 403
    assert "request" in words_of(answer)


def test_a_browser_that_says_only_the_origin_is_believed(site: Site) -> None:
    answer = site.browser().post("/login", Sec_Fetch_Site=None, Origin=f"http://{HOST}")
    assert answer.status_code == 303


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_change_nothing(method: str, site: Site) -> None:
    assert site.signed_in().ask(method, "/health", {"Sec-Fetch-Site": "same-origin"}).status_code == 405


def test_no_answer_can_be_framed_sniffed_or_kept(site: Site) -> None:
    browser = site.signed_in()
    for path, status in (("/login", 200), ("/none", 404), ("/logout", 405), ("/static/none", 404), ("/healthz", 200)):
        answer = browser.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", "a=" + "x" * MAX_BODY, 413),
        ("text/plain", "a=b", 415),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("", "{}", 415),
        ("application/json", "[", 400),
        ("application/json", "[]", 400),
        ("application/json", '{"a": {"b": 1}}', 400),
        ("application/json", "[" * 60_000, 400),
        ("application/x-www-form-urlencoded", "&".join(f"a{n}=" for n in range(1001)), 400),
        ("application/json", '{"code": "", "next": "/health"}', 303),
    ],
)
def test_bodies_that_are_too_large_or_of_another_kind_are_refused(
    kind: str, body: str, status: int, site: Site
) -> None:
    headers = {"Content-Type": kind or None, "Sec-Fetch-Site": "same-origin"}
    assert site.browser().ask("POST", "/login", headers, body=body).status_code == status


def test_a_person_asks_twenty_times_a_second_in_however_many_sessions(site: Site) -> None:
    seconds = [100.0]
    site.client = falcon.testing.TestClient(create_app(site.console, tick=lambda: seconds[0]))
    browser, other = site.signed_in(), site.signed_in(VIEWER)
    seconds[0] += 10
    sessions = [browser, *(site.signed_in() for _ in range(9))]
    seconds[0] += 10
    asked = [each.get("/none").status_code for _ in range(int(AT_ONCE) // 10) for each in sessions]
    assert asked == [404] * int(AT_ONCE)
    answer = browser.get("/none")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    # neither the other one, nor a button, nor what says nothing of the queue waits
    assert browser.post("/none").status_code == 404
    assert other.get("/none").status_code == 404
    assert browser.get("/healthz").status_code == 200
    # and what others ask at somebody's door, without a session, is counted apart
    strangers = site.browser()
    assert 429 in [strangers.get("/login").status_code for _ in range(int(AT_ONCE) + 1)]
    seconds[0] += 0.5
    assert [browser.get("/none").status_code for _ in range(11)] == [404] * 10 + [429]


@pytest.mark.parametrize(
    "path", ["/static/../../../etc/passwd", "/static/..%2f..%2fconsole.py", "/static/app.css", "/static/"]
)
def test_nothing_but_our_files_is_served(path: str, site: Site) -> None:
    assert site.browser().get(path).status_code == 404


def test_our_files_may_be_kept_for_ever(site: Site) -> None:
    answer = site.browser(None).get(site.console.assets.path("app.css"), Accept_Encoding="gzip")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (answer.headers["content-encoding"], answer.headers["content-type"]) == ("gzip", "text/css; charset=utf-8")


def test_a_path_of_two_slashes_is_another_host(site: Site) -> None:
    assert site.browser().get("//health", Sec_Fetch_Site="cross-site").status_code == 400


PROXIED = (
    f'url = "https://ops.test/glassq"\nproxy_user = "{PROXY}"\nproxy_header = "X-Forwarded-User"\n'
    'proxy_viewers = ["vera"]\nproxy_operators = ["anna"]\n'
)


@pytest.fixture
def proxied(tmp_path: Path) -> Site:
    return site_of(tmp_path, "beanstalk://127.0.0.1:1", PROXIED)


@pytest.mark.parametrize(("name", "role"), [("anna", "operator"), ("vera", "viewer")])
def test_a_proxy_says_who_it_is(name: str, role: str, proxied: Site) -> None:
    browser = proxied.browser(PROXY, Host="ops.test", X_Forwarded_User=name)
    assert f"Sign in as {name} ({role})" in browser.get("/glassq/login").text
    answer = browser.post("/glassq/login", Sec_Fetch_Site=None, Origin="https://ops.test")
    assert (answer.status_code, answer.headers["location"]) == (303, "/glassq/")


@pytest.mark.parametrize("name", ["root", "bin", "eve", "anna,eve", "eve, anna", "", "x" * 201, "\u00e4nna"])
def test_a_name_that_a_proxy_says_is_no_user_of_this_machine(name: str, proxied: Site) -> None:
    browser = proxied.browser(PROXY, Host="ops.test", X_Forwarded_User=name.encode().decode("latin-1"))
    assert browser.post("/glassq/login").status_code == 403
    assert not browser.cookie


def test_whoever_a_proxy_has_let_in_is_one_name(tmp_path: Path) -> None:
    everybody = site_of(tmp_path, "beanstalk://127.0.0.1:1", PROXIED.replace('"vera"', '"*", "CN=eve, O=x"'))
    for name, role in {"eve": "viewer", "eve, anna": "nobody", "anna,eve": "nobody", "CN=eve, O=x": "viewer"}.items():
        browser = everybody.browser(PROXY, Host="ops.test", X_Forwarded_User=name)
        assert browser.json("/glassq/login.json")["role"] == role, name


def test_a_proxy_that_says_nobody_lets_nobody_in(proxied: Site) -> None:
    answer = proxied.browser(PROXY, Host="ops.test").get("/glassq/login")
    assert answer.status_code == 403
    assert "does not say who you are" in answer.text


@pytest.mark.parametrize("user", [OPERATOR, VIEWER, STRANGER, "root", None])
def test_the_header_of_the_proxy_is_refused_from_anybody_else(user: str | None, proxied: Site) -> None:
    answer = proxied.browser(user, X_Forwarded_User="anna").get("/login")
    assert answer.status_code == 403
    assert f"X-Forwarded-User is taken from the user {PROXY} alone" in answer.text


def test_a_session_of_the_proxy_ends_when_it_says_another_name(proxied: Site) -> None:
    browser = proxied.browser(PROXY, Host="ops.test", X_Forwarded_User="anna")
    browser.post("/glassq/login")
    browser.headers["X-Forwarded-User"] = "vera"
    assert browser.get("/glassq/health").status_code == 303
    thief = proxied.browser("root")
    thief.cookie = browser.cookie
    assert thief.get("/health").status_code == 303
