"""Pages of others, in the same browser: they press no button, read nothing, frame nothing, and rebind no name."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from tests.browser.answering import Answering, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.browser.conftest import Tab
    from tests.browser.house import House

PAGE = """<!DOCTYPE html><title>evil</title>
<form id=form method=post action="{url}/pause" target="{target}"><input name=for value=30m></form>
<iframe name=frame src="{url}/buried"></iframe>"""


class Evil(Answering):
    """A site of somebody else's: on another host, and on another port of this one, which gets our cookies."""

    def __init__(self, url: str) -> None:
        page = PAGE.format(url=url, target="_self").encode()

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page)

        super().__init__(Handler)


@pytest.fixture(scope="module")
def evil(house: House) -> Iterator[Evil]:
    site = Evil(house.url)
    yield site
    site.close()


@pytest.mark.parametrize("host", ["evil.test", "localhost"])
def test_another_site_can_neither_press_nor_read_nor_frame(
    host: str, evil: Evil, open_tab: Callable[..., Tab], house: House
) -> None:
    tab = open_tab(quiet=False)
    tab.page.goto(f"http://{host}:{evil.port}/")
    frame = tab.page.frame(name="frame")
    assert frame is not None
    assert "Buried" not in frame.content()
    read = "url => fetch(url, {credentials: 'include'}).then(answer => answer.text(), () => 'refused')"
    assert tab.page.evaluate(read, f"{house.url}/buried.json") == "refused"
    json = "url => fetch(url, {method: 'POST', credentials: 'include', headers: {'Content-Type': 'application/json'}, "
    json += "body: '{}'}).then(() => 'sent', () => 'refused')"
    assert tab.page.evaluate(json, f"{house.url}/pause") == "refused"
    with tab.page.expect_navigation() as pressed:
        tab.page.evaluate("document.getElementById('form').submit()")
    assert pressed.value is not None
    assert pressed.value.status == 403
    assert "comes from a page of another site" in tab.words("body")
    assert house.queue.stats_tube("glassq").paused_for == 0


def test_a_name_that_was_rebound_to_us_is_not_ours(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(quiet=False)
    answer = tab.page.goto(f"http://rebound.test:{house.port}/buried")
    assert answer is not None
    assert answer.status == 421
    read = "path => fetch(path).then(answer => answer.status)"
    assert tab.page.evaluate(read, "/buried.json") == 421
    assert "target" not in tab.words("body")


def test_a_link_on_another_site_leads_in_by_way_of_our_own_page(
    evil: Evil, open_tab: Callable[..., Tab], house: House
) -> None:
    tab = open_tab(quiet=False)
    tab.page.goto(f"http://evil.test:{evil.port}/")
    tab.page.evaluate("url => { location = url }", f"{house.url}/buried?group=0")
    tab.sees("Buried, one by one")


def test_nobody_comes_in_without_a_session(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(storage_state=None, quiet=False)
    tab.go("/buried")
    tab.at("/login")
    assert "target" not in tab.page.content()
    tab.page.goto(f"{house.url}/login?code=forged.x")
    tab.sees("was used, or is too old")
