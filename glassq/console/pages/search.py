"""The box that finds anything."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from glassq.console.filtering import one_of
from glassq.console.request import Page
from glassq.errors import InvalidRequest
from glassq.operations.activity import MAX_SECONDS
from glassq.operations.filters import duration
from glassq.operations.follow import STATES
from glassq.operations.progress import Silent
from glassq.operations.search import GO_ON, MAX_WITHIN, WITHIN, Findings, Wanted
from glassq.operations.search import search as look

if TYPE_CHECKING:
    from datetime import datetime

    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest

# What can be asked for beside the words.
FIELDS = ("q", "state", "source", "tube", "since", "until")
# Without any of these nothing is looked for.
LOOKED_FOR = ("q", "state", "source", "tube")
# What the query may have: see docs/console.md.
PARAMS = (*FIELDS, "for")
ALL_STATES = (*STATES, "ready", "delayed", "reserved")


def search(console: Console, request: PageRequest) -> Answer:
    """What was found; one hit that was named goes straight there. Raises InvalidRequest and Refused."""
    asked = {name: request.params.get(name, "").strip() for name in FIELDS}
    within = _within(request)
    findings = Findings()
    looks = any(asked[name] for name in LOOKED_FOR)
    one_of(asked, "state", ("", *ALL_STATES))
    if looks:
        operations = console.operations_for(request.actor)
        with console.searches.one(request.actor.name), operations.looking() as queue:
            findings = look(operations, queue, console.census.snapshot(), _wanted(request, asked, within), Silent())
    given = {name: value for name, value in asked.items() if value}
    values = {
        "found": findings,
        "asked": asked,
        "looks": looks,
        "states": ALL_STATES,
        "sources": sorted(console.settings.sources),
        "go_on": "/search?" + urlencode({**given, "for": f"{_longer(within):g}"}) if within < MAX_WITHIN else "",
        "longer": _longer(within),
    }
    title = f"Search: {asked['q']}" if asked["q"] else " ".join(filter(None, ("Search", asked["state"], asked["tube"])))
    there = f"/d/{quote(findings.only)}" if findings.only else ""
    return Page("search.html", title, findings.document, values, instead=there)


def _longer(within: float) -> float:
    return min(MAX_WITHIN, within * GO_ON)


def _within(request: PageRequest) -> float:
    """For how many seconds it may look. Raises InvalidRequest."""
    text = request.params.get("for", "")
    if not text:
        return WITHIN
    if not text.isascii() or not text.isdecimal() or not WITHIN <= float(text) <= MAX_WITHIN:
        raise InvalidRequest(f"for {text}: expected seconds from {WITHIN:g} to {MAX_WITHIN:g}")
    return float(text)


def _wanted(request: PageRequest, asked: dict[str, str], within: float) -> Wanted:
    since = _ago(request, "since", asked["since"] or "24h")
    until = _ago(request, "until", asked["until"]) if asked["until"] else None
    narrow = {name: asked[name] for name in ("state", "source", "tube")}
    return Wanted(asked["q"], since, until, **narrow, within=within)


def _ago(request: PageRequest, name: str, text: str) -> datetime:
    """So long ago; nothing of ours is older than MAX_SECONDS. Raises InvalidRequest."""
    return request.now - timedelta(seconds=min(duration(name, text), MAX_SECONDS))
