"""Takes the pictures of the console: docs/console/*.png, of a living installation (scene.py).

`python tools/screenshots [DIRECTORY]`; with `--all` every page, in both colours and three sizes, for whoever changes
their looks. Needs chromium-headless-shell (`make setup`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import sync_playwright
from scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parent.parent.parent
DESK, TABLET, PHONE = (1_440, 900), (768, 1_024), (390, 844)
# A page that is longer is cut off, in pixels.
HIGHEST = 2_600
# So many colours are enough for text on quiet ground.
COLOURS = 96
NOTE = "fix is in review, ticket 4711; ships Monday"
# The machines of people have better letters than a server: those of tools/setup-fonts, where they are.
FONTS = Path(sys.prefix) / "fonts"
# What chromium calls the letters of the system.
SYSTEM = ("system-ui", "sans", "sans-serif", "DejaVu Sans")
FONTS_MATCH = """<match target="pattern"><test name="family"><string>{name}</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>"""
FONTS_CONF = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>{fonts}</dir><cachedir>{cache}</cachedir>
{matches}</fontconfig>"""


class Studio:
    """A browser at the scene."""

    def __init__(self, scene: Scene, browser: Browser, target: Path) -> None:
        self.scene = scene
        self._browser = browser
        self._target = target
        page = browser.new_context().new_page()
        page.goto(scene.link())
        page.get_by_role("button").click()
        page.wait_for_url(f"{scene.url}/")
        self._state = page.context.storage_state()
        self.page = page
        self._wait_counted()

    def _wait_counted(self) -> None:
        deadline = time.monotonic() + 60
        while sum(group["count"] for group in self.groups()) < 253 and time.monotonic() < deadline:
            time.sleep(0.5)

    def json(self, path: str) -> Any:
        return json.loads(self.page.request.get(f"{self.scene.url}{path}").text())

    def groups(self) -> list[dict[str, Any]]:
        return self.json("/buried.json")["groups"]

    def group(self, words: str) -> dict[str, Any]:
        return next(group for group in self.groups() if words in group["words"])

    def open(self, path: str, size: tuple[int, int], scheme: str = "light", **options: Any) -> Page:
        width, height = size
        context = self._browser.new_context(
            storage_state=self._state if options.pop("signed_in", True) else None,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            **options,
        )
        page = context.new_page()
        page.goto(f"{self.scene.url}{path}")
        return page

    def shoot(self, page: Page, name: str, *, full: bool = True) -> None:
        """Saves what the page shows, with few colours."""
        width, height = page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, HIGHEST)} if full else None
        taken = Image.open(io.BytesIO(page.screenshot(full_page=full, clip=clip)))
        few = taken.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
        )
        few.save(self._target / f"{name}.png", optimize=True)

    def press(self, page: Page, button: str, path: str) -> str:
        """Presses a button that leads to such a path; returns where it led."""
        page.get_by_role("button", name=button).first.click()
        page.wait_for_url(f"**{path}*")
        return page.url.removeprefix(self.scene.url)


def prepare(studio: Studio) -> dict[str, str]:
    """Does what an operator would, and returns the paths of pages, by their names."""
    young, key = studio.group("503"), studio.group("shipping")
    page = studio.page
    page.goto(f"{studio.scene.url}/buried/{key['id']}")
    page.get_by_label("note").fill(NOTE)
    page.get_by_role("button", name="Save").click()
    page.wait_for_load_state()
    plan = _plan(studio, young["id"])
    archived = _archive(studio, studio.group("JSONDecodeError")["id"])
    live = studio.json("/live.json")
    done = next(entry["delivery"] for entry in reversed(live) if entry["state"] == "done")
    return {
        "overview": "/",
        "overview-6h": "/?hours=6",
        "overview-24h": "/?hours=24",
        "buried": "/buried",
        "buried-one-by-one": "/buried?group=0",
        "buried-none-fits": "/buried?words=nowhere",
        "group": f"/buried/{young['id']}",
        "group-note": f"/buried/{key['id']}",
        "plan": plan,
        "run-undone": archived,
        "delivery-buried": f"/d/{_last(studio, young)}",
        "delivery-tree": f"/d/{key['example']}?body=tree&order=newest",
        "delivery-done": f"/d/{done}",
        "delivery-waiting": f"/d/{_waiting(studio)}",
        "edit": f"/d/{_last(studio, young)}/edit",
        "body": f"/d/{_last(studio, young)}/body",
        "queues": "/queues",
        "queue": "/queues/glassq",
        "queue-push": "/queues/glassq.push.mail",
        "sources": "/sources",
        "source": "/sources/stripe",
        "source-github": "/sources/github",
        "schedules": "/schedules",
        "search": "/search",
        "search-hits": "/search?q=8311",
        "search-groups": "/search?q=503",
        "search-none": "/search?q=zebra",
        "live": "/live",
        "activity": "/activity",
        "health": "/health",
        "error-404": "/none",
        "error-400": "/buried/0",
        "login-none": "/login",
    }


