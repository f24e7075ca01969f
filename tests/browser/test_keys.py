"""A night at the console by keyboard alone: find, try, carry out, stop, undo, pause, note. Keys are counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import PHONE, refreshed
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Tab
    from tests.browser.house import House


def test_from_the_overview_to_a_running_canary_it_is_two_keys(tab: Tab, house: House) -> None:
    tab.go("/")
    tab.sees("new since", "#verdict")
    tab.press("t")
    tab.at("/plans/")
    tab.has_focus("Carry out")
    tab.press("Enter")
    tab.at("/runs/")
    assert tab.keys == 2
    tab.sees("1 of 1")
    tab.sees("done", "main .head")
    # the command that does the same stood under the plan, and stands in the trail
    command = tab.words("#command")
    assert command.endswith("--follow")
    tab.go("/activity")
    tab.sees(command.partition(" kick ")[2], "[data-row] code")


def test_buried_opens_as_groups_the_young_one_first_and_its_first_button_tries_one(tab: Tab, house: House) -> None:
    tab.go("/buried")
    first = tab.page.locator("main [data-row]").first
    assert "target" in first.locator(".error").inner_text()
    assert "NEW" in first.inner_text()
    assert first.get_by_role("button").first.inner_text().startswith("Try one")
    groups = house.json("/buried.json")["groups"]
    assert tab.page.locator("main [data-row]").count() == len(groups) < house.buried()
    counts = [group["count"] for group in groups if not group["new"]]
    assert counts == sorted(counts, reverse=True)


def test_the_rest_follows_the_canary_and_the_set_is_what_was_shown(tab: Tab, house: House) -> None:
    tab.go(f"/buried/{house.cause('chosen')}")
    tab.press("p")
    tab.at("/plans/")
    tab.sees("8 chosen at")
    late = house.bury("chosen", 1)
    house.wait_listed(late)
    tab.page.reload()
    tab.sees("1 came since")
    tab.page.get_by_role("link", name="look again").wait_for()
    assert "--canary" in tab.words("#command-canary")
    tab.page.get_by_label("rate").fill("")
    tab.page.get_by_role("button", name="Carry out").focus()
    tab.press("Enter")
    tab.at("/runs/")
    tab.sees("8 of 8")
    tab.sees("done", "main .head")
    assert house.json(f"/d/{late}.json")["job"]["state"] == "buried"


def test_a_plan_counts_what_is_left_out_before_its_button(tab: Tab, house: House) -> None:
    tab.go(f"/buried/{house.cause('stopped')}")
    tab.press("j", "x", "j", "x")
    chosen = tab.page.locator("[data-row] :checked").evaluate_all("boxes => boxes.map(box => box.value)")
    # another operator is faster with one of them
    job, before = house.json(f"/d/{chosen[0]}.json")["job"]["id"], house.buried()
    house.queue.kick(int(job))
    wait_for(lambda: house.buried() == before - 1, "that one to be worked")
    tab.press("p")
    tab.at("/plans/")
    tab.sees("1 chosen at")
    tab.sees("Left out:")
    words = tab.words()
    assert words.index("Left out:") < words.index("Carry out")
    house.wait_counted()


def test_a_canary_that_fails_again_stops_the_rest(tab: Tab, house: House) -> None:
    before = house.count("again")
    tab.go("/buried")
    _to(tab, "again")
    tab.press("p")
    tab.at("/plans/")
    tab.has_focus("Carry out")
    tab.press("Enter")
    tab.at("/runs/")
    tab.sees("It stopped by itself: 1 of 1 failed again.", "#why")
    tab.sees(f"{before - 1} were not touched, and lie buried", "#why")
    tab.sees("stopped", "main .head")
    tab.sees("still not there for", "#why")
    tab.sees("anna console/link")
    wait_for(lambda: house.count("again") == before, f"{before} to be buried again: {house.json('/buried.json')}")
    # it leads to what failed again, to its group, and on
    run = tab.page.url
    tab.page.locator("#why a.mono").click()
    tab.at("/d/")
    tab.page.goto(run)
    tab.press("l")
    tab.at("/buried/")
    tab.page.goto(run)
    tab.press("t")
    tab.at("/plans/")
    tab.sees("1 chosen at")
    tab.page.goto(run)
    tab.page.get_by_role("button", name="The rest after all").focus()
    tab.press("Enter")
    tab.at("/plans/")
    assert tab.page.get_by_label("all of them").is_checked()


def test_a_run_goes_on_when_its_tab_is_closed_and_one_key_stops_it(open_tab: Callable[..., Tab], house: House) -> None:
    first = open_tab()
    first.go(f"/buried/{house.cause('closing')}")
    first.press("p")
    first.at("/plans/")
    first.page.get_by_label("all of them").check()
    first.page.get_by_label("rate").fill("2/s")
    first.press("Enter")
    first.at("/runs/")
    run = first.page.url.removeprefix(first.url)
    first.page.close()
    wait_for(lambda: house.json(f"{run}.json")["done"] >= 2, "the run to go on")
    other = open_tab()
    other.go(run)
    other.press("s")
    other.sees("stopped", "main .head")
    assert 2 <= house.json(f"{run}.json")["done"] < 30


def test_what_is_archived_comes_back_by_one_key(tab: Tab, house: House) -> None:
    cause = house.cause("undone")
    tab.go(f"/buried/{cause}")
    tab.page.get_by_role("button", name="Archive all").focus()
    tab.press("Enter")
    tab.at("/plans/")
    tab.sees("Undo puts them back")
    tab.has_focus("Carry out")
    tab.press("Enter")
    tab.at("/runs/")
    tab.sees("archived in")
    # the file is named before the last delivery has left the queue
    tab.page.get_by_role("button", name="Undo").first.wait_for()
    archived = tab.page.url
    tab.press("u")
    tab.page.wait_for_url(lambda url: "/runs/" in url and url != archived)
    tab.sees("done", "main .head")
    wait_for(lambda: house.groups().get("undone", {}).get("count") == 5, "what was archived to be back")


@pytest.mark.parametrize("what", ["id", "beginning", "job", "task", "user", "words"])
def test_the_slash_finds_anything(what: str, tab: Tab, house: House) -> None:
    story = house.json(f"/d/{house.found()}.json")
    id_ = story["delivery"]["id"]
    texts = {"id": id_, "beginning": id_[:18], "job": str(story["job"]["id"]), "task": "task-of-the-night"}
    tab.go("/health")
    tab.press("/")
    tab.page.keyboard.type({**texts, "user": "user_of_the_night", "words": "lost at the night's harbour"}[what])
    tab.press("Enter")
    if what in ("id", "beginning", "job"):
        # one hit that was named goes straight there
        tab.at(f"/d/{id_}")
        assert "journalctl" in tab.words("#journal")
    else:
        tab.at("/search")
        tab.page.locator(f'main a[href="/d/{id_}"]').wait_for()


def test_pages_have_keys_and_all_can_be_turned_off(tab: Tab) -> None:
    tab.go("/")
    for key, path in (("b", "/buried"), ("q", "/queues"), ("l", "/live"), ("a", "/activity"), ("o", "/")):
        tab.press("g", key)
        tab.at(f"{path}$")
    tab.press("?")
    tab.page.get_by_role("dialog").get_by_label("keys").select_option("off")
    tab.press("Escape", "g", "b")
    assert tab.page.url == f"{tab.url}/"


def test_pause_everything_and_resume_by_keyboard_on_a_phone(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(viewport=PHONE, color_scheme="dark")
    tab.go("/buried")
    tab.page.get_by_text("Pause all").focus()
    tab.press("Enter", "Tab", "Tab", "Enter")
    tab.sees("Pings are taken all the while", "#paused")
    assert re.search(r"paused for .+ until \d\d:\d\d:\d\d UTC. By anna console/link, since \d\d:", tab.words("#paused"))
    try:
        assert house.queue.stats_tube("glassq").paused_for > 1_000
    finally:
        tab.page.locator(".banner button").focus()
        tab.press("Enter")
        tab.page.locator(".banner").wait_for(state="detached")
    assert house.queue.stats_tube("glassq").paused_for == 0


def test_a_note_is_there_for_the_next_on_call(open_tab: Callable[..., Tab], house: House) -> None:
    tab, next_one = open_tab(), open_tab()
    tab.go(f"/buried/{house.cause('stopped')}")
    tab.page.get_by_label("note for the next").focus()
    tab.page.keyboard.type("rolled back, ticket 4711")
    tab.press("Enter")
    tab.sees("noted by anna")
    next_one.go("/buried")
    next_one.sees("rolled back, ticket 4711")


def test_nothing_moves_while_rows_are_chosen(tab: Tab, house: House) -> None:
    tab.go("/buried?group=0")
    first = tab.page.locator("[data-row]").first.get_attribute("data-key")
    tab.press("j", "x", "j", "j", "Shift+X")
    assert "3 chosen" in tab.words("[data-marked]")
    house.wait_listed(house.bury("stopped", 1))
    with refreshed(tab):
        pass
    tab.sees("1 newer: show", ".frozen")
    assert tab.page.locator("[data-row]").first.get_attribute("data-key") == first
    assert tab.page.locator("[data-row] :checked").count() == 3
    tab.page.locator(".frozen button").focus()
    tab.press("Enter")
    tab.page.wait_for_function("key => document.querySelector('[data-row]').dataset.key !== key", arg=first)


def test_nothing_moves_while_text_is_marked_and_space_freezes(tab: Tab) -> None:
    tab.go("/buried")
    tab.press("Space")
    tab.sees("frozen by you", ".frozen")
    tab.press("Space")
    tab.page.locator(".frozen").wait_for(state="detached")
    tab.press("?")
    tab.sees("frozen while", ".frozen")
    tab.press("Escape")
    tab.page.locator(".frozen").wait_for(state="detached")
    tab.page.get_by_text("Pause all").click()
    with refreshed(tab):
        pass
    tab.sees("frozen while", ".frozen")
    tab.page.get_by_text("Pause all").click()
    tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('main .error'))")
    tab.sees("frozen while", ".frozen")


def test_all_that_are_listed_are_chosen_by_one_key_and_the_rest_is_a_page_further(tab: Tab, house: House) -> None:
    tab.go("/buried?group=0")
    tab.press("a")
    assert "50 chosen" in tab.words("[data-marked]")
    tab.press("a")
    assert "None chosen" in tab.words("[data-marked]")
    first = tab.page.locator("[data-row]").first.get_attribute("data-key")
    tab.press("]")
    tab.at("/buried\\?group=0&page=2")
    tab.sees("51 to 100 of")
    assert tab.page.locator("[data-row]").first.get_attribute("data-key") != first
    tab.press("[")
    tab.at("/buried\\?group=0&page=1")
    assert tab.page.locator("[data-row]").first.get_attribute("data-key") == first


def test_a_command_is_copied_with_the_clipboard_and_without(open_tab: Callable[..., Tab]) -> None:
    for script in ("", "Object.defineProperty(navigator, 'clipboard', {value: undefined})"):
        tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
        tab.page.add_init_script(script)
        tab.go("/buried")
        tab.page.locator("[data-copy]").first.focus()
        tab.press("Enter")
        tab.sees("copied")
        tab.press("/", "Control+V")
        assert re.fullmatch(r"glassq --config \S+ buried --by reason", tab.page.locator("#find").input_value())


def test_times_are_in_utc_or_as_the_clock_here_shows_them(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(timezone_id="Asia/Kolkata")
    tab.go("/buried")
    shown = tab.words("[data-row] .utc")
    tab.page.get_by_role("button", name="UTC").focus()
    tab.press("Enter")
    hour, minute = map(int, shown.split(":"))
    here = (hour * 60 + minute + 330) % 1_440
    assert tab.words("[data-row] .utc") == f"{here // 60:02}:{here % 60:02}"


def _to(tab: Tab, name: str) -> None:
    """Goes down the rows to that of a group."""
    for _ in range(40):
        tab.press("j")
        if f"{name}:" in tab.focused():
            return
    raise AssertionError(name)
