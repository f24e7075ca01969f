"""What strangers write into pings, and handlers into errors, stays text, wherever it is shown."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from glassq.delivery import Evidence
from glassq.ledger import Entry, open_ledger
from glassq.ledger.activity import Activity
from glassq.ledger.activity_writer import ActivityWriter
from tests.browser.conftest import PHONE, refreshed
from tests.browser.house import LONG
from tests.browser.layout import mislaid

if TYPE_CHECKING:
    from tests.browser.conftest import Tab
    from tests.browser.house import House

OWNED = "document.title='owned'"
HOSTILE = {
    "script": f"<script>{OWNED}</script><img src=x onerror={OWNED}>",
    "attribute": f'" onmouseover="{OWNED}" autofocus onfocus={OWNED} \' onclick=\'{OWNED}',
    "svg": f"<svg onload={OWNED}><a xlink:href='javascript:{OWNED}'><text>x</text></a></svg></textarea></pre>",
    "base": "<base href=//evil.test/><meta http-equiv=refresh content='0;url=//evil.test/'><link href=//evil.test/x>",
    "template": "{{ 1234*5678 }}{% raw %}${1234*5678}<%= 1234*5678 %>#{1234*5678}",
    "right-to-left": "\u202egpj.exe\u202c \u2066x\u2069\u200b\ufeff",
    "terminal": "\x00\x07\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\r\n\x7f",
    "surrogates": "\ud800 and \udfff",
    "digits": f"{'7' * 40} of {'3' * 40}",
    "one-word": "Mozilla/5.0" + "_of-a-name-without-a-blank" * 12,
    "long": "A" * 65_536,
}
# What beanstalkd takes as the name of a tube of ours, and a source that no settings name.
TUBE = "glassq.push.a/../b;c$d_(e)+f"
ODD = ("script", "attribute", "right-to-left")
# of a text on a page: what cannot be seen, or turns around what can be
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
COUNTED = """() => ({
    scripts: document.scripts.length,
    foreign: document.querySelectorAll('base, iframe, object, meta[http-equiv], main :is(img, link, style)').length,
    handlers: [...document.querySelectorAll('*')].filter(e => e.getAttributeNames().some(n => /^on/.test(n))).length,
    links: [...document.links].filter(link => link.origin !== location.origin).length,
    text: document.body.innerText,
    title: document.title,
})"""


@pytest.fixture(scope="module")
def hostile(house: House) -> dict[str, str]:
    """Ids of deliveries that are hostile all over."""
    made = {}
    for name, text in HOSTILE.items():
        short = text[:400]
        user = {
            "userToken": short,
            "itemId": short,
            short: text,
            "number": int("9" * 400),
            "list": [[[[[]]]], None, -0.0],
        }
        body = json.dumps(user).encode()[:70_000] if name != "terminal" else text.encode() + b"\xff\xfe"
        # a delivery's own texts are valid UTF-8; JSON may hold what is not
        short = short.encode("utf-8", "backslashreplace").decode()
        at = datetime.now(UTC) - timedelta(hours=30)
        evidence = Evidence(
            1, "bury", short, short, at, 1.0, short, f"Traceback\n{text[:1_500]}", "", short, {short: {short: short}}
        )
        labels = {"collection": short, short[:100]: short, "task": short}
        fields = {
            "labels": labels,
            "content_type": short,
            "headers": {"user-agent": short, short[:200]: short},
            "evidence": (evidence,),
        }
        more: dict[str, object] = {"source": short, "tube": TUBE} if name in ODD else {}
        made[name] = house.bury_ping(name, body, short, at, **fields, **more)
    house.wait_listed(made["long"])
    _record(house)
    return made


def _record(house: House) -> None:
    """Puts the texts into the ledger, as a handler's results and as what operators did."""
    now = datetime.now(UTC)
    writer = ActivityWriter(house.settings.ledger)
    with closing(open_ledger(house.settings.ledger)) as ledger:
        for name, text in HOSTILE.items():
            short = text[:300].encode("utf-8", "backslashreplace").decode()
            entry = Entry(f"{name}-{'d' * 50}", short[:64], now, "done", 1, now, 0.5, result=short, tube="t" * 200)
            ledger.record(entry)
            writer.add(
                Activity(
                    id=name, at=now, actor=short[:200], via="cli", did="kick", command=short, note=short, ended=now
                )
            )


