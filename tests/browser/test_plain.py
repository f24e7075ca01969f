"""Without JavaScript: all but what is live, and keys, works by plain forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Tab
    from tests.browser.house import House


def test_without_javascript_one_is_found_looked_at_and_kicked(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(java_script_enabled=False)
    page = tab.page
    tab.go("/")
    page.get_by_role("link", name="Buried").first.click()
    page.get_by_label("words of the error").fill("stopped 503")
    page.get_by_role("button", name="Filter").click()
    tab.sees("stopped")
    assert page.locator("[data-row]").count() == 1
    page.locator("[data-open]").first.click()
    tab.sees("why are these grouped?")
    page.locator("[data-row] input").first.check()
    page.get_by_role("button", name="Kick ...").click()
    tab.sees("1 chosen at")
    page.get_by_role("button", name="Carry out").click()
    while page.get_by_text("1 of 1").count() == 0 or page.get_by_text("running").count():
        page.reload()
    page.locator("main a.mono").first.click()
    tab.sees("done")


def test_without_javascript_everything_is_paused_and_resumed(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(java_script_enabled=False)
    tab.go("/buried")
    tab.page.get_by_text("Pause all").click()
    tab.page.get_by_role("button", name="Pause everything").click()
    try:
        tab.sees("is paused", "#paused")
    finally:
        tab.page.locator(".banner button").click()
    assert house.queue.stats_tube("glassq").paused_for == 0


def test_without_javascript_an_edited_copy_is_replayed(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(java_script_enabled=False)
    id_ = house.delivery("stopped")
    tab.go(f"/d/{id_}")
    tab.page.get_by_role("link", name="Replay an edited copy").click()
    field = tab.page.get_by_label("body")
    text = field.input_value()
    assert "***" in text
    assert "hidden-secret-9" not in text
    field.fill(text.replace('"itemId": "', '"itemId": "edited-'))
    tab.page.get_by_role("button", name="Show what is changed").click()
    assert '+  "itemId": "edited-' in tab.words(".diff")
    assert "verifyToken" not in tab.words(".diff").replace(' "verifyToken": "***"', "")


def test_without_javascript_it_is_said_what_is_missing(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(java_script_enabled=False)
    tab.go("/buried")
    assert "Without JavaScript" in tab.words("footer")
    assert tab.page.locator("[data-copy]").first.is_hidden()