def _last(studio: Studio, group: dict[str, Any]) -> str:
    """A delivery of a group that no run of ours takes soon."""
    last: str = studio.json(f"/buried/{group['id']}.json")["jobs"][-1]["delivery"]
    return last


def _plan(studio: Studio, cause: str) -> str:
    page = studio.page
    page.goto(f"{studio.scene.url}/buried/{cause}")
    return studio.press(page, "Kick all", "/plans/")


def _archive(studio: Studio, cause: str) -> str:
    page = studio.page
    page.goto(f"{studio.scene.url}/buried/{cause}")
    studio.press(page, "Archive all", "/plans/")
    run = studio.press(page, "Carry out", "/runs/")
    studio.press(page, "Undo", "/runs/")
    page.get_by_text("done").first.wait_for()
    return run


def _waiting(studio: Studio) -> str:
    return studio.json("/search.json?q=user_3&state=delayed")["hits"][0]["key"]


def _run(studio: Studio, plan: str, rate: str) -> str:
    """Carries a plan out, slowly; returns the run, which is under way."""
    page = studio.page
    page.goto(f"{studio.scene.url}{plan}")
    page.get_by_label("all of them").check()
    page.get_by_label("rate").fill(rate)
    return studio.press(page, "Carry out", "/runs/")


def every_page(studio: Studio) -> Iterator[tuple[str, str]]:
    paths = prepare(studio)
    yield from paths.items()
    run = _run(studio, _plan(studio, studio.group("503")["id"]), "3/s")
    time.sleep(5)
    yield "run-under-way", run
    page = studio.page
    page.goto(f"{studio.scene.url}{run}")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped").first.wait_for()
    yield "run-stopped", run


def take_all(studio: Studio, only: str) -> None:
    for name, path in every_page(studio):
        if only and not any(part in name for part in only.split(",")):
            continue
        for size, width in ((DESK, "desk"), (TABLET, "tablet"), (PHONE, "phone")):
            for scheme in ("light", "dark"):
                page = studio.open(path, size, scheme, signed_in=name != "login-none")
                page.wait_for_load_state()
                time.sleep(0.15)
                studio.shoot(page, f"{name}-{width}-{scheme}")
                page.context.close()


# Of the documents: the picture's name, the page's, how large, and in which colours.
DOCUMENTED = (
    ("overview", "overview", (1_280, 1_010), "light"),
    ("overview-dark", "overview-6h", (1_280, 1_010), "dark"),
    ("buried", "buried", (1_280, 640), "light"),
    ("group", "group-note", (1_280, 760), "light"),
    ("delivery", "delivery-buried", (1_280, 1_150), "light"),
    ("plan", "plan", (1_280, 620), "light"),
    ("run", "run-under-way", (1_280, 520), "light"),
    ("sources", "sources", (1_280, 560), "light"),
    ("phone", "buried", PHONE, "dark"),
    ("phone-overview", "overview", PHONE, "light"),
)


def take_documented(studio: Studio) -> None:
    paths = prepare(studio)
    for name, shown, size, scheme in DOCUMENTED:
        if shown == "run-under-way":
            paths[shown] = _run(studio, _plan(studio, studio.group("503")["id"]), "4/s")
            time.sleep(6)
        page = studio.open(paths[shown], size, scheme)
        page.wait_for_load_state()
        studio.shoot(page, name, full=False)
        page.context.close()


def browser_environment(directory: Path) -> dict[str, str]:
    """With the fonts of the pictures."""
    if not FONTS.is_dir():
        return dict(os.environ)
    file = directory / "fonts.conf"
    matches = "\n".join(FONTS_MATCH.format(name=name) for name in SYSTEM)
    file.write_text(FONTS_CONF.format(fonts=FONTS, cache=directory / "fonts-cache", matches=matches))
    return {**os.environ, "FONTCONFIG_FILE": str(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs" / "console")
    parser.add_argument("--all", action="store_true", help="every page, in both colours and three sizes")
    parser.add_argument("--only", default="", help="of these, pages with these parts in their names")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium-headless-shell", path=f"{Path(sys.executable).parent}:/usr/bin")
    with tempfile.TemporaryDirectory() as name, Scene(Path(name).resolve()) as scene, sync_playwright() as driver:
        environment = browser_environment(Path(name))
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"], env=environment)
        studio = Studio(scene, browser, given.directory)
        take_all(studio, given.only) if given.all else take_documented(studio)
        browser.close()


if __name__ == "__main__":
    main()