@pytest.mark.usefixtures("hostile")
def test_hostile_text_stays_in_its_place_in_lists(open_tab, house: House) -> None:
    tab, found = open_tab(viewport=PHONE), []
    lists = [
        "/buried",
        "/buried?group=0",
        f"/search?q={'7' * 40}",
        "/queues/glassq",
        f"/sources/{LONG}",
        f"/queues/glassq.queue.{LONG}",
    ]
    for path in [*house.pages(), *lists]:
        tab.go(path)
        _assert_harmless(tab)
        found += [(path, wrong) for wrong in mislaid(tab.page)]
    assert not found, "\n".join(map(str, found[:20]))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_stays_text(name: str, hostile: dict[str, str], open_tab, house: House) -> None:
    tab, other = open_tab(viewport=PHONE), open_tab(quiet=False, viewport=PHONE)
    id_ = hostile[name]
    cause = house.cause_of(id_)
    words = quote(HOSTILE[name][:180], safe="", errors="replace")
    lists = [f"/buried?words={words}", f"/buried/{cause}", f"/search?q={words}&since=1h"]
    for path in (f"/d/{id_}", f"/d/{id_}?body=tree", *lists):
        tab.go(path)
        _assert_harmless(tab)
        assert mislaid(tab.page) == [], path
    # what a form cannot keep is refused
    other.go(f"/d/{id_}/edit")
    _assert_harmless(other)
    tab.go("/buried")
    with refreshed(tab):
        tab.page.mouse.move(200, 400)
    _assert_harmless(tab)
    assert all(url.startswith((tab.url, "data:")) for url in tab.asked)


def _assert_harmless(tab: Tab) -> None:
    seen = tab.page.evaluate(COUNTED)
    assert (seen["scripts"], seen["foreign"], seen["handlers"], seen["links"]) == (1, 0, 0, 0), tab.page.url
    assert not UNSEEN.search(seen["text"]), tab.page.url
    assert seen["title"] != "owned", tab.page.url
    assert "7006652" not in seen["text"], tab.page.url


@pytest.mark.parametrize("path", ["/live", "/activity", "/", "/buried?group=0", "/buried"])
def test_lists_of_what_strangers_and_colleagues_wrote_stay_text(path: str, hostile: dict[str, str], tab: Tab) -> None:
    tab.go(path)
    _assert_harmless(tab)
    assert "owned" in tab.words() or path == "/", "nothing hostile is shown"


def test_a_tube_of_an_odd_name_has_its_page_and_stays_one_part_of_a_path(hostile: dict[str, str], tab: Tab) -> None:
    tab.go("/")
    tab.page.locator(f'[data-key="{TUBE}"] [data-open]').click()
    tab.at(f"/queues/{re.escape(quote(TUBE, safe=''))}$")
    tab.sees(TUBE.removeprefix("glassq.push."), "h1")
    _assert_harmless(tab)
    tab.go(f"/buried?group=0&tube={quote(TUBE)}")
    assert tab.page.locator("[data-row]").count() == len(ODD)


@pytest.mark.parametrize("name", ["script", "attribute", "svg", "base", "template"])
def test_what_a_link_asks_for_is_echoed_as_text(name: str, open_tab, hostile: dict[str, str]) -> None:
    tab = open_tab(quiet=False)
    text = quote(HOSTILE[name], safe="")
    # where there is no such page, or what is asked for cannot be
    paths = [f"/{place}{text}" for place in ("", "d/", "buried/", "runs/", "plans/", "queues/", "sources/")]
    paths += [f"/{page}={text}" for page in ("search?state", "activity?since", "buried?page", "?hours", "buried?older")]
    paths += [f"/buried?{text}=1", f"/login?code={text}&next={text}"]
    for path in paths:
        assert tab.go(path).status in (200, 400, 404), path
        _assert_harmless(tab)
    # and where it is what is looked for
    asked = ("search?q", "search?tube", "activity?who", "activity?did", "live?tube", "live?source", "buried?source")
    for path in asked:
        assert tab.go(f"/{path}={text}").status == 200, path
        _assert_harmless(tab)


def test_a_hostile_note_stays_text(hostile: dict[str, str], tab: Tab, house: House) -> None:
    cause = house.cause_of(hostile["svg"])
    for name in ("script", "attribute", "svg"):
        tab.go(f"/buried/{cause}")
        tab.page.get_by_label("note for the next").fill(HOSTILE[name])
        tab.press("Enter")
        tab.sees("noted by anna")
        _assert_harmless(tab)
        for path in ("/buried", "/activity"):
            tab.go(path)
            _assert_harmless(tab)


def test_numbers_come_as_they_are_sent(tab: Tab, house: House) -> None:
    tab.go(f"/d/{house.delivery('again')}")
    assert "12345678901234567890123" in tab.words("#body")
    assert "hidden-secret-9" not in tab.page.content()


def test_a_body_alone_is_text(tab: Tab, hostile: dict[str, str]) -> None:
    answer = tab.go(f"/d/{hostile['script']}/body")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert tab.page.evaluate("document.scripts.length") == 0
